use super::super::ovf::tests::ovf;
use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use liblzma::write::XzEncoder;
use std::path::PathBuf;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

fn room(free: u64) -> Room {
    Room { free, cancelled: Arc::default() }
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(io::Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Unpacks into a new folder.
fn unpacked(
    packing: Packing,
    bytes: &[u8],
    room: Room,
) -> (tempfile::TempDir, Result<(), OvaError>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.ova");
    fs::write(&file, bytes).unwrap();
    let result = archive(packing, &file, &dir.path().join("out"), room);
    (dir, result)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn every_packing_gives_the_files_that_are_needed() {
    let ovf = ovf(&[("d.vmdk", "")]);
    let files: [(&str, &[u8]); 4] =
        [("w.ovf", ovf.as_bytes()), ("w.mf", b""), ("readme.txt", b"no"), ("d.vmdk", b"disk")];
    let tar = tar_of(&files);
    for (packing, bytes) in
        [(Packing::Gzip, gzip(&tar)), (Packing::Xz, xz(&tar)), (Packing::Zip, zip_of(&files))]
    {
        let (dir, result) = unpacked(packing, &bytes, room(1 << 30));
        result.unwrap();
        let out = dir.path().join("out");
        assert_eq!(names(&out), ["d.vmdk", "w.mf", "w.ovf"], "{packing:?}");
        assert_eq!(fs::read(out.join("d.vmdk")).unwrap(), b"disk");
    }
}

#[test]
fn a_bomb_stops_at_its_limit() {
    let zeros = vec![0; 200 << 20];
    let ovf = ovf(&[("d.vmdk", "")]);
    let files: [(&str, &[u8]); 2] = [("w.ovf", ovf.as_bytes()), ("d.vmdk", &zeros)];
    // The description says 64 MiB.
    for (packing, bytes) in [(Packing::Gzip, gzip(&tar_of(&files))), (Packing::Zip, zip_of(&files))]
    {
        let (dir, result) = unpacked(packing, &bytes, room(1 << 40));
        assert!(matches!(result, Err(OvaError::Bomb { .. })), "{packing:?}: {result:?}");
        assert_eq!(names(&dir.path().join("out")), ["w.ovf"]);
    }
    // Without a description only the space is a limit.
    let (dir, result) = unpacked(Packing::Gzip, &gzip(&tar_of(&files[1..])), room(9 << 20));
    assert!(matches!(result, Err(OvaError::NoRoom { bytes: 209_715_200, .. })), "{result:?}");
    assert!(names(&dir.path().join("out")).is_empty());
}

#[test]
fn a_compressed_disk_is_limited_by_its_capacity() {
    let dir = tempfile::tempdir().unwrap();
    let packed = dir.path().join("d.gz");
    fs::write(&packed, gzip(&vec![0; 100 << 20])).unwrap();
    let pieces = || vec![Piece::file(packed.clone(), fs::metadata(&packed).unwrap().len())];
    let into = |name: &str| -> PathBuf { dir.path().join(name) };
    let small = disk("d", pieces(), true, &into("a"), Some(1 << 20), &mut room(1 << 40));
    assert!(matches!(small, Err(OvaError::Bomb { .. })), "{small:?}");
    assert!(fs::metadata(into("a")).unwrap().len() < 70 << 20);
    let full = disk("d", pieces(), true, &into("b"), None, &mut room(10 << 20));
    assert!(matches!(full, Err(OvaError::NoRoom { .. })), "{full:?}");
    disk("d", pieces(), true, &into("c"), Some(100 << 20), &mut room(1 << 40)).unwrap();
    assert_eq!(fs::metadata(into("c")).unwrap().len(), 100 << 20);
}

#[test]
fn pieces_become_one_disk() {
    let dir = tempfile::tempdir().unwrap();
    let packed = gzip(b"the whole disk");
    let (a, b) = packed.split_at(9);
    let pieces = [("a", a), ("b", b)].map(|(name, bytes)| {
        fs::write(dir.path().join(name), bytes).unwrap();
        Piece::file(dir.path().join(name), bytes.len() as u64)
    });
    let into = dir.path().join("disk");
    disk("d", pieces.to_vec(), true, &into, None, &mut room(1 << 20)).unwrap();
    assert_eq!(fs::read(into).unwrap(), b"the whole disk");
}

#[test]
fn damaged_archives_are_errors() {
    let ovf = ovf(&[("d.vmdk", "")]);
    let tar = tar_of(&[("w.ovf", ovf.as_bytes()), ("d.vmdk", &vec![7; 100_000])]);
    for (packing, bytes) in [(Packing::Gzip, gzip(&tar)), (Packing::Xz, xz(&tar))] {
        let cut = &bytes[..bytes.len() / 2];
        assert!(unpacked(packing, cut, room(1 << 30)).1.is_err(), "{packing:?}");
    }
    assert!(unpacked(Packing::Zip, b"PK\x03\x04 and nothing", room(1 << 30)).1.is_err());
    let bad = zip_of(&[("../../etc/x.ovf", b"")]);
    let e = unpacked(Packing::Zip, &bad, room(1 << 30)).1.unwrap_err();
    assert!(datapath::error_chain(&e).contains("leads out of the OVA"), "{e:?}");
    let twice = tar_of(&[("d", b"1"), ("./d", b"2")]);
    let e = unpacked(Packing::Gzip, &gzip(&twice), room(1 << 30)).1.unwrap_err();
    assert!(datapath::error_chain(&e).contains("two files with the name d"), "{e:?}");
}

#[test]
fn nothing_is_written_when_nobody_waits() {
    let mut room = room(1 << 30);
    room.cancelled = Arc::new(AtomicBool::new(true));
    let mut out = Vec::new();
    let result = room.fill("x", &mut &b"abc"[..], &mut out, 9);
    assert!(matches!(result, Err(OvaError::Cancelled)) && out.is_empty());
}

#[test]
fn what_is_not_needed_is_read_with_a_limit_and_only_while_somebody_waits() {
    let dir = tempfile::tempdir().unwrap();
    let ovf_text = ovf(&[("d.vmdk", "")]);
    let files: [(&str, &[u8]); 3] = [
        ("w.ovf", ovf_text.as_bytes()),
        ("a.iso", &vec![0; 3 << 20]),
        ("b.iso", &vec![0; 3 << 20]),
    ];
    let read = |ballast, files: &[(&str, &[u8])], room, ovf, into: &str| {
        let into = dir.path().join(into);
        Out { into: &into, room, ballast, ovf }.tar("x.ova", io::Cursor::new(tar_of(files)))
    };
    read(6 << 20, &files, room(1 << 30), None, "enough").unwrap();
    let e = read(5 << 20, &files, room(1 << 30), None, "less").unwrap_err();
    assert!(matches!(&e, OvaError::Bomb { what, .. } if what.contains("besides")), "{e}");
    let mut nobody = room(1 << 30);
    nobody.cancelled = Arc::new(AtomicBool::new(true));
    let known = Some((Name::parse(b"w.ovf").unwrap(), Ovf::parse(ovf_text.as_bytes()).unwrap()));
    let e = read(9 << 20, &files[1..], nobody, known, "nobody").unwrap_err();
    assert!(matches!(e, OvaError::Cancelled), "{e}");
}
