//! Rewrites a libvirt domain XML so that virt-v2v-in-place works on the volumes in this pod.
//!
//! The Prepare phase calls it with the source's own domain XML and the links to the mounted
//! volumes, in disk order. The hard disks are pointed at the links, removable drives are dropped,
//! and everything else stays byte for byte as it was: the text is edited in place at positions
//! taken from a parse of it, so namespaces (`vmware:`), attributes and comments survive. It never
//! touches a disk and never decides which disks there are.
//!
//! Modelled on Forklift's `updateDiskPaths`, with two differences on purpose. The driver type is
//! the one given: the reference writes `qcow2` even over a raw volume (overlay off), and virt-v2v
//! then opens the guest's own bytes as a qcow2 header. And floppies are dropped along with
//! CD-ROMs, because virt-v2v does not convert them and their media is not in this pod.

use roxmltree::{Document, Node};
use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::image::ImageFormat;
use super::xml::{child, children};

/// Why a domain XML could not be rewritten.
#[derive(Debug, thiserror::Error)]
pub enum DomainXmlError {
    /// The text is not well-formed XML (a DTD is refused as well).
    #[error("the domain XML is not well-formed")]
    Xml(#[from] roxmltree::Error),
    /// Well-formed, but something else than a domain.
    #[error("expected a libvirt <domain>, found <{found}>")]
    NotADomain {
        /// Name of the root element.
        found: String,
    },
    /// XML has no way to write this path down.
    #[error("the link {} cannot be written into XML: it is not UTF-8 or has control characters", link.display())]
    Link {
        /// The path as given.
        link: PathBuf,
    },
}

/// Where one hard disk of the guest is in this pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskLink {
    /// Path that virt-v2v opens.
    pub path: PathBuf,
    /// What is at that path, as virt-v2v is to open it: raw for the volume itself, qcow2 for an
    /// overlay above it.
    pub format: ImageFormat,
}

/// A rewritten domain XML, and whether source and pod agree on the number of disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewrittenDomain {
    /// The new text.
    pub xml: String,
    /// Hard disks in the source XML.
    pub disks_in_source: usize,
    /// Hard disks in the new XML; the links beyond this number went unused.
    pub disks_used: usize,
}

impl RewrittenDomain {
    /// Disks of the source that have no link and were dropped.
    pub fn disks_dropped(&self) -> usize {
        self.disks_in_source - self.disks_used
    }
}

/// Points the hard disks of `xml` at `links`, in order.
///
/// Surplus disks of the XML are dropped; surplus links are ignored. Neither is an error here,
/// since the reference accepts both: the caller compares the numbers in the answer.
pub fn rewrite_domain(xml: &str, links: &[DiskLink]) -> Result<RewrittenDomain, DomainXmlError> {
    rewrite(xml, links, Removable::Drop)
}

