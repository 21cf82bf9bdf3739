//! Copies one disk: plans it part by part, keeps many chunks in flight, keeps the journal, and starts
//! again from what is durable when a target server was lost.

use crate::buffer::BufferPool;
use crate::chunk::{self, Work};
use crate::error::{CopyError, joined};
use crate::extent::Extent;
use crate::hashes::HashFile;
use crate::journal::{self, Found, Identity, Journal};
use crate::ledger::Ledger;
use crate::plan::{Piece, Shape, plan};
use crate::progress::{Progress, Stage, add};
use crate::ranges::RangeSet;
use crate::rate::Limit;
use crate::retry::Retry;
use crate::source::Source;
use crate::sys;
use crate::target::{Kind, Target};
use crate::verify;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Extents that are kept at once; a part of a disk with more of them is planned in pieces.
const MAX_EXTENTS: usize = 1 << 18;
/// Zero ranges in flight, for each disk.
const ZEROES_IN_FLIGHT: usize = 4;
/// A part with fewer extents than this makes the next one larger.
const FEW_EXTENTS: usize = 64;

/// How to copy; the same for all disks of a run.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools)] // switches
pub struct Settings {
    /// Sizes that shape the work.
    pub shape: Shape,
    /// Zero blocks of this size in data become holes; 0 is never.
    pub sparse: usize,
    /// Ask the source for extents.
    pub extents: bool,
    /// Part of the disk that is planned at once, and the longest zero range.
    pub unit: u64,
    /// Let that part grow up to this where there is little to plan.
    pub max_unit: u64,
    /// What to do about failures that may pass.
    pub retry: Retry,
    /// Make the target durable at the end.
    pub flush: bool,
    /// Read the target back and compare.
    pub verify: bool,
    /// Share the blocks of a source on the same file system, where it can.
    pub clone: bool,
}

/// What all disks of a run share.
#[derive(Debug)]
pub struct Shared {
    /// How to copy.
    pub settings: Settings,
    /// Bytes in flight.
    pub pool: Arc<BufferPool>,
    /// Bytes per second.
    pub limit: Arc<dyn Limit>,
    /// Stops everything.
    pub stop: CancellationToken,
}

/// Where a disk's journal is.
#[derive(Debug, Clone)]
pub struct JournalPlace {
    /// The file.
    pub path: PathBuf,
    /// Identity of the source, instead of what can be seen of it.
    pub source: Option<String>,
    /// Identity of the target, instead of what can be seen of it: numbers of devices change when a
    /// volume is attached anew.
    pub target: Option<String>,
}

/// One disk to copy.
#[derive(Debug)]
pub struct Disk {
    /// From.
    pub source: Source,
    /// To.
    pub target: Target,
    /// Journal, `None` without.
    pub journal: Option<JournalPlace>,
    /// Other disks may fail after this one: a run again must find that it is complete.
    pub keep_when_done: bool,
    /// File for the hashes, needed to verify.
    pub hashes: Option<PathBuf>,
    /// Counters.
    pub progress: Arc<Progress>,
}

impl Disk {
    /// Whether a changed source would be seen: a file's time tells, or the caller's word.
    fn source_is_certain(&self) -> bool {
        self.source.shows_changes() || self.journal.as_ref().is_some_and(|j| j.source.is_some())
    }
}

/// Copies a disk. When it returns without error the target is complete, and durable if that was asked for.
/// The journal stays; whoever runs the copy removes it when nothing more can go wrong.
pub async fn copy_disk(shared: &Arc<Shared>, disk: Disk) -> Result<(), CopyError> {
    let progress = Arc::clone(&disk.progress);
    let result = run(shared, disk).await;
    progress.trouble(None);
    progress.enter(if result.is_ok() { Stage::Done } else { Stage::Failed });
    result
}

