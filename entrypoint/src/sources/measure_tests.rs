use super::*;
use crate::rundir::RunDir;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

/// A folder with images made by the real qemu-img, and a toolbox that finds it.
struct Images {
    dir: tempfile::TempDir,
    toolbox: Toolbox,
    _run: RunDir,
}

impl Images {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").unwrap())]);
        let run = RunDir::create(dir.path()).unwrap();
        let toolbox = Toolbox::new(&env, &run, dir.path());
        Self { dir, toolbox, _run: run }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `qemu-img create` in the folder.
    fn create(&self, args: &[&str]) {
        let output = Command::new("qemu-img")
            .args(["create", "-q"])
            .args(args)
            .current_dir(self.dir.path())
            .output()
            .expect("qemu-img is installed (scripts/install-deps.sh)");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn measure(&self, name: &str, allow: bool) -> Result<Measured, Failure> {
        let image = Image { path: self.path(name), format: None };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(measure(&self.toolbox, &image, allow))
    }

    fn refused(&self, name: &str, allow: bool) -> (Class, String) {
        let failure = self.measure(name, allow).unwrap_err();
        (failure.class, failure.message)
    }
}

#[test]
fn each_format_is_measured() {
    let images = Images::new();
    for (name, args) in [
        ("a.img", &["-f", "raw"][..]),
        ("a.qcow2", &["-f", "qcow2"]),
        ("sparse.vmdk", &["-f", "vmdk"]),
        ("flat.vmdk", &["-f", "vmdk", "-o", "subformat=monolithicFlat"]),
        ("two.vmdk", &["-f", "vmdk", "-o", "subformat=twoGbMaxExtentFlat"]),
        ("twos.vmdk", &["-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"]),
        ("stream.vmdk", &["-f", "vmdk", "-o", "subformat=streamOptimized"]),
        ("a.vhdx", &["-f", "vhdx"]),
        ("a.vhd", &["-f", "vpc", "-o", "force_size"]),
        ("fixed.vhd", &["-f", "vpc", "-o", "subformat=fixed,force_size"]),
        ("a.vdi", &["-f", "vdi"]),
    ] {
        images.create(&[args, &[name, "8M"]].concat());
        let measured = images.measure(name, false).unwrap();
        assert_eq!(measured.size, 8 << 20, "{name}");
        let own = measured.files == [images.path(name)];
        let more = ["flat.vmdk", "two.vmdk", "twos.vmdk"].contains(&name);
        assert!(own != more, "{name}: {:?}", measured.files);
    }
    assert_eq!(
        images.measure("flat.vmdk", false).unwrap().files,
        [images.path("flat.vmdk"), images.path("flat-flat.vmdk")]
    );
}

#[test]
fn a_folder_is_no_disk() {
    assert_eq!(read_header(Path::new("/")).unwrap_err().class, Class::Config);
    assert_eq!(read_header(Path::new("/nonexistent")).unwrap_err().class, Class::NotFound);
}

#[test]
fn backing_files_are_followed_only_when_allowed_and_named_with_their_format() {
    let images = Images::new();
    images.create(&["-f", "raw", "base.img", "4M"]);
    images.create(&["-f", "qcow2", "-b", "base.img", "-F", "raw", "middle.qcow2"]);
    images.create(&["-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2", "top.qcow2"]);
    let (class, message) = images.refused("top.qcow2", false);
    assert!(
        class == Class::Config && message.contains("backing file \"middle.qcow2\""),
        "{message}"
    );
    let chain = images.measure("top.qcow2", true).unwrap();
    assert_eq!(chain.files, ["top.qcow2", "middle.qcow2", "base.img"].map(|n| images.path(n)));

    std::fs::remove_file(images.path("base.img")).unwrap();
    let (class, message) = images.refused("top.qcow2", true);
    assert!(class == Class::NotFound && message.contains("base.img does not exist"), "{message}");
    // The guest of a raw base could write a qcow2 header: the format must stand in the image.
    images.create(&["-f", "raw", "base.img", "4M"]);
    images.create(&["-f", "qcow2", "-u", "-b", "base.img", "-F", "raw", "probed.qcow2", "4M"]);
    // The header extension with the format becomes one that qemu does not know.
    let mut bytes = std::fs::read(images.path("probed.qcow2")).unwrap();
    let at = bytes.windows(4).position(|w| w == [0xe2, 0x79, 0x2a, 0xca]).unwrap();
    bytes[at..at + 4].fill(0x11);
    std::fs::write(images.path("probed.qcow2"), bytes).unwrap();
    let (_, message) = images.refused("probed.qcow2", true);
    assert!(message.contains("does not say which format"), "{message}");
    let advice = images.measure("probed.qcow2", true).unwrap_err().advice;
    assert!(advice.contains("-F FORMAT") && !advice.contains("-F raw"), "{advice}");
    // A circle: qemu-img writes what it is told when it does not look.
    images.create(&["-f", "qcow2", "-u", "-b", "two.qcow2", "-F", "qcow2", "one.qcow2", "4M"]);
    images.create(&["-f", "qcow2", "-u", "-b", "one.qcow2", "-F", "qcow2", "two.qcow2", "4M"]);
    let (_, message) = images.refused("one.qcow2", true);
    assert!(message.contains("lead back to"), "{message}");
}

#[test]
fn a_raw_base_with_the_header_of_another_format_is_refused() {
    let images = Images::new();
    images.create(&["-f", "qcow2", "base", "4M"]);
    images.create(&["-f", "qcow2", "-b", "base", "-F", "raw", "top.qcow2"]);
    let failure = images.measure("top.qcow2", true).unwrap_err();
    assert!(failure.message.contains("is raw, but it starts like qcow2"), "{failure}");
    assert!(failure.advice.contains("-F qcow2"));
    images.create(&["-f", "qcow2", "-b", "base", "-F", "qcow2", "top.qcow2"]);
    assert_eq!(images.measure("top.qcow2", true).unwrap().files.len(), 2);
}

#[test]
fn only_layers_are_counted_as_layers() {
    const EXTENTS: usize = LONGEST_CHAIN + 50;
    let images = Images::new();
    let mut text = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=1\n\
                    createType=\"twoGbMaxExtentFlat\"\nparentFileNameHint=\"base.vmdk\"\n"
        .to_owned();
    for n in 0..EXTENTS {
        std::fs::write(images.path(&format!("f{n}")), [0; 512]).unwrap();
        writeln!(text, "RW 1 FLAT \"f{n}\" 0").unwrap();
    }
    std::fs::write(images.path("top.vmdk"), text).unwrap();
    images.create(&["-f", "vmdk", "base.vmdk", "4M"]);
    assert_eq!(images.measure("top.vmdk", true).unwrap().files.len(), EXTENTS + 2);
}

/// A sparse VMDK that holds no data, but a descriptor behind its header.
fn hollow(descriptor: &str, length_sectors: u8) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[..4].copy_from_slice(b"KDMV");
    (bytes[4], bytes[28], bytes[36]) = (1, 1, length_sectors);
    bytes.extend(descriptor.as_bytes());
    bytes.resize(64 << 10, 0);
    bytes
}

