//! What is written, what is durable, and how far the two may be apart.

use crate::error::CopyError;
use crate::journal::Journal;
use crate::ranges::RangeSet;
use crate::target::Target;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore};

/// A re-run copies at most 64 MiB or 1 % again; a little less is left open, for what the journal's
/// last line does not say.
const OPEN_BYTES: u64 = 60 << 20;
/// In thousandths of what was copied.
const OPEN_SHARE: u64 = 9;
/// A checkpoint is due when so much of it is used.
const DUE_TENTHS: u64 = 7;
/// Credits are counted in this unit.
const CREDIT: u64 = 64 << 10;

/// The ledger of one disk.
#[derive(Debug)]
pub struct Ledger {
    state: Mutex<State>,
    /// Bytes that may still be written before something must become durable. `None`: no limit.
    credits: Option<Semaphore>,
    due: Notify,
}

#[derive(Debug, Default)]
struct State {
    written: RangeSet,
    written_credits: usize,
    durable: RangeSet,
    copied: u64,
    granted: u64,
}

impl Ledger {
    /// `bounded`: limit what is written and not durable.
    pub fn new(durable: RangeSet, bounded: bool) -> Self {
        let start = usize::try_from(OPEN_BYTES / CREDIT).unwrap_or(1);
        Self {
            state: Mutex::new(State { durable, granted: OPEN_BYTES, ..State::default() }),
            credits: bounded.then(|| Semaphore::new(start)),
            due: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `bytes` more may be written; the credits to hand to `wrote` or `failed`.
    pub async fn reserve(&self, bytes: u64) -> usize {
        let Some(credits) = &self.credits else { return 0 };
        let count =
            u32::try_from(bytes.div_ceil(CREDIT).clamp(1, OPEN_BYTES / CREDIT)).unwrap_or(1);
        // The semaphore is never closed.
        if let Ok(permit) = credits.acquire_many(count).await {
            permit.forget();
        }
        count as usize
    }

    /// Records a write that has ended.
    pub fn wrote(&self, range: Range<u64>, bytes: u64, credits: usize) {
        let mut state = self.state();
        state.written.add(range);
        state.written_credits += credits;
        state.copied += bytes;
        let Some(pool) = &self.credits else { return };
        let allowed = (state.copied / 1000 * OPEN_SHARE).max(OPEN_BYTES);
        let more = (allowed - allowed.min(state.granted)) / CREDIT;
        state.granted += more * CREDIT;
        pool.add_permits(usize::try_from(more).unwrap_or(0));
        // What is in flight fits in the rest.
        if state.written_credits as u64 * CREDIT * 10 >= state.granted * DUE_TENTHS {
            self.due.notify_one();
        }
    }

    /// Gives credits back for a write that failed.
    pub fn failed(&self, credits: usize) {
        if let Some(pool) = &self.credits {
            pool.add_permits(credits);
        }
    }

    /// What is durable.
    pub fn durable(&self) -> RangeSet {
        self.state().durable.clone()
    }

    /// Forgets what is written and not durable: the server that had it is gone.
    pub fn lose(&self) {
        let mut state = self.state();
        state.written = RangeSet::default();
        let credits = std::mem::take(&mut state.written_credits);
        drop(state);
        self.failed(credits);
    }

    /// Makes what is written durable, and records it.
    pub async fn checkpoint(
        &self,
        target: &Target,
        journal: Option<&Arc<Mutex<Journal>>>,
    ) -> Result<(), CopyError> {
        // Taken before the flush: what is written during it is for the next time.
        let (written, credits) = {
            let mut state = self.state();
            (std::mem::take(&mut state.written), std::mem::take(&mut state.written_credits))
        };
        if written.is_empty() {
            return Ok(());
        }
        target.flush().await?;
        if let Some(journal) = journal {
            record(journal, &written).await?;
        }
        self.state().durable.add_all(&written);
        self.failed(credits);
        Ok(())
    }

    /// Makes checkpoints whenever one is due; ends only by failing.
    pub async fn keep(
        &self,
        target: &Target,
        journal: Option<&Arc<Mutex<Journal>>>,
    ) -> Result<(), CopyError> {
        loop {
            self.due.notified().await;
            self.checkpoint(target, journal).await?;
        }
    }
}

async fn record(journal: &Arc<Mutex<Journal>>, ranges: &RangeSet) -> Result<(), CopyError> {
    let (journal, ranges) = (Arc::clone(journal), ranges.clone());
    let append = tokio::task::spawn_blocking(move || {
        let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
        let path = journal.path().to_owned();
        journal.append(&ranges).map_err(|source| CopyError::Journal { path, source })
    });
    append.await.unwrap_or_else(|e| Err(CopyError::Internal(e.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_open_is_bounded_and_grows_with_the_copy() {
        let ledger = Ledger::new(RangeSet::default(), true);
        let chunk = 1 << 20;
        let mut at = 0;
        for _ in 0..60 {
            let credits = ledger.reserve(chunk).await;
            ledger.wrote(at..at + chunk, chunk, credits);
            at += chunk;
        }
        let wait = std::time::Duration::from_millis(10);
        assert!(tokio::time::timeout(wait, ledger.reserve(chunk)).await.is_err());
        ledger.checkpoint(&Target::Null, None).await.unwrap();
        assert_eq!(ledger.durable().bytes(), 60 << 20);
        let credits = ledger.reserve(chunk).await;
        ledger.wrote(at..at + chunk, 20 << 30, credits);
        for _ in 0..150 {
            ledger.reserve(chunk).await;
        }
    }

    #[tokio::test]
    async fn lost_writes_are_not_durable_and_their_credits_come_back() {
        let ledger = Ledger::new(RangeSet::default(), true);
        let credits = ledger.reserve(60 << 20).await;
        ledger.wrote(0..60 << 20, 60 << 20, credits);
        ledger.lose();
        ledger.checkpoint(&Target::Null, None).await.unwrap();
        assert!(ledger.durable().is_empty());
        ledger.reserve(60 << 20).await;
    }
}
