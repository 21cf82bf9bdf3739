//! What is written, what is durable, and how far the two may be apart.

use crate::error::{CopyError, joined};
use crate::journal::Journal;
use crate::ranges::RangeSet;
use crate::target::Target;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    waiting: AtomicUsize,
}

/// The right to write so much. Given back when it is dropped unused.
#[derive(Debug)]
pub struct Credits {
    ledger: Arc<Ledger>,
    count: usize,
}

impl Credits {
    fn spend(mut self) -> usize {
        std::mem::take(&mut self.count)
    }
}

impl Drop for Credits {
    fn drop(&mut self) {
        self.ledger.give_back(self.count);
    }
}

/// Counts who waits for credits, and asks for a checkpoint that frees some.
struct Waiting<'a>(&'a Ledger);

impl<'a> Waiting<'a> {
    fn on(ledger: &'a Ledger) -> Self {
        ledger.waiting.fetch_add(1, Ordering::Relaxed);
        if ledger.state().written_credits > 0 {
            ledger.due.notify_one();
        }
        Self(ledger)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
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
            waiting: AtomicUsize::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `bytes` more may be written; the credits to hand to `wrote`.
    pub async fn reserve(self: &Arc<Self>, bytes: u64) -> Credits {
        let mut held = Credits { ledger: Arc::clone(self), count: 0 };
        let Some(pool) = &self.credits else { return held };
        let count =
            u32::try_from(bytes.div_ceil(CREDIT).clamp(1, OPEN_BYTES / CREDIT)).unwrap_or(1);
        let permit = if let Ok(permit) = pool.try_acquire_many(count) {
            permit
        } else {
            // Whoever waits must not depend on the threshold: the rest may be too little for it.
            let _waiting = Waiting::on(self);
            // The semaphore is never closed.
            let Ok(permit) = pool.acquire_many(count).await else { return held };
            permit
        };
        permit.forget();
        held.count = count as usize;
        held
    }

    /// Records a write that has ended.
    pub fn wrote(&self, range: Range<u64>, bytes: u64, credits: Option<Credits>) {
        let mut state = self.state();
        state.written.add(range);
        state.written_credits += credits.map_or(0, Credits::spend);
        state.copied += bytes;
        let Some(pool) = &self.credits else { return };
        let allowed = (state.copied / 1000 * OPEN_SHARE).max(OPEN_BYTES);
        let more = (allowed - allowed.min(state.granted)) / CREDIT;
        state.granted += more * CREDIT;
        pool.add_permits(usize::try_from(more).unwrap_or(0));
        // What is in flight fits in the rest.
        let full = state.written_credits as u64 * CREDIT * 10 >= state.granted * DUE_TENTHS;
        if full || self.waiting.load(Ordering::Relaxed) > 0 {
            self.due.notify_one();
        }
    }

    fn give_back(&self, credits: usize) {
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
        self.give_back(credits);
    }

    /// Makes what is written durable, and records it.
    pub async fn checkpoint(
        &self,
        target: &Target,
        journal: Option<&Arc<Mutex<Journal>>>,
    ) -> Result<(), CopyError> {
        let mut taken = Taken::from(self);
        if taken.written.is_empty() {
            return Ok(());
        }
        target.flush().await?;
        if let Some(journal) = journal {
            record(journal, &taken.written).await?;
        }
        self.state().durable.add_all(&std::mem::take(&mut taken.written));
        self.give_back(std::mem::take(&mut taken.credits));
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

/// What a checkpoint works on, taken before the flush: what is written during it is for the next time.
/// A checkpoint that is given up puts it back.
struct Taken<'a> {
    ledger: &'a Ledger,
    written: RangeSet,
    credits: usize,
}

impl<'a> Taken<'a> {
    fn from(ledger: &'a Ledger) -> Self {
        let mut state = ledger.state();
        let written = std::mem::take(&mut state.written);
        let credits = std::mem::take(&mut state.written_credits);
        Self { ledger, written, credits }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut state = self.ledger.state();
        state.written.add_all(&self.written);
        state.written_credits += self.credits;
    }
}

async fn record(journal: &Arc<Mutex<Journal>>, ranges: &RangeSet) -> Result<(), CopyError> {
    let (journal, ranges) = (Arc::clone(journal), ranges.clone());
    let append = tokio::task::spawn_blocking(move || {
        let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
        let path = journal.path().to_owned();
        journal.append(&ranges).map_err(|source| CopyError::Journal { path, source })
    });
    joined(append.await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_open_is_bounded_and_grows_with_the_copy() {
        let ledger = Arc::new(Ledger::new(RangeSet::default(), true));
        let chunk = 1 << 20;
        let mut at = 0;
        for _ in 0..60 {
            let credits = ledger.reserve(chunk).await;
            ledger.wrote(at..at + chunk, chunk, Some(credits));
            at += chunk;
        }
        let wait = std::time::Duration::from_millis(10);
        assert!(tokio::time::timeout(wait, ledger.reserve(chunk)).await.is_err());
        ledger.checkpoint(&Target::Null, None).await.unwrap();
        assert_eq!(ledger.durable().bytes(), 60 << 20);
        let credits = ledger.reserve(chunk).await;
        ledger.wrote(at..at + chunk, 20 << 30, Some(credits));
        let mut held = Vec::new();
        for _ in 0..150 {
            held.push(ledger.reserve(chunk).await);
        }
    }

    #[tokio::test]
    async fn a_checkpoint_that_is_given_up_forgets_nothing() {
        let ledger = Arc::new(Ledger::new(RangeSet::default(), true));
        let credits = ledger.reserve(60 << 20).await;
        ledger.wrote(0..60 << 20, 60 << 20, Some(credits));
        drop(Taken::from(&ledger));
        ledger.checkpoint(&Target::Null, None).await.unwrap();
        assert_eq!(ledger.durable().bytes(), 60 << 20);
        ledger.reserve(60 << 20).await;
    }

    /// Chunks of more than half of all credits never reach the threshold; the one that waits asks itself.
    #[tokio::test]
    async fn a_large_chunk_that_waits_gets_its_checkpoint() {
        let ledger = Arc::new(Ledger::new(RangeSet::default(), true));
        let large = 32 << 20;
        let credits = ledger.reserve(large).await;
        ledger.wrote(0..large, large, Some(credits));
        tokio::select! {
            end = ledger.keep(&Target::Null, None) => panic!("{end:?}"),
            _second = ledger.reserve(large) => {}
        }
    }

    #[tokio::test]
    async fn credits_of_an_aborted_chunk_come_back() {
        let ledger = Arc::new(Ledger::new(RangeSet::default(), true));
        drop(ledger.reserve(60 << 20).await);
        ledger.reserve(60 << 20).await;
    }

    #[tokio::test]
    async fn lost_writes_are_not_durable_and_their_credits_come_back() {
        let ledger = Arc::new(Ledger::new(RangeSet::default(), true));
        let credits = ledger.reserve(60 << 20).await;
        ledger.wrote(0..60 << 20, 60 << 20, Some(credits));
        ledger.lose();
        ledger.checkpoint(&Target::Null, None).await.unwrap();
        assert!(ledger.durable().is_empty());
        ledger.reserve(60 << 20).await;
    }
}
