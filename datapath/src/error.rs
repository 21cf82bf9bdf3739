//! Why a copy failed.

use crate::source::SourceError;
use crate::target::TargetError;
use std::io;
use std::path::PathBuf;

/// Failures of a copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The source stayed away.
    #[error("gave up after {attempts} attempts in {seconds} s")]
    GaveUp {
        /// Attempts at one request.
        attempts: u32,
        /// Time since the first.
        seconds: u64,
        /// The last failure.
        source: Box<CopyError>,
    },
    /// Source and target are one.
    #[error("the source and the target {0} are the same")]
    SameFile(String),
    /// The journal.
    #[error("the journal {path}")]
    Journal {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The target does not hold what was read.
    #[error(
        "verification failed: {target} differs from the source at byte {offset} (0x{offset:x}): 0x{found:02x} instead of 0x{expected:02x}"
    )]
    Differs {
        /// The target.
        target: String,
        /// First byte that differs.
        offset: u64,
        /// The source's byte.
        expected: u8,
        /// The target's byte.
        found: u8,
    },
    /// The source gives other bytes than before.
    #[error(
        "verification failed: the source {source_name} changed while it was copied, between bytes {start} and {end}"
    )]
    SourceChanged {
        /// The source.
        source_name: String,
        /// Start of the chunk.
        start: u64,
        /// End of the chunk.
        end: u64,
    },
    /// Somebody asked to stop.
    #[error("stopped")]
    Stopped,
    /// Work was lost; a fault of this program.
    #[error("internal error: {0}")]
    Internal(String),
}

/// The result of a task that was spawned; one that panicked is an error like any other.
pub(crate) fn joined<T>(
    done: Result<Result<T, CopyError>, tokio::task::JoinError>,
) -> Result<T, CopyError> {
    done.unwrap_or_else(|e| Err(CopyError::Internal(e.to_string())))
}

impl CopyError {
    /// Whether the same copy, run again, may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Source(e) => e.is_transient(),
            Self::GaveUp { .. } | Self::Stopped => true,
            Self::Target(TargetError::Nbd { source, .. }) => source.is_transient(),
            _ => false,
        }
    }
}
