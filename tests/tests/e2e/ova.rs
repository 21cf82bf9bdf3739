//! OVAs: a whole guest out of an archive on a web server, and what is found before one is converted.

use super::preflight::preflight;
use super::{DATA_BYTES, NO_APPLIANCE, ROOMY, nothing_is_left};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use v2v_pod_tests::e2e::lab::{free_port, lab, turn};
use v2v_pod_tests::e2e::pod::{INSPECTING, LONG, Pod, Request, SHORT};
use v2v_pod_tests::e2e::vcenter::described;
use v2v_pod_tests::e2e::volume::{MIB, Scratch, files_with, must, same_bytes};
use v2v_pod_tests::ova::{OvfDisk, PASSWORD, USER, Web, manifest, ovf, stream_optimized, tar};

/// Writes a small OVA with one empty disk of 64 MiB; its files are beside it.
fn small(dir: &Path, name: &str, members: &[&str]) {
    let raw = dir.join("disk.img");
    fs::File::create(&raw).unwrap().set_len(DATA_BYTES).unwrap();
    stream_optimized(&raw, &dir.join("disk.vmdk"));
    fs::write(dir.join("web.ovf"), ovf("web", &[OvfDisk::new("disk.vmdk", DATA_BYTES)])).unwrap();
    manifest(dir, "web.mf", "SHA256", &["web.ovf", "disk.vmdk"]);
    tar(dir, "ustar", &dir.join(name), members);
}

/// The secret of a pod that reads from this server.
fn secrets(scratch: &Scratch, web: &Web) {
    let dir = scratch.folder("secrets");
    fs::write(dir.join("accessKeyId"), USER).unwrap();
    fs::write(dir.join("secretKey"), format!("{PASSWORD}\n")).unwrap();
    fs::copy(web.ca(), dir.join("cacert")).unwrap();
}

fn pod(scratch: &Scratch, place: &str) -> Request {
    Request::new(&scratch.path("work"))
        .mount_read_only(&scratch.path("secrets"), "/etc/secret")
        .envs(&[("V2V_source", "ova"), ("V2V_vmName", "e2e-guest"), ("V2V_diskPath", place)])
        .env("LOCAL_MIGRATION", "false")
}

/// Whether a process of this machine shows the text.
fn is_shown(text: &str) -> bool {
    let holds = |file: &Path| {
        fs::read(file).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
    };
    let mut processes = fs::read_dir("/proc").unwrap().flatten().map(|e| e.path());
    processes.any(|p| holds(&p.join("cmdline")) || holds(&p.join("environ")))
}

#[test]
fn a_guest_comes_out_of_an_archive_on_a_web_server() {
    let (lab, _turn) = (lab(), turn());
    let (scratch, web) = (Scratch::new(), Web::start(free_port()));
    let (work, disk1) = (scratch.folder("work"), scratch.folder("disk1"));
    secrets(&scratch, &web);
    let block = scratch.block("block0", ROOMY);
    let files = scratch.folder("files");
    let disks = ["boot", "data"].map(|name| format!("My guest-{name}.vmdk"));
    for (name, vmdk) in ["boot.img", "data.img"].iter().zip(&disks) {
        stream_optimized(&lab.guest.join(name), &files.join(vmdk));
    }
    let described_disks =
        [OvfDisk::new(&disks[0], super::BOOT_BYTES), OvfDisk::new(&disks[1], DATA_BYTES)];
    // Its name there is not the one in the pod's settings.
    fs::write(files.join("My guest.ovf"), ovf("My guest", &described_disks)).unwrap();
    let members = ["My guest.ovf", "My guest.mf", &disks[0], &disks[1]];
    manifest(&files, "My guest.mf", "SHA256", &[members[0], members[2], members[3]]);
    let ova = web.dir().join("My guest.ova");
    tar(&files, "gnu", &ova, &members);
    let size = fs::metadata(&ova).unwrap().len();
    fs::remove_dir_all(&files).unwrap();

    let url = web.url("private/My%20guest.ova?signature=not-for-the-log");
    let mut pod = pod(&scratch, &url).block(0, &block).folder(1, &disk1).start();
    let namespace = pod.namespace();
    pod.until_log(INSPECTING, LONG);
    let sent = web.sent("guest.ova");
    pod.check(sent < size / 2, format_args!("{sent} of {size} bytes were read for looking at it"));
    pod.check(!is_shown(PASSWORD), "the password is on no command line, in no environment");
    let kept = files_with(&work, "must-not-be-seen");
    pod.check(kept.is_empty(), format_args!("the password is in no file, but in {kept:?}"));
    pod.ends_with(0, LONG);
    let about = described(&mut pod);
    let is_so = about["transport"] == "https" && about["trust"] == "ca" && about["source"] == "ova";
    pod.check(is_so, format_args!("{about}"));
    let same = same_bytes(&lab.guest.join("data.img"), &disk1.join("disk.img"), DATA_BYTES);
    pod.check(same, "the data disk is the same");
    let table = ["-p", "-o", "value", "-s", "PTTYPE"];
    let table = must(Command::new("blkid").args(table).arg(&block.node));
    pod.check(table == "dos", format_args!("the boot disk has a partition table: {table}"));
    let inspection = fs::read_to_string(work.join("v2v/inspection.xml")).unwrap_or_default();
    pod.check(inspection.contains("<name>linux</name>"), "the result was inspected");
    let yaml = fs::read_to_string(work.join("v2v/e2e-guest.yaml")).unwrap_or_default();
    let yaml: Value = serde_saphyr::from_str(&yaml).unwrap_or_default();
    pod.check(yaml["metadata"]["name"] == "e2e-guest", format_args!("the VM's name: {yaml}"));
    let shown = ["must-not-be-seen", "not-for-the-log"].map(|t| {
        // virt-v2v's own trace names no URL: it reads from sockets.
        pod.log().lines().find(|l| l.contains(t)).unwrap_or_default().to_owned()
    });
    pod.check(shown.concat().is_empty(), format_args!("no secret in the log: {shown:?}"));
    nothing_is_left(&mut pod, &work, &namespace);
}

