//! The hard disks of a domain XML that are images or devices of this machine.
//!
//! `convert -i libvirtxml` calls it before anything else, to measure and check them like disks named on
//! the command line. It is stricter than virt-v2v, which leaves a disk out with a warning, or without
//! one, when it is of a kind that it does not know: the result would lack a disk. Pure.

use super::domain_xml::{DomainXmlError, is_removable};
use super::image::{ImageError, ImageFormat};
use super::xml::{child, children};
use roxmltree::{Document, Node};
use std::path::PathBuf;

/// A hard disk that is a file or a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainDisk {
    /// As written; a relative one means the folder of the XML file.
    pub path: PathBuf,
    /// The type of its `<driver>`.
    pub format: Option<ImageFormat>,
}

/// Why the disks of a domain cannot be converted from here.
#[derive(Debug, thiserror::Error)]
pub enum DomainDisksError {
    /// No usable XML.
    #[error(transparent)]
    Xml(#[from] DomainXmlError),
    /// There is nothing to convert.
    #[error("the domain has no hard disk")]
    None,
    /// A disk of another kind.
    #[error(
        "disk {target:?} of the domain is {kind}: only files and block devices of this machine are read"
    )]
    Kind {
        /// Its `<target dev>`.
        target: String,
        /// What it is.
        kind: String,
    },
    /// A file or device without a name.
    #[error("disk {target:?} of the domain has no <source {attribute}=…>")]
    NoSource {
        /// Its `<target dev>`.
        target: String,
        /// Where its path should be.
        attribute: &'static str,
    },
    /// A format that is not read.
    #[error("disk {target:?} of the domain: {source}")]
    Format {
        /// Its `<target dev>`.
        target: String,
        /// What is wrong with the format.
        source: ImageError,
    },
}

/// The hard disks, in order.
pub fn parse_disks(xml: &str) -> Result<Vec<DomainDisk>, DomainDisksError> {
    let document = Document::parse(xml).map_err(DomainXmlError::from)?;
    let domain = document.root_element();
    if domain.tag_name().name() != "domain" {
        let found = domain.tag_name().name().to_owned();
        return Err(DomainXmlError::NotADomain { found }.into());
    }
    let disks: Vec<DomainDisk> = children(domain, "devices")
        .flat_map(|devices| children(devices, "disk"))
        .filter(|disk| !is_removable(*disk))
        .map(disk)
        .collect::<Result<_, _>>()?;
    if disks.is_empty() { Err(DomainDisksError::None) } else { Ok(disks) }
}

/// Every path that a disk of the domain mentions, its backing files and removable media too; for domains whose disks are not
/// all understood.
pub fn disk_paths(xml: &str) -> Vec<PathBuf> {
    let Ok(document) = Document::parse(xml) else { return Vec::new() };
    let of_disk = document.descendants().filter(|n| n.has_tag_name("disk"));
    let sources = of_disk.flat_map(|d| d.descendants().filter(|n| n.has_tag_name("source")));
    let path = |n: Node<'_, '_>| n.attribute("file").or(n.attribute("dev")).map(PathBuf::from);
    sources.filter_map(path).collect()
}

/// Whether it is the domain with that name or UUID.
pub fn is_named(xml: &str, name: &str) -> bool {
    let Ok(document) = Document::parse(xml) else { return false };
    let text = |tag| child(document.root_element(), tag).and_then(|n| n.text()).map(str::trim);
    text("name") == Some(name.trim()) || text("uuid").is_some_and(|u| u.eq_ignore_ascii_case(name))
}

