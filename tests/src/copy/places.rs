//! Places to copy onto: files on several file systems, and loop devices.

use crate::e2e::volume::must;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system, unmounted at the end.
#[derive(Debug)]
pub struct Mount(PathBuf);

impl Mount {
    /// `kind` is ext4, xfs or tmpfs; of this many bytes.
    pub fn new(dir: &Path, kind: &str, bytes: u64) -> Self {
        let point = dir.join(format!("mnt-{kind}"));
        fs::create_dir_all(&point).unwrap();
        if kind == "tmpfs" {
            let size = format!("size={bytes}");
            must(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&point));
        } else {
            let image = dir.join(format!("{kind}.fs"));
            File::create(&image).unwrap().set_len(bytes).unwrap();
            must(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image));
            must(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&point));
        }
        Self(point)
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A loop device over a file, detached at the end.
#[derive(Debug)]
pub struct Loop {
    /// Its node.
    pub node: PathBuf,
}

impl Loop {
    /// Over an existing file, with this logical sector size.
    pub fn over(file: &Path, sector: u32) -> Self {
        let node = must(
            Command::new("losetup")
                .args(["--find", "--show", "--sector-size", &sector.to_string()])
                .arg(file),
        );
        Self { node: node.into() }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.node).status();
    }
}
