//! Local disks: mixed formats in one run, backing files, VMDK descriptors, libvirt domain files.

use super::{BOOT_BYTES, DATA_BYTES, NO_APPLIANCE, ROOMY, boots, nothing_is_left};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use v2v_pod_tests::e2e::lab::{lab, turn};
use v2v_pod_tests::e2e::pod::{LONG, Pod, Request, SHORT};
use v2v_pod_tests::e2e::volume::{MIB, Scratch, must};

fn qemu_img(folder: &Path, args: &[&str]) {
    must(Command::new("qemu-img").args(args).current_dir(folder));
}

fn sha256(file: &Path) -> String {
    let line = must(Command::new("sha256sum").arg(file));
    line.split(' ').next().unwrap_or_default().to_owned()
}

/// A qcow2 that holds only changes to the lab's boot disk, as the pod sees it.
fn overlay(folder: &Path) {
    let size = BOOT_BYTES.to_string();
    qemu_img(
        folder,
        &[
            "create",
            "-q",
            "-u",
            "-f",
            "qcow2",
            "-b",
            "/guest/boot.img",
            "-F",
            "raw",
            "boot.qcow2",
            &size,
        ],
    );
}

#[test]
fn disks_of_three_formats_become_one_guest() {
    let (lab, _turn) = (lab(), turn());
    let scratch = Scratch::new();
    let (work, source) = (scratch.folder("work"), scratch.folder("source"));
    overlay(&source);
    let data = lab.guest.join("data.img");
    let data = data.to_string_lossy();
    let flat = ["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentFlat"];
    qemu_img(&source, &[&flat[..], &[&data, "data.vmdk"]].concat());
    let random: Vec<u8> = (0..(8 << 20) / 32).flat_map(bytes_of).collect();
    let more = scratch.path("more.img");
    fs::write(&more, random).unwrap();
    qemu_img(
        &source,
        &["convert", "-f", "raw", "-O", "vhdx", &more.to_string_lossy(), "more.vhdx"],
    );
    let before: Vec<String> = sums(&source);

    let block = scratch.block("block0", ROOMY);
    let (disk1, disk2) = (scratch.folder("disk1"), scratch.folder("disk2"));
    let mut pod = Request::new(&work)
        .mount_read_only(&lab.guest, "/guest")
        .mount_read_only(&source, "/source")
        .block(0, &block)
        .folder(1, &disk1)
        .folder(2, &disk2)
        .command(&["convert", "/source/boot.qcow2", "/source/data.vmdk", "/source/more.vhdx"])
        .command(&["--allow-backing", "--name", "mixed", "--out", "/var/tmp/out", "--to"])
        .command(&["/dev/block0", "/mnt/disks/disk1", "/mnt/disks/disk2/more.img"])
        .start();
    let namespace = pod.namespace();
    pod.ends_with(0, LONG);
    let (one, two) = (disk1.join("disk.img"), disk2.join("more.img"));
    let same = fs::metadata(&one).unwrap().len() == DATA_BYTES
        && sha256(&one) == sha256(&lab.guest.join("data.img"));
    pod.check(same, "the volume of the VMDK has its bytes");
    pod.check(sha256(&two) == sha256(&more), "the file of the VHDX has its bytes");
    pod.check(sums(&source) == before, "the sources are as they were");
    let yaml = fs::read_to_string(work.join("out/mixed.yaml")).unwrap();
    let claims = yaml.matches("claimName:").count();
    pod.check(claims == 3, format_args!("the VirtualMachine has three disks: {yaml}"));
    nothing_is_left(&mut pod, &work, &namespace);
    boots(&block);
}

/// 32 bytes that differ from those of all other numbers.
fn bytes_of(number: u64) -> [u8; 32] {
    let mut state = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = [0; 32];
    for word in bytes.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn sums(folder: &Path) -> Vec<String> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| format!("{} {}", file.display(), sha256(file))).collect()
}

/// `convert` with what the test needs, which must end in preflight with this code and message.
#[track_caller]
fn refused(request: Request, code: i32, message: &str) -> Pod {
    let mut pod = request.envs(&[NO_APPLIANCE]).start();
    pod.ends_with(code, SHORT);
    let said = pod.log().contains(message);
    pod.check(said, format_args!("the log says {message:?}"));
    let started = pod.log().contains("\"phase\":\"convert\"");
    pod.check(!started, "virt-v2v was not started");
    pod
}

