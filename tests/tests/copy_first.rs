//! A pod that copies first: killed, stopped and failing where it hurts, then started again with the same volumes and
//! journals. The engine, qemu-nbd and qemu-img are the real ones, virt-v2v-in-place and the inspector are scripts. Each
//! pod has `/dev` and `/mnt` of its own (a mount namespace), so this needs root. With real guests: `e2e/copy_first.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use v2v_pod_tests::copy::places::Loop;
use v2v_pod_tests::copy::{MIB, assert_same, dense_image, noise, pod_binary, until};

/// Sizes of the two disks: the engine makes something durable after 42 MiB.
const SIZES: [u64; 2] = [160 * MIB, 128 * MIB];
const RATE: &str = "60MiB/s";
const IO: i32 = 35;

/// What the pod has as `/dev` and `/mnt`, then the pod in the place of the shell.
const ENTER: &str = r#"
mount -t tmpfs -o mode=755 tmpfs "$ROOM/dev"
for node in null zero full random urandom; do touch "$ROOM/dev/$node"; mount --bind "/dev/$node" "$ROOM/dev/$node"; done
ln -s /proc/self/fd "$ROOM/dev/fd"
mkdir "$ROOM/dev/shm"
read -r major minor <<<"$(stat -c '%Hr %Lr' "$BLOCK")"
mknod "$ROOM/dev/block0" b "$major" "$minor"
mount --bind "$ROOM/mnt" /mnt
mount --rbind "$ROOM/dev" /dev
unset ROOM BLOCK
exec "$@"
"#;

const ASK: &str =
    "case \"$*\" in --machine-readable) echo \"${0##*/}\"; exit 0;; --help) exit 0;; esac\n";
const INSPECTION: &str = "<?xml version='1.0'?><v2v-inspection><operatingsystem><name>linux</name>\
    <distro>debian</distro><osinfo>debian12</osinfo><arch>x86_64</arch></operatingsystem></v2v-inspection>";

/// Two sources, two volumes (a device and a file system), journals, a work folder, and stand-ins.
struct Room {
    dir: tempfile::TempDir,
    block: Loop,
}

impl Room {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("v2v-first.").tempdir_in("/var/tmp").unwrap();
        for folder in ["bin", "tmp", "work", "journals", "dev", "source", "mnt/disks/disk1"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let backing = dir.path().join("backing");
        // Both volumes hold something already.
        for (path, bytes) in
            [(backing.clone(), SIZES[0]), (dir.path().join("mnt/disks/disk1/disk.img"), 5 * MIB)]
        {
            let file = File::create(&path).unwrap();
            file.set_len(bytes).unwrap();
            file.write_all_at(&noise(5, 1 << 20), 3 * MIB).unwrap();
        }
        let block = Loop::over(&backing, 512);
        let room = Self { dir, block };
        room.make_source();
        room.script("virt-v2v-in-place", "");
        let write =
            format!("while [ \"$1\" != -O ]; do shift; done\necho \"{INSPECTION}\" >\"$2\"");
        room.script("virt-v2v-inspector", &write);
        room
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A raw disk, and a VHDX, which only qemu can read.
    fn make_source(&self) {
        dense_image(&self.path("source/a.raw"), SIZES[0]);
        dense_image(&self.path("b.raw"), SIZES[1]);
        let file = File::options().write(true).open(self.path("b.raw")).unwrap();
        file.write_all_at(&noise(77, 1 << 20), 9 * MIB).unwrap();
        let convert = ["convert", "-f", "raw", "-O", "vhdx"];
        let made = Command::new("qemu-img")
            .args(convert)
            .args([self.path("b.raw"), self.path("source/b.vhdx")])
            .status();
        assert!(made.unwrap().success());
    }

    fn script(&self, name: &str, body: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/bash\n{ASK}cd {}\n{body}\n", self.dir.path().display()))
            .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A pod with more variables.
    fn pod(&self, more: &[(&str, &str)]) -> Pod {
        let source = |name: &str| self.path("source").join(name).display().to_string();
        let out = File::create(self.path("log")).unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "bash", "-euc", ENTER, "enter"])
            .arg(pod_binary())
            .arg(format!("--work-dir={}", self.path("work").display()))
            .arg(format!("--inspection-output-file={}", self.path("work/i.xml").display()))
            .env_clear()
            .env("ROOM", self.dir.path())
            .env("BLOCK", &self.block.node)
            .env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", self.path("bin").display()))
            .env("TMPDIR", self.path("tmp"))
            .env("V2V_source", "hyperv")
            .env("V2V_vmName", "My VM")
            .env("V2V_diskPath", format!("{},{}", source("a.raw"), source("b.vhdx")))
            .env("V2V_copyFirst", "true")
            .env("V2V_journalDir", self.path("journals"))
            .env("V2V_terminationLog", self.path("end"))
            .envs([("V2V_metricsPort", "0"), ("V2V_livePort", "0"), ("V2V_logFormat", "json")])
            .env("LOCAL_MIGRATION", "false")
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(Stdio::inherit());
        Pod { child: command.spawn().unwrap(), log: self.path("log") }
    }