#[test]
fn no_descriptor_in_disguise_leads_outside() {
    let images = Images::new();
    std::fs::create_dir(images.path("vm")).unwrap();
    std::fs::write(images.path("secret"), vec![7; 1 << 20]).unwrap();
    let head = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentSparse\"\n";
    let outside = format!("{head}RW 2048 FLAT \"../secret\" 0\n");
    let late = format!("{head}#{}\nRW 2048 FLAT \"../secret\" 0\n", "x".repeat(2000));
    // qemu follows the text whatever its length is said to be.
    for (text, length) in [(&outside, 0), (&outside, 1), (&late, 1)] {
        std::fs::write(images.path("vm/web.vmdk"), hollow(text, length)).unwrap();
        let (class, message) = images.refused("vm/web.vmdk", false);
        assert!(
            class == Class::Config && message.contains("the extent \"../secret\""),
            "{message}"
        );
        let files = images.measure("vm/web.vmdk", true).unwrap().files;
        assert_eq!(files[1..], [images.path("vm/../secret")]);
    }
    // A link with a plain name, seen by qemu-img alone until now.
    std::os::unix::fs::symlink(images.path("secret"), images.path("vm/link")).unwrap();
    let link = outside.replace("../secret", "link");
    std::fs::write(images.path("vm/web.vmdk"), hollow(&link, 0)).unwrap();
    let (_, message) = images.refused("vm/web.vmdk", false);
    assert!(message.contains("the symbolic link \"link\""), "{message}");
    // The same, one step further: as a sparse extent of a plain descriptor.
    let plain = format!("{head}RW 2048 SPARSE \"inner.vmdk\"\n");
    std::fs::write(images.path("vm/web.vmdk"), plain).unwrap();
    for inner in [hollow(&link, 0), hollow(&link, 1), link.clone().into_bytes()] {
        std::fs::write(images.path("vm/inner.vmdk"), inner).unwrap();
        for allow in [false, true] {
            let (class, message) = images.refused("vm/web.vmdk", allow);
            assert!(class == Class::Config && message.contains("no data of its own"), "{message}");
        }
    }
}

