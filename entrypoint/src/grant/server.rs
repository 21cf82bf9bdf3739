//! The supervisor's side: a socket, a folder with our `nbdcopy` for virt-v2v's PATH, one bucket for all disks.

use super::{Copier, CopySettings, Counts, FromCopier, SOCKET_VARIABLE, ToCopier};
use crate::bus::Bus;
use crate::copy::rate;
use crate::event::Event;
use crate::failure::{Class, Failure};
use crate::shim;
use crate::supervise::stop::{Stop, StopCause};
use crate::toolbox::Toolbox;
use datapath::nbd::NbdUri;
use datapath::nbd::uri::Address;
use datapath::rate::Bucket;
use datapath::source::RequestLimit;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A copier's line is shorter than this.
const MOST_LINE: u64 = 64 << 10;

/// Read requests after the source ran out of memory for the first time; a quarter of what they are otherwise.
const FIRST_REQUESTS: u64 = 256 << 10;

/// Nobody needs more bandwidth at once.
const MOST_TAKE: u64 = 1 << 30;

/// Answers copiers while it lives.
#[derive(Debug)]
pub struct GrantServer {
    folder: PathBuf,
    socket: PathBuf,
    calls: Arc<AtomicUsize>,
    disks: Arc<Disks>,
    requests: watch::Sender<u64>,
    _tasks: JoinSet<()>,
}

/// Which disks were granted, and which of them are durable.
#[derive(Debug, Default)]
struct Disks {
    granted: Mutex<BTreeSet<usize>>,
    done: Mutex<BTreeSet<usize>>,
}

/// What a copier may be told.
#[derive(Debug)]
struct Desk {
    volumes: Vec<(PathBuf, PathBuf)>,
    verify: bool,
    bucket: Arc<Bucket>,
    bus: Bus,
    stop: Stop,
    calls: Arc<AtomicUsize>,
    disks: Arc<Disks>,
    requests: watch::Receiver<u64>,
}

impl GrantServer {
    /// Starts it in the run's folder. `volumes` are links and what they lead to, in disk order; empty
    /// when virt-v2v writes where it likes. `None`: the original nbdcopy is wanted.
    pub fn start(
        settings: &CopySettings,
        folder: &Path,
        volumes: Vec<(PathBuf, PathBuf)>,
        bus: Bus,
        stop: Stop,
    ) -> Result<Option<Self>, Failure> {
        if settings.copier == Copier::Nbdcopy {
            return Ok(None);
        }
        let failed = |e: io::Error| {
            Failure::new(
                Class::Internal,
                format!("cannot set up the copier in {}: {e}", folder.display()),
            )
        };
        let mut tasks = JoinSet::new();
        let bucket = rate::bucket(settings.rate.as_ref(), &mut tasks)?;
        let bin = folder.join("bin");
        shim::link(&bin, "nbdcopy").map_err(failed)?;
        let socket = folder.join("grants");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).map_err(failed)?;
        let calls: Arc<AtomicUsize> = Arc::default();
        let disks: Arc<Disks> = Arc::default();
        let (requests, told) = watch::channel(0);
        let desk = Desk {
            volumes,
            verify: settings.verify,
            bucket,
            bus,
            stop,
            calls: Arc::clone(&calls),
            disks: Arc::clone(&disks),
            requests: told,
        };
        tasks.spawn(accept(listener, Arc::new(desk)));
        Ok(Some(Self { folder: bin, socket, calls, disks, requests, _tasks: tasks }))
    }

    /// The tools' environment with our nbdcopy first.
    pub fn toolbox(&self, toolbox: &Toolbox) -> Toolbox {
        let mut own = toolbox.clone();
        own.prepend_path(&self.folder);
        own.set(SOCKET_VARIABLE, self.socket.as_os_str());
        own
    }

    /// How many disks our copier has made durable.
    pub fn done(&self) -> usize {
        self.disks.done().len()
    }

    /// The source has no memory for requests as large as they are: tells all copiers, those of now and those to come,
    /// to halve them. Returns the new size in bytes, `None` when it cannot be smaller.
    pub fn shrink_requests(&self) -> Option<u64> {
        let mut new = None;
        self.requests.send_if_modified(|bytes| {
            let next = if *bytes == 0 { FIRST_REQUESTS } else { *bytes / 2 };
            if next < RequestLimit::LEAST {
                return false;
            }
            *bytes = next;
            new = Some(next);
            true
        });
        new
    }

    /// How many copies were asked for.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Disks {
    fn granted(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: UnixListener, desk: Arc<Desk>) {
    let mut copiers = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                let desk = Arc::clone(&desk);
                copiers.spawn(async move {
                    if let Err(error) = desk.serve(stream).await {
                        tracing::warn!(%error, "a copier went away");
                    }
                });
            }
            Some(_) = copiers.join_next() => {}
        }
    }
}

