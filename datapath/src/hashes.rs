//! Hashes of the chunks as they were read from the source, kept in a file: memory does not grow with
//! the disk. XXH3-128 is no cryptographic hash; it finds damage, not malice.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_128;

const ENTRY: u64 = 16;
/// Entries are written in pieces of at most this many.
const BATCH: u64 = 4096;

/// What is expected of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// It was not hashed in this or an earlier run.
    Unknown,
    /// Zeroes.
    Zero,
    /// This hash.
    Hash(u128),
}

/// The file of hashes, one entry for each chunk.
#[derive(Debug)]
pub struct HashFile {
    file: File,
}

/// Hash of a chunk.
pub fn hash(data: &[u8]) -> u128 {
    // 0 and 1 stand for "unknown" and "zeroes" in the file.
    match xxh3_128(data) {
        n @ (0 | 1) => n + 2,
        n => n,
    }
}

impl HashFile {
    /// Opens the file; what another copy left in it is dropped when `keep` is false.
    pub fn open(path: &Path, keep: bool) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(!keep).open(path)?;
        Ok(Self { file })
    }

    /// Records a chunk.
    pub fn set(&self, index: u64, hash: u128) -> io::Result<()> {
        self.file.write_all_at(&hash.to_le_bytes(), index * ENTRY)
    }

    /// Records chunks of zeroes.
    pub fn set_zero(&self, first: u64, count: u64) -> io::Result<()> {
        let piece = 1_u128.to_le_bytes().repeat(usize::try_from(count.min(BATCH)).unwrap_or(0));
        let mut done = 0;
        while done < count {
            let step = (count - done).min(BATCH);
            let bytes = usize::try_from(step * ENTRY).unwrap_or(0);
            self.file.write_all_at(&piece[..bytes], (first + done) * ENTRY)?;
            done += step;
        }
        Ok(())
    }

    /// What is known of a chunk.
    pub fn get(&self, index: u64) -> io::Result<Expected> {
        let mut bytes = [0; 16];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.file.read_at(&mut bytes[filled..], index * ENTRY + filled as u64) {
                Ok(0) => return Ok(Expected::Unknown),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(match u128::from_le_bytes(bytes) {
            0 => Expected::Unknown,
            1 => Expected::Zero,
            n => Expected::Hash(n),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_kept_and_gaps_are_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h");
        let file = HashFile::open(&path, false).unwrap();
        file.set(2, hash(b"abc")).unwrap();
        file.set_zero(10, 5000).unwrap();
        let file = HashFile::open(&path, true).unwrap();
        assert_eq!(file.get(2).unwrap(), Expected::Hash(hash(b"abc")));
        assert_eq!(file.get(3).unwrap(), Expected::Unknown);
        assert_eq!(
            (file.get(10).unwrap(), file.get(5009).unwrap()),
            (Expected::Zero, Expected::Zero)
        );
        assert_eq!(file.get(5010).unwrap(), Expected::Unknown);
        let file = HashFile::open(&path, false).unwrap();
        assert_eq!(file.get(2).unwrap(), Expected::Unknown);
    }
}
