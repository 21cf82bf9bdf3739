//! The bus: takes events from the run, keeps the shared [`Snapshot`], wakes the sinks.
//!
//! Owned by the run; sinks hold clones. A sink can never slow the run down: it reads the newest
//! snapshot when it is ready, and what it missed in between is in that snapshot.

use crate::event::{Event, Snapshot, UnixMs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// Now, in milliseconds since the Unix epoch.
pub fn now_ms() -> UnixMs {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Cheap to clone; all clones share one state.
#[derive(Debug, Clone)]
pub struct Bus {
    state: Arc<Mutex<Snapshot>>,
    version: Arc<watch::Sender<u64>>,
}

impl Default for Bus {
    fn default() -> Self {
        Self { state: Arc::default(), version: Arc::new(watch::channel(0).0) }
    }
}

impl Bus {
    /// Folds the event into the state, logs it, and wakes whoever waits for changes.
    pub fn emit(&self, event: &Event) {
        let (before, after) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let before = matches!(event, Event::DiskPercent { .. }).then(|| state.clone());
            state.apply(now_ms(), event);
            let after = before.is_some().then(|| state.clone());
            (before, after)
        };
        crate::log::event(event);
        if let (Some(before), Some(after)) = (before, after) {
            crate::log::progress(&before, &after);
        }
        self.version.send_modify(|v| *v += 1);
    }

    /// A copy of the present state.
    pub fn snapshot(&self) -> Snapshot {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes whenever the state does; a slow receiver sees only the newest version.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}
