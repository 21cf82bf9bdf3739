//! What of a Xen guest virt-v2v can read over SSH. Pure.

use crate::failure::{Class, Failure};
use crate::sources::answer::{Nic, uuid};
use roxmltree::{Document, Node};

/// A guest that virt-v2v can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its UUID, which its firmware tells it.
    pub uuid: Option<String>,
    /// The paths of the disks on the host, in virt-v2v's order.
    pub paths: Vec<String>,
    /// Its NICs, in that order too.
    pub nics: Vec<Nic>,
}

/// Reads the description; or everything that is in the way.
pub fn read(xml: &str, vm: &str) -> Result<Domain, Vec<Failure>> {
    let document = Document::parse(xml)
        .map_err(|e| vec![Failure::new(Class::Io, format!("the domain of {vm} is no XML: {e}"))])?;
    let domain = document.root_element();
    let mut problems = Vec::new();
    let text = |name: &str| child(domain, name).and_then(|n| n.text()).map(str::trim);
    // virsh takes a number for an ID and a UUID for itself.
    let meant = text("name") == Some(vm)
        || text("uuid").is_some_and(|u| u.eq_ignore_ascii_case(vm) && u.contains('-'));
    if !meant {
        let found = text("name").unwrap_or("one without a name");
        let message = format!("asked for the VM {vm}, libvirt gave {found}");
        problems.push(Failure::new(Class::NotFound, message));
    }
    if domain.attribute("id").is_some() {
        let message = format!("the VM {vm} is running or paused on the Xen host");
        problems.push(Failure::new(Class::SourceBusy, message).advise("shut it down first"));
    }
    let mut paths = Vec::new();
    let all = child(domain, "devices").into_iter().flat_map(|d| d.children());
    for disk in all.clone().filter(|n| n.has_tag_name("disk") && is_hard_disk(*n)) {
        match path(disk) {
            Ok(path) => paths.push(path),
            Err(failure) => problems.push(failure),
        }
    }
    if paths.is_empty() && problems.is_empty() {
        let message = format!("the VM {vm} has no hard disk");
        problems.push(
            Failure::new(Class::UnsupportedGuest, message).advise("check that it is the right VM"),
        );
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let name = text("name").unwrap_or(vm).to_owned();
    let nics = all.filter(|n| n.has_tag_name("interface")).filter_map(nic).collect();
    let uuid = text("uuid").and_then(uuid);
    Ok(Domain { name, uuid, paths, nics })
}

/// virt-v2v leaves out those that are on neither a network nor a bridge.
fn nic(nic: Node<'_, '_>) -> Option<Nic> {
    let attribute = |of: &str, name: &str| child(nic, of).and_then(|n| n.attribute(name));
    let network = match nic.attribute("type") {
        Some("network") => attribute("source", "network"),
        Some("bridge") => attribute("source", "bridge"),
        _ => None,
    };
    Some(Nic::of(attribute("mac", "address"), Some(network?)))
}

fn path(disk: Node<'_, '_>) -> Result<String, Failure> {
    let target = child(disk, "target").and_then(|t| t.attribute("dev")).unwrap_or("?");
    let unreadable = |what: String, advice: &str| {
        let message = format!("the disk {target} {what}");
        Failure::new(Class::UnsupportedGuest, message).advise(advice)
    };
    let source = child(disk, "source");
    let file = match (disk.attribute("type"), source) {
        (Some("file") | None, Some(source)) => source.attribute("file"),
        (Some("block"), source) => {
            let device = source.and_then(|s| s.attribute("dev")).unwrap_or("a device");
            return Err(unreadable(
                format!(
                    "is the block device {device} of the host, and SFTP cannot tell its size: virt-v2v cannot read it over SSH"
                ),
                "copy the device into a file on the host and point a copy of the VM's definition at it; see virt-v2v-input-xen(1)",
            ));
        }
        _ => None,
    };
    let file = file.filter(|f| f.starts_with('/')).ok_or_else(|| {
        unreadable(
            format!(
                "is not a file of the host but of type {}",
                disk.attribute("type").unwrap_or("?")
            ),
            "copy it into a raw file on the host and point a copy of the VM's definition at it",
        )
    })?;
    let format = child(disk, "driver").and_then(|d| d.attribute("type")).unwrap_or("raw");
    // Xen's own name for raw files is aio.
    if !matches!(format, "raw" | "aio") {
        return Err(unreadable(
            format!("({file}) is of format {format}, and virt-v2v reads only raw files over SSH"),
            "convert it on the host (qemu-img convert -O raw) and point a copy of the VM's definition at the result, or copy the files here and use `convert -i disk`",
        ));
    }
    if child(disk, "backingStore").is_some_and(|b| b.children().any(|n| n.is_element())) {
        return Err(unreadable(
            format!("({file}) has a backing file, which virt-v2v would leave out"),
            "flatten it on the host first",
        ));
    }
    Ok(file.to_owned())
}

fn is_hard_disk(disk: Node<'_, '_>) -> bool {
    !matches!(disk.attribute("device"), Some("cdrom" | "floppy"))
}

fn child<'a, 'i: 'a>(parent: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    parent.children().find(|n| n.has_tag_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn domain(attributes: &str, disks: &str) -> String {
        format!(
            "<domain type='xen'{attributes}><name>web</name><uuid>6a0a7a2e-0000-4000-8000-00000000000a</uuid>\
             <devices>{disks}</devices></domain>"
        )
    }

    const RAW: &str = "<disk type='file' device='disk'><driver name='tap' type='aio'/><source file='/i/a.img'/><target dev='xvda'/></disk>\
         <disk type='file' device='cdrom'><driver type='qcow2'/><target dev='hdc'/></disk>\
         <disk type='file'><source file='/i/b c.img'/><target dev='xvdb'/></disk>";

    fn refused(xml: &str, class: Class, part: &str) {
        let problems = read(xml, "web").unwrap_err();
        assert!(
            problems.iter().any(|p| p.class == class && p.message.contains(part)),
            "{problems:?}"
        );
    }

    #[test]
    fn raw_files_in_their_order() {
        assert_eq!(read(&domain("", RAW), "web").unwrap().paths, ["/i/a.img", "/i/b c.img"]);
        let uuid = "6A0A7A2E-0000-4000-8000-00000000000A";
        assert!(read(&domain("", RAW), uuid).is_ok());
    }

    #[test]
    fn what_cannot_be_read_over_ssh_is_named() {
        refused(&domain(" id='7'", RAW), Class::SourceBusy, "running");
        refused(&domain("", ""), Class::UnsupportedGuest, "no hard disk");
        let block = "<disk type='block'><source dev='/dev/vg/x'/><target dev='xvda'/></disk>";
        refused(&domain("", block), Class::UnsupportedGuest, "/dev/vg/x");
        let qcow2 = "<disk type='file'><driver type='qcow2'/><source file='/i/a'/><target dev='xvda'/></disk>";
        refused(&domain("", qcow2), Class::UnsupportedGuest, "format qcow2");
        let network =
            "<disk type='network'><source protocol='rbd' name='x'/><target dev='xvda'/></disk>";
        refused(&domain("", network), Class::UnsupportedGuest, "type network");
        refused("<domain><name>7</name></domain>", Class::NotFound, "gave 7");
        refused("nothing", Class::Io, "no XML");
        let both = format!("{block}{qcow2}");
        assert_eq!(read(&domain(" id='1'", &both), "web").unwrap_err().len(), 3);
    }

    #[test]
    fn nics_are_those_that_virt_v2v_takes() {
        let nics = "<interface type='bridge'><mac address='00:16:3E:00:00:01'/><source bridge='xenbr0'/></interface>\
             <interface type='ethernet'><mac address='00:16:3e:00:00:02'/></interface>\
             <interface type='network'><source network='lab'/></interface>";
        let read = read(&domain("", &format!("{RAW}{nics}")), "web").unwrap();
        assert_eq!(
            read.nics,
            [Nic::of(Some("00:16:3e:00:00:01"), Some("xenbr0")), Nic::of(None, Some("lab"))]
        );
        assert_eq!(read.name, "web");
        assert_eq!(read.uuid.as_deref(), Some("6a0a7a2e-0000-4000-8000-00000000000a"));
    }

    proptest! {
        #[test]
        fn only_absolute_paths_come_out(file in "\\PC{0,20}", format in "[a-z0-9]{0,5}") {
            let quoted = file.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;");
            let disk = format!("<disk type='file'><driver type='{format}'/><source file='{quoted}'/></disk>");
            if let Ok(Domain { paths, .. }) = read(&domain("", &disk), "web") {
                prop_assert!(paths.iter().all(|p| p.starts_with('/') && *p == file));
            }
        }
    }
}
