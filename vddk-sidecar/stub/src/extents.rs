//! Which parts of a disk are allocated, in whole chunks, as `QueryAllocatedBlocks` reports them.

use crate::codes::{FILE_ERROR, INVALID_ARG, OUTOFRANGE, Result};
use crate::sys;
use std::fs::File;

/// The least chunk, in sectors.
pub const MIN_CHUNK: u64 = 128;
/// The most chunks in one call.
pub const MAX_CHUNKS: u64 = 512 * 1024;
const SECTOR: u64 = 512;

/// Whether the arguments of a query are such as VDDK takes. The end of a disk that is no whole number of chunks cannot
/// be asked for: VDDK, too, answers "One of the parameters was invalid".
pub fn check(start: u64, count: u64, chunk: u64, capacity: u64) -> Result<()> {
    if chunk < MIN_CHUNK
        || count == 0
        || !start.is_multiple_of(chunk)
        || !count.is_multiple_of(chunk)
    {
        return Err(INVALID_ARG);
    }
    if count / chunk > MAX_CHUNKS {
        return Err(INVALID_ARG);
    }
    match start.checked_add(count) {
        Some(end) if end <= capacity => Ok(()),
        _ => Err(OUTOFRANGE),
    }
}

/// The allocated ranges, in sectors, of `count` sectors from `start`: what the file has data for, widened to chunks.
pub fn allocated(file: &File, start: u64, count: u64, chunk: u64) -> Result<Vec<(u64, u64)>> {
    let end = start + count;
    let mut blocks: Vec<(u64, u64)> = Vec::new();
    let mut at = start * SECTOR;
    while at < end * SECTOR {
        let Some(data) = sys::seek(file, at, true).map_err(|_| FILE_ERROR)? else { break };
        if data >= end * SECTOR {
            break;
        }
        let hole = sys::seek(file, data, false).map_err(|_| FILE_ERROR)?.unwrap_or(end * SECTOR);
        let from = data / SECTOR / chunk * chunk;
        let to = hole.div_ceil(SECTOR).next_multiple_of(chunk).min(end);
        match blocks.last_mut() {
            Some((first, length)) if *first + *length >= from => *length = to - *first,
            _ => blocks.push((from, to - from)),
        }
        at = to * SECTOR;
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn arguments() {
        assert_eq!(check(0, 256, 128, 256), Ok(()));
        assert_eq!(check(128, 256, 128, 256), Err(OUTOFRANGE));
        assert_eq!(check(0, 130, 128, 256), Err(INVALID_ARG));
        assert_eq!(check(1, 128, 128, 256), Err(INVALID_ARG));
        assert_eq!(check(0, 64, 64, 256), Err(INVALID_ARG));
        assert_eq!(check(0, 0, 128, 256), Err(INVALID_ARG));
        assert_eq!(check(0, 128 * (MAX_CHUNKS + 1), 128, u64::MAX), Err(INVALID_ARG));
        assert_eq!(check(u64::MAX - 127, 128, 128, u64::MAX), Err(OUTOFRANGE));
    }

    #[test]
    fn data_is_widened_to_chunks() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1024 * 1024).unwrap();
        file.write_all_at(&[1; 512], 300 * 1024).unwrap();
        file.write_all_at(&[1; 4096], 520 * 1024).unwrap();
        file.write_all_at(&[1; 4096], 600 * 1024).unwrap();
        // 64 KiB chunks: number 4, and 8 and 9 as one.
        assert_eq!(allocated(&file, 0, 2048, 128), Ok(vec![(512, 128), (1024, 256)]));
        assert_eq!(allocated(&file, 1152, 896, 128), Ok(vec![(1152, 128)]));
        assert_eq!(allocated(&file, 1280, 768, 128), Ok(vec![]));
    }

    #[test]
    fn a_dense_file_is_one_block() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![1; 256 * 1024], 0).unwrap();
        assert_eq!(allocated(&file, 0, 512, 128), Ok(vec![(0, 512)]));
        assert_eq!(allocated(&file, 128, 128, 128), Ok(vec![(128, 128)]));
    }

    #[test]
    fn an_end_within_a_sector() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![1; 65536 + 700], 0).unwrap();
        assert_eq!(allocated(&file, 0, 128, 128), Ok(vec![(0, 128)]));
    }
}
