//! The wish to stop: from a signal, or from ourselves when going on would do harm.

use crate::failure::{Class, Failure};
use nix::sys::signal::Signal;
use std::future::pending;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Why a run has to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopCause {
    /// SIGTERM: Kubernetes ends the pod.
    Terminate,
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// We found something that makes going on wrong.
    Abort(Failure),
}

impl StopCause {
    /// The signal for the tool.
    pub fn signal(&self) -> Signal {
        match self {
            Self::Interrupt => Signal::SIGINT,
            Self::Terminate | Self::Abort(_) => Signal::SIGTERM,
        }
    }

    /// The failure that the run ends with.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Terminate => Failure::new(Class::Terminated, "stopped by SIGTERM"),
            Self::Interrupt => Failure::new(Class::Interrupted, "stopped by SIGINT"),
            Self::Abort(failure) => failure.clone(),
        }
    }
}

/// Shared by everything that has to stop; clones see the same causes.
#[derive(Debug, Clone)]
pub struct Stop {
    causes: watch::Receiver<Vec<StopCause>>,
    sender: Arc<watch::Sender<Vec<StopCause>>>,
    seen: usize,
}

impl Default for Stop {
    fn default() -> Self {
        let (sender, causes) = watch::channel(Vec::new());
        Self { causes, sender: Arc::new(sender), seen: 0 }
    }
}

impl Stop {
    /// A stop that SIGTERM and SIGINT set.
    pub fn on_signals() -> std::io::Result<Self> {
        let stop = Self::default();
        for (kind, cause) in [
            (SignalKind::terminate(), StopCause::Terminate),
            (SignalKind::interrupt(), StopCause::Interrupt),
        ] {
            let mut signals = signal(kind)?;
            let stop = stop.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    stop.set(cause.clone());
                }
            });
        }
        Ok(stop)
    }

    /// Asks everything to stop.
    pub fn set(&self, cause: StopCause) {
        self.sender.send_modify(|causes| {
            // Only a second signal means impatience; a second reason of ours adds nothing.
            if causes.is_empty() || !matches!(cause, StopCause::Abort(_)) {
                causes.push(cause);
            }
        });
    }

    /// The first cause, if there is one.
    pub fn cause(&self) -> Option<StopCause> {
        self.causes.borrow().first().cloned()
    }

    /// The next cause that this clone has not seen; earlier ones come at once. Cancel-safe.
    pub async fn next(&mut self) -> StopCause {
        loop {
            let next = self.causes.borrow_and_update().get(self.seen).cloned();
            if let Some(cause) = next {
                self.seen += 1;
                return cause;
            }
            if self.causes.changed().await.is_err() {
                return pending().await;
            }
        }
    }
}
