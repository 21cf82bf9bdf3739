//! Where a disk is copied to: file, block device, NBD server, or nowhere.

pub mod file;
mod zero;

use crate::nbd::{NbdClient, NbdError};
use bytes::BytesMut;
pub use file::{FileOptions, FileTarget, Kind};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Failures of a target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It cannot be opened.
    #[error("cannot open the target {path:?}")]
    Open {
        /// The target.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is in use.
    #[error("the target {0} is in use: mounted, or being written by another program")]
    Busy(PathBuf),
    /// It is a folder, a pipe or the like.
    #[error("the target {0} is neither a file nor a block device")]
    Kind(PathBuf),
    /// The disk does not fit.
    #[error(
        "the target {target} has room for {room} bytes and the source has {size}; nothing was written"
    )]
    TooSmall {
        /// The target.
        target: String,
        /// Its size.
        room: u64,
        /// The source's.
        size: u64,
    },
    /// The NBD server allows no writing.
    #[error("the target {0} is read-only")]
    ReadOnly(String),
    /// The kernel refused.
    #[error("cannot {what} {length} bytes at {offset} of {target}")]
    Io {
        /// The target.
        target: String,
        /// What was tried.
        what: &'static str,
        /// Where.
        offset: u64,
        /// How much.
        length: u64,
        /// Why.
        source: io::Error,
    },
    /// The NBD server failed.
    #[error("the target {target}")]
    Nbd {
        /// The target.
        target: String,
        /// Why.
        source: NbdError,
    },
}

/// An NBD server as target.
#[derive(Debug)]
pub struct NbdTarget {
    client: NbdClient,
    name: String,
    allocate: bool,
    max_zero: u64,
    known_zero: AtomicBool,
    /// A server tells a failed flush once, too; it is believed until the connections are reset.
    flush_failed: AtomicBool,
}

/// Any target.
#[derive(Debug, Clone)]
pub enum Target {
    /// A file or block device.
    File(Arc<FileTarget>),
    /// An NBD server.
    Nbd(Arc<NbdTarget>),
    /// Nowhere.
    Null,
}

impl NbdTarget {
    /// A target on an open client. `max_zero` is the longest range zeroed by one request.
    pub fn new(
        client: NbdClient,
        name: String,
        allocate: bool,
        is_zero: bool,
        max_zero: u64,
    ) -> Self {
        let flush_failed = AtomicBool::new(false);
        Self {
            client,
            name,
            allocate,
            max_zero,
            known_zero: AtomicBool::new(is_zero),
            flush_failed,
        }
    }

    /// The client.
    pub fn client(&self) -> &NbdClient {
        &self.client
    }

    fn failed(&self, source: NbdError) -> TargetError {
        TargetError::Nbd { target: self.name.clone(), source }
    }

    async fn zero(&self, offset: u64, length: u64) -> Result<(), TargetError> {
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let step = (end - at).min(self.max_zero);
            match self.client.zero(at, step, self.allocate).await {
                Some(Ok(())) => {}
                // ENOTSUP and EINVAL: this way is closed, writing is not.
                None | Some(Err(NbdError::Server { errno: 22 | 95, .. })) => {
                    self.write_zeroes(at, step).await?;
                }
                Some(Err(e)) => return Err(self.failed(e)),
            }
            at += step;
        }
        Ok(())
    }

    async fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), TargetError> {
        let zeroes = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(1 << 20)];
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let step = usize::try_from(end - at).unwrap_or(usize::MAX).min(zeroes.len());
            self.client.write(at, &zeroes[..step]).await.map_err(|e| self.failed(e))?;
            at += step as u64;
        }
        Ok(())
    }
}

impl Target {
    /// Name for messages.
    pub fn name(&self) -> String {
        match self {
            Self::File(f) => f.path().display().to_string(),
            Self::Nbd(n) => n.name.clone(),
            Self::Null => "null:".into(),
        }
    }

    /// What requests should be aligned to.
    pub fn preferred_block(&self) -> u32 {
        match self {
            Self::Nbd(n) => n.client.export().preferred_block,
            Self::File(_) | Self::Null => 4096,
        }
    }

    /// Whether unwritten parts read as zeroes.
    pub fn known_zero(&self) -> bool {
        match self {
            Self::File(f) => f.known_zero(),
            Self::Nbd(n) => n.known_zero.load(Ordering::Relaxed),
            Self::Null => true,
        }
    }

    /// From now on unwritten parts may hold anything.
    pub fn forget_zero(&self) {
        match self {
            Self::File(f) => f.forget_zero(),
            Self::Nbd(n) => n.known_zero.store(false, Ordering::Relaxed),
            Self::Null => {}
        }
    }

    /// Bytes that fit; `None` for a regular file, which grows, and for nowhere.
    pub fn room(&self) -> Option<u64> {
        match self {
            Self::File(f) if f.kind() == Kind::Block => f.size().ok(),
            Self::Nbd(n) => Some(n.client.size()),
            Self::File(_) | Self::Null => None,
        }
    }

