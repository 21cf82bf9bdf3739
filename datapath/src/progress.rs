//! What a running copy tells about a disk: counters that anybody may look at.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Where a disk is in its copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Another disk goes first.
    Waiting = 0,
    /// Copying.
    Copying = 1,
    /// Making the last writes durable.
    Flushing = 2,
    /// Comparing the target with what was read.
    Verifying = 3,
    /// Durable, and verified if that was asked for.
    Done = 4,
    /// Failed.
    Failed = 5,
}

/// Counters of one disk. All in bytes but for `retries`.
#[derive(Debug, Default)]
pub struct Progress {
    /// Size of the disk.
    pub size: AtomicU64,
    /// Done: copied, zeroed or there from an earlier run.
    pub done: AtomicU64,
    /// Read from the source and written.
    pub copied: AtomicU64,
    /// Zeroed or left as zeroes.
    pub zeroed: AtomicU64,
    /// Durable from an earlier run.
    pub resumed: AtomicU64,
    /// Compared.
    pub verified: AtomicU64,
    /// Requests that were repeated.
    pub retries: AtomicU64,
    /// Bytes of a larger target that were left as they were.
    pub tail: AtomicU64,
    stage: AtomicU8,
    trouble: Mutex<Option<String>>,
}

impl Progress {
    /// Where it is.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Waiting,
            1 => Stage::Copying,
            2 => Stage::Flushing,
            3 => Stage::Verifying,
            4 => Stage::Done,
            _ => Stage::Failed,
        }
    }

    /// Goes to a stage.
    pub fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// Says what is being waited for, or that it is over.
    pub fn trouble(&self, text: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// What is being waited for, if something is.
    pub fn current_trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Adds to a counter.
pub fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// Reads a counter.
pub fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
