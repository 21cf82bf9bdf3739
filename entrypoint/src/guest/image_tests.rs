use super::*;
use proptest::prelude::*;

const QCOW2: &[u8] = b"QFI\xfb\0\0\0\x03";
const VHDX: &[u8] = b"vhdxfileQ\0E\0";
const VHD: &[u8] = b"conectix\0\0\0\x02";
const VMDK: &[u8] = b"KDMV\x01\0\0\0";
const DESCRIPTOR: &[u8] = b"# Disk DescriptorFile\nversion=1\n";

fn vdi() -> Vec<u8> {
    [&[b'<'; 64][..], VDI_MAGIC, b"\x01\0\x01\0"].concat()
}

fn decide(path: &str, header: &[u8]) -> Result<ImageFormat, ImageError> {
    decide_format(Path::new(path), None, header, false)
}

#[test]
fn names_go_both_ways() {
    for format in [
        ImageFormat::Raw,
        ImageFormat::Qcow2,
        ImageFormat::Vmdk,
        ImageFormat::Vhdx,
        ImageFormat::Vpc,
        ImageFormat::Vdi,
    ] {
        assert_eq!(format.to_string().parse::<ImageFormat>().unwrap(), format);
    }
    assert_eq!("VHD".parse::<ImageFormat>().unwrap(), ImageFormat::Vpc);
    let error = "qed".parse::<ImageFormat>().unwrap_err().to_string();
    assert_eq!(error, "unknown image format \"qed\": use raw, qcow2, vmdk, vhdx, vpc or vdi");
}

#[test]
fn name_and_content_agree() {
    for (path, header, format) in [
        ("/s/a.img", &b""[..], ImageFormat::Raw),
        ("/s/a.RAW", b"\xeb\x63\x90", ImageFormat::Raw),
        ("/s/a.bin", b"\0\0", ImageFormat::Raw),
        ("/s/vm-sda", b"\xeb\x63", ImageFormat::Raw),
        ("/s/a.qcow2", QCOW2, ImageFormat::Qcow2),
        ("/s/a.qcow", QCOW2, ImageFormat::Qcow2),
        ("/s/a.vmdk", VMDK, ImageFormat::Vmdk),
        ("/s/a.vmdk", DESCRIPTOR, ImageFormat::Vmdk),
        ("/s/a.vhdx", VHDX, ImageFormat::Vhdx),
        ("/s/a.vhd", VHD, ImageFormat::Vpc),
        // A fixed VHD: the mark is at the end only.
        ("/s/a.vhd", b"\xeb\x63\x90", ImageFormat::Vpc),
        ("/s/a.VPC", b"", ImageFormat::Vpc),
        ("/s/a.vdi", &vdi(), ImageFormat::Vdi),
        ("/s/a.vmdk", b"# \r\n \r\n\nversion=1\r\n", ImageFormat::Vmdk),
    ] {
        assert_eq!(decide(path, header).unwrap(), format, "{path}");
    }
}

#[test]
fn a_raw_disk_does_not_choose_its_own_format() {
    for path in ["/s/a.img", "/s/a.raw", "/s/a.bin", "/s/vm-sda", "/s/a.iso"] {
        for header in [QCOW2, VMDK, DESCRIPTOR, VHDX, VHD, &vdi(), b"\n# x\nversion=3\n"] {
            let error = decide(path, header).unwrap_err();
            assert!(matches!(error, ImageError::Ambiguous { .. }), "{path}: {error}");
            assert!(error.to_string().contains("--format raw or --format "), "{error}");
        }
    }
    let error = decide("/s/a.img", b"QED\0").unwrap_err();
    assert!(matches!(error, ImageError::Foreign { .. }), "{error}");
    // The name of a device node means nothing either.
    let error = decide_format(Path::new("/dev/a.qcow2"), None, QCOW2, true).unwrap_err();
    assert!(matches!(error, ImageError::Ambiguous { found: ImageFormat::Qcow2, .. }));
    let qcow2 = decide_format(Path::new("/dev/block0"), Some(ImageFormat::Qcow2), QCOW2, true);
    assert_eq!(qcow2.unwrap(), ImageFormat::Qcow2);
    let raw = decide_format(Path::new("/dev/block0"), Some(ImageFormat::Raw), QCOW2, true);
    assert_eq!(raw.unwrap(), ImageFormat::Raw);
}