    /// Bytes behind the end of the copied disk that are left as they are.
    pub fn tail(&self, size: u64) -> u64 {
        match self {
            Self::File(f) => f.size().unwrap_or(size).saturating_sub(size),
            Self::Nbd(n) => n.client.size().saturating_sub(size),
            Self::Null => 0,
        }
    }

    /// Names this very target, for journals.
    pub fn identity(&self) -> io::Result<String> {
        match self {
            Self::File(f) => f.identity(),
            Self::Nbd(n) => Ok(format!("{} of {}", n.name, n.client.size())),
            Self::Null => Ok("null:".into()),
        }
    }

    /// Whether the range is a hole, which needs no reading to be zero.
    pub fn is_hole(&self, offset: u64, length: u64) -> bool {
        match self {
            Self::File(f) => f.is_hole(offset, length),
            Self::Nbd(_) => false,
            Self::Null => true,
        }
    }

    /// Checks the room, and makes a regular file as long as the disk. `fresh`: and empty.
    pub async fn prepare(&self, size: u64, fresh: bool) -> Result<(), TargetError> {
        match self {
            Self::File(f) => {
                let file = Arc::clone(f);
                blocking(move || file.prepare(size, fresh)).await
            }
            Self::Nbd(n) if n.client.read_only() => Err(TargetError::ReadOnly(n.name.clone())),
            Self::Nbd(n) if n.client.size() < size => {
                Err(TargetError::TooSmall { target: n.name.clone(), room: n.client.size(), size })
            }
            Self::Nbd(_) | Self::Null => Ok(()),
        }
    }

    /// Writes the given runs of a chunk that begins at `offset`, and zeroes the others. Gives the
    /// chunk's buffer back.
    pub async fn write_runs(
        &self,
        offset: u64,
        data: BytesMut,
        runs: Vec<(std::ops::Range<usize>, bool)>,
    ) -> Result<BytesMut, TargetError> {
        let skip_zero = self.known_zero();
        match self {
            Self::Null => Ok(data),
            Self::File(f) => {
                let file = Arc::clone(f);
                blocking(move || {
                    for (run, zero) in runs {
                        let at = offset + run.start as u64;
                        match (zero, skip_zero) {
                            (true, true) => {}
                            (true, false) => file.zero(at, run.len() as u64)?,
                            (false, _) => file.write(at, &data[run])?,
                        }
                    }
                    Ok(data)
                })
                .await
            }
            Self::Nbd(n) => {
                for (run, zero) in runs {
                    let at = offset + run.start as u64;
                    match (zero, skip_zero) {
                        (true, true) => {}
                        (true, false) => n.zero(at, run.len() as u64).await?,
                        (false, _) => {
                            n.client.write(at, &data[run]).await.map_err(|e| n.failed(e))?;
                        }
                    }
                }
                Ok(data)
            }
        }
    }

    /// Zeroes a range.
    pub async fn zero(&self, offset: u64, length: u64) -> Result<(), TargetError> {
        match self {
            Self::Null => Ok(()),
            Self::File(f) => {
                let file = Arc::clone(f);
                blocking(move || file.zero(offset, length)).await
            }
            Self::Nbd(n) => n.zero(offset, length).await,
        }
    }

    /// Whether a flush makes anything durable.
    pub fn can_flush(&self) -> bool {
        match self {
            Self::File(_) | Self::Null => true,
            Self::Nbd(n) => n.client.can_flush(),
        }
    }

    /// Forgets the connections to a server that was lost.
    pub async fn reset(&self) {
        if let Self::Nbd(n) = self {
            n.client.reset().await;
            n.flush_failed.store(false, Ordering::SeqCst);
        }
    }

    /// Makes everything written durable.
    pub async fn flush(&self) -> Result<(), TargetError> {
        match self {
            Self::Null => Ok(()),
            Self::File(f) => {
                let file = Arc::clone(f);
                blocking(move || file.sync()).await
            }
            Self::Nbd(n) => {
                if n.flush_failed.load(Ordering::SeqCst) {
                    return Err(n.failed(NbdError::Lost("an earlier flush failed".into())));
                }
                let result = n.client.flush().await;
                n.flush_failed.fetch_or(result.is_err(), Ordering::SeqCst);
                result.map_err(|e| n.failed(e))
            }
        }
    }

    /// Reads back what is stored.
    pub async fn read_back(
        &self,
        offset: u64,
        mut buffer: BytesMut,
    ) -> Result<BytesMut, TargetError> {
        match self {
            Self::Null => Ok(buffer),
            Self::File(f) => {
                let file = Arc::clone(f);
                blocking(move || file.read_back(offset, &mut buffer).map(|()| buffer)).await
            }
            Self::Nbd(n) => n.client.read(offset, buffer).await.map_err(|e| n.failed(e)),
        }
    }
}

/// Runs a blocking call on the pool. A task that panicked is an I/O error, not a second panic.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, TargetError> + Send + 'static,
) -> Result<T, TargetError> {
    tokio::task::spawn_blocking(call).await.unwrap_or_else(|e| {
        Err(TargetError::Io {
            target: "target".into(),
            what: "work on",
            offset: 0,
            length: 0,
            source: io::Error::other(e),
        })
    })
}
