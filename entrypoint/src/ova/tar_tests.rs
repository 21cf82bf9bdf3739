use super::*;
use proptest::prelude::*;
use std::io::Cursor;
use tar::{Builder, Header};

fn listed(bytes: &[u8]) -> Result<Listing, TarError> {
    list(Cursor::new(bytes), bytes.len() as u64)
}

type Raw<'a> = (EntryType, &'a [u8], &'a [u8]);

fn header(kind: EntryType, name: &[u8], size: u64) -> Header {
    let mut header = Header::new_gnu();
    // Written raw: the library itself refuses the names that matter here.
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

fn archive(entries: &[Raw<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, content) in entries {
        builder.append(&header(*kind, name, content.len() as u64), *content).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn files_are_found_where_they_are() {
    let long = format!("{}/disk.vmdk", "a".repeat(150));
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(3);
    builder.append_data(&mut header.clone(), "web.ovf", &b"ovf"[..]).unwrap();
    header.set_size(5);
    builder.append_data(&mut header, &long, &b"disk!"[..]).unwrap();
    let bytes = builder.into_inner().unwrap();
    let found = listed(&bytes).unwrap();
    assert!(found.has_end);
    let names: Vec<&str> = found.members.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["web.ovf", &long]);
    let at = usize::try_from(found.members[1].offset).unwrap();
    assert_eq!((&bytes[at..at + 5], found.members[1].size), (&b"disk!"[..], 5));
}

#[test]
fn a_leading_dot_is_remembered() {
    let bytes = archive(&[
        (EntryType::Directory, b"./", b""),
        (EntryType::Regular, b"./web.ovf", b"x"),
        (EntryType::Regular, b"d.vmdk", b"x"),
    ]);
    let found = listed(&bytes).unwrap().members;
    assert_eq!((found[0].name.as_str(), found[0].as_written), ("web.ovf", false));
    assert!(found[1].as_written);
}

#[test]
fn what_no_ova_has_is_refused() {
    let file = EntryType::Regular;
    let cases: [(&[Raw<'_>], &str); 8] = [
        (&[(file, b"../x.ovf", b"")], "leads out of the OVA"),
        (&[(file, b"/etc/passwd", b"")], "absolute name"),
        (&[(file, b"a/../../b", b"")], "leads out"),
        (&[(file, b"a", b""), (file, b"./a", b"")], "two files with the name a"),
        (&[(EntryType::Symlink, b"l", b"")], "l in it is a link"),
        (&[(EntryType::Link, b"l", b"")], "a link"),
        (&[(EntryType::Block, b"sda", b"")], "a device"),
        (&[(EntryType::Directory, b"../", b"")], "leads out"),
    ];
    for (entries, part) in cases {
        let e = listed(&archive(entries)).unwrap_err().to_string();
        assert!(e.contains(part), "{e}");
    }
}

/// A record of an extended header.
fn record(text: &str) -> Vec<u8> {
    let length = (text.len() + 3..text.len() + 9)
        .find(|n| n.to_string().len() + text.len() + 2 == *n)
        .unwrap();
    format!("{length} {text}\n").into_bytes()
}

#[test]
fn what_programs_read_differently_is_refused_or_remembered() {
    let (global, local) = (EntryType::XGlobalHeader, EntryType::XHeader);
    let with = |kind, records: &[&str]| {
        let records: Vec<u8> = records.iter().flat_map(|r| record(r)).collect();
        archive(&[(kind, b"h", &records), (EntryType::Regular, b"a.ovf", b"x")])
    };
    for (bytes, unusual) in [
        (with(global, &["comment=0123"]), false),
        (with(global, &["mtime=1"]), true),
        (with(local, &["path=b.ovf", "size=1", "mtime=1"]), false),
        (with(local, &["mtime=1", "mtime=2"]), true),
        (with(local, &["path=b.ovf", "path=b.ovf"]), true),
    ] {
        assert_eq!(listed(&bytes).unwrap().unusual, unusual);
    }
    let damaged = [record("path=a"), b" 9 path=b\n".to_vec()].concat();
    let file: Raw<'_> = (EntryType::Regular, b"a.ovf", b"x");
    let comment = record("comment=1");
    let hidden = record("path=b.ovf");
    // macOS and `tar --xattrs` write values as they are, with line feeds in them.
    assert!(listed(&archive(&[(local, b"h", &damaged), file])).unwrap().unusual);
    assert!(listed(&with(local, &["SCHILY.xattr.user.t=a\n\nb", "mtime=1"])).unwrap().unusual);
    for bytes in [
        with(global, &["path=b.ovf"]),
        with(global, &["size=0"]),
        with(global, &["GNU.sparse.name=b"]),
        with(local, &["path=a", "path=b"]),
        with(local, &["size=1", "size=0"]),
        with(local, &["size=+1"]),
        with(local, &[" path=b"]),
        archive(&[(local, b"h", &hidden), (global, b"g", &comment), file]),
        archive(&[(EntryType::GNULongName, b"l", b"long\0"), (local, b"h", &hidden), file]),
    ] {
        let e = listed(&bytes).unwrap_err();
        assert!(matches!(e, TarError::Ambiguous { .. }) && !e.is_damage(), "{e}");
    }
}

#[test]
fn a_truncated_archive_names_the_file() {
    let bytes = archive(&[
        (EntryType::Regular, b"web.ovf", b"ovf"),
        (EntryType::Regular, b"d.vmdk", &[7; 3000]),
    ]);
    let e = listed(&bytes[..2000]).unwrap_err();
    assert!(
        matches!(&e, TarError::Truncated { name, bytes: 2000, .. } if name.as_str() == "d.vmdk")
    );
    // Between two files it looks whole, but for its end.
    assert!(!listed(&bytes[..1024]).unwrap().has_end);
    assert!(
        matches!(listed(&bytes[..1100]), Err(TarError::Broken { after, .. }) if after == "web.ovf")
    );
}

#[test]
fn a_huge_header_is_not_read() {
    let mut bytes = header(EntryType::GNULongName, b"././@LongLink", 2 << 30).as_bytes().to_vec();
    bytes.resize(8 << 20, b'a');
    assert!(matches!(listed(&bytes), Err(TarError::Broken { .. })));
}

proptest! {
    #[test]
    fn every_file_is_found(files in proptest::collection::vec(("[a-z]{1,120}", 0..2000_usize), 0..8)) {
        let mut builder = Builder::new(Vec::new());
        for (i, (name, size)) in files.iter().enumerate() {
            let mut header = Header::new_ustar();
            header.set_size(*size as u64);
            let name = format!("{i}-{}", &name[..name.len().min(90)]);
            builder.append_data(&mut header, name, &vec![u8::try_from(i).unwrap(); *size][..]).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        let found = listed(&bytes).unwrap().members;
        prop_assert_eq!(found.len(), files.len());
        for (i, member) in found.iter().enumerate() {
            let range = usize::try_from(member.offset).unwrap()..usize::try_from(member.offset + member.size).unwrap();
            prop_assert!(bytes[range].iter().all(|b| usize::from(*b) == i));
        }
    }

    #[test]
    fn damage_never_panics(at in 0..2048_usize, byte in any::<u8>(), cut in 0..3000_usize) {
        let mut bytes = archive(&[(EntryType::Regular, b"a", &[1; 600]), (EntryType::Regular, b"b", &[2; 600])]);
        bytes[at] = byte;
        bytes.truncate(cut.max(1));
        if let Ok(listing) = listed(&bytes) {
            prop_assert!(listing.members.iter().all(|m| m.offset + m.size <= bytes.len() as u64));
        }
    }

    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = listed(&bytes);
    }
}
