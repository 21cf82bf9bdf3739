//! A file or block device as source.
//!
//! What is in the page cache is read from there; the rest by direct I/O, which leaves the cache alone.

use crate::extent::Extent;
use crate::sys;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

const DIRECT_ALIGN: u64 = 4096;

/// An open source.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    file: File,
    direct: Option<File>,
    direct_works: AtomicBool,
    size: u64,
    block_device: bool,
}

impl FileSource {
    /// Opens a file or block device for reading.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let kind = file.metadata()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(io::Error::other("it is neither a file nor a block device"));
        }
        let size = (&file).seek(SeekFrom::End(0))?;
        let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).ok();
        Ok(Self {
            path: path.to_owned(),
            file,
            direct_works: AtomicBool::new(direct.is_some()),
            direct,
            size,
            block_device: kind.is_block_device(),
        })
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, for metadata and cloning.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether it is a block device.
    pub fn is_block_device(&self) -> bool {
        self.block_device
    }

    /// Names this very content as far as the kernel can tell, for journals.
    pub fn identity(&self) -> io::Result<String> {
        let m = self.file.metadata()?;
        Ok(if self.block_device {
            format!("device {} of {}", m.rdev(), self.size)
        } else {
            let (dev, ino, size) = (m.dev(), m.ino(), m.len());
            format!("file {dev}:{ino} of {size}, changed {}.{:09}", m.mtime(), m.mtime_nsec())
        })
    }

    /// Fills the buffer.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let cached = if self.direct_works.load(Ordering::Relaxed) {
            sys::read_cached(&self.file, buffer, offset).unwrap_or(0)
        } else {
            0
        };
        let Some(rest) = buffer.get_mut(cached..).filter(|r| !r.is_empty()) else { return Ok(()) };
        let offset = offset + cached as u64;
        if let Some(direct) = self.direct.as_ref()
            && self.direct_works.load(Ordering::Relaxed)
            && offset.is_multiple_of(DIRECT_ALIGN)
            && (rest.len() as u64).is_multiple_of(DIRECT_ALIGN)
            && (rest.as_ptr() as u64).is_multiple_of(DIRECT_ALIGN)
        {
            match direct.read_exact_at(rest, offset) {
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                    self.direct_works.store(false, Ordering::Relaxed);
                }
                other => return other,
            }
        }
        self.file.read_exact_at(rest, offset)
    }

    /// Extents of a range. Zero ranges shorter than `gap` may be left out; a file system that knows
    /// no holes gives one extent of data.
    pub fn extents(&self, start: u64, end: u64, gap: u64) -> Vec<Extent> {
        if self.block_device {
            return vec![Extent { start, end, zero: false }];
        }
        walk(start, end, gap, |at, whence| seek(&self.file, at, whence))
    }
}

/// `SEEK_DATA` or `SEEK_HOLE`; `None` when there is no more data.
fn seek(file: &File, at: u64, whence: Whence) -> Result<Option<u64>, Errno> {
    let at = i64::try_from(at).map_err(|_| Errno::EINVAL)?;
    match lseek(file, at, whence) {
        Ok(found) => Ok(u64::try_from(found).ok()),
        Err(Errno::ENXIO) => Ok(None),
        Err(e) => Err(e),
    }
}

/// After so many short holes in a row the next bytes are taken for data: asking costs more than reading.
const PATIENCE: u32 = 32;
const SKIP: u64 = 1 << 20;

fn walk(
    start: u64,
    end: u64,
    gap: u64,
    seek: impl Fn(u64, Whence) -> Result<Option<u64>, Errno>,
) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    let mut push = |start: u64, end: u64, zero: bool| match extents.last_mut() {
        _ if start >= end => {}
        Some(last) if last.zero == zero => last.end = end,
        _ => extents.push(Extent { start, end, zero }),
    };
    let mut at = start;
    let mut short_holes = 0;
    while at < end {
        let Ok(data) = seek(at, Whence::SeekData) else {
            push(at, end, false);
            break;
        };
        let data = data.unwrap_or(end).clamp(at, end);
        let short = data - at < gap;
        push(at, data, !short || at == data);
        short_holes = if short && data > at { short_holes + 1 } else { 0 };
        if data == end {
            break;
        }
        let hole = match seek(data, Whence::SeekHole) {
            Ok(Some(hole)) => hole.clamp(data, end),
            _ => end,
        };
        let hole = if short_holes >= PATIENCE {
            hole.max(data.saturating_add(SKIP)).min(end)
        } else {
            hole
        };
        push(data, hole, false);
        // No progress would mean a file that changes under us; the rest is read.
        if hole <= at {
            push(at, end, false);
            break;
        }
        at = hole;
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file of blocks of 10 bytes, each data or hole.
    fn fake(blocks: &[bool]) -> impl Fn(u64, Whence) -> Result<Option<u64>, Errno> + '_ {
        move |at, whence| {
            let want = matches!(whence, Whence::SeekData);
            let size = blocks.len() as u64 * 10;
            if at >= size {
                return Ok(None);
            }
            let found = (usize::try_from(at / 10).unwrap()..blocks.len())
                .find(|b| blocks[*b] == want)
                .map(|b| at.max(b as u64 * 10));
            Ok(found.or_else(|| (!want).then_some(size)))
        }
    }

    proptest! {
        #[test]
        fn extents_cover_all_and_call_no_data_zero(blocks in proptest::collection::vec(any::<bool>(), 0..60), gap in 0_u64..25, from in 0_u64..100) {
            let size = blocks.len() as u64 * 10;
            let start = from.min(size);
            let extents = walk(start, size, gap, fake(&blocks));
            let mut at = start;
            for e in &extents {
                prop_assert_eq!(e.start, at);
                at = e.end;
                if e.zero {
                    for byte in e.start..e.end {
                        prop_assert!(!blocks[usize::try_from(byte / 10).unwrap()]);
                    }
                }
            }
            prop_assert_eq!(at, size);
        }
    }

    #[test]
    fn a_file_system_without_holes_is_all_data() {
        let extents = walk(0, 100, 0, |_, _| Err(Errno::EINVAL));
        assert_eq!(extents, [Extent { start: 0, end: 100, zero: false }]);
    }

    #[test]
    fn reads_are_exact_at_any_offset() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let bytes: Vec<u8> = (0..20_001_u32).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let source = FileSource::open(&path).unwrap();
        assert_eq!(source.size(), 20_001);
        for (from, to) in [(0, 20_001), (4096, 8192), (5, 6), (20_000, 20_001)] {
            let mut buffer = vec![0; to - from];
            source.read(from as u64, &mut buffer).unwrap();
            assert_eq!(buffer, bytes[from..to]);
        }
        let mut beyond = [0; 10];
        assert!(source.read(20_000, &mut beyond).is_err());
    }
}