fn disk(disk: Node<'_, '_>) -> Result<DomainDisk, DomainDisksError> {
    let target = child(disk, "target")
        .and_then(|t| t.attribute("dev"))
        .unwrap_or("without a name")
        .to_owned();
    let kind = |kind: String| DomainDisksError::Kind { target: target.clone(), kind };
    let source = child(disk, "source");
    let attribute = match disk.attribute("type") {
        // libvirt's default.
        Some("file") | None => "file",
        Some("block") => "dev",
        Some("network") => {
            let protocol = source.and_then(|s| s.attribute("protocol")).unwrap_or("unknown");
            return Err(kind(format!("a network disk ({protocol})")));
        }
        Some("volume") => return Err(kind("a volume of a storage pool".to_owned())),
        Some(other) => return Err(kind(format!("of the type {other:?}"))),
    };
    if !matches!(disk.attribute("device"), Some("disk") | None) {
        let device = disk.attribute("device").unwrap_or_default();
        return Err(kind(format!("a device {device:?}, which virt-v2v would leave out")));
    }
    if child(disk, "encryption").is_some()
        || source.is_some_and(|s| child(s, "encryption").is_some())
    {
        return Err(kind("encrypted by libvirt".to_owned()));
    }
    if source.is_some_and(|s| child(s, "slices").is_some()) {
        return Err(kind("a slice of a file".to_owned()));
    }
    let path = source
        .and_then(|s| s.attribute(attribute))
        .filter(|p| !p.is_empty())
        .ok_or_else(|| DomainDisksError::NoSource { target: target.clone(), attribute })?;
    let format = match child(disk, "driver").and_then(|d| d.attribute("type")) {
        // Xen's name for it.
        Some("aio") => Some(ImageFormat::Raw),
        Some(name) => Some(
            name.parse()
                .map_err(|source| DomainDisksError::Format { target: target.clone(), source })?,
        ),
        None => None,
    };
    Ok(DomainDisk { path: path.into(), format })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn domain(disks: &str) -> String {
        format!("<domain type='kvm'><name>x</name><devices>{disks}</devices></domain>")
    }

    #[test]
    fn files_and_devices_are_read_in_order() {
        let xml = domain(
            "<disk type='file' device='cdrom'><source file='/a.iso'/></disk>\
             <disk type='block' device='disk'><driver type='raw'/><source dev='/dev/vg/a'/></disk>\
             <disk type='file' device='disk'><source file='b &amp; c.qcow2'/></disk>\
             <disk><driver name='tap' type='aio'/><source file='/d'/></disk>",
        );
        let disk = |path: &str, format| DomainDisk { path: path.into(), format };
        assert_eq!(
            parse_disks(&xml).unwrap(),
            [
                disk("/dev/vg/a", Some(ImageFormat::Raw)),
                disk("b & c.qcow2", None),
                disk("/d", Some(ImageFormat::Raw))
            ]
        );
    }

    #[test]
    fn a_disk_that_would_be_missing_is_an_error_that_names_it() {
        let target = "<target dev='vdb'/>";
        for (disk, text) in [
            ("<disk type='network'><source protocol='rbd' name='p/i'/>", "a network disk (rbd)"),
            ("<disk type='volume'><source pool='p' volume='v'/>", "a volume of a storage pool"),
            ("<disk type='vhostuser'>", "\"vhostuser\""),
            ("<disk type='block' device='lun'><source dev='/dev/a'/>", "a device \"lun\""),
            ("<disk type='file'><source file='/a'><encryption/></source>", "encrypted"),
            ("<disk type='file'><source file='/a'><slices/></source>", "a slice"),
            ("<disk type='file'>", "<source file=…>"),
            ("<disk type='block'><source file='/a'/>", "<source dev=…>"),
            ("<disk type='file'><driver type='qed'/><source file='/a'/>", "\"qed\""),
        ] {
            let error = parse_disks(&domain(&format!("{disk}{target}</disk>"))).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(text) && error.contains("\"vdb\""), "{error}");
        }
        assert!(matches!(parse_disks(&domain("")), Err(DomainDisksError::None)));
        assert!(parse_disks("<network/>").unwrap_err().to_string().contains("<network>"));
        assert!(parse_disks("<domain>").is_err());
    }

    #[test]
    fn every_path_of_a_disk_is_seen() {
        let xml = domain(
            "<disk type='volume'><source pool='p' volume='v'/></disk>\
             <disk><source file='/a'/><backingStore><source dev='/dev/b'/><backingStore/></backingStore></disk>\
             <filesystem><source dir='/c'/></filesystem>",
        );
        assert_eq!(disk_paths(&xml), [PathBuf::from("/a"), PathBuf::from("/dev/b")]);
        assert!(is_named(&xml, "x") && !is_named(&xml, "1") && !is_named("", ""));
        let uuid = xml.replace("<devices>", "<uuid>ab-1</uuid><devices>");
        assert!(is_named(&uuid, "AB-1"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,100}", disks in "(<disk( type='[a-z]{0,6}')?( device='[a-z]{0,5}')?>(<source file='[^'<&]{0,5}'/>)?</disk>){0,3}") {
            let _ = (parse_disks(&text), disk_paths(&text), is_named(&text, &text));
            let _ = parse_disks(&domain(&text));
            // None is left out silently.
            if let Ok(found) = parse_disks(&domain(&disks)) {
                let removable = disks.matches("cdrom").count() + disks.matches("floppy").count();
                prop_assert!(found.len() + removable >= disks.matches("<disk").count());
            }
        }
    }
}
