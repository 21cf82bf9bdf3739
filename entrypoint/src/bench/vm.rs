//! The VM that is read: its reference and disks, from libvirt's description. Pure.

use crate::failure::{Class, Failure};
use roxmltree::{Document, Node};

/// What the command lines need of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// Its reference at the server, `vm-21`.
    pub moref: String,
    /// For `dcPath=`.
    pub datacenter: String,
    /// `[datastore] folder/name.vmdk` each, in order.
    pub disks: Vec<String>,
}

/// A disk in its two parts.
pub fn parts(disk: &str) -> Option<(&str, &str)> {
    let (datastore, path) = disk.strip_prefix('[')?.split_once("] ")?;
    (!datastore.is_empty() && path.strip_suffix(".vmdk").is_some()).then_some((datastore, path))
}

/// Reads `virsh dumpxml`.
pub fn parse(xml: &str, name: &str) -> Result<Vm, Failure> {
    let bad = |what: &str| {
        let message = format!("libvirt names no {what} of the VM {name}");
        Failure::new(Class::Config, message).advise("choose a VM on a VMFS or NFS datastore")
    };
    let document = Document::parse(xml).map_err(|_| bad("domain"))?;
    let elements = || document.descendants().filter(Node::is_element);
    let text = |tag: &str| {
        let text = elements().find(|n| n.tag_name().name() == tag)?.text()?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    };
    let is_hard = |n: &Node<'_, '_>| {
        n.has_tag_name("disk") && matches!(n.attribute("device"), Some("disk") | None)
    };
    let file = |n: Node<'_, '_>| {
        n.children().find(|c| c.has_tag_name("source"))?.attribute("file").map(str::to_owned)
    };
    let disks: Vec<String> = elements()
        .filter(is_hard)
        .map(|n| file(n).filter(|f| parts(f).is_some()).ok_or_else(|| bad("file for a disk")))
        .collect::<Result<_, _>>()?;
    if disks.is_empty() {
        return Err(bad("disk"));
    }
    if let Some(disk) = disks.iter().find(|d| is_of_snapshot(d)) {
        let message = format!("the VM {name} has snapshots ({disk})");
        return Err(Failure::new(Class::Config, message).advise(
            "choose a VM without: HTTPS would read another state than VDDK, so they cannot be compared",
        ));
    }
    let moref = text("moref").ok_or_else(|| bad("reference"))?;
    let datacenter = text("datacenterpath").ok_or_else(|| bad("datacenter"))?;
    Ok(Vm { moref, datacenter, disks })
}

/// `web-000001.vmdk`
fn is_of_snapshot(disk: &str) -> bool {
    let number = disk.strip_suffix(".vmdk").and_then(|d| d.rsplit_once('-')).map(|(_, n)| n);
    number.is_some_and(|n| n.len() == 6 && n.bytes().all(|b| b.is_ascii_digit()))
}

impl Vm {
    /// Those that are asked for, by number from 1 or by name; all when none is.
    pub fn choose(&self, wanted: &[String]) -> Result<Vec<String>, Failure> {
        if wanted.is_empty() {
            return Ok(self.disks.clone());
        }
        let find = |wish: &String| {
            let number = wish.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
            let by_number = number.and_then(|n| self.disks.get(n));
            by_number.or_else(|| self.disks.iter().find(|d| *d == wish)).cloned().ok_or_else(|| {
                let all: Vec<String> =
                    self.disks.iter().enumerate().map(|(n, d)| format!("{} {d}", n + 1)).collect();
                let message = format!("--disk {wish}: the VM has {}", all.join(", "));
                Failure::new(Class::Config, message).advise("give a number or a name of these")
            })
        };
        let mut chosen: Vec<String> = Vec::new();
        for wish in wanted {
            let disk = find(wish)?;
            if !chosen.contains(&disk) {
                chosen.push(disk);
            }
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn domain(disks: &[&str]) -> String {
        let disk =
            |d: &&str| format!("<disk type='file' device='disk'><source file='{d}'/></disk>");
        let disks = disks.iter().map(disk).collect::<Vec<_>>().concat();
        format!(
            "<domain type='vmware' xmlns:vmware='http://libvirt.org/schemas/domain/vmware/1.0'>\
             <devices><disk type='file' device='cdrom'><source file='[a] x.iso'/></disk>{disks}</devices>\
             <vmware:datacenterpath>DC 1</vmware:datacenterpath><vmware:moref>vm-7</vmware:moref></domain>"
        )
    }

    #[test]
    fn a_vm_is_read_and_its_disks_are_chosen() {
        let vm = parse(&domain(&["[ds 1] web/a.vmdk", "[ds 1] web/b-1.vmdk"]), "web").unwrap();
        assert_eq!((vm.moref.as_str(), vm.datacenter.as_str()), ("vm-7", "DC 1"));
        assert_eq!(vm.choose(&[]).unwrap(), vm.disks);
        let chosen = vm.choose(&["2".into(), "[ds 1] web/b-1.vmdk".into()]).unwrap();
        assert_eq!(chosen, ["[ds 1] web/b-1.vmdk"]);
        for unknown in ["0", "3", "a.vmdk", ""] {
            let failure = vm.choose(&[unknown.to_owned()]).unwrap_err();
            assert!(failure.message.contains("1 [ds 1] web/a.vmdk, 2 "), "{failure}");
        }
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let refused = |disks: &[&str]| parse(&domain(disks), "web").unwrap_err().message;
        assert!(refused(&["[ds] web/a-000002.vmdk"]).contains("has snapshots"));
        assert!(refused(&[]).contains("no disk"));
        assert!(refused(&["/a.vmdk"]).contains("no file for a disk"));
        assert!(parse("<domain/>", "web").is_err() && parse("", "web").is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,80}", disk in "[^<'&\\x00-\\x1f\\u{fffe}\\u{ffff}]{0,20}") {
            let _ = parse(&text, "x");
            let _ = parse(&domain(&[&disk]), "x");
            let _ = parts(&text);
        }
    }
}
