//! The description in an OVA (`.ovf`): which files are the disks, in which order, how they are packed. Pure.
//!
//! Disks are found as virt-v2v finds them, so that both mean the same one: hard-disk items of the virtual hardware, in
//! the order of the document. [`Ovf::pointing_at`] gives the same text with other files.

use crate::guest::image::ImageFormat;
use crate::sources::answer::Nic;
use roxmltree::{Attribute, Document, Node, ParsingOptions};
use std::ops::Range;
use thiserror::Error;

/// An OVF is a few KiB; one with licence texts in all languages, a few hundred.
pub const MOST_BYTES: u64 = 4 << 20;
const MOST_NODES: u32 = 200_000;
const OVF: &str = "http://schemas.dmtf.org/ovf/envelope/1";
const OVF_2: &str = "http://schemas.dmtf.org/ovf/envelope/2";
/// Of `rasd:ResourceType`.
const HARD_DISK: &str = "17";
const ETHERNET: &str = "10";

/// A hard disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its file, relative to the OVF.
    pub href: String,
    /// What `ovf:format` says, where we know it.
    pub format: Option<ImageFormat>,
    /// The file is compressed with gzip.
    pub gzip: bool,
    /// The file is split into `href.000000000`, …
    pub chunked: bool,
    /// Of each piece but the last.
    pub chunk_size: Option<u64>,
    /// Of the file, all its pieces together.
    pub size: Option<u64>,
    /// As the guest sees it.
    pub capacity: Option<u64>,
    /// What `capacity` counts in.
    pub unit: u64,
    href_at: Range<usize>,
    compression_at: Option<Range<usize>>,
}

/// What we need of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ovf {
    /// Name of the guest.
    pub name: Option<String>,
    /// In order.
    pub disks: Vec<Disk>,
    /// In order.
    pub nics: Vec<Nic>,
    text: String,
}

/// Why it cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[allow(missing_docs)]
pub enum OvfError {
    #[error("it is not UTF-8")]
    Text,
    #[error(
        "it has a document type declaration (DTD), which can make a reader read other files or fill its memory"
    )]
    Dtd,
    #[error("it is no XML")]
    Xml(#[source] roxmltree::Error),
    #[error("its version is OVF 2; virt-v2v reads OVF 1 only")]
    Version,
    #[error("it is no OVF envelope")]
    Envelope,
    #[error("it describes {0} virtual systems; one run converts one guest")]
    Systems(usize),
    #[error("its virtual hardware has no hard disk")]
    NoDisk,
    #[error("hard disk {index} refers to {reference:?}, which is none of its disks")]
    Reference { index: usize, reference: String },
    #[error("disk {0:?} has no file: it is empty, and virt-v2v cannot make it")]
    NoFile(String),
    #[error("disk {0:?} is only the difference to another disk")]
    Difference(String),
    #[error("disk {disk:?} refers to file {file:?}, which is not among its references")]
    File { disk: String, file: String },
    #[error("two hard disks are the same file {0:?}")]
    Twice(String),
    #[error("file {file:?} is compressed with {compression:?}; gzip is known")]
    Compression { file: String, compression: String },
}

impl Ovf {
    /// Reads it.
    pub fn parse(bytes: &[u8]) -> Result<Self, OvfError> {
        let text = std::str::from_utf8(bytes).map_err(|_| OvfError::Text)?;
        let options = ParsingOptions { nodes_limit: MOST_NODES, ..ParsingOptions::default() };
        let document = Document::parse_with_options(text, options).map_err(|e| match e {
            roxmltree::Error::DtdDetected => OvfError::Dtd,
            e => OvfError::Xml(e),
        })?;
        let root = document.root_element();
        if root.tag_name().namespace() == Some(OVF_2) {
            return Err(OvfError::Version);
        }
        if !is(root, "Envelope") {
            return Err(OvfError::Envelope);
        }
        let systems: Vec<_> = root.descendants().filter(|n| is(*n, "VirtualSystem")).collect();
        let system = match systems.as_slice() {
            // In a collection virt-v2v does not look.
            [one] if one.parent() == Some(root) => *one,
            more => return Err(OvfError::Systems(more.len())),
        };
        let disks = disks(root, system)?;
        let name = children(system, "Name").next().and_then(|n| n.text()).map(str::to_owned);
        let name = name.filter(|n| !n.is_empty());
        Ok(Self { name, disks, nics: nics(system), text: text.to_owned() })
    }

    /// The same, with the disks in these files, in order, none of them compressed.
    pub fn pointing_at(&self, files: &[String]) -> String {
        let mut edits: Vec<(&Range<usize>, &str)> = Vec::new();
        for (disk, file) in self.disks.iter().zip(files) {
            edits.push((&disk.href_at, file));
            edits.extend(disk.compression_at.as_ref().map(|at| (at, "identity")));
        }
        edits.sort_by_key(|(at, _)| std::cmp::Reverse(at.start));
        let mut text = self.text.clone();
        for (at, new) in edits {
            text.replace_range(at.clone(), new);
        }
        text
    }
}

impl Disk {
    /// Whether a disk of so many bytes lacks some. A capacity in GiB may be rounded up.
    pub fn lacks(&self, bytes: u64) -> bool {
        let rounded = bytes.checked_next_multiple_of(self.unit.max(1)).unwrap_or(u64::MAX);
        self.capacity.is_some_and(|capacity| rounded < capacity)
    }
}

