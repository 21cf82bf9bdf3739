//! `vddk-sidecar install` in bad places and with bad trees: each test is named for what once went wrong.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::{NAME, PROGRAM, compile, install, names, place};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use vddk_sidecar::manifest::{FILE, Manifest};

/// With these faults injected by strace; without strace the test says so and ends.
fn with_faults(from: &Path, to: &Path, faults: &[&str]) -> Option<(bool, String)> {
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null"]);
    for fault in faults {
        command.args(["-e", &format!("inject={fault}")]);
    }
    let out =
        command.arg(PROGRAM).args(["install", "--from"]).arg(from).arg("--to").arg(to).output();
    let Ok(out) = out else {
        eprintln!("SKIPPED: needs strace");
        return None;
    };
    let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    Some((out.status.success(), text))
}

#[test]
fn a_lib64_outside_the_tree_is_not_repaired() {
    let (dir, from, to) = place();
    let outside = dir.path().join("outside");
    fs::rename(from.join("lib64"), &outside).unwrap();
    symlink(&outside, from.join("lib64")).unwrap();
    fs::remove_file(outside.join("libvixDiskLib.so.8")).unwrap();
    fs::write(outside.join("libtext.so"), "libvixDiskLib.so.8.0.3").unwrap();
    let before = names(&outside);
    let (ok, text) = install(&from, &to);
    assert!(!ok && text.contains("leads out of the tree"), "{text}");
    assert_eq!(names(&outside), before);
    assert!(!outside.join("libtext.so").is_symlink());
}

#[test]
fn the_newest_of_two_versions_gets_the_link() {
    let (_dir, from, to) = place();
    let lib64 = from.join("lib64");
    for link in ["libvixDiskLib.so", "libvixDiskLib.so.8"] {
        fs::remove_file(lib64.join(link)).unwrap();
    }
    let name = |v: &str| lib64.join(format!("libvixDiskLib.so.{v}"));
    for version in ["8.0.9", "8.0.10", "8.0.3.bak"] {
        fs::copy(name("8.0.3"), name(version)).unwrap();
    }
    let (ok, text) = install(&from, &to);
    assert!(ok && text.contains("VDDK 8.0.10 installed"), "{text}");
}

#[test]
fn a_library_without_a_name_of_its_own_gets_its_link() {
    let (_dir, from, to) = place();
    let lib64 = from.join("lib64");
    fs::remove_file(lib64.join("libvixDiskLib.so.8")).unwrap();
    compile(include_str!("common/library.c"), &lib64.join("libvixDiskLib.so.8.0.3"), &["-w"]);
    let (ok, text) = install(&from, &to);
    assert!(ok && text.contains("libvixDiskLib.so.8 was missing"), "{text}");
}

#[test]
fn damage_is_told_where_the_links_are_lost_too() {
    let (_dir, from, to) = place();
    let lib64 = from.join("lib64");
    fs::remove_file(lib64.join("libvixDiskLib.so.8")).unwrap();
    let file = fs::OpenOptions::new().write(true).open(lib64.join("libvixDiskLib.so.8.0.3"));
    file.unwrap().set_len(5000).unwrap();
    let (ok, text) = install(&from, &to);
    assert!(!ok && text.contains("damaged or cut off"), "{text}");
    assert!(!text.contains("partial"), "the copy has another name: {text}");
}

#[test]
fn a_file_in_its_place_is_replaced_and_nothing_is_left() {
    let (_dir, from, to) = place();
    fs::write(to.join(NAME), "text").unwrap();
    assert!(install(&from, &to).0);
    assert_eq!(names(&to), [NAME]);
}

#[test]
fn a_link_as_the_source_keeps_its_name() {
    let (dir, from, to) = place();
    let real = dir.path().join("vddk-8.0.3");
    fs::rename(&from, &real).unwrap();
    symlink(&real, &from).unwrap();
    assert!(install(&from, &to).0);
    assert_eq!(names(&to), [NAME]);
}

#[test]
fn a_pipe_as_manifest_is_replaced() {
    let (_dir, from, to) = place();
    assert!(install(&from, &to).0);
    let manifest = to.join(NAME).join(FILE);
    fs::remove_file(&manifest).unwrap();
    nix::unistd::mkfifo(&manifest, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(install(&from, &to).0);
    Manifest::verify(&to.join(NAME)).unwrap();
}

#[test]
fn where_names_cannot_be_exchanged_it_is_two_renames() {
    let (_dir, from, to) = place();
    fs::create_dir(to.join(NAME)).unwrap();
    fs::write(to.join(NAME).join("old"), "").unwrap();
    let Some((ok, text)) = with_faults(&from, &to, &["renameat2:error=EINVAL"]) else { return };
    assert!(ok && text.contains("in place of another"), "{text}");
    assert_eq!(names(&to), [NAME]);
    Manifest::verify(&to.join(NAME)).unwrap();
}

#[test]
fn a_target_that_cannot_be_moved_is_explained() {
    let (_dir, from, to) = place();
    fs::create_dir(to.join(NAME)).unwrap();
    let Some((ok, text)) = with_faults(&from, &to, &["renameat2:error=EBUSY"]) else { return };
    assert!(
        !ok && text.contains("mount point") && text.contains("nothing was installed"),
        "{text}"
    );
    assert_eq!(names(&to), [NAME]);
}

#[test]
fn without_a_lock_other_copies_are_left_alone() {
    let (_dir, from, to) = place();
    let other = format!(".{NAME}.abcdef.partial");
    fs::create_dir(to.join(&other)).unwrap();
    let Some((ok, text)) = with_faults(&from, &to, &["flock:error=EBADF"]) else { return };
    assert!(ok, "{text}");
    assert_eq!(names(&to), [&other, NAME]);
    assert!(install(&from, &to).0);
    assert_eq!(names(&to), [NAME]);
}

#[test]
fn what_fails_after_the_rename_is_not_called_nothing() {
    let (_dir, from, to) = place();
    let Some((ok, text)) = with_faults(&from, &to, &["syncfs:error=EIO:when=2"]) else { return };
    assert!(ok && text.contains("installed") && text.contains("power failure"), "{text}");
    assert!(!text.contains("nothing was installed"), "{text}");
}

#[test]
fn nobody_who_listens_is_no_failure() {
    let (_dir, from, to) = place();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["install", "--from"]).arg(&from).arg("--to").arg(&to).stdout(full);
    assert!(command.status().unwrap().success());
}
