//! The token bucket: one for all disks, with a rate that can change while it runs.

use crate::units::Rate;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A waiter looks again after this time, so that a new rate takes effect soon.
const LOOK: Duration = Duration::from_millis(100);
/// How often the rate file is looked at.
const FILE_LOOK: Duration = Duration::from_millis(500);
/// Unused time is credited up to this much.
const BURST: Duration = Duration::from_millis(100);

/// Something that allows bytes to be moved: a bucket here, or one in another process.
pub trait Limit: Send + Sync + std::fmt::Debug {
    /// Waits until `bytes` may be moved.
    fn take(&self, bytes: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

impl Limit for Bucket {
    fn take(&self, bytes: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(Self::take(self, bytes))
    }
}

/// Limits bytes per second. Requests are served in order of arrival.
#[derive(Debug)]
pub struct Bucket {
    state: Mutex<State>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    rate: Rate,
    /// When the bytes given out so far will have been earned.
    paid_until: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn new(rate: Rate) -> Self {
        Self {
            state: Mutex::new(State { rate, paid_until: Instant::now() }),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present rate.
    pub fn rate(&self) -> Rate {
        self.state().rate
    }

    /// Changes the rate; debts at the old rate are converted.
    pub fn set(&self, rate: Rate) {
        let mut state = self.state();
        if let (Some(old), Some(new)) = (state.rate.0, rate.0) {
            let now = Instant::now();
            let debt = state.paid_until.saturating_duration_since(now);
            #[allow(clippy::cast_precision_loss)] // a ratio
            let factor = old.get() as f64 / new.get() as f64;
            let debt = Duration::try_from_secs_f64(debt.as_secs_f64() * factor).unwrap_or(debt);
            state.paid_until = now + debt;
        } else {
            state.paid_until = Instant::now();
        }
        state.rate = rate;
    }

    /// Waits until `bytes` may be moved. Cancelling it gives up the place in the queue, no more.
    pub async fn take(&self, bytes: u64) {
        if self.rate().0.is_none() {
            return;
        }
        let _turn = self.turn.lock().await;
        loop {
            let wait = self.try_take(bytes);
            let Some(wait) = wait else { return };
            tokio::time::sleep(wait.min(LOOK)).await;
        }
    }

    /// `None` when the bytes are given, else how long to wait.
    fn try_take(&self, bytes: u64) -> Option<Duration> {
        let mut state = self.state();
        let rate = state.rate.0?;
        let now = Instant::now();
        if state.paid_until > now {
            return Some(state.paid_until - now);
        }
        let start = state.paid_until.max(now.checked_sub(BURST).unwrap_or(now));
        #[allow(clippy::cast_precision_loss)] // chunks and rates are far below 2^52
        let cost = bytes as f64 / rate.get() as f64;
        state.paid_until = start + Duration::try_from_secs_f64(cost).unwrap_or(Duration::MAX / 4);
        None
    }
}

/// A file with the rate in it could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RateFileError {
    /// It cannot be read.
    #[error("rate file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It holds no rate.
    #[error("rate file {path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: crate::units::UnitError,
    },
}

/// Reads the rate in a file; an empty file is no limit.
pub fn read_rate_file(path: &Path) -> Result<Rate, RateFileError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| RateFileError::Read { path: path.to_owned(), source })?;
    if text.trim().is_empty() {
        return Ok(Rate::UNLIMITED);
    }
    text.parse().map_err(|source| RateFileError::Parse { path: path.to_owned(), source })
}

/// Follows a rate file for ever. A file that cannot be used leaves the rate as it is, and is said once.
pub async fn follow_rate_file(path: PathBuf, bucket: Arc<Bucket>) {
    let mut complained = false;
    loop {
        tokio::time::sleep(FILE_LOOK).await;
        // A few bytes: reading them is as cheap as asking whether they changed, and surer.
        match read_rate_file(&path) {
            Ok(rate) => {
                if rate != bucket.rate() {
                    tracing::info!(%rate, "bandwidth limit changed");
                    bucket.set(rate);
                }
                complained = false;
            }
            Err(error) if !complained => {
                complained = true;
                tracing::warn!(%error, "rate file not usable, the limit stays as it is");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    async fn moved_in(bucket: &Bucket, limit: Duration, chunk: u64) -> u64 {
        let start = Instant::now();
        let mut bytes = 0;
        loop {
            bucket.take(chunk).await;
            if start.elapsed() >= limit {
                return bytes;
            }
            bytes += chunk;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn thirty_seconds_are_within_three_percent() {
        for (text, chunk) in [("200MiB/s", 1 << 20), ("10MB/s", 1 << 20), ("333kB/s", 4096)] {
            let limit = rate(text);
            let bytes = moved_in(&Bucket::new(limit), Duration::from_secs(30), chunk).await;
            #[allow(clippy::cast_precision_loss)]
            let error = (bytes as f64 / (limit.0.unwrap().get() * 30) as f64 - 1.0).abs();
            assert!(error < 0.03, "{text}: {error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_disks_share_it() {
        let bucket = Arc::new(Bucket::new(rate("100MiB/s")));
        let other = tokio::spawn({
            let bucket = Arc::clone(&bucket);
            async move { moved_in(&bucket, Duration::from_secs(10), 1 << 20).await }
        });
        let both = moved_in(&bucket, Duration::from_secs(10), 1 << 20).await + other.await.unwrap();
        assert!((980 << 20..1030 << 20).contains(&both), "{both}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_reaches_who_is_waiting() {
        let bucket = Arc::new(Bucket::new(rate("1kB/s")));
        bucket.take(1 << 20).await;
        let start = Instant::now();
        tokio::spawn({
            let bucket = Arc::clone(&bucket);
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                bucket.set(Rate::UNLIMITED);
            }
        });
        bucket.take(1 << 20).await;
        assert!(start.elapsed() < Duration::from_millis(1300));
    }

    #[test]
    fn a_rate_file_is_read_and_its_errors_name_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rate");
        assert!(read_rate_file(&path).unwrap_err().to_string().contains("rate"));
        std::fs::write(&path, "50MiB/s\n").unwrap();
        assert_eq!(read_rate_file(&path).unwrap(), rate("50MiB/s"));
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(read_rate_file(&path).unwrap(), Rate::UNLIMITED);
        std::fs::write(&path, "quick").unwrap();
        assert!(read_rate_file(&path).unwrap_err().to_string().contains("\"quick\""));
    }
}
