//! Also gives other tests an OVF.
#![allow(missing_docs)]

use super::*;
use proptest::prelude::*;
use std::fmt::Write as _;

/// An OVF with a disk of 64 MiB in each of these files; `(file, attributes of File)`.
pub fn ovf(files: &[(&str, &str)]) -> String {
    let (mut references, mut disks, mut items) = (String::new(), String::new(), String::new());
    for (i, (file, more)) in files.iter().enumerate() {
        let _ = write!(references, r#"<File ovf:id="f{i}" ovf:href="{file}" {more}/>"#);
        let _ = write!(
            disks,
            r#"<Disk ovf:diskId="d{i}" ovf:fileRef="f{i}" ovf:capacity="64" ovf:capacityAllocationUnits="byte * 2^20" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>"#
        );
        let _ = write!(
            items,
            "<Item><r:HostResource>ovf:/disk/d{i}</r:HostResource><r:ResourceType>17</r:ResourceType></Item>"
        );
    }
    format!(
        r#"<?xml version="1.0"?><Envelope xmlns="{OVF}" xmlns:ovf="{OVF}" xmlns:r="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"><References>{references}</References><DiskSection>{disks}</DiskSection><VirtualSystem ovf:id="w"><Name>web</Name><VirtualHardwareSection><Item><r:ResourceType>3</r:ResourceType></Item>{items}</VirtualHardwareSection></VirtualSystem></Envelope>"#
    )
}

fn error(text: &str) -> String {
    Ovf::parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn disks_come_in_the_order_of_the_hardware() {
    let text = ovf(&[("a.vmdk", ""), ("b.vmdk.gz", r#"ovf:compression="gzip" ovf:chunkSize="9""#)]);
    let text = text.replace("/disk/d0", "/disk/X").replace("/disk/d1", "/disk/d0");
    let parsed = Ovf::parse(text.replace("/disk/X", "/disk/d1").as_bytes()).unwrap();
    assert_eq!(parsed.name.as_deref(), Some("web"));
    let [first, second] = parsed.disks.as_slice() else { panic!("{parsed:?}") };
    assert_eq!((first.href.as_str(), first.gzip, first.chunked), ("b.vmdk.gz", true, true));
    assert_eq!((second.href.as_str(), second.gzip, second.chunked), ("a.vmdk", false, false));
    assert_eq!((second.capacity, second.format), (Some(64 << 20), Some(ImageFormat::Vmdk)));
}

#[test]
fn nics_come_in_the_order_of_the_hardware() {
    let nics = "<Item><r:Connection>VM Network</r:Connection><r:ResourceType>10</r:ResourceType></Item>\
         <Item><r:Address>00:50:56:00:00:01</r:Address><r:Connection>DMZ</r:Connection><r:ResourceType>10</r:ResourceType></Item>\
         <Item><r:ResourceType>10</r:ResourceType></Item>";
    let text = ovf(&[("a.vmdk", "")])
        .replace("</VirtualHardwareSection>", &format!("{nics}</VirtualHardwareSection>"));
    let wanted = [
        Nic::of(None, Some("VM Network")),
        Nic::of(Some("00:50:56:00:00:01"), Some("DMZ")),
        Nic::of(None, None),
    ];
    assert_eq!(Ovf::parse(text.as_bytes()).unwrap().nics, wanted);
}

#[test]
fn other_files_can_be_named() {
    let text = ovf(&[("a &amp; b.vmdk", ""), ("b.gz", r#"ovf:compression="gzip""#)]);
    let parsed = Ovf::parse(text.as_bytes()).unwrap();
    assert_eq!(parsed.disks[0].href, "a & b.vmdk");
    let new = parsed.pointing_at(&["disk0.qcow2".to_owned(), "disk1.qcow2".to_owned()]);
    let again = Ovf::parse(new.as_bytes()).unwrap();
    let files: Vec<_> = again.disks.iter().map(|d| (d.href.as_str(), d.gzip)).collect();
    assert_eq!(files, [("disk0.qcow2", false), ("disk1.qcow2", false)]);
}

#[test]
fn what_virt_v2v_cannot_convert_is_said() {
    let good = ovf(&[("a.vmdk", "")]);
    for (text, part) in [
        (good.replace("<?xml version=\"1.0\"?>", "<!DOCTYPE x [<!ENTITY a \"b\">]>"), "DTD"),
        (good.replace("envelope/1", "envelope/2"), "OVF 2"),
        ("<Envelope/>".to_owned(), "no OVF envelope"),
        (good[..good.len() - 3].to_owned(), "no XML"),
        (good.replace("VirtualSystem", "Other"), "0 virtual systems"),
        (
            good.replace("<VirtualSystem ", "<VirtualSystemCollection><VirtualSystem ")
                .replace("</VirtualSystem>", "</VirtualSystem></VirtualSystemCollection>"),
            "1 virtual systems",
        ),
        (good.replace(">17<", ">15<"), "no hard disk"),
        (good.replace("ovf:/disk/d0", "ovf:/file/f0"), "none of its disks"),
        (good.replace("/disk/d0", "/disk/no"), "none of its disks"),
        (good.replace("ovf:fileRef=\"f0\"", ""), "has no file"),
        (good.replace("ovf:fileRef", "ovf:parentRef=\"d9\" ovf:fileRef"), "difference"),
        (good.replace("ovf:id=\"f0\"", "ovf:id=\"f1\""), "not among its references"),
        (good.replace("a.vmdk\"", "a.vmdk\" ovf:compression=\"lzma\""), "\"lzma\""),
        (ovf(&[("a.vmdk", ""), ("a.vmdk", "")]), "the same file"),
    ] {
        let e = error(&text);
        assert!(e.contains(part), "{part}: {e}");
    }
    assert_eq!(Ovf::parse(b"\xff\xfe<\0"), Err(OvfError::Text));
}

#[test]
fn an_entity_bomb_is_not_expanded() {
    let mut text = String::from("<?xml version=\"1.0\"?><!DOCTYPE b [<!ENTITY a0 \"ha\">");
    for i in 1..40 {
        let _ = write!(text, "<!ENTITY a{i} \"&a{};&a{};\">", i - 1, i - 1);
    }
    assert!(error(&(text + "]><Envelope>&a39;</Envelope>")).contains("DTD"));
}

#[test]
fn capacities_have_units() {
    let capacity_of = |number: &str, unit: &str| {
        let text = ovf(&[("a", "")])
            .replace("ovf:capacity=\"64\"", &format!("ovf:capacity=\"{number}\""))
            .replace("byte * 2^20", unit);
        Ovf::parse(text.as_bytes()).unwrap().disks[0].capacity
    };
    assert_eq!(capacity_of("5", "byte * 2^30"), Some(5 << 30));
    assert_eq!(capacity_of("5", "byte*1024"), Some(5 << 10));
    assert_eq!(capacity_of("512", "byte"), Some(512));
    assert_eq!(capacity_of("99999999999", "byte * 2^60"), None);
    assert_eq!(capacity_of("5", "furlong"), None);
    assert_eq!(capacity_of("${size}", "byte"), None);
}

#[test]
fn a_disk_lacks_bytes_when_it_is_smaller_than_its_rounded_capacity() {
    let text = ovf(&[("a", "ovf:size=\" 7 \" ovf:chunkSize=\"5\"")]);
    let disk = Ovf::parse(text.as_bytes()).unwrap().disks.remove(0);
    assert_eq!((disk.size, disk.chunk_size, disk.unit), (Some(7), Some(5), 1 << 20));
    assert!(disk.lacks(63 << 20) && !disk.lacks((63 << 20) + 1) && !disk.lacks(64 << 20));
    let text = text.replace("byte * 2^20", "byte * 0");
    assert!(!Ovf::parse(text.as_bytes()).unwrap().disks[0].lacks(0));
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(at in 0..900_usize, text in "[<>\"&;a-z/=]{0,6}") {
        let good = ovf(&[("a.vmdk", "ovf:compression=\"gzip\"")]);
        let at = at.min(good.len());
        let broken = format!("{}{text}{}", &good[..at], &good[at..]);
        if let Ok(parsed) = Ovf::parse(broken.as_bytes()) {
            let _ = parsed.pointing_at(&["x".to_owned()]);
        }
    }
}
