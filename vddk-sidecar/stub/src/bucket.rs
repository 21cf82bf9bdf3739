//! A limit in bytes per second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Unused time is credited up to this much.
const BURST: Duration = Duration::from_millis(50);

/// Bytes per second for all who share it.
#[derive(Debug)]
pub struct Bucket {
    bytes_per_second: u64,
    /// When the bytes given out so far will have been earned.
    paid_until: Mutex<Instant>,
}

impl Bucket {
    /// No bucket for a limit of none or zero.
    pub fn new(bytes_per_second: Option<u64>) -> Option<Self> {
        let bytes_per_second = bytes_per_second.filter(|&rate| rate > 0)?;
        Some(Self { bytes_per_second, paid_until: Mutex::new(Instant::now()) })
    }

    /// Sleeps until `bytes` may have been moved.
    pub fn take(&self, bytes: u64) {
        let now = Instant::now();
        std::thread::sleep(self.due(bytes, now).saturating_duration_since(now));
    }

    fn due(&self, bytes: u64, now: Instant) -> Instant {
        // The bytes of one request are far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        let from = now.checked_sub(BURST).map_or(*paid_until, |earliest| earliest.max(*paid_until));
        *paid_until = from + cost;
        *paid_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wait_for_their_time() {
        let bucket = Bucket::new(Some(1000)).unwrap();
        let now = Instant::now() + Duration::from_secs(10);
        let earned = |at: Instant| at.checked_sub(BURST).unwrap();
        let first = bucket.due(1000, now);
        assert_eq!(first, earned(now) + Duration::from_secs(1));
        assert_eq!(bucket.due(500, now), first + Duration::from_millis(500));
        // After a long pause no more than the burst is credited.
        let later = now + Duration::from_secs(100);
        assert_eq!(bucket.due(1000, later), earned(later) + Duration::from_secs(1));
    }

    #[test]
    fn no_limit_no_bucket() {
        assert!(Bucket::new(None).is_none());
        assert!(Bucket::new(Some(0)).is_none());
    }
}
