//! Chunk buffers: a fixed number of bytes in flight for all disks, page-aligned for direct I/O.

use crate::error::CopyError;
use bytes::BytesMut;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What direct I/O wants of addresses.
const PAGE: usize = 4096;
/// Buffers lie in huge pages: a write of 1 MiB is one piece for the disk, not 256 (docs/decisions.md
/// has the figures).
const HUGE_PAGE: usize = 2 << 20;

/// Gives out buffers of one size; waits when all are in use.
#[derive(Debug)]
pub struct BufferPool {
    size: usize,
    permits: Arc<Semaphore>,
    free: Mutex<Vec<BytesMut>>,
    /// Buffers that are given out only for a slow source.
    reserve: AtomicUsize,
    reads: AtomicU64,
    quickest_us: AtomicU64,
}

/// A source whose quickest answer takes this long is slow: more requests in flight hide the wait.
const SLOW_US: u64 = 4000;
/// Answers that are looked at before that is decided.
const JUDGED_READS: u64 = 12;

/// The right to one buffer. The buffer itself may be lost on the way, the right is not.
#[derive(Debug)]
pub struct Lease {
    pool: Arc<BufferPool>,
    _permit: OwnedSemaphorePermit,
}

/// Appends a part; neighbours in memory are joined without copying.
pub(crate) fn join(whole: &mut BytesMut, part: BytesMut) {
    if whole.is_empty() {
        *whole = part;
    } else if !part.is_empty() {
        whole.unsplit(part);
    }
}

impl BufferPool {
    /// `in_flight` bytes in buffers of `size`, at least one; up to `most` for a source that answers
    /// slowly.
    pub fn new(size: usize, in_flight: usize, most: usize) -> Arc<Self> {
        let count = |bytes: usize| (bytes / size.max(1)).clamp(1, 4096);
        let (first, all) = (count(in_flight), count(most.max(in_flight)));
        Arc::new(Self {
            size,
            permits: Arc::new(Semaphore::new(first)),
            free: Mutex::new(slab(size, all)),
            reserve: AtomicUsize::new(all - first),
            reads: AtomicU64::new(0),
            quickest_us: AtomicU64::new(u64::MAX),
        })
    }

    /// Learns how long a read took.
    pub fn note_read(&self, took: Duration) {
        if self.reserve.load(Ordering::Relaxed) == 0 {
            return;
        }
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let quickest = self.quickest_us.fetch_min(us, Ordering::Relaxed).min(us);
        let reads = self.reads.fetch_add(1, Ordering::Relaxed) + 1;
        if reads >= JUDGED_READS {
            let more = self.reserve.swap(0, Ordering::Relaxed);
            if quickest >= SLOW_US {
                self.permits.add_permits(more);
            }
        }
    }

    /// Bytes of a buffer.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Waits for the right to a buffer. Fair between disks.
    pub async fn lease(self: &Arc<Self>) -> Result<Lease, CopyError> {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|e| CopyError::Internal(e.to_string()))?;
        Ok(Lease { pool: Arc::clone(self), _permit: permit })
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<BytesMut>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// A buffer of the pool's size; its content is whatever it was.
    pub fn buffer(&self) -> BytesMut {
        self.pool.free().pop().unwrap_or_else(|| aligned(self.pool.size))
    }

    /// Tells the pool how long a read took.
    pub fn note_read(&self, took: Duration) {
        self.pool.note_read(took);
    }

    /// Gives a buffer back. A part of one is dropped instead.
    pub fn give_back(&self, buffer: BytesMut) {
        if buffer.len() == self.pool.size {
            self.pool.free().push(buffer);
        }
    }
}

/// Zeroed memory at a page boundary.
pub fn aligned(size: usize) -> BytesMut {
    aligned_to(PAGE, size)
}

fn aligned_to(align: usize, size: usize) -> BytesMut {
    let mut memory = BytesMut::zeroed(size + align);
    let skip = memory.as_ptr().align_offset(align);
    let _front = memory.split_to(skip.min(align));
    memory.truncate(size);
    memory
}

/// All buffers in one piece of memory, which the kernel fills in when it is used.
fn slab(size: usize, count: usize) -> Vec<BytesMut> {
    if !size.is_multiple_of(PAGE) {
        return Vec::new();
    }
    let mut memory = aligned_to(HUGE_PAGE, size * count);
    crate::sys::want_huge_pages(&mut memory);
    let mut buffers: Vec<BytesMut> = (0..count).map(|_| memory.split_to(size)).collect();
    // The first in memory is used first.
    buffers.reverse();
    buffers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_parts_join_again() {
        let mut b = aligned(1 << 20);
        assert_eq!(b.as_ptr() as usize % PAGE, 0);
        let tail = b.split_off(8192);
        assert_eq!(tail.as_ptr() as usize % PAGE, 0);
        b.unsplit(tail);
        assert_eq!((b.len(), b.as_ptr() as usize % PAGE), (1 << 20, 0));
    }

    #[tokio::test]
    async fn a_slow_source_gets_more_and_a_quick_one_does_not() {
        for (ms, free) in [(20, 8), (1, 2)] {
            let pool = BufferPool::new(1 << 20, 2 << 20, 8 << 20);
            for _ in 0..20 {
                pool.note_read(Duration::from_millis(ms));
            }
            assert_eq!(pool.permits.available_permits(), free);
        }
    }

    #[tokio::test]
    async fn no_more_buffers_than_allowed() {
        let pool = BufferPool::new(1 << 20, 2 << 20, 2 << 20);
        let a = pool.lease().await.unwrap();
        let _b = pool.lease().await.unwrap();
        let third = tokio::time::timeout(std::time::Duration::from_millis(10), pool.lease()).await;
        assert!(third.is_err());
        let buffer = a.buffer();
        let address = buffer.as_ptr() as usize;
        a.give_back(buffer);
        drop(a);
        let c = pool.lease().await.unwrap();
        assert_eq!(c.buffer().as_ptr() as usize, address);
    }
}