/// The same for a source that is converted as a whole: its removable drives stay, since virt-v2v does
/// not open them but says in its result that they were there.
pub fn point_disks(xml: &str, links: &[DiskLink]) -> Result<String, DomainXmlError> {
    rewrite(xml, links, Removable::Keep).map(|rewritten| rewritten.xml)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Removable {
    Keep,
    Drop,
}

fn rewrite(
    xml: &str,
    links: &[DiskLink],
    removable: Removable,
) -> Result<RewrittenDomain, DomainXmlError> {
    let document = Document::parse(xml)?;
    let domain = document.root_element();
    if domain.tag_name().name() != "domain" {
        return Err(DomainXmlError::NotADomain { found: domain.tag_name().name().to_owned() });
    }
    let mut edits = Edits::new(xml);
    let mut disks_in_source = 0;
    let mut disks_used = 0;
    for disk in children(domain, "devices").flat_map(|devices| children(devices, "disk")) {
        if is_removable(disk) {
            if removable == Removable::Drop {
                edits.remove(disk);
            }
            continue;
        }
        // `disks_in_source` is still this disk's index here.
        if let Some(link) = links.get(disks_in_source) {
            repoint(&mut edits, disk, link)?;
            disks_used += 1;
        } else {
            edits.remove(disk);
        }
        disks_in_source += 1;
    }
    Ok(RewrittenDomain { xml: edits.apply(), disks_in_source, disks_used })
}

/// libvirt's default for an absent `device` is a hard disk.
pub(super) fn is_removable(disk: Node<'_, '_>) -> bool {
    matches!(disk.attribute("device"), Some("cdrom" | "floppy"))
}

/// Children of a disk that speak of the old source's image and would be wrong, or followed, on
/// the new one. `<target>`, `<boot>`, `<serial>`, `<address>` and the rest stay.
const ABOUT_THE_OLD_SOURCE: [&str; 6] =
    ["driver", "source", "backingStore", "mirror", "auth", "encryption"];

fn repoint(
    edits: &mut Edits<'_>,
    disk: Node<'_, '_>,
    link: &DiskLink,
) -> Result<(), DomainXmlError> {
    let fields = format!(
        "<driver name=\"qemu\" type=\"{}\"/><source file=\"{}\"/>",
        link.format.as_str(),
        attribute_text(&link.path)?,
    );
    match disk.attribute_node("type") {
        Some(kind) => edits.replace(kind.range_value(), "file".to_owned()),
        None => edits.insert(after_tag_name(edits.text, disk), " type=\"file\"".to_owned()),
    }
    if disk.attribute("device").is_none() {
        // virt-v2v knows no default and would leave the disk out.
        edits.insert(after_tag_name(edits.text, disk), " device=\"disk\"".to_owned());
    }
    for name in ABOUT_THE_OLD_SOURCE {
        for old in children(disk, name) {
            edits.remove(old);
        }
    }
    add_first(edits, disk, fields);
    Ok(())
}

/// Puts `content` before whatever `disk` contains.
fn add_first(edits: &mut Edits<'_>, disk: Node<'_, '_>, content: String) {
    let range = disk.range();
    if let Some(first) = disk.first_child() {
        edits.insert(first.range().start, content);
    } else if edits.text[range.clone()].ends_with("/>") {
        let name = &edits.text[range.start + 1..after_tag_name(edits.text, disk)];
        let closed = format!(">{content}</{name}>");
        edits.replace(range.end - 2..range.end, closed);
    } else if let Some(close) = edits.text[range.clone()].rfind("</") {
        edits.insert(range.start + close, content);
    }
}

/// The position just behind `<disk`, where a further attribute can be written.
fn after_tag_name(text: &str, element: Node<'_, '_>) -> usize {
    let start = element.range().start;
    let tag = &text[start..element.range().end];
    let end = tag.find(|c: char| c.is_ascii_whitespace() || c == '/' || c == '>');
    start + end.unwrap_or(tag.len())
}

/// `path` as the text between two double quotes of an attribute.
///
/// Line ends and tabs are written as references, since a parser otherwise turns them into blanks.
pub(super) fn attribute_text(path: &Path) -> Result<String, DomainXmlError> {
    let refused = || DomainXmlError::Link { link: path.to_owned() };
    let mut out = String::new();
    for c in path.to_str().ok_or_else(refused)?.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => {
                // Writing to a String does not fail.
                let _ = write!(out, "&#{};", u32::from(c));
            }
            // What XML 1.0 cannot hold, not even as a reference.
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => return Err(refused()),
            _ => out.push(c),
        }
    }
    Ok(out)
}

/// Replacements in a text, collected in any order and applied together.
struct Edits<'a> {
    text: &'a str,
    list: Vec<(Range<usize>, String)>,
}

impl<'a> Edits<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, list: Vec::new() }
    }

    fn replace(&mut self, range: Range<usize>, with: String) {
        self.list.push((range, with));
    }

    fn insert(&mut self, at: usize, what: String) {
        self.replace(at..at, what);
    }

    fn remove(&mut self, node: Node<'_, '_>) {
        self.replace(node.range(), String::new());
    }

    /// Edits never overlap: a disk is either removed whole or changed inside, and the parts
    /// changed inside are distinct nodes. At one position an insertion goes before a removal,
    /// because the sort puts the empty range first.
    fn apply(mut self) -> String {
        self.list.sort_by_key(|(range, _)| (range.start, range.end));
        let mut out = String::with_capacity(self.text.len() + 64 * self.list.len());
        let mut done = 0;
        for (range, with) in &self.list {
            out.push_str(&self.text[done..range.start]);
            out.push_str(with);
            done = range.end;
        }
        out.push_str(&self.text[done..]);
        out
    }
}

/// The file name in the `<source>` of each hard disk, in order: what virt-v2v will open.
pub fn disk_files(xml: &str) -> Result<Vec<Option<String>>, DomainXmlError> {
    let document = Document::parse(xml)?;
    Ok(children(document.root_element(), "devices")
        .flat_map(|devices| children(devices, "disk"))
        .filter(|disk| !is_removable(*disk))
        .map(|disk| child(disk, "source")?.attribute("file").map(str::to_owned))
        .collect())
}

#[cfg(test)]
#[path = "domain_xml_tests.rs"]
mod tests;
