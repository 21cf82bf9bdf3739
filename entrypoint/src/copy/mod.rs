//! `v2v-pod copy`: several disks at once with the data path, on its own.

pub mod args;
mod failure;
pub mod patient;
pub mod rate;
mod show;

use crate::failure::{Class, Failure};
use crate::supervise::stop::{Stop, StopCause};
use args::CopyArgs;
use datapath::engine::{Disk, JournalPlace, Shared, copy_disk};
use datapath::journal;
use datapath::place::{self, Place};
use datapath::progress::{Progress, Stage};
use datapath::source::Source;
use datapath::target::{Kind, Target};
pub use failure::{copy_failure, source_failure, target_failure};
use show::Show;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Runs the command; its exit code.
pub async fn run(args: &CopyArgs, temp: &Path) -> u8 {
    let show = Show::start(args.json, args.quiet);
    let result = copy(args, temp, &show).await;
    show.end(result.as_ref().err());
    result.err().map_or(0, |f| f.class.exit_code())
}

fn usage(text: impl Into<String>) -> Failure {
    Failure::new(Class::Usage, text).advise("see `v2v-pod copy --help`")
}

async fn copy(args: &CopyArgs, temp: &Path, show: &Show) -> Result<(), Failure> {
    let pairs = args.pairs().map_err(usage)?;
    let settings = args.settings().map_err(usage)?;
    let mut helpers = JoinSet::new();
    let bucket = rate::bucket(args.rate.source().as_ref(), &mut helpers)?;
    let mut stop = Stop::on_signals()
        .map_err(|e| Failure::new(Class::Internal, format!("no signal handling: {e}")))?;
    let shared = Arc::new(Shared {
        settings,
        pool: args::buffers(&settings, args.in_flight),
        limit: bucket,
        stop: CancellationToken::new(),
    });
    let work = args.work.as_deref().unwrap_or(temp);
    let opening = open_all(args, &pairs, work, show);
    let disks = tokio::select! {
        disks = opening => disks?,
        cause = stop.next() => return Err(stopped(&cause)),
    };
    let journals: Vec<PathBuf> =
        disks.iter().filter_map(|d| Some(d.journal.as_ref()?.path.clone())).collect();
    let hashes: Vec<PathBuf> = disks.iter().filter_map(|d| d.hashes.clone()).collect();
    let result = run_disks(args, &shared, disks, &mut stop).await;
    // Without a journal nobody will read the hashes again.
    if result.is_ok() || journals.is_empty() {
        clean_up(&journals, &hashes);
    }
    result
}

/// Opens every source and target before anything is written.
async fn open_all(
    args: &CopyArgs,
    pairs: &[(&str, &str)],
    work: &Path,
    show: &Show,
) -> Result<Vec<Disk>, Failure> {
    let mut disks = Vec::with_capacity(pairs.len());
    for (index, (from, to)) in pairs.iter().enumerate() {
        let (from, to): (Place, Place) = (
            from.parse().map_err(|e: datapath::nbd::UriError| usage(e.to_string()))?,
            to.parse().map_err(|e: datapath::nbd::UriError| usage(e.to_string()))?,
        );
        // The source first: a target file must not be created for a source that is not there.
        let source = open_source(args, from).await?;
        let target = open_target(args, to).await?;
        let progress: Arc<Progress> = Arc::default();
        progress.size.store(source.size(), std::sync::atomic::Ordering::Relaxed);
        show.add(&source.name(), &target.name(), Arc::clone(&progress));
        let journal = (!args.no_journal)
            .then(|| journal_path(args, &target, pairs.len(), index, work))
            .flatten()
            .map(|path| {
                let source = args.source_ids.get(index).cloned();
                JournalPlace { path, source, target: None }
            });
        let hashes = args.verify.then(|| match &journal {
            Some(place) => journal::with_suffix(&place.path, ".hashes"),
            None => work.join(format!("v2v-pod-copy-{}-{index}.hashes", std::process::id())),
        });
        let keep_when_done = pairs.len() > 1;
        disks.push(Disk { source, target, journal, keep_when_done, hashes, progress });
    }
    Ok(disks)
}