#[test]
fn what_qemu_opens_must_have_been_looked_at() {
    let images = Images::new();
    images.create(&["-f", "vmdk", "-o", "subformat=twoGbMaxExtentFlat", "two.vmdk", "4M"]);
    let (path, extent) = (images.path("two.vmdk"), images.path("two-f001.vmdk"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let info = runtime.block_on(ask_qemu(&images.toolbox, &path, ImageFormat::Vmdk)).unwrap();
    confirm(&path, &[extent], &info).unwrap();
    let message = confirm(&path, &[], &info).unwrap_err().message;
    assert!(message.contains("two-f001.vmdk as a part of"), "{message}");
}

#[test]
fn the_parent_of_a_vmdk_is_a_backing_file() {
    let images = Images::new();
    images.create(&["-f", "vmdk", "base.vmdk", "4M"]);
    images.create(&["-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "snap.vmdk"]);
    let (class, message) = images.refused("snap.vmdk", false);
    assert!(class == Class::Config && message.contains("backing file \"base.vmdk\""), "{message}");
    let chain = images.measure("snap.vmdk", true).unwrap();
    assert_eq!(chain.files, ["snap.vmdk", "base.vmdk"].map(|n| images.path(n)));
}

#[test]
fn extents_must_be_there_whole_and_beside_the_descriptor() {
    let images = Images::new();
    images.create(&["-f", "vmdk", "-o", "subformat=monolithicFlat", "web.vmdk", "8M"]);
    let (descriptor, flat) = (images.path("web.vmdk"), images.path("web-flat.vmdk"));
    let text = std::fs::read_to_string(&descriptor).unwrap();

    // qemu-img itself reads what is not there as zeros.
    File::options().write(true).open(&flat).unwrap().set_len(1 << 20).unwrap();
    let (class, message) = images.refused("web.vmdk", false);
    assert!(class == Class::Io && message.contains("has 1048576 bytes"), "{message}");

    std::fs::rename(&flat, images.path("moved")).unwrap();
    let (class, message) = images.refused("web.vmdk", false);
    assert!(class == Class::NotFound && message.contains("1 of 1 extent(s)"), "{message}");
    assert!(message.contains("web-flat.vmdk"), "{message}");

    images.create(&["-f", "raw", "whole", "8M"]);
    std::os::unix::fs::symlink(images.path("whole"), &flat).unwrap();
    let (_, message) = images.refused("web.vmdk", false);
    assert!(message.contains("the symbolic link \"web-flat.vmdk\""), "{message}");
    assert_eq!(images.measure("web.vmdk", true).unwrap().size, 8 << 20);

    let whole = images.path("whole").to_string_lossy().into_owned();
    for outside in ["../x/web-flat.vmdk", "sub/web-flat.vmdk", &whole] {
        std::fs::write(&descriptor, text.replace("web-flat.vmdk", outside)).unwrap();
        let (class, message) = images.refused("web.vmdk", false);
        assert!(
            class == Class::Config && message.contains(&format!("the extent {outside:?}")),
            "{message}"
        );
    }
    assert_eq!(images.measure("web.vmdk", true).unwrap().files[1], images.path("whole"));
    std::fs::write(&descriptor, text.replace("web-flat.vmdk", "nbd:localhost:1")).unwrap();
    let (_, message) = images.refused("web.vmdk", true);
    assert!(message.contains("the non-file \"nbd:localhost:1\""), "{message}");
    std::fs::write(&descriptor, text.replace("FLAT", "ZERO")).unwrap();
    let (_, message) = images.refused("web.vmdk", true);
    assert!(message.contains("ZERO is not read here"), "{message}");
}

#[test]
fn a_differencing_vhd_is_refused() {
    let images = Images::new();
    images.create(&["-f", "vpc", "-o", "force_size", "a.vhd", "8M"]);
    let mut bytes = std::fs::read(images.path("a.vhd")).unwrap();
    // Hyper-V writes 4 into both footers; one is enough for us, the checksum is only warned about.
    bytes[63] = 4;
    std::fs::write(images.path("a.vhd"), bytes).unwrap();
    let (class, message) = images.refused("a.vhd", true);
    assert!(class == Class::Config && message.contains("differencing"), "{message}");
}

#[test]
fn formats_may_differ_only_where_each_can_be_said() {
    let image = |name: &str, format| Measured {
        path: name.into(),
        format,
        size: 1,
        files: vec![name.into()],
    };
    let same = [image("/a", ImageFormat::Raw), image("/b", ImageFormat::Raw)];
    assert_eq!(common_format(&same), Some(ImageFormat::Raw));
    require_one_format(&same).unwrap();
    let mixed = [image("/a", ImageFormat::Raw), image("/b.vhdx", ImageFormat::Vhdx)];
    assert_eq!((common_format(&mixed), common_format(&[])), (None, None));
    let message = require_one_format(&mixed).unwrap_err().message;
    assert!(message.starts_with("/a is raw, but /b.vhdx is vhdx"), "{message}");
}
