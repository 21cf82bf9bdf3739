//! `v2v-pod copy` on real file systems, devices and servers: right on every target, whatever goes wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use v2v_pod_tests::copy::places::{Loop, Mount};
use v2v_pod_tests::copy::{
    MIB, Server, assert_same, copy, dense_image, mixed_image, noise, preload, ran, run, size_of,
    until,
};

fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("v2v-copy.").tempdir_in("/var/tmp").unwrap()
}

/// A file of bytes that must not be there afterwards.
fn dirty(path: &Path, bytes: u64) {
    let file = File::create(path).unwrap();
    let block = noise(7, 1 << 20);
    for n in 0..bytes.div_ceil(MIB) {
        let left = usize::try_from((bytes - n * MIB).min(MIB)).unwrap();
        file.write_all_at(&block[..left], n * MIB).unwrap();
    }
    file.sync_all().unwrap();
}

#[test]
fn dirty_targets_of_every_kind_become_identical() {
    let dir = scratch();
    let image = dir.path().join("image");
    mixed_image(&image, 61 * MIB + 777);
    let server = Server::nbdkit(dir.path(), "src", &["-r", "file", image.to_str().unwrap()]);
    for kind in ["ext4", "xfs", "tmpfs"] {
        let mount = Mount::new(dir.path(), kind, 400 * MIB);
        for (name, source) in [("from-file", image.to_str().unwrap()), ("from-nbd", &server.uri())]
        {
            for flags in [&[][..], &["--buffered"], &["--allocated"], &["--sparse", "4096"]] {
                let target = mount.path(name);
                dirty(&target, 70 * MIB);
                let mut command = copy(&[&source, &target, &"--json", &"--verify"]);
                let _ = run(command.args(flags)).ok();
                assert_same(&image, &target);
                assert_eq!(
                    size_of(&target),
                    61 * MIB + 777,
                    "{kind} {flags:?}: a file has the disk's size"
                );
                let allocated = fs::metadata(&target).unwrap().blocks() * 512;
                let full = flags.contains(&"--allocated");
                assert!(full == (allocated >= 61 * MIB), "{kind} {flags:?}: {allocated} bytes");
            }
        }
    }
}

#[test]
fn blocks_are_shared_where_the_file_system_can() {
    let dir = scratch();
    let mount = Mount::new(dir.path(), "xfs", 400 * MIB);
    let (image, target) = (mount.path("image"), mount.path("target"));
    mixed_image(&image, 61 * MIB + 777);
    let shared = |flags: &[&str]| {
        dirty(&target, 70 * MIB);
        let _ = run(copy(&[&image, &target, &"--verify"]).args(flags)).ok();
        assert_same(&image, &target);
        assert_eq!(size_of(&target), 61 * MIB + 777);
        let map = Command::new("filefrag").arg("-v").arg(&target).output().unwrap();
        String::from_utf8_lossy(&map.stdout).contains("shared")
    };
    assert!(shared(&[]), "the image is cloned");
    assert!(!shared(&["--allocated"]), "an allocated image has blocks of its own");
}

#[test]
fn dirty_devices_become_identical_and_keep_what_is_behind() {
    let dir = scratch();
    let image = dir.path().join("image");
    mixed_image(&image, 61 * MIB + 512);
    for sector in [512, 4096] {
        let backing = dir.path().join("backing");
        dirty(&backing, 64 * MIB);
        let before = fs::read(&backing).unwrap();
        let device = Loop::over(&backing, sector);
        let result =
            run(&mut copy(&[&image, &device.node, &"--json", &"--verify", &"--work", &dir.path()]))
                .ok();
        assert_same(&image, &device.node);
        assert_eq!(result.disk("untouched_tail_bytes"), 3 * MIB - 512);
        drop(device);
        let after = fs::read(&backing).unwrap();
        let end = usize::try_from(61 * MIB + 512).unwrap();
        assert!(
            after[end..] == before[end..],
            "sectors of {sector}: bytes behind the disk changed"
        );
    }
}

