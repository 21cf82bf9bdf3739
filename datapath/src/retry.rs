//! How long to put up with failures that may pass.

use crate::error::CopyError;
use std::time::Duration;
use tokio::time::Instant;

/// A policy: waits that double, up to a number of attempts or a time.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Attempts at one request after the first; 0 is no retry.
    pub attempts: u32,
    /// First wait.
    pub first: Duration,
    /// Longest wait.
    pub longest: Duration,
    /// Give up after this time without success.
    pub give_up: Duration,
}

impl Retry {
    /// No retry at all.
    pub const NONE: Self = Self {
        attempts: 0,
        first: Duration::ZERO,
        longest: Duration::ZERO,
        give_up: Duration::ZERO,
    };

    /// Whether there is any.
    pub fn is_on(&self) -> bool {
        self.attempts > 0
    }

    /// Begins to count for one request.
    pub fn begin(&self) -> Attempts {
        Attempts { policy: *self, failures: 0, since: None }
    }
}

/// The failures of one request in a row.
#[derive(Debug)]
pub struct Attempts {
    policy: Retry,
    failures: u32,
    since: Option<Instant>,
}

impl Attempts {
    /// Whether there was a failure.
    pub fn failed(&self) -> bool {
        self.failures > 0
    }

    /// Waits before the next attempt, or gives up with what failed.
    pub async fn wait(&mut self, error: CopyError) -> Result<(), CopyError> {
        let since = *self.since.get_or_insert_with(Instant::now);
        self.failures += 1;
        if !self.policy.is_on() {
            return Err(error);
        }
        if self.failures > self.policy.attempts || since.elapsed() >= self.policy.give_up {
            return Err(CopyError::GaveUp {
                attempts: self.failures,
                seconds: since.elapsed().as_secs(),
                source: Box::new(error),
            });
        }
        let factor = 1_u32 << (self.failures - 1).min(16);
        tokio::time::sleep((self.policy.first * factor).min(self.policy.longest)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_double_and_end() {
        let policy = Retry {
            attempts: 5,
            first: Duration::from_millis(100),
            longest: Duration::from_secs(1),
            give_up: Duration::from_secs(60),
        };
        let (start, mut attempts) = (Instant::now(), policy.begin());
        for _ in 0..5 {
            attempts.wait(CopyError::Stopped).await.unwrap();
        }
        // 0.1 + 0.2 + 0.4 + 0.8 + 1.0
        assert_eq!(start.elapsed().as_millis(), 2500);
        let e = attempts.wait(CopyError::Stopped).await.unwrap_err();
        assert!(matches!(e, CopyError::GaveUp { attempts: 6, .. }));
        let mut none = Retry::NONE.begin();
        assert!(matches!(none.wait(CopyError::Stopped).await, Err(CopyError::Stopped)));
    }
}
