use super::*;
use proptest::prelude::*;

fn descriptor(lines: &str) -> Result<Descriptor, VmdkError> {
    let text = format!("# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\n\n{lines}\n#DDB\n");
    Descriptor::parse(text.as_bytes())
}

fn extent_of(file: &str, least_bytes: u64) -> Extent {
    Extent { file: file.to_owned(), least_bytes, has_header: false }
}

#[test]
fn the_extents_of_each_kind_are_read() {
    let flat = descriptor("RW 4192256 FLAT \"web f1.vmdk\" 0\r\n  RW 10 FLAT \"web-f2.vmdk\" 2");
    assert_eq!(
        flat.unwrap().extents,
        [extent_of("web f1.vmdk", 4_192_256 * 512), extent_of("web-f2.vmdk", 12 * 512)]
    );
    let others =
        descriptor("RW 8 VMFS \"a-flat.vmdk\"\nRW 8 SPARSE \"a-s001.vmdk\"\nRW 8 SESPARSE \"é\"");
    assert_eq!(
        others.unwrap().extents,
        [
            extent_of("a-flat.vmdk", 4096),
            Extent { has_header: true, ..extent_of("a-s001.vmdk", 0) },
            extent_of("é", 0)
        ]
    );
    assert_eq!(descriptor("ddb.x = \"RW 1\"").unwrap(), Descriptor::default());
}

#[test]
fn what_qemu_leaves_out_is_refused() {
    for (line, word) in
        [("RW 8 ZERO", "ZERO"), ("RDONLY 8 FLAT \"a\" 0", "RDONLY"), ("rw 8 FLAT \"a\" 0", "rw")]
    {
        let error = descriptor(line).unwrap_err();
        assert!(matches!(&error, VmdkError::Unread { what, .. } if what == word), "{error}");
    }
    for line in [
        "RW",
        "RW x FLAT \"a\" 0",
        "RW 8 FLAT a 0",
        "RW 8 FLAT \"a",
        "RW 8 VMFS \"a\rb\"",
        "RW 8 FLAT \"a\" -1",
        "RW 18446744073709551615 FLAT \"a\" 1",
    ] {
        let error = descriptor(line).unwrap_err();
        assert!(matches!(error, VmdkError::Line { .. }), "{line}: {error}");
    }
    assert_eq!(Descriptor::parse(b"version=1\n\xff"), Err(VmdkError::NotText));
}

#[test]
fn a_parent_is_seen_wherever_it_is_mentioned() {
    let parent = |line: &str| descriptor(line).map(|d| d.parent);
    assert_eq!(parent("parentFileNameHint=\"web.vmdk\""), Ok(Some("web.vmdk".to_owned())));
    assert_eq!(parent("x parentfilenamehint = \"/a b\""), Ok(Some("/a b".to_owned())));
    assert_eq!(parent("parentFileNameHint=web.vmdk"), Err(VmdkError::Parent));
    assert_eq!(parent("parentFileNameHint=\"\""), Err(VmdkError::Parent));
}

#[test]
fn only_plain_names_are_beside_the_descriptor() {
    for (file, beside) in [
        ("a-flat.vmdk", true),
        ("a b:c", false),
        ("../a", false),
        ("sub/a", false),
        ("/etc/shadow", false),
        ("nbd:h:1", false),
        ("..", false),
        ("", false),
    ] {
        assert_eq!(extent_of(file, 0).is_beside(), beside, "{file}");
    }
    assert!(extent_of("json:{}", 0).is_remote() && !extent_of("/a:b", 0).is_remote());
}

#[test]
fn the_descriptor_in_a_sparse_file_is_found() {
    let mut header = vec![0; 512];
    header[..4].copy_from_slice(b"KDMV");
    header[12] = 1;
    assert!(holds_data(&header) && holds_data(b"COWD") && !holds_data(b"# Disk"));
    assert_eq!(embedded(&header), None);
    header[28] = 1;
    assert_eq!(embedded(&header), None, "it has no length, and its text is not followed");
    header[36] = 20;
    assert_eq!(embedded(&header), Some((512, 20 * 512)));
    header[36..44].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    assert_eq!(embedded(&header), Some((512, DESCRIPTOR_BYTES)));
    assert_eq!((embedded(b"KDMV"), embedded(b"# Disk DescriptorFile")), (None, None));

    // Without capacity it is only a descriptor, and the length does not count.
    header[12] = 0;
    for length in [0, 1, u64::MAX] {
        header[36..44].copy_from_slice(&length.to_le_bytes());
        assert!(!holds_data(&header));
        assert_eq!(embedded(&header), Some((512, DESCRIPTOR_BYTES)), "{length}");
    }
    // 64 bits are all that qemu keeps of the place.
    header[35] = 0x80;
    assert_eq!(embedded(&header), Some((512, DESCRIPTOR_BYTES)));
    header[28..36].fill(0);
    assert_eq!(embedded(&header), None);
}

proptest! {
    #[test]
    fn arbitrary_descriptors_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), text in "\\PC{0,200}") {
        let _ = embedded(&bytes);
        let _ = Descriptor::parse(&bytes);
        let _ = descriptor(&text);
    }

    /// Whatever the name: it is read as it is written, and one with a path is never beside.
    #[test]
    fn names_are_read_as_they_are_written(name in "[^\"\\r\\n\\x00]{1,40}", sectors in 0_u64..1 << 40) {
        prop_assume!(!name.to_ascii_lowercase().contains("parentfilenamehint"));
        let read = descriptor(&format!("RW {sectors} FLAT \"{name}\" 0")).unwrap().extents;
        prop_assert_eq!(&read, &[extent_of(&name, sectors * 512)]);
        prop_assert!(!(name.contains('/') && read[0].is_beside()));
    }

    #[test]
    fn a_parent_is_never_missed(before in "[a-z =\"\\n]{0,20}", name in "[^\"\\x00]{1,20}", after in "\\PC{0,20}") {
        let text = format!("{before}parentFileNameHint=\"{name}\"{after}");
        let parent = Descriptor::parse(text.as_bytes()).map(|d| d.parent);
        prop_assert!(!matches!(parent, Ok(None)));
    }
}