#[test]
fn a_target_that_refuses_every_way_of_zeroing_is_written() {
    let dir = scratch();
    let image = dir.path().join("image");
    mixed_image(&image, 40 * MIB);
    let library = preload::library(dir.path());
    for fault in ["fallocate", "fallocate-sometimes"] {
        let backing = dir.path().join("backing");
        dirty(&backing, 40 * MIB);
        let device = Loop::over(&backing, 512);
        let mut command = copy(&[&image, &device.node, &"--work", &dir.path()]);
        let _ = run(command.env("LD_PRELOAD", &library).env("FAULT", fault)).ok();
        assert_same(&image, &device.node);
    }
}

#[test]
fn a_failed_flush_fails_the_copy() {
    let dir = scratch();
    let (image, target) = (dir.path().join("image"), dir.path().join("target"));
    mixed_image(&image, 20 * MIB);
    dirty(&target, MIB);
    let inode = fs::metadata(&target).unwrap().ino().to_string();
    let library = preload::library(dir.path());
    let mut command = copy(&[&image, &target]);
    command.env("LD_PRELOAD", &library).env("FAULT", "fsync").env("FAULT_INODE", inode);
    run(&mut command).failed(35, "flush");
    // And a server that cannot flush.
    let script = "flush=exit 1";
    let args = [
        "eval",
        "get_size=echo 64M",
        "pwrite=cat >/dev/null",
        "zero=true",
        "can_flush=exit 0",
        script,
    ];
    let server = Server::nbdkit(dir.path(), "dst", &args);
    run(&mut copy(&[&image, &server.uri(), &"--retries", &"0"])).failed(35, "flush");
}

#[test]
fn a_target_that_is_too_small_is_left_as_it_was() {
    let dir = scratch();
    let image = dir.path().join("image");
    mixed_image(&image, 20 * MIB);
    let backing = dir.path().join("backing");
    dirty(&backing, 19 * MIB);
    let before = fs::read(&backing).unwrap();
    let device = Loop::over(&backing, 512);
    run(&mut copy(&[&image, &device.node, &"--work", &dir.path()]))
        .failed(20, "room for 19922944 bytes");
    let server = Server::nbdkit(dir.path(), "dst", &["memory", "19M"]);
    run(&mut copy(&[&image, &server.uri()])).failed(20, "nothing was written");
    drop(device);
    assert!(fs::read(&backing).unwrap() == before);
}

#[test]
fn mistakes_are_named_and_change_nothing() {
    let dir = scratch();
    let image = dir.path().join("image");
    mixed_image(&image, MIB);
    let target = dir.path().join("target");
    run(&mut copy(&[&dir.path().join("nothing"), &target])).failed(24, "nothing");
    run(&mut copy(&[&image, &image])).failed(20, "same");
    run(&mut copy(&[&image, &target, &image])).failed(2, "without a target");
    run(&mut copy(&[&image, &dir.path()])).failed(20, "neither a file nor a block device");
    run(&mut copy(&[&image, &target, &"--rate", &"fast"])).failed(2, "fast");
    run(&mut copy(&[&image, &target, &"--rate-file", &"/nonexistent"])).failed(64, "/nonexistent");
    run(&mut copy(&[&"nbd+unix:///?socket=/nonexistent", &target])).failed(23, "/nonexistent");
    assert!(!target.exists(), "no mistake made a target");
    let mount = Mount::new(dir.path(), "ext4", 64 * MIB);
    let node = mounted_on(&mount.path(""));
    run(&mut copy(&[&image, &node, &"--work", &dir.path()])).failed(20, "in use");
}

fn mounted_on(dir: &Path) -> PathBuf {
    let output = Command::new("findmnt").args(["-no", "SOURCE"]).arg(dir).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().into()
}