async fn run(shared: &Arc<Shared>, disk: Disk) -> Result<(), CopyError> {
    let size = disk.source.size();
    disk.progress.size.store(size, Ordering::Relaxed);
    disk.progress.enter(Stage::Copying);
    refuse_same_file(&disk)?;
    let (durable, journal) = unless_stopped(shared, begin(&disk)).await?;
    disk.progress.tail.store(disk.target.tail(size), Ordering::Relaxed);
    add(&disk.progress.resumed, durable.bytes());
    add(&disk.progress.done, durable.bytes());
    let trusted = disk.source_is_certain();
    if !durable.is_empty() && !trusted {
        tracing::warn!(
            disk = %disk.target.name(),
            "whether the source changed since cannot be seen here; --source-id (a snapshot's id) makes sure"
        );
    }
    let hashes = match &disk.hashes {
        Some(path) if shared.settings.verify => {
            // Hashes of an earlier run say nothing about a source that may have changed: what is
            // there already is then compared with the source itself.
            let open = HashFile::open(path, !durable.is_empty() && trusted);
            Some(Arc::new(
                open.map_err(|source| CopyError::Journal { path: path.clone(), source })?,
            ))
        }
        _ => None,
    };
    let cloned = durable.is_empty() && shared.settings.clone && clone(&disk).await;
    let flushes = disk.target.can_flush();
    if !flushes {
        tracing::warn!(target = %disk.target.name(), "the server knows no flush: nobody can tell when the data is durable");
    }
    let journal = journal.filter(|_| flushes);
    let bounded = flushes && (journal.is_some() || matches!(disk.target, Target::Nbd(_)));
    let copy = Copy {
        shared: Arc::clone(shared),
        ledger: Arc::new(Ledger::new(durable, bounded && shared.settings.flush)),
        disk,
        journal: journal.map(|j| Arc::new(Mutex::new(j))),
        hashes,
        extents_work: AtomicBool::new(shared.settings.extents),
    };
    if cloned {
        add(&copy.disk.progress.done, size);
        add(&copy.disk.progress.copied, size);
        copy.ledger.wrote(0..size, 0, None);
    } else {
        copy.passes(size).await?;
    }
    copy.disk.progress.enter(Stage::Flushing);
    if shared.settings.flush {
        copy.disk.target.flush().await?;
        if copy.needs_last_record() {
            copy.ledger.checkpoint(&copy.disk.target, copy.journal.as_ref()).await?;
        }
    }
    if shared.settings.verify {
        copy.disk.progress.enter(Stage::Verifying);
        unless_stopped(shared, verify::verify(shared, &copy.disk, copy.hashes.as_deref())).await?;
    }
    Ok(())
}

async fn unless_stopped<T>(
    shared: &Shared,
    work: impl Future<Output = Result<T, CopyError>>,
) -> Result<T, CopyError> {
    // The stop is looked at first: a disk whose turn comes too late must not be touched.
    tokio::select! {
        biased;
        () = shared.stop.cancelled() => Err(CopyError::Stopped),
        result = work => result,
    }
}

fn refuse_same_file(disk: &Disk) -> Result<(), CopyError> {
    use std::os::unix::fs::MetadataExt;
    let (Source::File(s), Target::File(t)) = (&disk.source, &disk.target) else { return Ok(()) };
    let (Ok(a), Ok(b)) = (s.file().metadata(), t.file().metadata()) else { return Ok(()) };
    let same = match t.kind() {
        Kind::Regular => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        Kind::Block => a.rdev() == b.rdev() && a.rdev() != 0,
    };
    if same { Err(CopyError::SameFile(disk.target.name())) } else { Ok(()) }
}

/// Finds out what is durable already, prepares the target, and starts the journal.
async fn begin(disk: &Disk) -> Result<(RangeSet, Option<Journal>), CopyError> {
    let size = disk.source.size();
    let Some(place) = &disk.journal else {
        disk.target.prepare(size, true).await?;
        return Ok((RangeSet::default(), None));
    };
    let failed = |source| CopyError::Journal { path: place.path.clone(), source };
    let source = match &place.source {
        Some(text) => text.clone(),
        None => disk.source.identity().map_err(failed)?,
    };
    let identity = |target: &Target| {
        let target = place.target.clone().map_or_else(|| target.identity(), Ok);
        target.map(|t| Identity::new(source.clone(), t, size)).map_err(failed)
    };
    let mut durable = RangeSet::default();
    let found = journal::find(&place.path, &identity(&disk.target)?).map_err(failed)?;
    if found != Found::Nothing {
        // Somebody has written here, whatever was said about zeroes.
        disk.target.forget_zero();
    }
    match found {
        Found::Nothing => {}
        Found::Void(why) => {
            tracing::warn!(journal = %place.path.display(), %why, "the journal does not fit, copying from the start");
        }
        Found::Durable(ranges) => {
            if verify::samples_agree(disk, &ranges).await? {
                durable = ranges;
            } else {
                tracing::warn!(
                    journal = %place.path.display(),
                    why = "samples of source and target differ: one of them was changed",
                    "the journal does not fit, copying from the start"
                );
            }
        }
    }
    let fresh = durable.is_empty();
    if fresh {
        // Before the target changes: a journal must never speak of more than is there.
        journal::remove(&place.path).map_err(failed)?;
    } else {
        tracing::info!(disk = %disk.target.name(), durable = durable.bytes(), of = size, "continuing an earlier copy");
    }
    disk.target.prepare(size, fresh).await?;
    let identity = identity(&disk.target)?;
    let journal = if fresh {
        Journal::fresh(&place.path, identity)
    } else {
        Journal::start(&place.path, identity, &durable).map_err(failed)?
    };
    Ok((durable, Some(journal)))
}

