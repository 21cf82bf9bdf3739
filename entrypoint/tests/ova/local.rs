//! OVAs on this machine, in every form.

use crate::lab::{CAPACITY, Lab};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use v2v_pod::failure::Class;
use v2v_pod::ova::{Login, Verify};
use v2v_pod::sources::answer::{Answer, Disk, Nic};
use v2v_pod_tests::ova::{OvfDisk, manifest, must, tar};

#[tokio::test]
async fn plain_archives_and_folders_go_to_virt_v2v_as_they_are() {
    let lab = Lab::new();
    manifest(&lab.files(), "web.mf", "SHA256", &["web.ovf", "disk.vmdk"]);
    for form in ["ustar", "gnu", "pax", "v7"] {
        let ova = lab.at(&format!("{form}.ova"));
        tar(&lab.files(), form, &ova, &["web.ovf", "web.mf", "disk.vmdk"]);
        let source = lab.open(&ova).await.good();
        assert_eq!((&source.path, &source.sizes), (&ova, &vec![CAPACITY]), "{form}");
        assert_eq!((source.name.as_deref(), source.transport), (Some("web"), "file"));
    }
    assert_eq!(lab.open(lab.files()).await.good().path, lab.files());
    assert_eq!(lab.open(lab.files().join("web.ovf")).await.good().path, lab.files());
}

#[tokio::test]
async fn others_are_read_where_they_are_through_overlays() {
    let lab = Lab::new();
    // As `tar -C folder -cf x.ova .` writes names.
    let dots = lab.at("dots.ova");
    tar(&lab.files(), "gnu", &dots, &["./web.ovf", "./disk.vmdk"]);
    lab.is_same(&lab.open(&dots).await.good());

    // A global header that a program may heed or not.
    let global = lab.at("global.ova");
    let pax = |option: &str| {
        let option = format!("--pax-option={option}");
        tar(&lab.files(), "pax", &global, &[&option, "web.ovf", "disk.vmdk"]);
    };
    pax("comment=harmless");
    assert_eq!(lab.open(&global).await.good().path, global);
    pax("gname=somebody");
    lab.is_same(&lab.open(&global).await.good());

    // virt-v2v would give this name to tar, as an option.
    let evil = "--checkpoint-action=exec=false .ovf";
    fs::rename(lab.files().join("web.ovf"), lab.files().join(evil)).unwrap();
    let ova = lab.at("evil.ova");
    tar(&lab.files(), "gnu", &ova, &["disk.vmdk", &format!("--add-file={evil}")]);
    lab.is_same(&lab.open(&ova).await.good());
    fs::remove_file(lab.files().join(evil)).unwrap();

    let long = format!("{}/disk ü 1.vmdk", "long".repeat(40));
    fs::create_dir(lab.files().join("long".repeat(40))).unwrap();
    fs::rename(lab.files().join("disk.vmdk"), lab.files().join(&long)).unwrap();
    lab.describe(&[OvfDisk::new(&long, CAPACITY)]);
    for form in ["gnu", "pax"] {
        let ova = lab.at(&format!("long-{form}.ova"));
        tar(&lab.files(), form, &ova, &["web.ovf", &long]);
        fs::set_permissions(&ova, fs::Permissions::from_mode(0o444)).unwrap();
        let source = lab.open(&ova).await.good();
        lab.is_same(&source);
        // Nothing was copied.
        let used = must(Command::new("du").arg("-sm").arg(source.path.parent().unwrap()));
        assert!(used.split_whitespace().next().unwrap().parse::<u64>().unwrap() < 2, "{used}");
    }
    lab.is_same(&lab.open(lab.files()).await.good());
}

