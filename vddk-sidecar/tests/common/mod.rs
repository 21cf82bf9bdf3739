//! A VDDK tree made of the stand-in.

#![allow(dead_code, missing_docs)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Of `vddk-sidecar`.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_vddk-sidecar");
pub const NAME: &str = "vmware-vix-disklib-distrib";

/// The stand-in, which cargo has built for this test.
pub fn stub() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let path = exe.parent().unwrap().join("libvixDiskLib.so");
    assert!(path.exists(), "{} is missing: cargo build -p vddk-stub", path.display());
    path
}

/// `<dir>/vmware-vix-disklib-distrib` as VMware's archive has it.
pub fn tree(dir: &Path) -> PathBuf {
    let root = dir.join(NAME);
    let lib64 = root.join("lib64");
    fs::create_dir_all(&lib64).unwrap();
    fs::create_dir_all(root.join("doc")).unwrap();
    fs::copy(stub(), lib64.join("libvixDiskLib.so.8.0.3")).unwrap();
    symlink("libvixDiskLib.so.8.0.3", lib64.join("libvixDiskLib.so.8")).unwrap();
    symlink("libvixDiskLib.so.8", lib64.join("libvixDiskLib.so")).unwrap();
    fs::write(root.join("doc/readme"), "text").unwrap();
    fs::write(root.join("FILES"), "doc/readme\n").unwrap();
    root
}

/// A folder for sources (`src`) and one for a volume (`opt`).
pub fn place() -> (TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("src"), dir.path().join("opt"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    let from = tree(&from);
    (dir, from, to)
}

/// A shared library made of C, with more arguments for the compiler.
pub fn compile(code: &str, output: &Path, more: &[&str]) {
    let source = output.with_extension("c");
    fs::write(&source, code).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(output).arg(&source).args(more);
    assert!(cc.status().unwrap().success());
    fs::remove_file(source).unwrap();
}

pub fn install(from: &Path, to: &Path) -> (bool, String) {
    let mut command = Command::new(PROGRAM);
    command.arg("install").arg("--from").arg(from).arg("--to").arg(to);
    let out = command.output().unwrap();
    let text =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.success(), text)
}

/// Names in a folder, hidden ones too.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
