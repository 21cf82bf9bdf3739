//! Whether virt-v2v reads the VM that is meant. libvirt takes the first VM of a name, and when two have one BIOS UUID, the
//! disks of either; both in silence. virt-v2v prints the domain with `-v` before it opens a disk. Pure.

use crate::failure::{Class, Failure};
use roxmltree::{Document, Node};

/// The VM that is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meant {
    /// Its name, as libvirt has it.
    pub name: Option<String>,
    /// Its BIOS UUID.
    pub uuid: Option<String>,
    /// Its reference, `vm-21`.
    pub moref: Option<String>,
}

/// How virt-v2v announces the domain.
const BEGIN: &str = "libvirt xml is:";
const END: &str = "</domain>";
/// A domain is a few KiB.
const MOST: usize = 1 << 20;

/// Follows the lines of virt-v2v.
#[derive(Debug)]
pub struct DomainWatch {
    meant: Meant,
    xml: Option<String>,
}

impl DomainWatch {
    /// For a VM.
    pub fn new(meant: Meant) -> Self {
        Self { meant, xml: None }
    }

    /// Takes a line; the failure when the domain is another one's.
    pub fn line(&mut self, line: &str) -> Option<Failure> {
        if line == BEGIN {
            self.xml = Some(String::new());
            return None;
        }
        let xml = self.xml.as_mut()?;
        // libvirt's warnings may come in between.
        if line.trim_start().starts_with('<') && xml.len() < MOST {
            xml.push_str(line);
        }
        if line != END {
            return None;
        }
        let xml = self.xml.take()?;
        self.compare(&xml)
    }

    fn compare(&self, xml: &str) -> Option<Failure> {
        self.meant.other(xml)
    }
}

impl Meant {
    /// The failure for the domain of another one.
    pub fn other(&self, xml: &str) -> Option<Failure> {
        let document = Document::parse(xml).ok()?;
        let text = |name: &str| {
            let is_it = |n: &Node<'_, '_>| n.tag_name().name() == name;
            document.root_element().children().find(is_it)?.text().map(str::trim).map(str::to_owned)
        };
        let asked = [
            ("name", &self.name, text("name")),
            ("UUID", &self.uuid, text("uuid")),
            ("moref", &self.moref, text("moref")),
        ];
        let wrong: Vec<String> = asked
            .into_iter()
            .filter_map(|(what, meant, found)| {
                let (meant, found) = (meant.as_ref()?, found?);
                let same =
                    found == meant.trim() || what == "UUID" && found.eq_ignore_ascii_case(meant);
                (!same).then(|| format!("{what} {found} instead of {meant}"))
            })
            .collect();
        if wrong.is_empty() {
            return None;
        }
        let message =
            format!("libvirt gave another VM than the one that is meant: {}", wrong.join(", "));
        Some(Failure::new(Class::NotFound, message).advise(
            "several VMs may have this name or BIOS UUID: set V2V_vmUUID to the right one's (convert: give the UUID for the name), and give copies of a VM a UUID of their own",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "libvirt xml is:
<domain type='vmware' xmlns:vmware='http://libvirt.org/schemas/domain/vmware/1.0'>
2026-11-24 17:11:25.999+0000: 7: warning : esxVI_UserSession_Deserialize:7089 : Unexpected 'callCount' property
  <name>a &amp; b</name>
  <uuid>564d7a2e-0000-4000-8000-00000000000a</uuid>
  <vmware:moref>vm-21</vmware:moref>
</domain>";

    fn seen(meant: Meant) -> Option<Failure> {
        let mut watch = DomainWatch::new(meant);
        XML.lines().find_map(|l| watch.line(l))
    }

    fn meant(name: &str, moref: &str) -> Meant {
        Meant { name: Some(name.to_owned()), uuid: None, moref: Some(moref.to_owned()) }
    }

    #[test]
    fn the_one_that_is_meant_passes() {
        assert_eq!(seen(Meant::default()), None);
        let uuid = Some("564D7A2E-0000-4000-8000-00000000000A".to_owned());
        assert_eq!(seen(Meant { uuid, ..meant("a & b", "vm-21") }), None);
    }

    #[test]
    fn another_one_is_named() {
        let failure = seen(meant("A & b", "vm-22")).unwrap();
        assert_eq!(failure.class, Class::NotFound);
        assert!(
            failure.message.contains("name a & b instead of A & b, moref vm-21 instead of vm-22")
        );
    }
}