#[test]
fn verification_finds_one_flipped_byte_and_names_it() {
    let dir = scratch();
    let (image, target) = (dir.path().join("image"), dir.path().join("target"));
    dense_image(&image, 16 * MIB);
    dirty(&target, MIB);
    let inode = fs::metadata(&target).unwrap().ino().to_string();
    let library = preload::library(dir.path());
    let flip = |verify: &[&str]| {
        let mut command = copy(&[&image, &target]);
        command.args(verify).env("LD_PRELOAD", &library).env("FAULT", "flip");
        run(command.env("FAULT_INODE", &inode).env("FAULT_PATH", &target))
    };
    let _ = flip(&[]).ok();
    flip(&["--verify"]).failed(38, &format!("at byte {}", 5 * MIB + 1234));
}

#[test]
fn an_image_beyond_two_tebibytes_is_copied_where_its_data_is() {
    let dir = scratch();
    let data = "data=@2199023255551 1 2 @3298534883327 3";
    let server = Server::nbdkit(dir.path(), "src", &["data", data, "size=4T"]);
    let target = dir.path().join("target");
    let _ = run(&mut copy(&[&server.uri(), &target, &"--json"])).ok();
    let file = File::open(&target).unwrap();
    let byte = |at: u64| {
        let mut b = [9];
        file.read_exact_at(&mut b, at).unwrap();
        b[0]
    };
    assert_eq!(size_of(&target), 4 << 40);
    assert_eq!(
        [byte((1 << 41) - 1), byte(1 << 41), byte((3 << 40) - 1), byte(3 << 40)],
        [1, 2, 3, 0]
    );
    assert!(file.metadata().unwrap().blocks() * 512 < 8 * MIB);
}