impl Desk {
    /// Talks with one copier until it goes.
    async fn serve(&self, stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read);
        let Some(FromCopier::Hello { source, target }) = next(&mut lines).await? else {
            return Err(io::Error::other("no greeting"));
        };
        self.calls.fetch_add(1, Ordering::Relaxed);
        let (disk, volume) = match self.find(&target) {
            Ok(found) => found,
            Err(why) => {
                say(&mut write, &ToCopier::Refuse(why.clone())).await?;
                self.stop.set(StopCause::Abort(Failure::new(Class::Volume, why)));
                return Ok(());
            }
        };
        let onto = volume.as_ref().map_or_else(|| target.clone(), |v| v.display().to_string());
        tracing::info!(disk, source = %source, target = %onto, "copying");
        if self.bus.snapshot().disks.get(disk).is_none_or(|d| d.started_ms.is_none()) {
            let total = self.volumes.len().max(disk + 1);
            self.bus.emit(&Event::DiskStarted { disk, total });
        }
        say(&mut write, &ToCopier::Grant { disk, target: volume, verify: self.verify }).await?;
        let start = Instant::now();
        let mut requests = self.requests.clone();
        requests.mark_changed();
        loop {
            // `next` is not cancel safe, so orders wait in it; lines come at least twice a second.
            if requests.has_changed().unwrap_or(false) {
                let bytes = *requests.borrow_and_update();
                if bytes > 0 {
                    say(&mut write, &ToCopier::Requests(bytes)).await?;
                }
            }
            let Some(message) = next(&mut lines).await? else { return Ok(()) };
            match message {
                FromCopier::Take(bytes) => {
                    let bytes = bytes.min(MOST_TAKE);
                    self.bucket.take(bytes).await;
                    say(&mut write, &ToCopier::Given(bytes)).await?;
                }
                FromCopier::Progress(counts) => self.progress(disk, counts),
                FromCopier::Done(counts) => {
                    self.progress(disk, counts);
                    self.disks.done().insert(disk);
                    tracing::info!(
                        disk,
                        bytes = counts.size,
                        copied_bytes = counts.copied,
                        verified_bytes = counts.verified,
                        repeated_requests = counts.retries,
                        seconds = start.elapsed().as_secs_f64(),
                        "copied and durable"
                    );
                }
                FromCopier::Failed { class, message, advice } => {
                    let class = Class::ALL.into_iter().find(|c| c.name() == class);
                    let text = format!("copying disk {disk}: {message}");
                    let failure = Failure::new(class.unwrap_or(Class::Io), text).advise(advice);
                    self.stop.set(StopCause::Abort(failure));
                }
                FromCopier::Hello { .. } => return Err(io::Error::other("a second greeting")),
            }
        }
    }

    fn progress(&self, disk: usize, counts: Counts) {
        self.bus.emit(&Event::DiskSize { disk, bytes: counts.size });
        #[allow(clippy::cast_precision_loss)] // shown in percent
        let percent =
            if counts.size == 0 { 100.0 } else { counts.done as f64 * 100.0 / counts.size as f64 };
        self.bus.emit(&Event::DiskPercent { disk, percent });
    }

    /// Which disk a target is, and its volume. Where there are volumes a target that is none of them
    /// is refused: the disk would go astray.
    fn find(&self, target: &str) -> Result<(usize, Option<PathBuf>), String> {
        let disk = disk_of(target, &self.volumes);
        if self.volumes.is_empty() {
            return Ok((disk.unwrap_or(0), None));
        }
        let (disk, volume) = disk
            .and_then(|d| Some((d, self.volumes.get(d)?.1.clone())))
            .ok_or_else(|| format!("virt-v2v copies to {target}, which leads to no volume"))?;
        // Two copiers on one volume would mix two disks.
        if !self.disks.granted().insert(disk) {
            return Err(format!("virt-v2v copies to {} twice", volume.display()));
        }
        Ok((disk, Some(volume)))
    }
}