#[tokio::test]
async fn compressed_archives_are_unpacked() {
    let lab = Lab::new();
    manifest(&lab.files(), "web.mf", "SHA512", &["web.ovf", "disk.vmdk"]);
    let ova = lab.at("web.ova");
    tar(&lab.files(), "ustar", &ova, &["web.ovf", "web.mf", "disk.vmdk"]);
    must(Command::new("gzip").arg("-k").arg(&ova));
    must(Command::new("xz").arg("-k0").arg(&ova));
    let zip = ["-m", "zipfile", "-c", "../web.zip", "disk.vmdk", "web.mf", "web.ovf"];
    must(Command::new("python3").args(zip).current_dir(lab.files()));
    for name in ["web.ova.gz", "web.ova.xz", "web.zip"] {
        let opened = lab.open(lab.at(name)).await;
        assert!(opened.report.to_text().contains("2 checksum(s)"), "{}", opened.report.to_text());
        let source = opened.good();
        assert_eq!(source.sizes, [CAPACITY], "{name}");
        let disk = fs::read(source.path.join("disk.vmdk")).unwrap();
        assert!(disk == fs::read(lab.files().join("disk.vmdk")).unwrap(), "{name}");
    }
    let gz = fs::read(lab.at("web.ova.gz")).unwrap();
    fs::write(lab.at("cut.ova.gz"), &gz[..gz.len() / 2]).unwrap();
    let failure = lab.open(lab.at("cut.ova.gz")).await.failure();
    assert_eq!(failure.class, Class::Io, "{failure}");
    let bad = ["-m", "zipfile", "-c", "../bad.zip", "disk.vmdk"];
    must(Command::new("python3").args(bad).current_dir(lab.files()));
    let failure = lab.open(lab.at("bad.zip")).await.failure();
    assert!(failure.class == Class::NotFound && failure.message.contains("no .ovf"), "{failure}");
}

