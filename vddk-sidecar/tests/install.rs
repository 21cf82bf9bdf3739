//! `vddk-sidecar install`: the program, on trees of all kinds.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::{NAME, PROGRAM, compile, install, names, place};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use vddk_sidecar::manifest::{Manifest, ManifestError};

#[test]
fn a_tree_is_installed_once() {
    let (_dir, from, to) = place();
    let (ok, text) = install(&from, &to);
    assert!(ok && text.contains("VDDK 8.0.3 installed"), "{text}");
    let tree = to.join(NAME);
    assert_eq!(
        fs::read_link(tree.join("lib64/libvixDiskLib.so.8")).unwrap(),
        Path::new("libvixDiskLib.so.8.0.3")
    );
    let manifest = Manifest::verify(&tree).unwrap();
    assert_eq!(
        (manifest.library.as_str(), manifest.entries.len()),
        ("lib64/libvixDiskLib.so.8", 7)
    );
    let before = fs::metadata(&tree).unwrap().ino();
    let (ok, text) = install(&from, &to);
    assert!(ok && text.contains("nothing to do"), "{text}");
    assert_eq!(fs::metadata(&tree).unwrap().ino(), before);
    assert_eq!(names(&to), [NAME], "nothing else is left");
}

#[test]
fn a_changed_or_half_tree_is_replaced_in_one_step() {
    let (_dir, from, to) = place();
    // What an interrupted `cp -r` leaves.
    let half = to.join(NAME).join("lib64");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("libvixDiskLib.so.8.0.3"), "half").unwrap();
    let (ok, text) = install(&from, &to);
    assert!(ok && text.contains("in place of another"), "{text}");
    Manifest::verify(&to.join(NAME)).unwrap();
    // A file that somebody changed afterwards.
    fs::write(to.join(NAME).join("doc/readme"), "TEXT").unwrap();
    assert!(matches!(Manifest::verify(&to.join(NAME)), Err(ManifestError::Differs { .. })));
    let (ok, text) = install(&from, &to);
    assert!(ok && text.contains("in place of another"), "{text}");
    // Another version.
    fs::write(from.join("doc/readme"), "newer").unwrap();
    assert!(install(&from, &to).0);
    assert_eq!(fs::read_to_string(to.join(NAME).join("doc/readme")).unwrap(), "newer");
    assert_eq!(names(&to), [NAME]);
}

