//! Volumes: block devices over sparse files, folders, and a small file system that can get full.

use super::lab::{lab_function, said};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One MiB.
pub const MIB: u64 = 1 << 20;
/// What is written at the beginning, in the middle and at the end of a volume that must stay as it is.
const PATTERN: [u8; 4096] = [0xa5; 4096];

/// A folder of the test, with everything that the test makes.
#[derive(Debug)]
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    /// An empty one, on the disk: volumes are too large for a tmpfs.
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("v2v-e2e.").tempdir_in("/var/tmp").unwrap())
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A folder that the pod may write, as a filesystem volume or the work volume is.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        lab_function(&["v2v_work_volume", &path.to_string_lossy()]);
        path
    }

    /// A block device of this size that reads as zeros.
    pub fn block(&self, name: &str, bytes: u64) -> Block {
        Block::attach(self.path(name), bytes)
    }

    /// A block device of this size with a copy of an image at its beginning.
    pub fn block_from(&self, name: &str, image: &Path, bytes: u64) -> Block {
        let file = self.path(name);
        must(Command::new("cp").arg("--sparse=always").arg(image).arg(&file));
        File::options().write(true).open(&file).unwrap().set_len(bytes).unwrap();
        Block::attach(file, bytes)
    }

    /// A file system of its own with this many bytes, mounted.
    pub fn file_system(&self, name: &str, bytes: u64) -> FileSystem {
        let image = self.path(&format!("{name}.fs"));
        File::create(&image).unwrap().set_len(bytes).unwrap();
        must(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image));
        let dir = self.path(name);
        fs::create_dir(&dir).unwrap();
        must(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&dir));
        let mounted = FileSystem { dir };
        lab_function(&["v2v_work_volume", &mounted.dir.to_string_lossy()]);
        mounted
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs a program that has to succeed; what it printed.
#[track_caller]
pub fn must(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A loop device; detached when dropped.
#[derive(Debug)]
pub struct Block {
    /// Its node on the host.
    pub node: PathBuf,
    file: PathBuf,
    blocks_with_pattern: Option<u64>,
}

impl Block {
    fn attach(file: PathBuf, bytes: u64) -> Self {
        let node = lab_function(&["v2v_loop_attach", &file.to_string_lossy(), &bytes.to_string()]);
        Self { node: node.into(), file, blocks_with_pattern: None }
    }

    /// Its bytes on the disk, from the beginning.
    pub fn read(&self, bytes: u64) -> Vec<u8> {
        let mut content = Vec::new();
        File::open(&self.node).unwrap().take(bytes).read_to_end(&mut content).unwrap();
        content
    }

    /// Marks it, so that [`Block::is_untouched`] can tell.
    pub fn mark(&mut self) {
        let mut device = File::options().write(true).open(&self.node).unwrap();
        for at in self.places() {
            device.seek(SeekFrom::Start(at)).unwrap();
            device.write_all(&PATTERN).unwrap();
        }
        device.sync_all().unwrap();
        self.blocks_with_pattern = Some(self.allocated());
    }

    /// Whether nothing was written since [`Block::mark`]: the pattern is there, and no block more.
    pub fn is_untouched(&self) -> bool {
        let mut device = File::open(&self.node).unwrap();
        device.sync_all().unwrap();
        let pattern_is_there = self.places().into_iter().all(|at| {
            let mut found = [0; PATTERN.len()];
            device.seek(SeekFrom::Start(at)).unwrap();
            device.read_exact(&mut found).unwrap();
            found == PATTERN
        });
        pattern_is_there && self.blocks_with_pattern == Some(self.allocated())
    }

    fn places(&self) -> [u64; 3] {
        let bytes = fs::metadata(&self.file).unwrap().len();
        let last = bytes - PATTERN.len() as u64;
        [0, last / 2 / 4096 * 4096, last]
    }

    fn allocated(&self) -> u64 {
        File::open(&self.file).unwrap().sync_all().unwrap();
        fs::metadata(&self.file).unwrap().blocks()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let node = self.node.to_string_lossy().into_owned();
        let words = ["v2v_loop_detach".to_owned(), node];
        // Dropped in a panic too: nothing here may panic again.
        let _ = super::lab::podman_sh(&words).output();
    }
}

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct FileSystem {
    /// Where it is mounted.
    pub dir: PathBuf,
}

impl FileSystem {
    /// Takes all but `left` bytes of the free space.
    pub fn fill(&self, left: u64) {
        let fs = nix::sys::statvfs::statvfs(&self.dir).unwrap();
        let free = fs.blocks_available() * fs.fragment_size();
        let bytes = free.saturating_sub(left).to_string();
        let file = self.dir.join("somebody-elses-file");
        must(Command::new("fallocate").args(["-l", &bytes]).arg(file));
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.dir).output();
    }
}

/// Whether the first `bytes` of both are the same.
pub fn same_bytes(a: &Path, b: &Path, bytes: u64) -> bool {
    let limit = bytes.to_string();
    Command::new("cmp").args(["-s", "-n", &limit]).args([a, b]).status().unwrap().success()
}

/// Every file and link below a folder, relative to it, sorted.
pub fn listing(dir: &Path) -> Vec<String> {
    fn walk(top: &Path, dir: &Path, found: &mut Vec<String>) {
        // What a running pod removes meanwhile is left out.
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            found.push(path.strip_prefix(top).unwrap().to_string_lossy().into_owned());
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                walk(top, &path, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.sort();
    found
}

/// Those of [`listing`] that a finished run must not leave: private folders and temporary files.
pub fn leftovers(work: &Path) -> Vec<String> {
    let prefixes = ["v2v-pod.", "v2v.", "v2vnbdkit.", "v2vovl", "libguestfs"];
    let is_leftover = |path: &String| {
        let name = path.rsplit('/').next().unwrap_or(path);
        prefixes.iter().any(|p| name.starts_with(p))
            || matches!(name.rsplit('.').next(), Some("qcow2" | "new"))
    };
    listing(work).into_iter().filter(is_leftover).collect()
}

/// The files below a folder with this text in them.
pub fn files_with(dir: &Path, text: &str) -> Vec<String> {
    let output = Command::new("grep").args(["-rlaF", "-e", text]).arg(dir).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}
