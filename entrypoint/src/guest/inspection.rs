//! Reads what virt-v2v-inspector (and `virt-v2v-in-place -O`) says about a guest.
//!
//! Owns the typed form of that XML; the Inspect phase calls it, and [`super::vm_yaml`] uses the
//! result for labels and for what Windows needs. It never fails because something is missing:
//! versions of virt-v2v differ in what they write, and a field that is absent or unreadable is
//! `None`. Only text that is no XML at all is an error. The name of the root element is not
//! relied on (`v2v-inspection` today), nor are elements this reader does not know.

use roxmltree::{Document, Node};
use std::str::FromStr;

use super::xml::{child, child_text, children, is};

/// Why an inspection could not be read.
#[derive(Debug, thiserror::Error)]
pub enum InspectionError {
    /// The text is not well-formed XML.
    #[error("the inspection is not well-formed XML")]
    Xml(#[from] roxmltree::Error),
}

/// What virt-v2v found out about a guest. Everything is optional, see the module's text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Version of virt-v2v that wrote this, e.g. `2.8.1`.
    pub version: Option<String>,
    /// The source disks, in virt-v2v's order.
    pub disks: Vec<InspectedDisk>,
    /// The firmware the guest boots from.
    pub firmware: Option<InspectedFirmware>,
    /// The operating system, if one was found.
    pub os: Option<OperatingSystem>,
}

/// One source disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InspectedDisk {
    /// Position among the source disks, from 0.
    pub index: Option<u32>,
    /// Size in bytes as the guest sees it.
    pub virtual_size: Option<u64>,
    /// Bytes in use, virt-v2v's estimate.
    pub allocated: Option<u64>,
}

/// The firmware as virt-v2v names it (`bios`, `uefi`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InspectedFirmware {
    /// `bios`
    Bios,
    /// `uefi`
    Uefi,
}

/// The guest's operating system, in libguestfs' words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperatingSystem {
    /// `linux`, `windows`, …
    pub name: Option<String>,
    /// `rhel`, `debian`, `windows`, …
    pub distro: Option<String>,
    /// Short libosinfo id, e.g. `rhel9.4`, `win2k22`.
    pub osinfo: Option<String>,
    /// `x86_64`, `aarch64`, …
    pub arch: Option<String>,
    /// First number of the version.
    pub major_version: Option<u32>,
    /// Second number of the version.
    pub minor_version: Option<u32>,
    /// `rpm`, `deb`, …
    pub package_format: Option<String>,
    /// `dnf`, `apt`, …
    pub package_management: Option<String>,
    /// The name people know, e.g. `Windows Server 2022 Standard`.
    pub product_name: Option<String>,
    /// `Client`, `Server`, …
    pub product_variant: Option<String>,
    /// e.g. `/Windows`; only Windows has one.
    pub windows_systemroot: Option<String>,
    /// The root filesystem's device inside the guest, e.g. `/dev/sda2`.
    pub root: Option<String>,
}

impl Inspection {
    /// Whether the guest runs Windows.
    pub fn is_windows(&self) -> bool {
        self.os.as_ref().is_some_and(|os| {
            os.name.as_deref() == Some("windows") || os.distro.as_deref() == Some("windows")
        })
    }

    /// The short libosinfo id, unless virt-v2v did not know (it then writes `unknown`).
    pub fn osinfo(&self) -> Option<&str> {
        let id = self.os.as_ref()?.osinfo.as_deref()?;
        (id != "unknown").then_some(id)
    }
}

/// Reads an inspection.
pub fn parse_inspection(xml: &str) -> Result<Inspection, InspectionError> {
    let document = Document::parse(xml)?;
    let root = document.root_element();
    Ok(Inspection {
        version: owned(root, "version"),
        disks: child(root, "disks")
            .map_or_else(Vec::new, |disks| children(disks, "disk").map(read_disk).collect()),
        firmware: child(root, "firmware").and_then(read_firmware),
        // Looked for at any depth: virt-inspector, whose names these are, nests it one deeper.
        os: root.descendants().find(|node| is(*node, "operatingsystem")).map(read_os),
    })
}

fn read_disk(disk: Node<'_, '_>) -> InspectedDisk {
    InspectedDisk {
        index: disk.attribute("index").and_then(number),
        virtual_size: child_text(disk, "virtual-size").and_then(number),
        allocated: child_text(disk, "allocated").and_then(number),
    }
}

fn read_firmware(firmware: Node<'_, '_>) -> Option<InspectedFirmware> {
    match firmware.attribute("type")? {
        "bios" => Some(InspectedFirmware::Bios),
        "uefi" | "efi" => Some(InspectedFirmware::Uefi),
        _ => None,
    }
}