    fn journals(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("journals")).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Waits until both disks have something durable, and neither is complete.
    fn both_have_begun(&self) {
        let lines = |disk: u8| {
            let path = self.path(&format!("journals/My%20VM-disk{disk}.journal"));
            fs::read_to_string(path).map_or(0, |text| text.lines().count())
        };
        until("both journals say something", || lines(0) > 1 && lines(1) > 1);
    }

    /// The volumes hold the sources.
    fn same(&self) {
        assert_same(&self.path("source/a.raw"), &self.block.node);
        assert_same(&self.path("b.raw"), &self.path("mnt/disks/disk1/disk.img"));
    }

    /// A pod that dies while it copies, with something durable of both disks.
    fn dies_while_copying(&self) {
        let mut pod = self.pod(&[("V2V_rate", RATE)]);
        self.both_have_begun();
        pod.child.kill().unwrap();
        pod.child.wait().unwrap();
        assert!(pod.copied().is_empty(), "it was killed in the middle");
    }
}

struct Pod {
    child: Child,
    log: PathBuf,
}

/// What a disk's end says: how much was there, how much was read.
#[derive(Debug, PartialEq, Eq)]
struct Copied {
    resumed: u64,
    copied: u64,
}

impl Pod {
    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap();
        text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
    }

    /// By disk.
    fn copied(&self) -> Vec<Copied> {
        let mut done: Vec<Value> = self.lines();
        done.retain(|l| l["message"] == "copied and durable");
        done.sort_by_key(|l| l["disk"].as_u64());
        let of = |l: &Value, field: &str| l[field].as_u64().unwrap();
        let read = |l: &Value| of(l, "copied_bytes") + of(l, "zero_bytes");
        done.iter().map(|l| Copied { resumed: of(l, "resumed_bytes"), copied: read(l) }).collect()
    }

    #[track_caller]
    fn ends_with(&mut self, code: i32) -> &mut Self {
        let mut status = None;
        until("the pod ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let found = status.unwrap().code();
        let log = fs::read_to_string(&self.log).unwrap();
        assert_eq!(found, Some(code), "{log}");
        self
    }

    fn said(&self, text: &str) -> bool {
        fs::read_to_string(&self.log).unwrap().contains(text)
    }

    /// Both disks were copied whole.
    #[track_caller]
    fn copied_anew(&self) {
        let copied = self.copied();
        let whole = SIZES.map(|copied| Copied { resumed: 0, copied });
        assert_eq!(copied, whole);
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_pod_that_was_killed_while_it_copied_is_followed_by_one_that_copies_the_rest() {
    let room = Room::new();
    room.dies_while_copying();
    assert_eq!(room.journals().len(), 2);
    // The work folder was an emptyDir.
    fs::remove_dir_all(room.path("work")).unwrap();
    let mut pod = room.pod(&[("V2V_verifyCopy", "true")]);
    pod.ends_with(0);
    let copied = pod.copied();
    for (disk, size) in copied.iter().zip(SIZES) {
        assert!(disk.resumed >= 40 * MIB && disk.resumed + disk.copied == size, "{copied:?}");
    }
    assert!(pod.said("a part of the disk is there from an earlier run"));
    room.same();
    assert_eq!(room.journals(), [""; 0]);
    let phases: Vec<Value> = pod.lines().into_iter().filter(|l| l["message"] == "phase").collect();
    let names: Vec<&str> = phases.iter().filter_map(|l| l["phase"].as_str()).collect();
    assert_eq!(names, ["preflight", "prepare", "copy", "convert", "inspect"]);
    assert!(room.path("work/my-vm.yaml").exists() || room.path("work/My VM.yaml").exists());
}

#[test]
fn a_pod_that_is_told_to_stop_leaves_what_it_has_and_says_so() {
    let room = Room::new();
    let mut pod = room.pod(&[("V2V_rate", RATE)]);
    room.both_have_begun();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pod.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    pod.ends_with(143);
    let end: Value = serde_json::from_slice(&fs::read(room.path("end")).unwrap()).unwrap();
    assert_eq!(end["class"], "terminated");
    assert!(fs::read_dir(room.path("tmp")).unwrap().next().is_none(), "nothing is left");
    let mut pod = room.pod(&[]);
    assert!(pod.ends_with(0).copied().iter().all(|disk| disk.resumed > 0));
    room.same();
}

#[test]
fn another_source_is_copied_anew() {
    let room = Room::new();
    room.dies_while_copying();
    // The guest ran in between: one byte of what is durable is another.
    let file = File::options().write(true).open(room.path("source/a.raw")).unwrap();
    file.write_all_at(b"x", 5).unwrap();
    let mut pod = room.pod(&[]);
    let copied = pod.ends_with(0).copied();
    assert_eq!(copied[0], Copied { resumed: 0, copied: SIZES[0] });
    assert!(copied[1].resumed > 0, "the other disk is as it was");
    assert!(pod.said("the journal does not fit, copying from the start"));
    room.same();
}

#[test]
fn hashes_of_a_source_that_changed_are_not_believed_later() {
    let room = Room::new();
    room.script("virt-v2v-in-place", "exit 1");
    room.pod(&[("V2V_verifyCopy", "true")]).ends_with(40).copied_anew();
    let file = File::options().write(true).open(room.path("source/a.raw")).unwrap();
    file.write_all_at(b"x", 5).unwrap();
    assert_eq!(room.pod(&[]).ends_with(40).copied()[0].resumed, 0);
    let copied = room.pod(&[("V2V_verifyCopy", "true")]).ends_with(40).copied();
    assert!(copied.iter().zip(SIZES).all(|(disk, size)| disk.resumed == size), "{copied:?}");
    room.same();
}

#[test]
fn another_volume_is_copied_anew() {
    let room = Room::new();
    room.dies_while_copying();
    let image = room.path("mnt/disks/disk1/disk.img");
    let inode = fs::metadata(&image).unwrap().ino();
    fs::remove_file(&image).unwrap();
    File::create(&image).unwrap();
    let mut pod = room.pod(&[]);
    let copied = pod.ends_with(0).copied();
    assert!(copied[0].resumed > 0, "the device is the same");
    let again = fs::metadata(&image).unwrap().ino() == inode;
    assert_eq!(copied[1], Copied { resumed: 0, copied: SIZES[1] }, "same inode: {again}");
    room.same();
}

#[test]
fn after_a_failed_conversion_nothing_is_copied_again() {
    let room = Room::new();
    // It has written into its overlays before it fails.
    let write = "qemu-io -f qcow2 -c 'write -P 0x55 0 1M' \"${@: -1}\" && exit 1";
    room.script("virt-v2v-in-place", write);
    let mut pod = room.pod(&[]);
    pod.ends_with(40).copied_anew();
    assert_eq!(room.journals().len(), 2, "they stay until the commit");
    room.same();

    // Without an overlay they go before the tool starts.
    room.script("virt-v2v-in-place", "ls journals >seen; exit 1");
    let mut pod = room.pod(&[("V2V_overlayEnabled", "false")]);
    let copied = pod.ends_with(40).copied();
    assert!(copied.iter().zip(SIZES).all(|(disk, size)| disk.resumed == size && disk.copied == 0));
    assert_eq!(fs::read_to_string(room.path("seen")).unwrap(), "");
    room.script("virt-v2v-in-place", "");
    room.pod(&[]).ends_with(0).copied_anew();
}

#[test]
fn a_commit_that_failed_is_finished_or_where_its_overlays_are_lost_copied_anew() {
    let room = Room::new();
    room.script("virt-v2v-in-place", "qemu-io -f qcow2 -c 'write -P 0x55 0 1M' \"${@: -1}\"");
    let commit_fails =
        "if [ \"$1\" = commit ]; then ls journals >seen; exit 1; fi\nexec /usr/bin/qemu-img \"$@\"";
    room.script("qemu-img", commit_fails);
    let mut pod = room.pod(&[]);
    pod.ends_with(IO).copied_anew();
    assert_eq!(fs::read_to_string(room.path("seen")).unwrap(), "", "gone before the commit");
    assert!(room.path("work/commit-has-begun").exists());

    // With its work folder nothing is copied or converted: the commit goes on.
    room.script("virt-v2v-in-place", "exit 1");
    let kept = room.path("kept");
    let copy = Command::new("cp").arg("-a").args([room.path("work"), kept.clone()]).status();
    assert!(copy.unwrap().success());
    fs::remove_file(room.path("bin/qemu-img")).unwrap();
    let mut pod = room.pod(&[]);
    assert_eq!(pod.ends_with(0).copied(), []);
    assert_eq!(first_byte(&room.path("mnt/disks/disk1/disk.img")), 0x55);

    // Killed in the middle of it, and without the work folder.
    let hangs =
        "if [ \"$1\" = commit ]; then touch begun; sleep 1000; fi\nexec /usr/bin/qemu-img \"$@\"";
    room.script("qemu-img", hangs);
    fs::remove_dir_all(room.path("work")).unwrap();
    fs::rename(&kept, room.path("work")).unwrap();
    let mut pod = room.pod(&[]);
    until("the commit goes on", || room.path("begun").exists());
    pod.child.kill().unwrap();
    pod.child.wait().unwrap();
    fs::remove_file(room.path("bin/qemu-img")).unwrap();
    fs::remove_dir_all(room.path("work")).unwrap();
    room.script("virt-v2v-in-place", "");
    room.pod(&[]).ends_with(0).copied_anew();
    room.same();
}

fn first_byte(path: &Path) -> u8 {
    let mut byte = [0];
    File::open(path).unwrap().read_exact_at(&mut byte, 0).unwrap();
    byte[0]
}

#[test]
fn a_run_that_does_not_copy_first_forgets_the_journals() {
    let room = Room::new();
    room.dies_while_copying();
    let ask =
        "case \"$*\" in --machine-readable) echo output:local;; esac\nls journals >seen\nexit 1";
    fs::write(
        room.path("bin/virt-v2v"),
        format!("#!/bin/bash\ncd {}\n{ask}", room.dir.path().display()),
    )
    .unwrap();
    fs::set_permissions(room.path("bin/virt-v2v"), fs::Permissions::from_mode(0o755)).unwrap();
    let images = room.path("source/a.raw").display().to_string();
    let second = room.path("b.raw").display().to_string();
    let mut pod = room.pod(&[
        ("V2V_copyFirst", "false"),
        ("V2V_output", "local"),
        ("V2V_diskPath", &format!("{images},{second}")),
    ]);
    pod.ends_with(40);
    assert_eq!(fs::read_to_string(room.path("seen")).unwrap(), "");
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_written() {
    let room = Room::new();
    let before = fs::read(room.path("mnt/disks/disk1/disk.img")).unwrap();
    let ova = [("V2V_source", "ova"), ("V2V_diskPath", "/nothing.ova")];
    room.pod(&ova).ends_with(64);
    let text = fs::read_to_string(room.path("end")).unwrap();
    assert!(text.contains("leave V2V_copyFirst out"), "{text}");
    let file = room.path("file");
    fs::write(&file, "").unwrap();
    let mut pod = room.pod(&[("V2V_journalDir", &file.display().to_string())]);
    assert!(pod.ends_with(64).said("make V2V_journalDir a folder"));
    // A disk that is larger than its volume.
    let grow = File::options().write(true).open(room.path("source/a.raw")).unwrap();
    grow.set_len(SIZES[0] + 512).unwrap();
    assert!(room.pod(&[]).ends_with(20).said("has room for"));
    assert!(fs::read(room.path("mnt/disks/disk1/disk.img")).unwrap() == before);
    assert_eq!(room.journals(), [""; 0]);
    // Nothing says where the journals are to be.
    grow.set_len(SIZES[0]).unwrap();
    let mut pod = room.pod(&[("V2V_journalDir", "")]);
    assert!(pod.ends_with(0).said("V2V_journalDir is not set"));
    room.same();
}
