use super::super::ovf::tests::ovf;
use super::*;
use proptest::prelude::*;
use std::os::unix::fs::symlink;

fn name(text: &str) -> Name {
    Name::parse(text.as_bytes()).unwrap()
}

fn package(ovf_name: &str, text: &str, files: &[&str]) -> Package {
    let pieces = files.iter().map(|f| (name(f), Piece::file("/x".into(), 1)));
    let contents = Contents::of_files("x.ova".to_owned(), pieces.collect());
    Package::new(contents, name(ovf_name), text.as_bytes(), &[]).unwrap()
}

fn disks(package: &Package) -> Result<Vec<Vec<String>>, OvaError> {
    let files = package.disk_files()?;
    Ok(files.iter().map(|f| f.iter().map(Name::to_string).collect()).collect())
}

#[test]
fn a_folder_is_listed_and_its_links_watched() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("ova");
    fs::create_dir_all(top.join("sub")).unwrap();
    fs::write(top.join("w.ovf"), "x").unwrap();
    fs::write(top.join("sub/d.vmdk"), "xyz").unwrap();
    let found = Contents::of_folder(&top).unwrap();
    assert!(found.plain);
    assert_eq!(found.ovf(None).unwrap(), name("w.ovf"));
    assert_eq!(found.files[&name("sub/d.vmdk")].size, 3);

    symlink("w.ovf", top.join("inside")).unwrap();
    symlink("/etc/passwd", top.join("out.vmdk")).unwrap();
    symlink(&top, top.join("again")).unwrap();
    let found = Contents::of_folder(&top).unwrap();
    assert!(!found.plain && found.files.contains_key(&name("inside")));
    assert!(!found.files.contains_key(&name("again/w.ovf")));
    let e = found.get(&name("out.vmdk")).unwrap_err();
    assert!(e.to_string().contains("leads out of it"), "{e}");

    fs::write(top.join("sub/v.OVF"), "x").unwrap();
    let e = Contents::of_folder(&top).unwrap().ovf(None).unwrap_err().to_string();
    assert!(e.contains("sub/v.OVF and w.ovf"), "{e}");
    let (folder, chosen) = locate(&top.join("w.ovf")).unwrap();
    assert_eq!(Contents::of_folder(&folder).unwrap().ovf(chosen.as_ref()).unwrap(), name("w.ovf"));
    fs::remove_file(top.join("w.ovf")).unwrap();
    fs::remove_file(top.join("sub/v.OVF")).unwrap();
    let e = Contents::of_folder(&top).unwrap().ovf(None).unwrap_err();
    assert!(matches!(e, OvaError::NoOvf { .. }), "{e:?}");
}

#[test]
fn disks_are_found_under_the_names_that_tools_give_them() {
    let one = ovf(&[("d 1.vmdk", "")]);
    let found = disks(&package("s/w.ovf", &one, &["s/w.ovf", "s/d 1.vmdk"])).unwrap();
    assert_eq!(found, [["s/d 1.vmdk"]]);
    let encoded = ovf(&[("d%201.vmdk", "")]);
    assert_eq!(disks(&package("w.ovf", &encoded, &["d 1.vmdk"])).unwrap(), [["d 1.vmdk"]]);
    let snapshot = package("w.ovf", &one, &["d 1.vmdk.000000003", "d 1.vmdk.000000007"]);
    assert_eq!(disks(&snapshot).unwrap(), [["d 1.vmdk.000000007"]]);
    let chunks = ovf(&[("d.vmdk", "ovf:chunkSize=\"10\"")]);
    let files = ["d.vmdk.000000001", "d.vmdk.000000000", "d.vmdk.txt"];
    let found = disks(&package("w.ovf", &chunks, &files)).unwrap();
    assert_eq!(found, [["d.vmdk.000000000", "d.vmdk.000000001"]]);
    let e = disks(&package("w.ovf", &chunks, &["d.vmdk.000000000", "d.vmdk.000000002"]));
    assert!(matches!(e, Err(OvaError::Piece { missing: 1, .. })), "{e:?}");
}