fn disks(root: Node<'_, '_>, system: Node<'_, '_>) -> Result<Vec<Disk>, OvfError> {
    let hard = items(system, HARD_DISK);
    let mut found: Vec<Disk> = Vec::new();
    for (index, item) in hard.enumerate() {
        let disk = disk(root, index, setting(item, "HostResource").unwrap_or_default())?;
        if found.iter().any(|d| d.href == disk.href) {
            return Err(OvfError::Twice(disk.href));
        }
        found.push(disk);
    }
    if found.is_empty() { Err(OvfError::NoDisk) } else { Ok(found) }
}

/// An address is rarely there.
fn nics(system: Node<'_, '_>) -> Vec<Nic> {
    let nic = |item| Nic::of(setting(item, "Address"), setting(item, "Connection"));
    items(system, ETHERNET).map(nic).collect()
}

/// Of the virtual hardware, those of a type.
fn items<'a, 'i: 'a>(
    system: Node<'a, 'i>,
    resource_type: &'static str,
) -> impl Iterator<Item = Node<'a, 'i>> {
    let items = children(system, "VirtualHardwareSection").flat_map(|h| children(h, "Item"));
    items.filter(move |i| setting(*i, "ResourceType") == Some(resource_type))
}

fn disk(root: Node<'_, '_>, index: usize, reference: &str) -> Result<Disk, OvfError> {
    let unknown = || OvfError::Reference { index, reference: reference.to_owned() };
    let id = reference.strip_prefix("ovf:").unwrap_or(reference);
    let id = id.strip_prefix("/disk/").ok_or_else(unknown)?;
    let disks = children(root, "DiskSection").flat_map(|s| children(s, "Disk"));
    let disk = disks.clone().find(|d| value(*d, "diskId") == Some(id)).ok_or_else(unknown)?;
    if value(disk, "parentRef").is_some() {
        return Err(OvfError::Difference(id.to_owned()));
    }
    let file_id = value(disk, "fileRef").ok_or_else(|| OvfError::NoFile(id.to_owned()))?;
    let mut files = children(root, "References").flat_map(|s| children(s, "File"));
    let missing = || OvfError::File { disk: id.to_owned(), file: file_id.to_owned() };
    let file = files.find(|f| value(*f, "id") == Some(file_id)).ok_or_else(missing)?;
    let href = attribute(file, "href").ok_or_else(missing)?;
    let compression = attribute(file, "compression");
    let gzip = match compression.map(|c| c.value()) {
        None | Some("" | "identity") => false,
        Some("gzip") => true,
        Some(other) => {
            let file = href.value().to_owned();
            return Err(OvfError::Compression { file, compression: other.to_owned() });
        }
    };
    Ok(Disk {
        href: href.value().to_owned(),
        format: value(disk, "format").and_then(format),
        gzip,
        chunked: value(file, "chunkSize").is_some(),
        chunk_size: number(file, "chunkSize"),
        size: number(file, "size"),
        capacity: unit(disk).zip(number(disk, "capacity")).and_then(|(u, n)| n.checked_mul(u)),
        unit: unit(disk).unwrap_or(1),
        href_at: href.range_value(),
        compression_at: compression.map(|c| c.range_value()),
    })
}

/// The formats are named by addresses of their descriptions.
fn format(address: &str) -> Option<ImageFormat> {
    let address = address.to_ascii_lowercase();
    [
        ("vmdk", ImageFormat::Vmdk),
        ("qcow", ImageFormat::Qcow2),
        ("vhdx", ImageFormat::Vhdx),
        ("vhd", ImageFormat::Vpc),
        ("bb676673", ImageFormat::Vpc),
    ]
    .into_iter()
    .find(|(part, _)| address.contains(part))
    .map(|(_, format)| format)
}

/// `None` also for one that is left to be filled in (`${…}`).
fn number(node: Node<'_, '_>, name: &str) -> Option<u64> {
    value(node, name)?.trim().parse().ok()
}

/// Of `ovf:capacity`: `byte`, `byte * 2^30`, `byte * 1024^3`.
fn unit(disk: Node<'_, '_>) -> Option<u64> {
    let unit: String =
        value(disk, "capacityAllocationUnits").unwrap_or("byte").split_whitespace().collect();
    match unit.strip_prefix("byte*") {
        None => (unit == "byte").then_some(1),
        Some(power) => {
            let (base, exponent) = power.split_once('^').unwrap_or((power, "1"));
            base.parse::<u64>().ok()?.checked_pow(exponent.parse().ok()?)
        }
    }
}

fn is(node: Node<'_, '_>, name: &str) -> bool {
    node.is_element() && node.tag_name().namespace() == Some(OVF) && node.tag_name().name() == name
}

fn children<'a, 'i: 'a>(
    parent: Node<'a, 'i>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'i>> + Clone {
    parent.children().filter(move |n| is(*n, name))
}

/// An attribute in OVF's namespace, as virt-v2v reads it.
fn attribute<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Attribute<'a, 'i>> {
    node.attributes().find(|a| a.namespace() == Some(OVF) && a.name() == name)
}

fn value<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    attribute(node, name).map(|a| a.value())
}

/// A child in the namespace of resource settings.
fn setting<'a>(item: Node<'a, '_>, name: &str) -> Option<&'a str> {
    let wanted = |n: &Node<'_, '_>| {
        let namespace = n.tag_name().namespace().unwrap_or_default();
        n.tag_name().name() == name && namespace.ends_with("CIM_ResourceAllocationSettingData")
    };
    item.children().find(wanted)?.text().map(str::trim)
}

#[cfg(test)]
#[path = "ovf_tests.rs"]
pub mod tests;