#[test]
fn preflight_opens_ovas_of_every_form() {
    let (_lab, _turn) = (lab(), turn());
    let (scratch, web) = (Scratch::new(), Web::start(free_port()));
    let (_work, source) = (scratch.folder("work"), scratch.folder("source"));
    secrets(&scratch, &web);
    small(&source, "web.ova", &["web.ovf", "web.mf", "disk.vmdk"]);
    let at = |name: &str| source.join(name).display().to_string();
    must(Command::new("gzip").args(["-k", &at("web.ova")]));
    let cut = fs::read(source.join("web.ova")).unwrap();
    fs::write(source.join("cut.ova"), &cut[..cut.len() - 20_000]).unwrap();
    fs::copy(source.join("web.ova"), web.dir().join("web.ova")).unwrap();
    let (fits, tight) =
        (scratch.block("fits", DATA_BYTES), scratch.block("tight", DATA_BYTES - MIB));
    let local = |name: &str| format!("/source/{name}");
    let cases = [
        (local("web.ova"), &fits, 33, "web.ova: 1 disk(s)"),
        (local("web.ova.gz"), &fits, 33, "unpacked: 1 disk(s)"),
        (web.url("private/web.ova"), &fits, 33, "web.ova: 1 disk(s)"),
        (local("web.ova"), &tight, 20, "disk 0 has 67108864 bytes, but /dev/block0"),
        (web.url("web.ova"), &tight, 20, "disk 0 has 67108864 bytes, but /dev/block0"),
        (local("cut.ova"), &fits, 35, "truncated"),
        (web.url("none.ova"), &fits, 24, "does not exist"),
        (web.url("whole/web.ova"), &fits, 64, "does not serve parts"),
        ("nfs://server/web.ova".to_owned(), &fits, 64, "not from nfs://"),
    ];
    for (place, block, code, message) in cases {
        let request = pod(&scratch, &place).mount_read_only(&source, "/source");
        let request = request.envs(&[NO_APPLIANCE]).block(0, block);
        if code == 64 && place.starts_with("nfs") {
            let mut pod = request.command(&["preflight"]).start();
            pod.ends_with(code, SHORT);
            continue;
        }
        let (mut pod, found_code, findings) = preflight(request);
        let found = findings.iter().any(|(check, _, m)| check == "source" && m.contains(message));
        pod.check(found, format_args!("{place}: {message} is found: {findings:?}"));
        // 33: nothing is wrong but the appliance, which is not to start here.
        pod.check(found_code == code, format_args!("{place}: {code}, not {found_code}"));
    }
}

#[test]
fn virt_v2v_takes_what_it_is_given_and_compares_checksums() {
    let (_lab, _turn) = (lab(), turn());
    let scratch = Scratch::new();
    for name in ["work", "secrets", "disk0"] {
        scratch.folder(name);
    }
    let source = scratch.folder("source");
    small(&source, "web.ova", &["web.ovf", "web.mf", "disk.vmdk"]);
    small(&source, "dots.ova", &["./web.ovf", "./web.mf", "./disk.vmdk"]);
    let read_only =
        |request: Request| request.mount_read_only(&source, "/source").envs(&[NO_APPLIANCE]);
    for name in ["web.ova", "dots.ova"] {
        let out = scratch.folder(&format!("out-{name}"));
        let request = read_only(Request::new(&scratch.path("work"))).mount(&out, "/out");
        let words = ["convert", "--log-format", "json", "-v", "-i", "ova"];
        let mut pod =
            request.command(&words).command(&[&format!("/source/{name}"), "--to", "/out"]).start();
        // The disk is open, and the appliance is to look at it.
        pod.ends_with(40, SHORT);
        let opened = pod.log().contains("Opening the source");
        pod.check(opened, format_args!("virt-v2v opens {name}"));
    }
    // Not by us: virt-v2v reads the whole archive for it anyway.
    let mut bytes = fs::read(source.join("web.ova")).unwrap();
    let at = bytes.len() - 12_000;
    bytes[at] ^= 1;
    fs::write(source.join("web.ova"), bytes).unwrap();
    let mut pod =
        read_only(self::pod(&scratch, "/source/web.ova")).folder(0, &scratch.path("disk0")).start();
    let message = pod.fails_with(38, "integrity", SHORT);
    pod.check(message.contains("disk.vmdk"), format_args!("the file is named: {message}"));
    untouched(&mut pod, &scratch.path("disk0/disk.img"));
}

fn untouched(pod: &mut Pod, image: &Path) {
    let bytes = fs::metadata(image).map_or(0, |m| m.len());
    pod.check(bytes == 0, format_args!("{} has {bytes} bytes", image.display()));
}