/// Shares the source's blocks; `false` where that does not work.
async fn clone(disk: &Disk) -> bool {
    let (Source::File(s), Target::File(t)) = (&disk.source, &disk.target) else { return false };
    if t.kind() != Kind::Regular {
        return false;
    }
    let (s, t) = (Arc::clone(s), Arc::clone(t));
    let call = move || sys::clone_file(s.file(), t.file()).is_ok();
    tokio::task::spawn_blocking(call).await.unwrap_or(false)
}

struct Copy {
    shared: Arc<Shared>,
    disk: Disk,
    ledger: Arc<Ledger>,
    journal: Option<Arc<Mutex<Journal>>>,
    hashes: Option<Arc<HashFile>>,
    extents_work: AtomicBool,
}

impl Copy {
    /// Whether the journal must say that the disk is complete: it has begun, or other disks go on.
    fn needs_last_record(&self) -> bool {
        let begun = |j: &Arc<Mutex<Journal>>| j.lock().is_ok_and(|j| j.exists());
        self.disk.keep_when_done || self.journal.as_ref().is_some_and(begun)
    }

    /// Copies what is missing, again and again while a target server keeps getting lost.
    async fn passes(&self, size: u64) -> Result<(), CopyError> {
        let mut attempts = self.shared.settings.retry.begin();
        loop {
            let before = self.ledger.durable().bytes();
            let result = tokio::select! {
                result = self.pass(size) => result,
                result = self.ledger.keep(&self.disk.target, self.journal.as_ref()) => result,
                () = self.shared.stop.cancelled() => Err(CopyError::Stopped),
            };
            let result = match result {
                Ok(())
                    if matches!(self.disk.target, Target::Nbd(_)) && self.shared.settings.flush =>
                {
                    self.ledger.checkpoint(&self.disk.target, self.journal.as_ref()).await
                }
                other => other,
            };
            match result {
                Ok(()) => return Ok(()),
                Err(CopyError::Target(e))
                    if self.shared.settings.retry.is_on() && chunk::target_lost(&e) =>
                {
                    if self.ledger.durable().bytes() > before {
                        attempts = self.shared.settings.retry.begin();
                    }
                    add(&self.disk.progress.retries, 1);
                    self.disk.progress.trouble(Some(crate::error_chain(&e)));
                    attempts.wait(CopyError::Target(e)).await?;
                    // What it had not made durable may be gone with it.
                    self.ledger.lose();
                    self.disk.target.reset().await;
                    self.disk.target.forget_zero();
                    let durable = self.ledger.durable().bytes();
                    self.disk.progress.done.store(durable, Ordering::Relaxed);
                }
                Err(e) => {
                    // Save what can be saved for the next run; this error is the one that counts.
                    let _ = self.ledger.checkpoint(&self.disk.target, self.journal.as_ref()).await;
                    return Err(e);
                }
            }
        }
    }

    async fn pass(&self, size: u64) -> Result<(), CopyError> {
        let durable = self.ledger.durable();
        let chunk = self.shared.settings.shape.chunk;
        let mut tasks = JoinSet::new();
        let zeroes = Arc::new(tokio::sync::Semaphore::new(ZEROES_IN_FLIGHT));
        let mut unit = self.shared.settings.unit;
        let mut at = 0;
        while let Some(gap) = durable.first_gap(at..size) {
            let start = gap.start / chunk * chunk;
            let end = (start / unit + 1).saturating_mul(unit).min(size);
            let gap_end = gap.end.checked_next_multiple_of(chunk).unwrap_or(size);
            let end = end.min(gap_end).max(start + 1);
            let extents = or_failure(&mut tasks, self.extents(start..end)).await??;
            let end = extents
                .last()
                .map_or(end, |e| if e.end < end { e.end / chunk * chunk } else { end });
            let few = extents.len() <= FEW_EXTENTS;
            unit = if few {
                (unit * 2).min(self.shared.settings.max_unit)
            } else {
                self.shared.settings.unit
            };
            for piece in plan(start..end, &extents, self.shared.settings.shape) {
                if !durable.contains(piece.range()) {
                    self.dispatch(&mut tasks, &zeroes, piece).await?;
                }
            }
            at = end;
        }
        while let Some(done) = tasks.join_next().await {
            joined(done)?;
        }
        Ok(())
    }