async fn open_source(args: &CopyArgs, place: Place) -> Result<Source, Failure> {
    match place {
        Place::Path(path) => place::open_file_source(&path).map_err(|e| source_failure(&e)),
        Place::Nbd(uri) => {
            place::open_nbd_source(uri, args.nbd()).await.map_err(|e| source_failure(&e))
        }
        Place::Null => Err(usage("null: is a target, not a source")),
        Place::Stdio => Err(usage(
            "the standard input cannot be copied in parallel; name v2v-pod `nbdcopy` for that",
        )),
    }
}

async fn open_target(args: &CopyArgs, place: Place) -> Result<Target, Failure> {
    match place {
        Place::Path(path) => {
            place::open_file_target(&path, args.files()).map_err(|e| target_failure(&e))
        }
        Place::Nbd(uri) => {
            let (allocate, zero) = (args.allocated, args.target_is_zero);
            place::open_nbd_target(uri, args.nbd(), allocate, zero, args::MAX_ZERO)
                .await
                .map_err(|e| target_failure(&e))
        }
        Place::Null => Ok(Target::Null),
        Place::Stdio => Err(usage(
            "the standard output cannot be written in parallel; name v2v-pod `nbdcopy` for that",
        )),
    }
}

/// Beside a file; in the work folder for a device; none for a server, which may forget, unless asked for.
fn journal_path(
    args: &CopyArgs,
    target: &Target,
    count: usize,
    index: usize,
    work: &Path,
) -> Option<PathBuf> {
    if let Some(given) = &args.journal {
        return Some(if count == 1 {
            given.clone()
        } else {
            given.join(format!("disk{index}.journal"))
        });
    }
    let Target::File(file) = target else { return None };
    match file.kind() {
        Kind::Regular => Some(journal::with_suffix(file.path(), ".v2v-journal")),
        Kind::Block => {
            let name = file.path().display().to_string().replace('/', "_");
            Some(work.join(format!("v2v-pod-copy{name}.journal")))
        }
    }
}

async fn run_disks(
    args: &CopyArgs,
    shared: &Arc<Shared>,
    disks: Vec<Disk>,
    stop: &mut Stop,
) -> Result<(), Failure> {
    let turns = Arc::new(tokio::sync::Semaphore::new(usize::from(args.disks)));
    let progress: Vec<_> = disks.iter().map(|d| Arc::clone(&d.progress)).collect();
    let mut tasks = JoinSet::new();
    for disk in disks {
        let (shared, turns) = (Arc::clone(shared), Arc::clone(&turns));
        tasks.spawn(async move {
            let _turn = turns.acquire_owned().await;
            copy_disk(&shared, disk).await
        });
    }
    let mut first = None;
    let mut cause = None;
    while !tasks.is_empty() {
        tokio::select! {
            Some(done) = tasks.join_next() => {
                let result = done.map_err(|e| Failure::new(Class::Internal, e.to_string()))
                    .and_then(|r| r.map_err(|e| copy_failure(&e)));
                if let Err(failure) = result {
                    // The other disks stop at a point from which they can go on.
                    first.get_or_insert(failure);
                    shared.stop.cancel();
                }
            }
            why = stop.next(), if cause.is_none() => {
                cause = Some(why);
                shared.stop.cancel();
            }
        }
    }
    match (cause, first) {
        (Some(why), _) => Err(stopped(&why)),
        (None, Some(failure)) => Err(failure),
        (None, None) => {
            debug_assert!(progress.iter().all(|p| p.stage() == Stage::Done));
            Ok(())
        }
    }
}

fn stopped(cause: &StopCause) -> Failure {
    cause.failure().advise("run the same command again: it continues from what is durable")
}

/// A journal that cannot be removed would only make the next copy compare more.
fn clean_up(journals: &[PathBuf], hashes: &[PathBuf]) {
    for path in journals.iter().chain(hashes) {
        if let Err(error) = journal::remove(path) {
            tracing::warn!(path = %path.display(), %error, "the journal stays");
        }
    }
}