/// Starts a slow copy, and kills it when it has copied `bytes`.
fn killed_after(args: &[&dyn AsRef<std::ffi::OsStr>], bytes: u64) {
    let mut child =
        copy(args).args(["--json"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let out = child.stdout.take().unwrap();
    for line in std::io::BufRead::lines(std::io::BufReader::new(out)) {
        let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        if line["disks"][0]["copied_bytes"].as_u64().unwrap_or(0) >= bytes {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_killed_copy_goes_on_where_it_was() {
    let dir = scratch();
    let image = dir.path().join("image");
    let size = 384 * MIB;
    dense_image(&image, size);
    // nbdkit 1.32 may abort when a client with requests under way is gone (`sock >= 0`), so each run has a new one.
    let serve = || Server::nbdkit(dir.path(), "src", &["-r", "file", image.to_str().unwrap()]);
    let backing = dir.path().join("backing");
    dirty(&backing, size);
    let device = Loop::over(&backing, 512);
    for target in [dir.path().join("target"), device.node.clone()] {
        let uri = serve().uri();
        let args: [&dyn AsRef<std::ffi::OsStr>; 6] =
            [&uri, &target, &"--work", &dir.path(), &"--rate", &"100MiB/s"];
        for copied in [60, 10, 90] {
            let _server = serve();
            killed_after(&args, copied * MIB);
        }
        let _server = serve();
        let last = run(copy(&args[..4]).args(["--json", "--verify"])).ok();
        assert_same(&image, &target);
        let resumed = last.disk("resumed_bytes");
        // At least 160 MiB were copied; three kills may cost 64 MiB each.
        assert!(resumed >= 20 * MIB, "{last:?}");
        assert_eq!(last.disk("copied_bytes") + resumed, size);
        let journals = fs::read_dir(dir.path()).unwrap().filter(|e| {
            let name = e.as_ref().unwrap().file_name();
            name.to_string_lossy().contains("journal")
        });
        assert_eq!(journals.count(), 0, "a finished copy leaves no journal");
    }
}

/// The promise is about one kill: what was copied when it came, less 64 MiB, is not copied again.
#[test]
fn one_kill_costs_no_more_than_64_mib() {
    let dir = scratch();
    let (image, target) = (dir.path().join("image"), dir.path().join("target"));
    dense_image(&image, 256 * MIB);
    let args: [&dyn AsRef<std::ffi::OsStr>; 4] = [&image, &target, &"--rate", &"60MiB/s"];
    killed_after(&args, 150 * MIB);
    let last = run(copy(&args[..2]).arg("--json")).ok();
    assert!(last.disk("copied_bytes") <= (256 - 150 + 64) * MIB, "{last:?}");
    assert_same(&image, &target);
}

#[test]
fn a_changed_source_or_target_voids_the_journal_and_that_is_said() {
    let dir = scratch();
    let (image, target) = (dir.path().join("image"), dir.path().join("target"));
    dense_image(&image, 128 * MIB);
    let args: [&dyn AsRef<std::ffi::OsStr>; 4] = [&image, &target, &"--rate", &"60MiB/s"];
    killed_after(&args, 60 * MIB);
    File::options().write(true).open(&image).unwrap().write_all_at(b"new", 5).unwrap();
    let last = run(copy(&args[..2]).arg("--json")).ok();
    assert!(
        last.err.contains("journal does not fit") && last.err.contains("source was"),
        "{last:?}"
    );
    assert_eq!(last.disk("resumed_bytes"), 0);
    assert_same(&image, &target);

    // A server with another disk of the same size behind the same name, which only samples can tell.
    let other = dir.path().join("other");
    dense_image(&other, 128 * MIB);
    let server = Server::nbdkit(dir.path(), "src", &["-r", "file", image.to_str().unwrap()]);
    let uri = server.uri();
    let args: [&dyn AsRef<std::ffi::OsStr>; 4] = [&uri, &target, &"--rate", &"60MiB/s"];
    killed_after(&args, 60 * MIB);
    server.kill();
    File::options()
        .write(true)
        .open(&other)
        .unwrap()
        .write_all_at(&noise(5, 128 << 20), 0)
        .unwrap();
    let _server = Server::nbdkit(dir.path(), "src", &["-r", "file", other.to_str().unwrap()]);
    let last = run(copy(&args[..2]).arg("--json")).ok();
    assert!(last.err.contains("samples"), "{last:?}");
    assert_same(&other, &target);
}

#[test]
fn a_server_that_dies_is_waited_for() {
    let dir = scratch();
    let (image, target) = (dir.path().join("image"), dir.path().join("target"));
    dense_image(&image, 128 * MIB);
    let server = || Server::nbdkit(dir.path(), "src", &["-r", "file", image.to_str().unwrap()]);
    let first = server();
    let uri = first.uri();
    let mut child = copy(&[&uri, &target, &"--json", &"--rate", &"40MiB/s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the copy has begun", || fs::metadata(&target).is_ok_and(|m| m.blocks() > 40_000));
    first.kill();
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert!(child.try_wait().unwrap().is_none(), "it does not give up at once");
    let _second = server();
    let last = ran(&child.wait_with_output().unwrap()).ok();
    assert!(last.disk("retries") > 0, "{last:?}");
    assert_same(&image, &target);
}

#[test]
fn a_server_that_stays_away_ends_the_copy_with_what_to_do() {
    let dir = scratch();
    let (image, target) = (dir.path().join("image"), dir.path().join("target"));
    dense_image(&image, 64 * MIB);
    let server = Server::nbdkit(dir.path(), "src", &["-r", "file", image.to_str().unwrap()]);
    let uri = server.uri();
    let mut command = copy(&[&uri, &target, &"--rate", &"20MiB/s", &"--retries", &"3"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    until("the copy has begun", || fs::metadata(&target).is_ok_and(|m| m.blocks() > 20_000));
    server.kill();
    let last = ran(&child.wait_with_output().unwrap());
    last.failed(23, "gave up after 4 attempts");
    assert!(last.err.contains("run the same command again"), "{last:?}");
}

#[test]
fn errors_of_a_source_are_repeated_until_they_pass() {
    let dir = scratch();
    let (image, target) = (dir.path().join("image"), dir.path().join("target"));
    mixed_image(&image, 40 * MIB);
    let file = image.to_str().unwrap();
    let args =
        ["-r", "--filter=error", "file", file, "error-pread-rate=30%", "error-extents-rate=50%"];
    let server = Server::nbdkit(dir.path(), "src", &args);
    let last = run(&mut copy(&[
        &server.uri(),
        &target,
        &"--json",
        &"--retry-delay",
        &"0.01",
        &"--retries",
        &"50",
    ]))
    .ok();
    assert!(last.disk("retries") > 0);
    assert_same(&image, &target);
    let bad = run(&mut copy(&[&server.uri(), &target, &"--retries", &"0"]));
    bad.failed(35, "EIO");
}

/// What a target server had not made durable is lost with it.
#[test]
fn a_target_server_that_dies_gets_everything_again() {
    let dir = scratch();
    let image = dir.path().join("image");
    dense_image(&image, 96 * MIB);
    let server = || Server::nbdkit(dir.path(), "dst", &["memory", "96M"]);
    let first = server();
    let uri = first.uri();
    let child = copy(&[&image, &uri, &"--json", &"--rate", &"30MiB/s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    first.kill();
    let _second = server();
    let last = ran(&child.wait_with_output().unwrap()).ok();
    assert!(last.disk("retries") > 0, "{last:?}");
    let back = dir.path().join("back");
    let _ = run(&mut copy(&[&uri, &back])).ok();
    assert_same(&image, &back);
}

#[test]
fn several_disks_share_a_run_and_one_failure_keeps_the_others_place() {
    let dir = scratch();
    let images: Vec<_> = (0..3).map(|n| dir.path().join(format!("image{n}"))).collect();
    for image in &images {
        mixed_image(image, 40 * MIB + 512);
    }
    let targets: Vec<_> = (0..3).map(|n| dir.path().join(format!("target{n}"))).collect();
    let all: Vec<&dyn AsRef<std::ffi::OsStr>> = images
        .iter()
        .zip(&targets)
        .flat_map(|(i, t)| [i as &dyn AsRef<_>, t as &dyn AsRef<_>])
        .collect();
    let last = run(copy(&all).args(["--json", "--disks", "2", "--in-flight", "4MiB"])).ok();
    assert_eq!(last.result["disks"].as_array().unwrap().len(), 3);
    assert_eq!(last.result["ok"], true);
    for (image, target) in images.iter().zip(&targets) {
        assert_same(image, target);
    }
    let full = Mount::new(dir.path(), "ext4", 16 * MIB);
    let small = full.path("disk");
    let last = run(copy(&[&images[0], &targets[0], &images[1], &small]).args(["--json"]));
    last.failed(25, "No space left");
    assert_eq!(last.result["class"], "no-space");
}

#[test]
fn sigterm_ends_it_with_its_code_and_the_next_run_continues() {
    let dir = scratch();
    let (image, target) = (dir.path().join("image"), dir.path().join("target"));
    dense_image(&image, 128 * MIB);
    let mut command = copy(&[&image, &target, &"--rate", &"40MiB/s"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    until("the copy has begun", || fs::metadata(&target).is_ok_and(|m| m.blocks() > 80_000));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    ran(&child.wait_with_output().unwrap()).failed(143, "run the same command again");
    let last = run(copy(&[&image, &target]).arg("--json")).ok();
    // A stop is no kill: what was written is made durable first, but for what was in flight.
    assert!(last.disk("resumed_bytes") >= 23 * MIB, "{last:?}");
    assert_same(&image, &target);
}

#[test]
fn a_rate_file_steers_a_running_copy() {
    let dir = scratch();
    let (image, target) = (dir.path().join("image"), dir.path().join("target"));
    dense_image(&image, 64 * MIB);
    let rate = dir.path().join("rate");
    // At this rate it would take two hours.
    fs::write(&rate, "10kB/s\n").unwrap();
    let mut child =
        copy(&[&image, &target, &"--rate-file", &rate]).stderr(Stdio::null()).spawn().unwrap();
    until("the copy has begun", || target.exists());
    assert!(child.try_wait().unwrap().is_none());
    fs::write(&rate, "not a rate").unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(child.try_wait().unwrap().is_none(), "a mistake in the file changes nothing");
    fs::write(&rate, "0\n").unwrap();
    until("the copy ends", || child.try_wait().unwrap().is_some());
    assert_same(&image, &target);
}
