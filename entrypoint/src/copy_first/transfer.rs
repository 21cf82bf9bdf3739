//! Drives the engine for all disks of a VM at once, and shows how far they are.

use crate::bus::Bus;
use crate::copy::args::{buffers, onto_volumes};
use crate::copy::patient::retry;
use crate::copy::{copy_failure, rate};
use crate::event::Event;
use crate::failure::{Class, Failure};
use crate::grant::CopySettings;
use crate::supervise::stop::Stop;
use datapath::CopyError;
use datapath::engine::{Disk, Shared, copy_disk};
use datapath::progress::{Progress, get};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const REPORT_EVERY: Duration = Duration::from_millis(500);
const AGAIN: &str =
    "start the pod again with the same volumes and journals: it goes on from what is durable";

/// How, and who is told.
#[derive(Debug)]
pub struct Transfer<'a> {
    /// Takes the progress.
    pub bus: &'a Bus,
    /// Says when to stop.
    pub stop: &'a Stop,
    /// Rate and verification.
    pub copy: &'a CopySettings,
}

/// One disk on its way.
struct Row {
    progress: Arc<Progress>,
    resumed: bool,
}

impl Transfer<'_> {
    /// Copies the disks, in their order. Without an error all of them are durable; with one, what is durable of them is
    /// in their journals.
    pub async fn run(&self, disks: Vec<Disk>) -> Result<(), Failure> {
        let mut helpers = JoinSet::new();
        let settings = onto_volumes(retry(), self.copy.verify);
        let shared = Arc::new(Shared {
            settings,
            pool: buffers(&settings, None),
            limit: rate::bucket(self.copy.rate.as_ref(), &mut helpers)?,
            stop: CancellationToken::new(),
        });
        let mut rows: Vec<Row> = Vec::new();
        let mut tasks = JoinSet::new();
        let total = disks.len();
        for (number, disk) in disks.into_iter().enumerate() {
            tracing::info!(disk = number, source = %disk.source.name(), target = %disk.target.name(), "copying");
            self.bus.emit(&Event::DiskSize { disk: number, bytes: disk.source.size() });
            self.bus.emit(&Event::DiskStarted { disk: number, total });
            rows.push(Row { progress: Arc::clone(&disk.progress), resumed: false });
            let shared = Arc::clone(&shared);
            tasks.spawn(async move {
                let begin = Instant::now();
                (number, copy_disk(&shared, disk).await, begin.elapsed())
            });
        }
        let result = self.until_done(&shared, &mut tasks, &mut rows).await;
        if result.is_ok() {
            self.bus.emit(&Event::CopyFinished);
        }
        result
    }

    async fn until_done(
        &self,
        shared: &Shared,
        tasks: &mut JoinSet<(usize, Result<(), CopyError>, Duration)>,
        rows: &mut [Row],
    ) -> Result<(), Failure> {
        let (mut first, mut cause) = (None, None);
        let mut stop = self.stop.clone();
        let mut timer = tokio::time::interval(REPORT_EVERY);
        while !tasks.is_empty() {
            tokio::select! {
                Some(done) = tasks.join_next() => {
                    let failed = match done {
                        Ok((disk, Ok(()), took)) => { copied(disk, &rows[disk].progress, took); None }
                        Ok((disk, Err(e), _)) => Some(failure(disk, &e)),
                        Err(e) => Some(Failure::new(Class::Internal, e.to_string())),
                    };
                    if let Some(failure) = failed {
                        // The other disks stop at a point from which they can go on.
                        first.get_or_insert(failure);
                        shared.stop.cancel();
                    }
                }
                _ = timer.tick() => {}
                why = stop.next(), if cause.is_none() => {
                    cause = Some(why);
                    shared.stop.cancel();
                }
            }
            self.report(rows);
        }
        match (cause, first) {
            (Some(why), _) => Err(why.failure()),
            (None, Some(failure)) => Err(failure),
            (None, None) => Ok(()),
        }
    }

    fn report(&self, rows: &mut [Row]) {
        for (disk, row) in rows.iter_mut().enumerate() {
            let (size, done) = (get(&row.progress.size), get(&row.progress.done));
            let resumed = get(&row.progress.resumed);
            if resumed > 0 && !row.resumed {
                row.resumed = true;
                self.bus.emit(&Event::DiskResumed { disk, bytes: resumed });
            }
            // Also a disk that waits for its journal to be compared is begun, not empty.
            #[allow(clippy::cast_precision_loss)] // shown in percent
            let percent = if size == 0 { 0.0 } else { done as f64 * 100.0 / size as f64 };
            self.bus.emit(&Event::DiskPercent { disk, percent });
        }
    }
}

fn copied(disk: usize, progress: &Progress, took: Duration) {
    tracing::info!(
        disk,
        bytes = get(&progress.size),
        resumed_bytes = get(&progress.resumed),
        copied_bytes = get(&progress.copied),
        zero_bytes = get(&progress.zeroed),
        verified_bytes = get(&progress.verified),
        repeated_requests = get(&progress.retries),
        seconds = took.as_secs_f64(),
        "copied and durable"
    );
}

fn failure(disk: usize, error: &CopyError) -> Failure {
    let failure = copy_failure(error);
    let message = format!("copying disk {disk}: {}", failure.message);
    let failure = failure.with_message(message);
    let failure = match error {
        CopyError::GaveUp { .. } => failure.advise(AGAIN),
        CopyError::Journal { .. } => failure.advise("see to the volume that V2V_journalDir is on"),
        _ => failure,
    };
    if failure.class == Class::Network { failure.may_pass() } else { failure }
}