#[test]
fn everything_becomes_readable_for_the_pod() {
    let (_dir, from, to) = place();
    fs::set_permissions(from.join("doc/readme"), Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(from.join("lib64/libvixDiskLib.so.8.0.3"), Permissions::from_mode(0o4700))
        .unwrap();
    assert!(install(&from, &to).0);
    let mode = |p: &str| fs::metadata(to.join(NAME).join(p)).unwrap().mode() & 0o7777;
    assert_eq!((mode("doc/readme"), mode("lib64"), mode(".")), (0o644, 0o755, 0o755));
    assert_eq!(mode("lib64/libvixDiskLib.so.8.0.3"), 0o755, "without the set-user-id bit");
}

#[test]
fn a_tree_that_lost_its_links_is_repaired() {
    let (_dir, from, to) = place();
    let lib64 = from.join("lib64");
    fs::remove_file(lib64.join("libvixDiskLib.so.8")).unwrap();
    fs::remove_file(lib64.join("libvixDiskLib.so")).unwrap();
    // As some archivers write links where there are none.
    fs::write(lib64.join("libvixDiskLib.so"), "libvixDiskLib.so.8.0.3").unwrap();
    let (ok, text) = install(&from, &to);
    assert!(ok && text.matches("repaired:").count() == 2, "{text}");
    let link = |n: &str| fs::read_link(to.join(NAME).join("lib64").join(n)).unwrap();
    assert_eq!(link("libvixDiskLib.so.8"), Path::new("libvixDiskLib.so.8.0.3"));
    assert!(install(&from, &to).1.contains("nothing to do"));
}

#[test]
fn what_is_unusable_is_refused_with_all_reasons_and_leaves_everything_as_it_was() {
    let (_dir, from, to) = place();
    assert!(install(&from, &to).0);
    let lib64 = from.join("lib64");
    let code = "int x(void) { return 0; }";
    compile(code, &lib64.join("libother.so.1"), &["-Wl,-soname,libother.so.1"]);
    let other = lib64.join("libother.so.1");
    compile(
        code,
        &lib64.join("libvixDiskLib.so.8.0.3"),
        &["-Wl,-soname,libvixDiskLib.so.7", "-Wl,--no-as-needed", other.to_str().unwrap()],
    );
    fs::remove_file(&other).unwrap();
    symlink("gone", lib64.join("broken")).unwrap();
    symlink("../../../etc/passwd", lib64.join("escaping")).unwrap();
    let (ok, text) = install(&from, &to);
    assert!(!ok);
    for part in [
        "lib64/broken: the link leads to gone",
        "leads out of the tree, to ../../../etc/passwd",
        "its own name is libvixDiskLib.so.7",
        "23 of the 23 functions",
        "needs libother.so.1, which is neither",
        "nothing was installed",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    Manifest::verify(&to.join(NAME)).unwrap();
    assert_eq!(names(&to), [NAME]);
}

#[test]
fn other_processors_and_cut_files_are_told() {
    for (patch, words) in [(Some(183u8), "made for AARCH64"), (None, "cut off")] {
        let (_dir, from, to) = place();
        let file = from.join("lib64/libvixDiskLib.so.8.0.3");
        let mut bytes = fs::read(&file).unwrap();
        match patch {
            Some(machine) => bytes[18] = machine,
            None => bytes.truncate(bytes.len() / 2),
        }
        fs::write(&file, bytes).unwrap();
        let (ok, text) = install(&from, &to);
        assert!(!ok && text.contains(words), "{text}");
        assert!(names(&to).is_empty());
    }
}

#[test]
fn bad_places_are_named() {
    let (dir, from, to) = place();
    let (ok, text) = install(&dir.path().join("nothing"), &to);
    assert!(!ok && text.contains("nothing: No such file"), "{text}");
    let (ok, text) = install(&from, &dir.path().join("volume"));
    assert!(!ok && text.contains("volume: No such file"), "{text}");
    let (ok, text) = install(&from, from.parent().unwrap());
    assert!(!ok && text.contains("where it should be copied to"), "{text}");
    let (ok, text) = install(&from, &from.join("lib64"));
    assert!(!ok && text.contains("where it should be copied to"), "{text}");
}

#[test]
fn a_full_volume_leaves_nothing() {
    let (dir, from, _) = place();
    let to = dir.path().join("small");
    fs::create_dir(&to).unwrap();
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&to).status();
    assert!(mount.unwrap().success(), "the tests run as root, with mount");
    let (ok, text) = install(&from, &to);
    let left = names(&to);
    assert!(Command::new("umount").arg(&to).status().unwrap().success());
    assert!(!ok && text.contains("No space left"), "{text}");
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn killed_at_any_point_it_leaves_no_half_tree() {
    let (_dir, from, to) = place();
    let mut whole = 0;
    for delay in 0..60u64 {
        let mut child = Command::new(PROGRAM)
            .args(["install", "--from"])
            .arg(&from)
            .arg("--to")
            .arg(&to)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(delay * 3));
        child.kill().unwrap();
        child.wait().unwrap();
        let tree = to.join(NAME);
        if tree.exists() {
            Manifest::verify(&tree).unwrap_or_else(|e| panic!("after {delay}: {e}"));
            whole += 1;
            fs::remove_dir_all(&tree).unwrap();
        }
    }
    // A file that is killed while it works leaves a hidden tree, and the next run takes it away.
    assert!(install(&from, &to).0);
    assert_eq!(names(&to), [NAME]);
    assert!(whole < 60, "at least the first was killed in time");
}

#[test]
fn two_at_once_end_well() {
    let (_dir, from, to) = place();
    let start = || {
        Command::new(PROGRAM)
            .args(["install", "--from"])
            .arg(&from)
            .arg("--to")
            .arg(&to)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children = [start(), start(), start()];
    let texts: Vec<String> = children
        .into_iter()
        .map(|c| String::from_utf8(c.wait_with_output().unwrap().stdout).unwrap())
        .collect();
    assert_eq!(texts.iter().filter(|t| t.contains("nothing to do")).count(), 2, "{texts:?}");
    Manifest::verify(&to.join(NAME)).unwrap();
    assert_eq!(names(&to), [NAME]);
}