#[test]
fn a_name_that_lies_is_refused() {
    for (path, header) in [
        ("/s/a.qcow2", &b"\xeb\x63"[..]),
        ("/s/a-flat.vmdk", b"\xeb\x63"),
        ("/s/a.vmdk", QCOW2),
        ("/s/a.vhdx", VHD),
        ("/s/a.vhd", QCOW2),
        ("/s/a.vhdx", b""),
    ] {
        let error = decide(path, header).unwrap_err();
        assert!(matches!(error, ImageError::NotAsNamed { .. }), "{path}: {error}");
    }
    let text = decide("/s/a.vmdk", QCOW2).unwrap_err().to_string();
    assert!(text.starts_with("/s/a.vmdk is named as vmdk but starts like qcow2: give --format"));
}

fn info(json: &str) -> ImageInfo {
    ImageInfo::parse(json.as_bytes()).unwrap()
}

fn refused(info: &ImageInfo, allow_backing: bool) -> Option<ExternalKind> {
    match refuse_external(info, allow_backing) {
        Ok(()) => None,
        Err(ImageError::External { kind, .. }) => Some(kind),
        Err(other) => panic!("{other}"),
    }
}

const PLAIN: &str = r#"{
    "children": [{"name": "file", "info": {"children": [], "virtual-size": 197120,
        "filename": "/s/a.qcow2", "format": "file", "actual-size": 200704,
        "format-specific": {"type": "file", "data": {}}, "dirty-flag": false}}],
    "virtual-size": 1073741824, "filename": "/s/a.qcow2", "cluster-size": 65536, "format": "qcow2",
    "actual-size": 200704,
    "format-specific": {"type": "qcow2", "data": {"compat": "1.1", "compression-type": "zlib",
        "lazy-refcounts": false, "refcount-bits": 16, "corrupt": false, "extended-l2": false}},
    "dirty-flag": false}"#;

#[test]
fn a_plain_image_is_accepted() {
    let info = info(PLAIN);
    assert_eq!((info.virtual_size, info.actual_size), (1 << 30, Some(200_704)));
    assert_eq!((info.format.as_str(), info.encrypted), ("qcow2", false));
    assert_eq!(refused(&info, false), None);
}

#[test]
fn backing_and_data_files_are_refused() {
    let mut with = info(PLAIN);
    with.backing_filename = Some("base.qcow2".into());
    assert_eq!(refused(&with, false), Some(ExternalKind::BackingFile));
    assert_eq!(refused(&with, true), None);
    assert_eq!(
        refuse_external(&with, false).unwrap_err().to_string(),
        "/s/a.qcow2 refers to the backing file \"base.qcow2\": flatten it first, with `qemu-img convert`"
    );
    for anywhere in ["json:{\"driver\":\"file\"}", "nbd://10.0.0.1/x", "fat:/etc"] {
        with.backing_filename = Some(anywhere.into());
        assert_eq!(refused(&with, true), Some(ExternalKind::Protocol));
    }

    let json = PLAIN.replace("\"corrupt\"", "\"data-file\": \"/dev/sda\", \"corrupt\"");
    assert_eq!(refused(&info(&json), true), Some(ExternalKind::DataFile));
    let json = PLAIN.replace("\"cluster-size\"", "\"full-backing-filename\": \"/b\", \"x\"");
    assert_eq!(refused(&info(&json), false), Some(ExternalKind::BackingFile));
    let json = r#"{"filename": "json:{}", "format": "raw", "virtual-size": 1}"#;
    assert_eq!(refused(&info(json), true), Some(ExternalKind::Protocol));
}