/// The disk's index: from the name of the export, which is that of the link, or from the socket's
/// name `outN`.
fn disk_of(target: &str, volumes: &[(PathBuf, PathBuf)]) -> Option<usize> {
    let uri: NbdUri = target.parse().ok()?;
    if !uri.export.is_empty()
        && let Some(at) = volumes.iter().position(|(link, _)| {
            link.file_name().is_some_and(|n| n.to_str() == Some(uri.export.as_str()))
        })
    {
        return Some(at);
    }
    let Address::Unix(socket) = &uri.address else { return None };
    let digits = socket.file_name()?.to_str()?.strip_prefix("out")?;
    digits.parse().ok().filter(|_| uri.export.is_empty())
}

async fn next(lines: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Option<FromCopier>> {
    let mut line = Vec::new();
    let n = lines.take(MOST_LINE).read_until(b'\n', &mut line).await?;
    if n == 0 {
        return Ok(None);
    }
    serde_json::from_slice(&line).map(Some).map_err(io::Error::other)
}

async fn say(write: &mut OwnedWriteHalf, message: &ToCopier) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    write.write_all(&line).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volumes() -> Vec<(PathBuf, PathBuf)> {
        ["a", "b"]
            .iter()
            .map(|n| (format!("/w/vm-sd{n}").into(), format!("/dev/{n}").into()))
            .collect()
    }

    #[test]
    fn disks_are_found_by_socket_or_export() {
        let v = volumes();
        assert_eq!(disk_of("nbd+unix:///?socket=/tmp/v2v.x/out1", &v), Some(1));
        assert_eq!(disk_of("nbd+unix:///vm-sdb?socket=/tmp/v2v.x/out0", &v), Some(1));
        assert_eq!(disk_of("nbd+unix:///other?socket=/tmp/v2v.x/out0", &v), None);
        assert_eq!(disk_of("nbd+unix:///?socket=/tmp/v2v.x/in1", &v), None);
        assert_eq!(disk_of("nbd://host", &v), None);
    }

    /// A server for two volumes, and a copier that has asked to copy onto this socket.
    async fn greeted(out: &str) -> (tempfile::TempDir, GrantServer, Stop, UnixStream) {
        let (dir, stop) = (tempfile::tempdir().unwrap(), Stop::default());
        let settings = CopySettings::default();
        let server =
            GrantServer::start(&settings, dir.path(), volumes(), Bus::default(), stop.clone());
        let server = server.unwrap().unwrap();
        let mut stream = UnixStream::connect(&server.socket).await.unwrap();
        let hello = FromCopier::Hello {
            source: "s".into(),
            target: format!("nbd+unix:///?socket=/x/{out}"),
        };
        let line = serde_json::to_string(&hello).unwrap() + "\n";
        stream.write_all(line.as_bytes()).await.unwrap();
        (dir, server, stop, stream)
    }

    #[tokio::test]
    async fn a_target_that_is_no_volume_is_refused_and_ends_the_run() {
        let (_dir, server, stop, stream) = greeted("out7").await;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await.unwrap();
        assert!(answer.contains("refuse") && answer.contains("out7"), "{answer}");
        assert!(matches!(stop.cause(), Some(StopCause::Abort(f)) if f.class == Class::Volume));
        assert_eq!(server.calls(), 1);
    }

    #[tokio::test]
    async fn a_failure_of_the_copier_is_the_failure_of_the_run() {
        let (_dir, _server, stop, stream) = greeted("out1").await;
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read);
        let mut answer = String::new();
        lines.read_line(&mut answer).await.unwrap();
        assert!(answer.contains("\"target\":\"/dev/b\""), "{answer}");
        write.write_all(b"{\"take\":100}\n{\"failed\":{\"class\":\"no-space\",\"message\":\"full\",\"advice\":\"x\"}}\n").await.unwrap();
        drop(write);
        let mut rest = String::new();
        lines.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "{\"given\":100}\n");
        assert!(
            matches!(stop.cause(), Some(StopCause::Abort(f)) if f.class == Class::NoSpace && f.message.contains("disk 1"))
        );
    }
}
