//! What the disks hold.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Not a multiple of any block size but the sector's.
pub const SIZE: u64 = (24 << 20) + 512 * 3;

/// A file with data, holes and written zeroes, and its folder.
#[derive(Debug)]
pub struct Image {
    pub dir: TempDir,
    pub path: PathBuf,
}

impl Image {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        write_image(&path);
        Self { dir, path }
    }

    /// Another file in the folder.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }
}

fn write_image(path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(SIZE).unwrap();
    for (start, length) in [
        (0, 512),
        (1 << 20, 3 << 20),
        ((5 << 20) + 4096, 4096),
        ((6 << 20) + 1000, 70_001),
        (12 << 20, 1 << 20),
        (SIZE - 700, 700),
    ] {
        file.write_all_at(&noise(start, length), start).unwrap();
    }
    file.write_all_at(&vec![0; 1 << 20], 15 << 20).unwrap();
}

/// Bytes that look random and depend on the seed.
pub fn noise(seed: u64, length: u64) -> Vec<u8> {
    let mut state = seed + 0x9e37_79b9_7f4a_7c15;
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    (0..length).map(byte).collect()
}

/// Says where two disks differ instead of showing them.
pub fn assert_same(got: &[u8], want: &[u8]) {
    assert_eq!(got.len(), want.len(), "length");
    if got != want {
        let at = got.iter().zip(want).position(|(a, b)| a != b).unwrap();
        panic!("first difference at byte {at}: {} instead of {}", got[at], want[at]);
    }
}
