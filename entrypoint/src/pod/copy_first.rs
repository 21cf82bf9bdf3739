//! The Copy phase of a job that copies first: sources opened and compared with the volumes before anything is written,
//! all disks at once, and the sources looked at once more at the end. Then the volumes are converted in place.

pub mod images;
mod server;

use super::Pod;
use super::in_place::COMMIT_MARK;
use crate::config::copy_first::{CopyFirst, From};
use crate::config::pod::{Job, PodConfig};
use crate::copy::{patient, source_failure, target_failure};
use crate::copy_first::journals::Journals;
use crate::copy_first::listener::Listener;
use crate::copy_first::transfer::Transfer;
use crate::copy_first::volume;
use crate::event::{Event, Phase};
use crate::failure::{Class, Failure};
use crate::preflight::Report;
use crate::serve_disks::children::{Children, ServerLine};
use crate::serve_disks::lines::Files;
use crate::supervise::stop::Stop;
use crate::tool_run::{RETRY_LONGEST, RETRY_WAIT};
use crate::volumes;
use datapath::engine::{Disk, JournalPlace};
use datapath::nbd::NbdUri;
use datapath::nbd::uri::Address;
use datapath::place;
use datapath::source::Source;
use datapath::target::FileOptions;
use server::AtServer;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const CHECK: &str = "journals";

/// A disk of the source, as it can be read.
#[derive(Debug)]
struct Origin {
    from: Readable,
    identity: Identity,
}

#[derive(Debug)]
enum Readable {
    /// A raw image.
    File(PathBuf),
    /// Through this server.
    Server(ServerLine, PathBuf),
}

/// Whether a later try could tell that the disk is as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Identity {
    /// By this.
    Told(String),
    /// The engine knows as much as can be known, and compares samples: devices of this machine.
    Engine,
    /// No; why.
    Unknown(String),
}

/// Where the disks are.
enum Place {
    Server(Box<AtServer>),
    Images(Vec<PathBuf>),
}

/// What the servers have: secrets and sockets. It goes with this.
struct Folder(Files);

impl Folder {
    fn make(folder: PathBuf) -> Result<Self, Failure> {
        // Of an attempt before.
        let _ = fs::remove_dir_all(&folder);
        let made = fs::create_dir(&folder);
        made.map_err(|e| {
            Failure::new(Class::NoSpace, format!("cannot make {}: {e}", folder.display()))
        })?;
        Ok(Self(Files { folder }))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The run's folder goes too.
        let _ = fs::remove_dir_all(&self.0.folder);
    }
}

/// The journals of copies onto these volumes, be it this job's or an earlier one's.
fn journals(config: &PodConfig, disks: usize) -> Journals {
    let paths = &config.paths;
    let folder = paths.journals.as_ref().unwrap_or(&paths.work_dir);
    Journals::new(folder, config.link_name(), disks)
}

/// What only such a job needs.
pub(super) fn check(config: &PodConfig, report: &mut Report) {
    if !matches!(config.job, Job::CopyFirst(_)) {
        return;
    }
    if let Err(failure) = journals(config, 0).prepare() {
        report.problem(CHECK, failure);
        return;
    }
    match &config.paths.journals {
        Some(folder) => report.ok(CHECK, format!("{} can be written", folder.display())),
        None => report.note(
            CHECK,
            format!(
                "V2V_journalDir is not set: the journals are in the work folder, {}",
                config.paths.work_dir.display()
            ),
            "a later try copies anew if that folder goes with the pod: set V2V_journalDir to one on a volume that outlives it",
        ),
    }
}

