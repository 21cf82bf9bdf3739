//! One piece of work: a chunk read, hashed and written, or a range zeroed.

use crate::buffer::{Lease, join};
use crate::engine::Settings;
use crate::error::CopyError;
use crate::hashes::{HashFile, hash};
use crate::ledger::{Credits, Ledger};
use crate::nbd::NbdError;
use crate::plan::split_zeroes;
use crate::progress::{Progress, add};
use crate::source::{Source, SourceError};
use crate::target::{Target, TargetError};
use bytes::BytesMut;
use futures_util::future::try_join_all;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// What a task needs of its disk.
pub struct Work {
    pub source: Source,
    pub target: Target,
    pub progress: Arc<Progress>,
    pub ledger: Arc<Ledger>,
    pub hashes: Option<Arc<HashFile>>,
    pub hash_path: Option<PathBuf>,
    pub settings: Settings,
}

impl Work {
    /// Copies a chunk; what is in no span is zero.
    pub async fn chunk(
        self,
        lease: Lease,
        credits: Credits,
        range: Range<u64>,
        spans: Vec<Range<u64>>,
    ) -> Result<(), CopyError> {
        self.copy(&lease, &range, &spans).await?;
        let (length, bytes) =
            (range.end - range.start, spans.iter().map(|s| s.end - s.start).sum());
        self.ledger.wrote(range, bytes, Some(credits));
        add(&self.progress.copied, bytes);
        add(&self.progress.zeroed, length - bytes);
        add(&self.progress.done, length);
        Ok(())
    }

    async fn copy(
        &self,
        lease: &Lease,
        range: &Range<u64>,
        spans: &[Range<u64>],
    ) -> Result<(), CopyError> {
        let data = self.read(lease, range, spans).await?;
        if let Some(hashes) = &self.hashes {
            hashes.set(range.start / self.settings.shape.chunk, hash(&data)).map_err(|source| {
                CopyError::Journal { path: self.hash_path.clone().unwrap_or_default(), source }
            })?;
        }
        let runs = split_zeroes(&data, self.settings.sparse);
        let data = self.target.write_runs(range.start, data, runs).await?;
        lease.give_back(data);
        Ok(())
    }

    /// Reads the spans into a buffer, as often as it takes.
    async fn read(
        &self,
        lease: &Lease,
        range: &Range<u64>,
        spans: &[Range<u64>],
    ) -> Result<BytesMut, CopyError> {
        let mut attempts = self.settings.retry.begin();
        loop {
            let start = std::time::Instant::now();
            match self.read_once(lease.buffer(), range, spans).await {
                Ok(data) => {
                    lease.note_read(start.elapsed());
                    if attempts.failed() {
                        self.progress.trouble(None);
                    }
                    return Ok(data);
                }
                Err(e) if e.is_transient() => {
                    self.progress.trouble(Some(crate::error_chain(&e)));
                    attempts.wait(CopyError::Source(e)).await?;
                    add(&self.progress.retries, 1);
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    async fn read_once(
        &self,
        mut buffer: BytesMut,
        range: &Range<u64>,
        spans: &[Range<u64>],
    ) -> Result<BytesMut, SourceError> {
        let size = |r: Range<u64>| usize::try_from(r.end - r.start).unwrap_or(0);
        buffer.truncate(size(range.clone()));
        if let [only] = spans
            && only == range
        {
            return self.source.read(range.start, buffer).await;
        }
        // Cut into gaps and spans, read all spans at once, and put together again.
        let mut gaps = Vec::with_capacity(spans.len() + 1);
        let mut reads = Vec::with_capacity(spans.len());
        let mut at = range.start;
        for span in spans {
            gaps.push(buffer.split_to(size(at..span.start)));
            reads.push(self.source.read(span.start, buffer.split_to(size(span.clone()))));
            at = span.end;
        }
        buffer.fill(0);
        let parts = try_join_all(reads).await?;
        let mut whole = BytesMut::new();
        for (mut gap, part) in gaps.into_iter().zip(parts) {
            gap.fill(0);
            join(&mut whole, gap);
            join(&mut whole, part);
        }
        join(&mut whole, buffer);
        Ok(whole)
    }

    /// Zeroes a range.
    pub async fn zero(self, range: Range<u64>) -> Result<(), CopyError> {
        let length = range.end - range.start;
        self.target.zero(range.start, length).await?;
        self.ledger.wrote(range, 0, None);
        add(&self.progress.zeroed, length);
        add(&self.progress.done, length);
        Ok(())
    }
}

/// Whether a target server is gone, with whatever it had not made durable.
pub fn target_lost(e: &TargetError) -> bool {
    matches!(e, TargetError::Nbd { source, .. } if source.is_transient())
}

/// Whether the source is there and said no.
pub fn server_answered(e: &SourceError) -> bool {
    matches!(e, SourceError::Nbd { source: NbdError::Server { .. }, .. })
}