fn read_os(os: Node<'_, '_>) -> OperatingSystem {
    OperatingSystem {
        name: owned(os, "name"),
        distro: owned(os, "distro"),
        osinfo: owned(os, "osinfo"),
        arch: owned(os, "arch"),
        major_version: child_text(os, "major_version").and_then(number),
        minor_version: child_text(os, "minor_version").and_then(number),
        package_format: owned(os, "package_format"),
        package_management: owned(os, "package_management"),
        product_name: owned(os, "product_name"),
        product_variant: owned(os, "product_variant"),
        windows_systemroot: owned(os, "windows_systemroot"),
        root: owned(os, "root"),
    }
}

fn owned(node: Node<'_, '_>, name: &'static str) -> Option<String> {
    child_text(node, name).map(str::to_owned)
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOWS: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<v2v-inspection>
  <!-- generated by virt-v2v-inspector 2.8.1 -->
  <program>virt-v2v-inspector</program><package>virt-v2v</package><version>2.8.1</version>
  <disks>
    <disk index="0"><virtual-size>6442450944</virtual-size><allocated estimated="true">1400897536</allocated></disk>
    <disk index="1"><virtual-size>1073741824</virtual-size></disk>
  </disks>
  <firmware type="uefi"/>
  <operatingsystem>
    <name>windows</name><distro>windows</distro><osinfo>win2k22</osinfo><arch>x86_64</arch>
    <major_version>10</major_version><minor_version>0</minor_version>
    <product_name>Windows Server 2022 Standard &amp; co</product_name>
    <product_variant>Server</product_variant>
    <windows_systemroot>/Windows</windows_systemroot>
    <root>/dev/sda4</root><mountpoints><mountpoint dev="/dev/sda4">/</mountpoint></mountpoints>
  </operatingsystem>
</v2v-inspection>"#;

    #[test]
    fn a_whole_inspection_is_read() {
        let read = parse_inspection(WINDOWS).unwrap();
        assert_eq!(read.version.as_deref(), Some("2.8.1"));
        assert_eq!(read.disks.len(), 2);
        assert_eq!(read.disks[0].virtual_size, Some(6_442_450_944));
        assert_eq!(read.disks[0].allocated, Some(1_400_897_536));
        assert_eq!(
            read.disks[1],
            InspectedDisk { index: Some(1), virtual_size: Some(1 << 30), allocated: None }
        );
        assert_eq!(read.firmware, Some(InspectedFirmware::Uefi));
        assert!(read.is_windows());
        assert_eq!(read.osinfo(), Some("win2k22"));
        let os = read.os.unwrap();
        assert_eq!(os.product_name.as_deref(), Some("Windows Server 2022 Standard & co"));
        assert_eq!((os.major_version, os.minor_version), (Some(10), Some(0)));
    }

    #[test]
    fn missing_and_unreadable_parts_are_none() {
        assert_eq!(parse_inspection("<anything/>").unwrap(), Inspection::default());
        let read = parse_inspection(
            "<x><firmware type='coreboot'/><disks><disk><virtual-size>big</virtual-size></disk>\
             </disks><operatingsystem><osinfo>unknown</osinfo><major_version/></operatingsystem></x>",
        )
        .unwrap();
        assert_eq!(read.disks, [InspectedDisk::default()]);
        assert_eq!(read.firmware, None);
        assert_eq!(read.osinfo(), None);
        assert!(!read.is_windows());
    }

    #[test]
    fn the_recorded_pod_answer_is_read() {
        let read = parse_inspection(
            "<?xml version='1.0'?>\n<v2v-inspection>\n  <operatingsystem>\n    <name>linux</name>\n    \
             <distro>fedora</distro>\n    <osinfo>fedora40</osinfo>\n    <arch>x86_64</arch>\n  \
             </operatingsystem>\n</v2v-inspection>\n",
        )
        .unwrap();
        assert_eq!(read.osinfo(), Some("fedora40"));
    }

    #[test]
    fn a_very_deep_tree_is_no_stack_overflow() {
        let deep = "<a>".repeat(200_000);
        assert!(parse_inspection(&deep).is_err());
        let closed = format!("{}{}", "<a>".repeat(20_000), "</a>".repeat(20_000));
        let _ = parse_inspection(&closed);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse_inspection(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn arbitrary_strings_never_panic(text in "\\PC{0,200}") {
            let _ = parse_inspection(&text);
        }

        #[test]
        fn a_damaged_inspection_never_panics(at in 0..WINDOWS.len(), junk in "[<>&'\"/a-z0-9]{0,8}") {
            let mut text = WINDOWS.to_owned();
            text.insert_str(at, &junk);
            let _ = parse_inspection(&text);
            let _ = parse_inspection(&WINDOWS[..at]);
        }

        #[test]
        fn any_text_in_a_field_comes_back(value in "[^\\p{C}<&]{1,40}") {
            let xml = format!("<r><operatingsystem><product_name>{value}</product_name></operatingsystem></r>");
            let trimmed = Some(value.trim()).filter(|text| !text.is_empty());
            let os = parse_inspection(&xml).unwrap().os.unwrap();
            prop_assert_eq!(os.product_name.as_deref(), trimmed);
        }
    }
}