#[tokio::test]
async fn compressed_disks_and_pieces_are_put_together() {
    let lab = Lab::new();
    let files = lab.files();
    must(Command::new("gzip").arg(files.join("disk.vmdk")));
    let gzip = OvfDisk {
        attributes: r#"ovf:compression="gzip""#,
        ..OvfDisk::new("disk.vmdk.gz", CAPACITY)
    };
    lab.describe(&[gzip]);
    let ova = lab.at("gz.ova");
    tar(&files, "ustar", &ova, &["web.ovf", "disk.vmdk.gz"]);
    lab.is_same(&lab.open(&ova).await.good());

    let split = ["-b", "1000000", "-d", "-a", "9", "disk.vmdk.gz", "disk.vmdk.gz."];
    must(Command::new("split").args(split).current_dir(&files));
    fs::remove_file(files.join("disk.vmdk.gz")).unwrap();
    let attributes = r#"ovf:compression="gzip" ovf:chunkSize="1000000""#;
    lab.describe(&[OvfDisk { attributes, ..gzip }]);
    lab.is_same(&lab.open(&files).await.good());
    // As if the last one were missing.
    let longer = format!("{attributes} ovf:size=\"{CAPACITY}\"");
    lab.describe(&[OvfDisk { attributes: &longer, ..gzip }]);
    let failure = lab.open(&files).await.failure();
    assert!(failure.class == Class::Io && failure.message.contains("cut off"), "{failure}");
    lab.describe(&[OvfDisk { attributes, ..gzip }]);
    fs::remove_file(files.join("disk.vmdk.gz.000000001")).unwrap();
    let failure = lab.open(&files).await.failure();
    assert!(failure.message.contains("piece 1 is missing"), "{failure}");

    // What unpacks to more than the description says.
    fs::write(files.join("zeros"), vec![0; 200 << 20]).unwrap();
    must(Command::new("gzip").arg(files.join("zeros")));
    let bomb =
        OvfDisk { attributes: r#"ovf:compression="gzip""#, ..OvfDisk::new("zeros.gz", CAPACITY) };
    lab.describe(&[bomb]);
    let failure = lab.open(&files).await.failure();
    assert!(
        failure.class == Class::Config && failure.message.contains("becomes larger"),
        "{failure}"
    );
}

#[tokio::test]
async fn what_the_manifest_says_is_compared() {
    let lab = Lab::new();
    let files = lab.files();
    manifest(&files, "web.mf", "SHA512", &["web.ovf", "disk.vmdk"]);
    let login = Login::default();
    let always = lab.open_as(&files, Verify::Always, &login, None).await;
    always.good();
    let mut disk = fs::read(files.join("disk.vmdk")).unwrap();
    *disk.last_mut().unwrap() ^= 1;
    fs::write(files.join("disk.vmdk"), disk).unwrap();
    let expected = fs::read_to_string(files.join("web.mf")).unwrap();
    let expected = expected.lines().last().unwrap().rsplit(' ').next().unwrap().to_owned();
    let found = must(Command::new("sha512sum").arg(files.join("disk.vmdk")));
    let failure = lab.open(&files).await.failure();
    assert_eq!(failure.class, Class::Integrity);
    for part in ["disk.vmdk", "web.mf", &expected, found.split(' ').next().unwrap()] {
        assert!(failure.message.contains(part), "{part}: {failure}");
    }
    // Never means that virt-v2v does not do it either: it gets no manifest.
    manifest(&files, "web.mf", "SHA256", &["web.ovf"]);
    let source = lab.open_as(&files, Verify::Never, &login, None).await.good();
    assert!(source.path.join("guest.ovf").exists() && !source.path.join("web.mf").exists());
    let failure = lab.open_as(&files, Verify::Always, &login, None).await.failure();
    assert!(failure.message.contains("no manifest in"), "{failure}");
    fs::write(files.join("web.mf"), "MD5(web.ovf)= 00\n").unwrap();
    let failure = lab.open(&files).await.failure();
    assert!(failure.message.contains("\"MD5\""), "{failure}");
    lab.open_as(&files, Verify::Never, &login, None).await.good();
}

#[tokio::test]
async fn a_disk_that_points_elsewhere_is_refused() {
    let lab = Lab::new();
    let files = lab.files();
    let image = |args: &[&str]| must(Command::new("qemu-img").args(args).current_dir(&files));
    fs::write(lab.at("secret.img"), vec![7; 1 << 20]).unwrap();
    let backing = ["-F", "raw", "-b", "../secret.img"];
    image(&[&["create", "-q", "-f", "qcow2"][..], &backing, &["disk.qcow2"]].concat());
    let refused = |name: &str, format: &str| {
        let text = v2v_pod_tests::ova::ovf("web", &[OvfDisk::new(name, CAPACITY)]);
        let vmdk = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";
        fs::write(files.join("web.ovf"), text.replace(vmdk, format)).unwrap();
    };
    refused("disk.qcow2", "http://www.gnome.org/~markmc/qcow-image-format.html");
    let failure = lab.open(&files).await.failure();
    assert!(
        failure.class == Class::Config && failure.message.contains("backing file"),
        "{failure}"
    );
    fs::rename(files.join("disk.qcow2"), files.join("disk.vmdk")).unwrap();
    lab.describe(&[OvfDisk::new("disk.vmdk", CAPACITY)]);
    let failure = lab.open(&files).await.failure();
    assert!(failure.message.contains("does not begin like one"), "{failure}");
    // A descriptor with an extent outside.
    let descriptor = "# Disk DescriptorFile\nversion=1\nCID=123\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 2048 FLAT \"../secret.img\" 0\n";
    fs::write(files.join("disk.vmdk"), descriptor).unwrap();
    let failure = lab.open(&files).await.failure();
    assert!(failure.class == Class::Config && failure.message.contains("extent"), "{failure}");
    // The same for every beginning that qemu takes for one, whatever the description says of the format.
    let secret = lab.at("secret.img");
    let body = "CID=123\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 2048 FLAT";
    for begin in ["version=1\n", "\n# x\nversion=1\n"] {
        let text = format!("{begin}{body} \"{}\" 0\n", secret.display());
        fs::write(files.join("disk.vmdk"), text).unwrap();
        for format in ["", "http://www.vmware.com/interfaces/specifications/vmdk.html"] {
            refused("disk.vmdk", format);
            let failure = lab.open(&files).await.failure();
            assert!(
                failure.class == Class::Config && failure.message.contains("extent"),
                "{failure}"
            );
        }
    }
    let ova = lab.at("descriptor.ova");
    tar(&files, "ustar", &ova, &["web.ovf", "disk.vmdk"]);
    let failure = lab.open(&ova).await.failure();
    assert!(failure.message.contains("only names other files"), "{failure}");
}

#[tokio::test]
async fn a_disk_that_is_cut_off_is_no_disk() {
    let lab = Lab::new();
    let files = lab.files();
    let disk = fs::read(files.join("disk.vmdk")).unwrap();
    let attributes = format!("ovf:size=\"{}\"", disk.len());
    lab.describe(&[OvfDisk { attributes: &attributes, ..OvfDisk::new("disk.vmdk", CAPACITY) }]);
    lab.open(&files).await.good();
    fs::write(files.join("disk.vmdk"), &disk[..disk.len() - 512]).unwrap();
    let failure = lab.open(&files).await.failure();
    assert!(failure.class == Class::Io && failure.message.contains("cut off"), "{failure}");

    fs::copy(lab.at("disk.img"), files.join("disk.raw")).unwrap();
    let text = v2v_pod_tests::ova::ovf("web", &[OvfDisk::new("disk.raw", CAPACITY)]);
    let vmdk = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";
    fs::write(files.join("web.ovf"), text.replace(vmdk, "")).unwrap();
    lab.is_same(&lab.open(&files).await.good());
    let raw = fs::File::options().write(true).open(files.join("disk.raw")).unwrap();
    raw.set_len(CAPACITY - 512).unwrap();
    let failure = lab.open(&files).await.failure();
    assert!(failure.class == Class::Io && failure.message.contains("cut off"), "{failure}");
}

#[tokio::test]
async fn broken_ovas_are_told_apart() {
    let lab = Lab::new();
    let ova = lab.at("web.ova");
    tar(&lab.files(), "ustar", &ova, &["web.ovf", "disk.vmdk"]);
    let whole = fs::read(&ova).unwrap();
    let failure = async |name: &str, bytes: &[u8]| {
        fs::write(lab.at(name), bytes).unwrap();
        lab.open(lab.at(name)).await.failure()
    };
    let cut = failure("cut.ova", &whole[..whole.len() / 2]).await;
    assert!(cut.class == Class::Io && cut.message.contains("truncated: disk.vmdk"), "{cut}");
    let second = 512 + fs::metadata(lab.at("files/web.ovf")).unwrap().len().next_multiple_of(512);
    let only_ovf = failure("only.ova", &whole[..usize::try_from(second).unwrap()]).await;
    assert!(
        only_ovf.class == Class::NotFound && only_ovf.message.contains("truncated"),
        "{only_ovf}"
    );
    let empty = failure("empty.ova", b"").await;
    assert!(empty.class == Class::Config && empty.message.contains("empty.ova"), "{empty}");
    assert!(failure("x.ova", b"7z\xbc\xaf\x27\x1c").await.message.contains("7z"));
    let missing = lab.open(lab.at("no.ova")).await.failure();
    assert!(missing.class == Class::NotFound && missing.message.contains("web.ova"), "{missing}");

    std::os::unix::fs::symlink("disk.vmdk", lab.at("files/link.vmdk")).unwrap();
    tar(&lab.files(), "ustar", &ova, &["web.ovf", "link.vmdk"]);
    let link = lab.open(&ova).await.failure();
    assert!(link.class == Class::Config && link.message.contains("link.vmdk"), "{link}");
    let absolute = |name: &str| {
        let mut command = Command::new("tar");
        must(command.args(["-cPf"]).arg(&ova).arg(Path::new("/etc").join(name)));
    };
    absolute("hostname");
    assert!(lab.open(&ova).await.failure().message.contains("absolute name"));
    fs::copy(lab.at("files/web.ovf"), lab.at("files/other.ovf")).unwrap();
    let two = lab.open(lab.files()).await.failure();
    assert!(two.message.contains("other.ovf and web.ovf"), "{two}");
    // virt-v2v would not know which.
    let chosen = lab.open(lab.files().join("web.ovf")).await.good();
    assert!(chosen.path.join("guest.ovf").exists());
}

#[tokio::test]
async fn what_is_in_an_ova_is_told_without_its_checksums() {
    let lab = Lab::new();
    let files = lab.files();
    manifest(&files, "web.mf", "SHA512", &["web.ovf", "disk.vmdk"]);
    let answer = |href: &str| Answer {
        name: Some("web".to_owned()),
        uuid: None,
        disks: vec![Disk { bytes: CAPACITY, name: Some(href.to_owned()) }],
        nics: vec![Nic::of(Some("00:50:56:aa:bb:0a"), Some("VM Network"))],
    };
    let ova = lab.at("web.ova");
    tar(&files, "gnu", &ova, &["web.ovf", "web.mf", "disk.vmdk"]);
    assert_eq!(lab.look(&ova).await, Ok(answer("disk.vmdk")));
    must(Command::new("gzip").arg("-k").arg(&ova));
    assert_eq!(lab.look(lab.at("web.ova.gz")).await, Ok(answer("disk.vmdk")));
    let right = fs::read_to_string(files.join("web.mf")).unwrap();
    let (text, last) = right.trim_end().split_at(right.trim_end().len() - 1);
    let other = if last == "0" { "1" } else { "0" };
    fs::write(files.join("web.mf"), format!("{text}{other}\n")).unwrap();
    assert_eq!(lab.look(&files).await, Ok(answer("disk.vmdk")));
    assert_eq!(lab.open(&files).await.failure().class, Class::Integrity);

    must(Command::new("gzip").arg(files.join("disk.vmdk")));
    let attributes = r#"ovf:compression="gzip""#;
    lab.describe(&[OvfDisk { attributes, ..OvfDisk::new("disk.vmdk.gz", CAPACITY) }]);
    assert_eq!(lab.look(&files).await, Ok(answer("disk.vmdk.gz")));
    fs::remove_file(files.join("disk.vmdk.gz")).unwrap();
    assert_eq!(lab.look(&files).await.unwrap_err().class, Class::NotFound);
}