#[test]
fn local_disks_that_must_not_be_read_are_refused() {
    let (lab, _turn) = (lab(), turn());
    let scratch = Scratch::new();
    let (work, source, out) =
        (scratch.folder("work"), scratch.folder("source"), scratch.folder("out"));
    overlay(&source);
    let flat = ["create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat"];
    qemu_img(&source, &[&flat[..], &["data.vmdk", "4M"]].concat());
    let descriptor = fs::read_to_string(source.join("data.vmdk")).unwrap();
    let outside = descriptor.replace("data-flat.vmdk", "/etc/passwd");
    fs::write(source.join("outside.vmdk"), outside).unwrap();
    let lost = descriptor.replace("data-flat.vmdk", "lost-flat.vmdk");
    fs::write(source.join("lost.vmdk"), lost).unwrap();
    let convert = |disks: &[&str], more: &[&str]| {
        Request::new(&work)
            .mount_read_only(&lab.guest, "/guest")
            .mount_read_only(&source, "/source")
            .mount(&out, "/out")
            .command(&["convert"])
            .command(disks)
            .command(more)
            .command(&["--to", "/out"])
    };
    let overlay = "/source/boot.qcow2";
    let backing = "refers to the backing file \\\"/guest/boot.img\\\"";
    refused(convert(&[overlay], &[]), 64, backing);
    refused(
        convert(&[overlay, "/source/outside.vmdk"], &["--allow-backing"]),
        35,
        "it is not complete",
    );
    refused(
        convert(&["/guest/data.img", "/source/outside.vmdk"], &[]),
        64,
        "refers to the extent \\\"/etc/passwd\\\"",
    );
    refused(convert(&["/source/lost.vmdk"], &[]), 24, "1 of 1 extent(s)");
    // The file below an overlay is the source, too.
    let writable = scratch.folder("writable");
    fs::write(writable.join("base.img"), [0; 4096]).unwrap();
    let create = ["create", "-q", "-f", "qcow2", "-b", "base.img", "-F", "raw", "top.qcow2"];
    qemu_img(&writable, &create);
    let request = Request::new(&work)
        .mount(&writable, "/w")
        .command(&["convert", "/w/top.qcow2", "--allow-backing", "--out", "/var/tmp"])
        .command(&["--to", "/w/base.img"]);
    refused(request, 64, "target /w/base.img is the source itself");
    let left: Vec<_> = fs::read_dir(&out).unwrap().collect();
    assert!(left.is_empty(), "nothing was written: {left:?}");
}

fn domain(disks: &str) -> String {
    format!(
        "<domain type='kvm'><name>x</name><memory unit='KiB'>1048576</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64'>hvm</type></os><devices>{disks}</devices></domain>"
    )
}

#[test]
fn the_disks_of_a_domain_file_are_checked_like_others() {
    let (lab, _turn) = (lab(), turn());
    let scratch = Scratch::new();
    let (work, source) = (scratch.folder("work"), scratch.folder("source"));
    let mut block = scratch.block("block0", 1024 * MIB);
    block.mark();
    let disk = |file: &str, driver: &str| {
        format!(
            "<disk type='file' device='disk'>{driver}<source file='{file}'/><target dev='vda'/></disk>"
        )
    };
    overlay(&source);
    let network = "<disk type='network' device='disk'><source protocol='rbd' name='p/i'/>\
                   <target dev='vdb'/></disk>";
    let convert = |xml: &str| {
        fs::write(source.join("guest.xml"), xml).unwrap();
        Request::new(&work)
            .mount_read_only(&lab.guest, "/guest")
            .mount_read_only(&source, "/source")
            .block(0, &block)
            .command(&["convert", "-i", "libvirtxml", "/source/guest.xml"])
            .command(&["--to", "/dev/block0", "--out", "/var/tmp/out"])
    };
    let raw = "<driver name='qemu' type='raw'/>";
    let qcow2 = "<driver name='qemu' type='qcow2'/>";
    let boot = disk("/guest/boot.img", raw);
    let data = disk("/guest/data.img", "");
    let both = format!("{boot}{data}");
    refused(convert(&domain(&boot)), 20, "1610612736");
    refused(convert(&domain(&both)), 20, "the source has 2 disk(s), but there are 1 volume(s)");
    refused(convert(&domain(&format!("{boot}{network}"))), 64, "a network disk (rbd)");
    // Relative to the XML file, and no driver to say what it is: name and content do.
    refused(convert(&domain(&disk("boot.qcow2", ""))), 64, "refers to the backing file");
    refused(convert(&domain(&disk("/guest/boot.img", qcow2))), 35, "cannot be read as qcow2");
    refused(convert("no domain"), 64, "/source/guest.xml");
    assert!(block.is_untouched(), "the volume has its old content");
}