impl Pod<'_> {
    /// The volumes are about to hold something else than what was copied: no later try may take them for it.
    pub(super) fn forget_copy(&self) -> Result<(), Failure> {
        self.journals().remove_all()
    }

    fn journals(&self) -> Journals {
        journals(self.config, self.ready.volumes.map.len())
    }

    /// The Copy phase, again after a failure of the source that may pass.
    pub(super) async fn copy_first(&self, job: &CopyFirst) -> Result<(), Failure> {
        if self.config.paths.work_dir.join(COMMIT_MARK).exists() {
            tracing::warn!(
                "an earlier run has converted these disks and was committing them: nothing is copied"
            );
            return Ok(());
        }
        self.enter(Phase::Copy)?;
        let mut wait = RETRY_WAIT;
        for left in (0..self.config.runtime.source_retries).rev() {
            match self.copy_once(job).await {
                Err(failure) if self.may_pass(&failure) => {
                    tracing::warn!(
                        class = failure.class.name(),
                        advice = failure.advice,
                        "{failure}: this may pass; the copy goes on in {} s ({left} more times after that)",
                        wait.as_secs()
                    );
                }
                result => return result,
            }
            let mut stop = self.runner.stop.clone();
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                cause = stop.next() => return Err(cause.failure()),
            }
            wait = (wait * 2).min(RETRY_LONGEST);
        }
        self.copy_once(job).await
    }

    fn may_pass(&self, failure: &Failure) -> bool {
        let passing = failure.passing || failure.class == Class::Network;
        passing && self.runner.stop.cause().is_none()
    }

    async fn copy_once(&self, job: &CopyFirst) -> Result<(), Failure> {
        let folder = Folder::make(self.run_dir.join("disks"))?;
        let files = &folder.0;
        let place = self.unless_stopped(self.place(job, files)).await?;
        let origins = self.unless_stopped(self.origins(&place, files)).await?;
        let map = &self.ready.volumes.map;
        if origins.len() != map.len() {
            return Err(Failure::new(Class::Volume, map.count_error(origins.len()).to_string()));
        }
        self.copy_from(&place, &origins).await?;
        // Nobody may have written to the source meanwhile.
        let now = self.unless_stopped(self.origins(&place, files)).await?;
        self.compare(&origins, &now)
    }

    async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut stop = self.runner.stop.clone();
        tokio::select! {
            result = work => result,
            cause = stop.next() => Err(cause.failure()),
        }
    }

    async fn place(&self, job: &CopyFirst, files: &Files) -> Result<Place, Failure> {
        Ok(match &job.from {
            From::VSphere(vsphere) => {
                Place::Server(Box::new(self.at_server(vsphere, files).await?))
            }
            From::Images(paths) => Place::Images(paths.clone()),
        })
    }

    /// The disks as they are at this moment.
    async fn origins(&self, place: &Place, files: &Files) -> Result<Vec<Origin>, Failure> {
        match place {
            Place::Server(at) => self.disks_at_server(at, files).await,
            Place::Images(paths) => self.images(paths, files).await,
        }
    }

    /// A source that has changed is no source of a guest.
    fn compare(&self, before: &[Origin], now: &[Origin]) -> Result<(), Failure> {
        for (disk, (before, now)) in before.iter().zip(now).enumerate() {
            let (Identity::Told(was), Identity::Told(is)) = (&before.identity, &now.identity)
            else {
                continue;
            };
            if was != is {
                self.forget_copy()?;
                let message = format!(
                    "disk {disk} of the source was changed while it was copied: it was {was}, and is {is}"
                );
                return Err(Failure::new(Class::Integrity, message).advise(
                    "shut the VM down, see that nothing writes to its disks, and start again",
                ));
            }
        }
        Ok(())
    }

    async fn copy_from(&self, place: &Place, origins: &[Origin]) -> Result<(), Failure> {
        let tool = match place {
            Place::Server(_) => "nbdkit",
            Place::Images(_) => "qemu-nbd",
        };
        let listener = Listener::new(tool, self.runner.stop.clone());
        let children = Children {
            toolbox: &self.runner.toolbox,
            dir: &self.runner.tmp,
            stop: &self.runner.stop,
            ear: Some(listener.ear()),
        };
        let servers: Vec<ServerLine> = origins
            .iter()
            .filter_map(|o| match &o.from {
                Readable::Server(line, _) => Some(line.clone()),
                Readable::File(_) => None,
            })
            .collect();
        let work = async || {
            let mut sources = Vec::new();
            for origin in origins {
                let source = open(&origin.from).await?;
                listener.obeyed_by(source.request_limit());
                sources.push(source);
            }
            self.compare_sizes(&sources)?;
            let disks = self.disks(sources, origins)?;
            let copy = &self.config.runtime.copy;
            Transfer { bus: &self.runner.bus, stop: &self.runner.stop, copy }.run(disks).await
        };
        let copy = children.with_servers(&servers, work);
        let result = within_grace(&self.runner.stop, self.config.runtime.grace, copy).await;
        result.map_err(|failure| match self.runner.stop.cause() {
            // An abort of the listener's is the reason.
            Some(cause) => cause.failure(),
            None => listener.explain(failure),
        })
    }

    fn compare_sizes(&self, sources: &[Source]) -> Result<(), Failure> {
        let sizes: Vec<u64> = sources.iter().map(Source::size).collect();
        for (disk, bytes) in sizes.iter().enumerate() {
            self.runner.bus.emit(&Event::DiskSize { disk, bytes: *bytes });
        }
        let problems = self.ready.volumes.check_sizes(&sizes);
        if problems.is_empty() { Ok(()) } else { Err(volumes::failure(&problems)) }
    }

    /// Sources and volumes, with their journals.
    fn disks(&self, sources: Vec<Source>, origins: &[Origin]) -> Result<Vec<Disk>, Failure> {
        let volumes = self.ready.volumes.map.volumes();
        let verify = self.config.runtime.copy.verify;
        let journals = self.journals();
        let mut disks = Vec::new();
        for (number, (source, origin)) in sources.into_iter().zip(origins).enumerate() {
            let path = volumes[number].path();
            // The lock is held by `volumes`.
            let files =
                FileOptions { direct: true, allocate: false, exclusive: false, is_zero: false };
            let target = place::open_file_target(path, files).map_err(|e| target_failure(&e))?;
            let source_identity = match &origin.identity {
                Identity::Told(text) => Some(Some(text.clone())),
                Identity::Engine => Some(None),
                Identity::Unknown(why) => {
                    tracing::warn!(
                        disk = number,
                        why,
                        "whether the source is as it was cannot be told: nothing of an earlier try is used"
                    );
                    journals.remove(number)?;
                    None
                }
            };
            let journal = source_identity.map(|source| JournalPlace {
                path: journals.of(number),
                source,
                target: volume::identity(path),
            });
            if !verify {
                journals.remove_hashes(number)?;
            }
            disks.push(Disk {
                source,
                target,
                journal,
                // Until the commit begins a later try must find that the disk is complete.
                keep_when_done: true,
                hashes: verify.then(|| journals.hashes(number)),
                progress: std::sync::Arc::default(),
            });
        }
        Ok(disks)
    }
}

/// The engine sees the wish to stop itself, and makes its journals durable before it ends: it gets the time for that.
async fn within_grace<T>(
    stop: &Stop,
    grace: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut stop = stop.clone();
    tokio::pin!(work);
    tokio::select! {
        result = &mut work => result,
        cause = stop.next() => {
            let in_time = tokio::time::timeout(grace, work).await;
            in_time.unwrap_or_else(|_| Err(cause.failure()))
        }
    }
}

async fn open(from: &Readable) -> Result<Source, Failure> {
    match from {
        Readable::File(path) => place::open_file_source(path).map_err(|e| source_failure(&e)),
        Readable::Server(_, socket) => {
            let address = Address::Unix(socket.clone());
            let uri = NbdUri { address, export: String::new(), tls: None };
            let say = |text: String| tracing::warn!("{text}");
            patient::open(&uri, say).await.map_err(|e| source_failure(&e))
        }
    }
}
