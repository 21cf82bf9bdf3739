//! Compares the target with what was read from the source.

use crate::buffer::{Lease, aligned};
use crate::engine::{Disk, Shared};
use crate::error::{CopyError, joined};
use crate::hashes::{Expected, HashFile, hash};
use crate::plan::is_zero;
use crate::progress::add;
use crate::ranges::RangeSet;
use crate::source::Source;
use crate::target::Target;
use bytes::BytesMut;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Bytes of one sample.
const SAMPLE: u64 = 64 << 10;
/// Samples of a journal's ranges.
const SAMPLES: u64 = 64;

/// Reads the whole target back. The first difference is an error that names its offset.
pub async fn verify(
    shared: &Arc<Shared>,
    disk: &Disk,
    hashes: Option<&HashFile>,
) -> Result<(), CopyError> {
    let size = disk.source.size();
    let chunk = shared.settings.shape.chunk;
    let mut tasks: JoinSet<Result<(), CopyError>> = JoinSet::new();
    let mut start = 0;
    while start < size {
        let range = start..start.saturating_add(chunk).min(size);
        start = range.end;
        let expected = match hashes {
            Some(h) => h.get(range.start / chunk).map_err(|e| hashes_failed(disk, e))?,
            None => Expected::Unknown,
        };
        let length = range.end - range.start;
        if expected == Expected::Zero && disk.target.is_hole(range.start, length) {
            add(&disk.progress.verified, length);
            continue;
        }
        let lease = shared.pool.lease().await?;
        let (source, target) = (disk.source.clone(), disk.target.clone());
        let progress = Arc::clone(&disk.progress);
        tasks.spawn(async move {
            check(&lease, &source, &target, range, expected).await?;
            add(&progress.verified, length);
            Ok(())
        });
        while let Some(done) = tasks.try_join_next() {
            joined(done)?;
        }
    }
    while let Some(done) = tasks.join_next().await {
        joined(done)?;
    }
    Ok(())
}

async fn check(
    lease: &Lease,
    source: &Source,
    target: &Target,
    range: Range<u64>,
    expected: Expected,
) -> Result<(), CopyError> {
    let mut buffer = lease.buffer();
    let length = usize::try_from(range.end - range.start).unwrap_or(0);
    buffer.truncate(length);
    let found = target.read_back(range.start, buffer).await?;
    let same = match expected {
        Expected::Zero => is_zero(&found),
        Expected::Hash(h) => hash(&found) == h,
        Expected::Unknown => false,
    };
    if !same {
        explain(source, target, &range, expected, &found).await?;
    }
    lease.give_back(found);
    Ok(())
}

/// Reads the source again: where is the difference, and whose is it?
async fn explain(
    source: &Source,
    target: &Target,
    range: &Range<u64>,
    expected: Expected,
    found: &[u8],
) -> Result<(), CopyError> {
    let original = source.read(range.start, BytesMut::zeroed(found.len())).await?;
    match original.iter().zip(found).position(|(a, b)| a != b) {
        Some(at) => Err(CopyError::Differs {
            target: target.name(),
            offset: range.start + at as u64,
            expected: original[at],
            found: found[at],
        }),
        // It was copied by an earlier run without hashes, and compared just now.
        None if expected == Expected::Unknown => Ok(()),
        None => Err(CopyError::SourceChanged {
            source_name: source.name(),
            start: range.start,
            end: range.end,
        }),
    }
}

/// Looks at a few places that are said to be durable. A journal names files and sizes, but it cannot see
/// that a volume was formatted since, or that a server now has another disk.
pub async fn samples_agree(disk: &Disk, durable: &RangeSet) -> Result<bool, CopyError> {
    let total = durable.bytes();
    let step = (total / SAMPLES).max(1);
    let mut next = 0;
    let mut passed = 0;
    for range in durable.iter() {
        let length = range.end - range.start;
        while next < passed + length {
            let start = (range.start + next - passed) / 4096 * 4096;
            let end = (start + SAMPLE).min(range.end);
            let size = usize::try_from(end - start).unwrap_or(0);
            let original = disk.source.read(start, aligned(size)).await?;
            let found = disk.target.read_back(start, aligned(size)).await?;
            if original != found {
                return Ok(false);
            }
            next += step;
        }
        passed += length;
    }
    Ok(true)
}

/// The hash file failed.
pub fn hashes_failed(disk: &Disk, source: io::Error) -> CopyError {
    CopyError::Journal { path: disk.hashes.clone().unwrap_or_default(), source }
}