#[test]
fn a_missing_disk_and_a_reference_out_are_errors() {
    let mut cut = package("w.ovf", &ovf(&[("d.vmdk", "")]), &["w.ovf"]);
    cut.contents.cut = true;
    let e = disks(&cut).unwrap_err().to_string();
    assert!(e.contains("names the disk d.vmdk") && e.contains("truncated"), "{e}");
    for bad in ["/dev/sda", "../../etc/shadow", "https://x/d.vmdk"] {
        let e = disks(&package("w.ovf", &ovf(&[(bad, "")]), &["w.ovf"])).unwrap_err();
        assert!(matches!(e, OvaError::Reference { .. }), "{e:?}");
    }
}

#[test]
fn files_that_are_too_short_are_errors() {
    let short = |attributes: &str, files: &[(&str, u64)]| {
        let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        let mut package = package("w.ovf", &ovf(&[("d.vmdk", attributes)]), &names);
        for (file, size) in files {
            package.contents.files.get_mut(&name(file)).unwrap().size = *size;
        }
        package.check_sizes(&package.disk_files().unwrap()).is_err()
    };
    let size = "ovf:size=\"25\"";
    assert!(short(size, &[("d.vmdk", 24)]) && !short(size, &[("d.vmdk", 25)]));
    assert!(!short("", &[("d.vmdk", 0)]) && !short("ovf:size=\"${x}\"", &[("d.vmdk", 0)]));
    let (a, b, c) = ("d.vmdk.000000000", "d.vmdk.000000001", "d.vmdk.000000002");
    let chunks = "ovf:size=\"25\" ovf:chunkSize=\"10\"";
    assert!(!short(chunks, &[(a, 10), (b, 10), (c, 5)]));
    assert!(short(chunks, &[(a, 10), (b, 10)]), "the last is missing");
    assert!(short("ovf:chunkSize=\"10\"", &[(a, 9), (b, 10), (c, 5)]));
    // One that was left behind does no harm where a checksum is compared.
    let pieces = [(name("d.vmdk"), Piece::file("/x".into(), 24))];
    let contents = Contents::of_files("x.ova".to_owned(), pieces.into());
    let text = ovf(&[("d.vmdk", size)]);
    for (listed, is_error) in [("d.vmdk", false), ("other.vmdk", true)] {
        let manifest = format!("SHA1({listed})= {}\n", "0".repeat(40)).into_bytes();
        let manifests = [(name("w.mf"), manifest)];
        let package =
            Package::new(contents.clone(), name("w.ovf"), text.as_bytes(), &manifests).unwrap();
        let checked = package.check_sizes(&package.disk_files().unwrap());
        assert_eq!(checked.is_err(), is_error, "{listed}");
    }
    // That size may be the one before compressing.
    assert!(!short("ovf:size=\"25\" ovf:compression=\"gzip\"", &[("d.vmdk", 9)]));
}

#[test]
fn forms_are_told_apart() {
    let mut tar = ::tar::Header::new_old();
    tar.set_size(1);
    tar.set_cksum();
    assert_eq!(kind("x", tar.as_bytes()).unwrap(), Kind::Tar);
    assert_eq!(kind("x", b"\x1f\x8b\x08").unwrap(), Kind::Packed(Packing::Gzip));
    assert_eq!(kind("x", b"\xfd7zXZ\0").unwrap(), Kind::Packed(Packing::Xz));
    assert_eq!(kind("x", b"PK\x03\x04").unwrap(), Kind::Packed(Packing::Zip));
    assert_eq!(kind("x", b"\xef\xbb\xbf<?xml").unwrap(), Kind::Ovf);
    assert!(kind("x", b"BZh9").unwrap_err().to_string().contains("bzip2"));
    assert!(kind("x", &[0; 512]).is_err() && kind("x", b"").is_err());
}

proptest! {
    #[test]
    fn no_beginning_makes_it_panic(head in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = kind("x", &head);
    }
}
