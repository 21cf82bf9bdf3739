//! The VM that is read: its reference and disks, from libvirt's description. Pure.

use crate::failure::{Class, Failure};
use roxmltree::{Document, Node};

/// What the command lines need of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// BIOS UUID.
    pub uuid: String,
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
    let moref = text("moref").ok_or_else(|| bad("reference"))?;
    let datacenter = text("datacenterpath").ok_or_else(|| bad("datacenter"))?;
    let uuid = text("uuid").unwrap_or_default();
    Ok(Vm { uuid, moref, datacenter, disks })
}

/// `web-000001.vmdk`
pub fn is_of_snapshot(disk: &str) -> bool {
    let number = disk.strip_suffix(".vmdk").and_then(|d| d.rsplit_once('-')).map(|(_, n)| n);
    number.is_some_and(|n| n.len() == 6 && n.bytes().all(|b| b.is_ascii_digit()))
}

impl Vm {
    /// A disk that is the newest state above a snapshot.
    pub fn in_snapshot(&self) -> Option<&str> {
        self.disks.iter().map(String::as_str).find(|d| is_of_snapshot(d))
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
            "<domain type='vmware' xmlns:vmware='http://libvirt.org/schemas/domain/vmware/1.0'><uuid>42-a</uuid>\
             <devices><disk type='file' device='cdrom'><source file='[a] x.iso'/></disk>{disks}</devices>\
             <vmware:datacenterpath>DC 1</vmware:datacenterpath><vmware:moref>vm-7</vmware:moref></domain>"
        )
    }

    #[test]
    fn a_vm_is_read() {
        let vm = parse(&domain(&["[ds 1] web/a.vmdk", "[ds 1] web/b-1.vmdk"]), "web").unwrap();
        assert_eq!((vm.moref.as_str(), vm.datacenter.as_str()), ("vm-7", "DC 1"));
        assert_eq!((vm.uuid.as_str(), vm.disks.len(), vm.in_snapshot()), ("42-a", 2, None));
        let vm = parse(&domain(&["[ds] web/a.vmdk", "[ds] web/b-000002.vmdk"]), "web").unwrap();
        assert_eq!(vm.in_snapshot(), Some("[ds] web/b-000002.vmdk"));
    }

    #[test]
    fn what_has_no_disks_in_files_is_refused() {
        let refused = |disks: &[&str]| parse(&domain(disks), "web").unwrap_err().message;
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