#[test]
fn vmdk_extents_must_lie_beside_the_descriptor() {
    let vmdk = |extents: &str| {
        info(&format!(
            r#"{{"filename": "/s/vm.vmdk", "format": "vmdk", "virtual-size": 512, "format-specific":
               {{"type": "vmdk", "data": {{"cid": 1, "create-type": "monolithicFlat", "extents": [{extents}]}}}}}}"#
        ))
    };
    assert_eq!(refused(&vmdk(r#"{"filename": "/s/vm.vmdk"}"#), false), None);
    let two = vmdk(r#"{"filename": "/s/vm-f001.vmdk"}, {"filename": "/s/vm-f002.vmdk"}"#);
    assert_eq!(refused(&two, false), None);
    for outside in ["/etc/shadow", "/s/../etc/shadow", "/s/sub/x", "x", "/s/..", "/"] {
        let info = vmdk(&format!(r#"{{"filename": "/s/vm.vmdk"}}, {{"filename": "{outside}"}}"#));
        assert_eq!(refused(&info, false), Some(ExternalKind::Extent), "{outside}");
        assert_eq!(refused(&info, true), None, "{outside}");
    }
    let info = vmdk(r#"{"filename": "nbd:unix:/s"}"#);
    assert_eq!(refused(&info, true), Some(ExternalKind::Protocol));
}

#[test]
fn unexpected_json_is_an_error_not_a_pass() {
    for json in [
        "",
        "[]",
        "{}",
        "null",
        "3",
        r#"{"filename": "a", "format": "raw"}"#,
        r#"{"filename": "a", "format": "raw", "virtual-size": -1}"#,
        r#"{"filename": "a", "format": "raw", "virtual-size": 1, "backing-filename": ["b"]}"#,
        r#"{"filename": "a", "format": "x", "virtual-size": 1, "format-specific": {"data": {"extents": 1}}}"#,
        r#"{"filename": "a", "format": "x", "virtual-size": 1, "format-specific": {"data": {"extents": [{}]}}}"#,
    ] {
        assert!(ImageInfo::parse(json.as_bytes()).is_err(), "{json}");
    }
}

fn any_format() -> impl Strategy<Value = Option<ImageFormat>> {
    proptest::option::of(prop_oneof![
        Just(ImageFormat::Raw),
        Just(ImageFormat::Qcow2),
        Just(ImageFormat::Vmdk),
        Just(ImageFormat::Vhdx),
        Just(ImageFormat::Vpc),
        Just(ImageFormat::Vdi),
    ])
}

fn any_header() -> impl Strategy<Value = Vec<u8>> {
    let magic = prop_oneof![
        Just(&b""[..]),
        Just(QCOW2),
        Just(VMDK),
        Just(&b"COWD"[..]),
        Just(DESCRIPTOR),
        Just(VHDX),
        Just(VHD),
        Just(&b"#\nversion=1\n"[..]),
        Just(&b"QED\0"[..]),
    ];
    (magic, proptest::collection::vec(any::<u8>(), 0..64))
        .prop_map(|(magic, rest)| [magic, &rest[..]].concat())
}

const ANY_PATH: &str = "/[a-z.]{0,8}(\\.(img|raw|bin|qcow2|qcow|vmdk|vhdx|vhd|vpc|vdi|QCOW2|x))?";

proptest! {
    #[test]
    fn a_block_device_is_never_but_raw_unless_said(path in ANY_PATH, header in any_header()) {
        match decide_format(Path::new(&path), None, &header, true) {
            Ok(format) => prop_assert_eq!(format, ImageFormat::Raw),
            Err(error) => {
                let ambiguous =
                    matches!(error, ImageError::Ambiguous { .. } | ImageError::Foreign { .. });
                prop_assert!(ambiguous, "{}", error);
            }
        }
    }

    #[test]
    fn what_the_user_says_is_final(path in ANY_PATH, header in any_header(), format in any_format(), block: bool) {
        let decided = decide_format(Path::new(&path), format, &header, block);
        if let Some(format) = format {
            prop_assert_eq!(decided.unwrap(), format);
        }
    }

    /// Unless somebody named the format, content decides nothing: it agrees or it is refused.
    #[test]
    fn content_never_picks_the_format(path in ANY_PATH, one in any_header(), other in any_header(), block: bool) {
        let one = decide_format(Path::new(&path), None, &one, block);
        let other = decide_format(Path::new(&path), None, &other, block);
        if let (Ok(one), Ok(other)) = (one, other) {
            prop_assert_eq!(one, other);
        }
    }

    #[test]
    fn arbitrary_info_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..256), text in "\\PC{0,100}") {
        let _ = ImageInfo::parse(&bytes);
        let _ = ImageInfo::parse(text.as_bytes());
    }

    #[test]
    fn arbitrary_references_never_panic(filename in "\\PC{0,30}", extent in "\\PC{0,30}", backing in proptest::option::of("\\PC{0,30}")) {
        let info = ImageInfo { filename, extents: vec![extent], backing_filename: backing.clone(), ..info(PLAIN) };
        let verdict = refuse_external(&info, false);
        prop_assert!(backing.is_none() || verdict.is_err());
    }
}
