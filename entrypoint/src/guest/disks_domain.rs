//! A libvirt domain made of nothing but disks, for images of different formats in one run.
//!
//! `virt-v2v -i disk` takes one format for all images (`-if`), and without one it probes, which lets a
//! guest choose. A domain says the format of each. Everything else is what `-i disk` makes up by itself:
//! one CPU, 2 GiB, one NIC, firmware and controllers to be found out. Pure.

use super::domain_xml::{DomainXmlError, attribute_text};
use super::image::ImageFormat;
use std::fmt::Write as _;
use std::path::PathBuf;

/// The domain with these disks, in this order.
pub fn disks_domain(disks: &[(PathBuf, ImageFormat)]) -> Result<String, DomainXmlError> {
    // The name is replaced with `-on`; the type is what virt-v2v calls a hypervisor it knows nothing of.
    let mut xml = String::from(
        "<domain type=\"unknown\">\n  <name>guest</name>\n  <memory unit=\"KiB\">2097152</memory>\n  \
         <vcpu>1</vcpu>\n  <os><type>hvm</type></os>\n  \
         <features><acpi/><apic/><pae/></features>\n  <devices>\n",
    );
    for (index, (path, format)) in disks.iter().enumerate() {
        // Writing to a String does not fail.
        let _ = writeln!(
            xml,
            "    <disk type=\"file\" device=\"disk\"><driver name=\"qemu\" type=\"{format}\"/>\
             <source file=\"{}\"/><target dev=\"sd{}\"/></disk>",
            attribute_text(path)?,
            v2v_args::drive_name(index),
        );
    }
    xml.push_str(
        "    <interface type=\"network\"><source network=\"default\"/></interface>\n    \
         <graphics type=\"vnc\"/>\n  </devices>\n</domain>\n",
    );
    Ok(xml)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::domain_disks::{DomainDisk, parse_disks};
    use proptest::prelude::*;

    #[test]
    fn names_of_many_disks_go_on_after_z() {
        let disks: Vec<_> = (0..28).map(|_| (PathBuf::from("/a"), ImageFormat::Raw)).collect();
        let xml = disks_domain(&disks).unwrap();
        for name in ["sda", "sdz", "sdaa", "sdab"] {
            assert!(xml.contains(&format!("<target dev=\"{name}\"/>")), "{name}: {xml}");
        }
    }

    #[test]
    fn a_path_that_xml_cannot_hold_is_an_error() {
        assert!(disks_domain(&[("/a\u{1}".into(), ImageFormat::Raw)]).is_err());
    }

    proptest! {
        #[test]
        fn each_disk_is_read_back_with_its_path_and_format(
            disks in proptest::collection::vec(("/[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\u{fffe}\\u{ffff}]{1,20}", 0..6_usize), 1..5)
        ) {
            const FORMATS: [ImageFormat; 6] = [ImageFormat::Raw, ImageFormat::Qcow2, ImageFormat::Vmdk,
                ImageFormat::Vhdx, ImageFormat::Vpc, ImageFormat::Vdi];
            let disks: Vec<(PathBuf, ImageFormat)> =
                disks.into_iter().map(|(path, n)| (path.into(), FORMATS[n])).collect();
            let found = parse_disks(&disks_domain(&disks).unwrap()).unwrap();
            let wanted: Vec<DomainDisk> = disks.into_iter()
                .map(|(path, format)| DomainDisk { path, format: Some(format) }).collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
