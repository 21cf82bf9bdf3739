//! Where a disk is copied from: a file, a block device or an NBD server.

pub mod file;

use crate::buffer::join;
use crate::extent::Extent;
use crate::nbd::{NbdClient, NbdError};
use bytes::BytesMut;
pub use file::FileSource;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Failures of a source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be opened.
    #[error("cannot open the source {name:?}")]
    Open {
        /// The source.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot read {length} bytes at {offset} of {name}")]
    Io {
        /// The source.
        name: String,
        /// Where.
        offset: u64,
        /// How much.
        length: u64,
        /// Why.
        source: io::Error,
    },
    /// The NBD server failed.
    #[error("the source {name}")]
    Nbd {
        /// The source.
        name: String,
        /// Why.
        source: NbdError,
    },
}

impl SourceError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Nbd { source, .. } if source.is_transient())
    }
}

/// An NBD server as source.
#[derive(Debug)]
pub struct NbdSource {
    client: NbdClient,
    name: String,
    limit: RequestLimit,
}

/// The most bytes that one read request asks for; may be lowered while a copy runs, by whoever learns that the source
/// has no memory for larger ones. The pieces of a larger read then follow each other.
#[derive(Debug, Clone, Default)]
pub struct RequestLimit(Arc<AtomicU64>);

impl RequestLimit {
    /// Never below this, whatever is asked for.
    pub const LEAST: u64 = 64 << 10;

    /// From now on at most so many bytes, in whole units of 64 KiB.
    pub fn set(&self, bytes: u64) {
        let bytes = (bytes / Self::LEAST).max(1) * Self::LEAST;
        self.0.store(bytes, Ordering::Relaxed);
    }

    fn get(&self) -> Option<usize> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            bytes => usize::try_from(bytes).ok(),
        }
    }
}

/// Any source.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file or block device.
    File(Arc<FileSource>),
    /// An NBD server.
    Nbd(Arc<NbdSource>),
}

impl Source {
    /// A source on an open client.
    pub fn nbd(client: NbdClient, name: String) -> Self {
        Self::Nbd(Arc::new(NbdSource { client, name, limit: RequestLimit::default() }))
    }

    /// The limit of its requests, if it has one.
    pub fn request_limit(&self) -> Option<RequestLimit> {
        match self {
            Self::File(_) => None,
            Self::Nbd(n) => Some(n.limit.clone()),
        }
    }

    /// Name for messages.
    pub fn name(&self) -> String {
        match self {
            Self::File(f) => f.path().display().to_string(),
            Self::Nbd(n) => n.name.clone(),
        }
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::File(f) => f.size(),
            Self::Nbd(n) => n.client.size(),
        }
    }

    /// The NBD client, if it is one.
    pub fn client(&self) -> Option<&NbdClient> {
        match self {
            Self::File(_) => None,
            Self::Nbd(n) => Some(&n.client),
        }
    }

    /// What requests must be aligned to.
    pub fn block(&self) -> u64 {
        match self {
            Self::File(_) => 1,
            Self::Nbd(n) => u64::from(n.client.export().min_block),
        }
    }

    /// What requests should be aligned to.
    pub fn preferred_block(&self) -> u32 {
        match self {
            Self::File(_) => 4096,
            Self::Nbd(n) => n.client.export().preferred_block,
        }
    }

    /// Names this very content as far as can be told, for journals.
    pub fn identity(&self) -> io::Result<String> {
        match self {
            Self::File(f) => f.identity(),
            Self::Nbd(n) => Ok(format!("{} of {}", n.name, n.client.size())),
        }
    }

    /// Whether its identity changes with its content: only a file has a time.
    pub fn shows_changes(&self) -> bool {
        matches!(self, Self::File(f) if !f.is_block_device())
    }

    /// Whether asking for extents can tell anything.
    pub fn has_extents(&self) -> bool {
        match self {
            Self::File(_) => true,
            Self::Nbd(n) => n.client.has_extents(),
        }
    }

    /// Extents from the start of the range on, in order; they may end early, at least one comes.
    pub async fn extents(&self, range: Range<u64>, gap: u64) -> Result<Vec<Extent>, SourceError> {
        match self {
            Self::File(f) => {
                let file = Arc::clone(f);
                let Range { start, end } = range;
                let walk = tokio::task::spawn_blocking(move || file.extents(start, end, gap));
                Ok(walk.await.unwrap_or_else(|_| vec![Extent { start, end, zero: false }]))
            }
            Self::Nbd(n) => n
                .client
                .extents(range.start, range.end - range.start)
                .await
                .map_err(|source| SourceError::Nbd { name: n.name.clone(), source }),
        }
    }

    /// Fills the buffer; it is lost on failure.
    pub async fn read(&self, offset: u64, mut buffer: BytesMut) -> Result<BytesMut, SourceError> {
        match self {
            Self::File(f) => {
                let file = Arc::clone(f);
                let length = buffer.len() as u64;
                let read = move || file.read(offset, &mut buffer).map(|()| buffer);
                let result = tokio::task::spawn_blocking(read).await;
                result
                    .unwrap_or_else(|e| Err(io::Error::other(e)))
                    .map_err(|source| SourceError::Io { name: self.name(), offset, length, source })
            }
            Self::Nbd(n) => n
                .read(offset, buffer)
                .await
                .map_err(|source| SourceError::Nbd { name: n.name.clone(), source }),
        }
    }
}

impl NbdSource {
    async fn read(&self, offset: u64, mut buffer: BytesMut) -> Result<BytesMut, NbdError> {
        let mut whole = BytesMut::new();
        let mut at = offset;
        // Looked up for each piece: the limit may have been lowered in between.
        while let Some(limit) = self.limit.get().filter(|l| *l < buffer.len()) {
            join(&mut whole, self.client.read(at, buffer.split_to(limit)).await?);
            at += limit as u64;
        }
        join(&mut whole, self.client.read(at, buffer).await?);
        Ok(whole)
    }
}