    /// Extents of a part, at least of its first chunk. A server that fails at this is read as a whole.
    async fn extents(&self, part: Range<u64>) -> Result<Vec<Extent>, CopyError> {
        let all = Extent { start: part.start, end: part.end, zero: false };
        if !self.extents_work.load(Ordering::Relaxed) || !self.disk.source.has_extents() {
            return Ok(vec![all]);
        }
        let first =
            (part.start / self.shared.settings.shape.chunk + 1) * self.shared.settings.shape.chunk;
        let mut extents: Vec<Extent> = Vec::new();
        let mut at = part.start;
        let mut attempts = self.shared.settings.retry.begin();
        while at < part.end && (extents.len() < MAX_EXTENTS || at < first) {
            match self.disk.source.extents(at..part.end, self.shared.settings.shape.gap).await {
                Ok(more) if more.is_empty() => break,
                Ok(more) => {
                    at = more.last().map_or(part.end, |e| e.end);
                    extents.extend(more);
                }
                Err(e)
                    if e.is_transient()
                        && self.shared.settings.retry.is_on()
                        && !chunk::server_answered(&e) =>
                {
                    add(&self.disk.progress.retries, 1);
                    self.disk.progress.trouble(Some(crate::error_chain(&e)));
                    attempts.wait(CopyError::Source(e)).await?;
                }
                Err(e) if chunk::server_answered(&e) => {
                    tracing::warn!(error = %crate::error_chain(&e), "the source cannot tell its extents, reading everything");
                    self.extents_work.store(false, Ordering::Relaxed);
                    return Ok(vec![all]);
                }
                Err(e) => return Err(e.into()),
            }
        }
        self.disk.progress.trouble(None);
        Ok(extents)
    }

    async fn dispatch(
        &self,
        tasks: &mut JoinSet<Result<(), CopyError>>,
        zeroes: &Arc<tokio::sync::Semaphore>,
        piece: Piece,
    ) -> Result<(), CopyError> {
        while let Some(done) = tasks.try_join_next() {
            joined(done)?;
        }
        match piece {
            Piece::Zero(range) => {
                self.note_zeroes(&range)?;
                if self.disk.target.known_zero() {
                    self.zeroed(range);
                    return Ok(());
                }
                let mut start = range.start;
                while start < range.end {
                    let end = (start / self.shared.settings.unit + 1)
                        .saturating_mul(self.shared.settings.unit)
                        .min(range.end);
                    let turn = Arc::clone(zeroes).acquire_owned();
                    let permit = or_failure(tasks, turn).await?;
                    let work = self.work();
                    tasks.spawn(async move {
                        let _permit = permit;
                        work.zero(start..end).await
                    });
                    start = end;
                }
                Ok(())
            }
            Piece::Chunk { range, spans } => {
                let bytes: u64 = spans.iter().map(|s| s.end - s.start).sum();
                let ready = async {
                    let lease = self.shared.pool.lease().await?;
                    let credits = self.ledger.reserve(range.end - range.start).await;
                    self.shared.limit.take(bytes).await;
                    Ok::<_, CopyError>((lease, credits))
                };
                let (lease, credits) = or_failure(tasks, ready).await??;
                let work = self.work();
                tasks.spawn(async move { work.chunk(lease, credits, range, spans).await });
                Ok(())
            }
        }
    }

    fn zeroed(&self, range: Range<u64>) {
        let length = range.end - range.start;
        add(&self.disk.progress.zeroed, length);
        add(&self.disk.progress.done, length);
        self.ledger.wrote(range, 0, None);
    }

    /// Remembers that these chunks must read as zeroes.
    fn note_zeroes(&self, range: &Range<u64>) -> Result<(), CopyError> {
        let Some(hashes) = &self.hashes else { return Ok(()) };
        let chunk = self.shared.settings.shape.chunk;
        let first = range.start / chunk;
        let noted = hashes.set_zero(first, range.end.div_ceil(chunk) - first);
        noted.map_err(|e| verify::hashes_failed(&self.disk, e))
    }

    fn work(&self) -> Work {
        Work {
            source: self.disk.source.clone(),
            target: self.disk.target.clone(),
            progress: Arc::clone(&self.disk.progress),
            ledger: Arc::clone(&self.ledger),
            hashes: self.hashes.clone(),
            hash_path: self.disk.hashes.clone(),
            settings: self.shared.settings,
        }
    }
}

/// Waits for something, unless a task fails first.
async fn or_failure<T>(
    tasks: &mut JoinSet<Result<(), CopyError>>,
    wanted: impl Future<Output = T>,
) -> Result<T, CopyError> {
    tokio::pin!(wanted);
    loop {
        if tasks.is_empty() {
            return Ok(wanted.await);
        }
        tokio::select! {
            biased;
            value = &mut wanted => return Ok(value),
            Some(done) = tasks.join_next() => joined(done)?,
        }
    }
}
