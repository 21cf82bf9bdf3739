//! The copier inside virt-v2v's pipeline: asks the supervisor for a grant, copies, reports, and exits
//! with 0 only when the disk is durable. virt-v2v stops its servers when we exit, so not before.

use crate::copy::args::{MAX_ZERO, buffers, onto_volumes};
use crate::copy::{copy_failure, patient, source_failure, target_failure};
use crate::failure::{Class, Failure};
use crate::grant::{Counts, FromCopier, SOCKET_VARIABLE, ToCopier};
use datapath::engine::{Disk, Settings, Shared, copy_disk};
use datapath::nbd::NbdUri;
use datapath::place;
use datapath::progress::{Progress, get};
use datapath::rate::Limit;
use datapath::source::RequestLimit;
use datapath::target::{FileOptions, Target};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Bandwidth is asked for in pieces of this size; small enough for an even flow.
const TAKE: u64 = 4 << 20;
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// The supervisor's socket, when there is one.
pub fn socket() -> Option<PathBuf> {
    std::env::var_os(SOCKET_VARIABLE).map(PathBuf::from)
}

/// Copies one disk for the supervisor; the exit code.
pub async fn run(socket: &Path, source: &str, target: &str, allocated: bool) -> u8 {
    let desk = match Desk::connect(socket).await {
        Ok(desk) => Arc::new(desk),
        Err(e) => {
            eprintln!("nbdcopy: cannot reach the supervisor at {}: {e}", socket.display());
            return 1;
        }
    };
    let stop = CancellationToken::new();
    match copy(&desk, source, target, allocated, &stop).await {
        Ok(()) => 0,
        Err(failure) => {
            eprintln!("nbdcopy: {failure}");
            let Failure { class, message, advice, .. } = failure;
            let failed = FromCopier::Failed { class: class.name().to_owned(), message, advice };
            // The exit code says it too.
            let _ = desk.say(&failed).await;
            1
        }
    }
}

async fn copy(
    desk: &Arc<Desk>,
    source: &str,
    target: &str,
    allocated: bool,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let lost =
        |e: io::Error| Failure::new(Class::Internal, format!("the supervisor went away: {e}"));
    let hello = FromCopier::Hello { source: source.to_owned(), target: target.to_owned() };
    desk.say(&hello).await.map_err(lost)?;
    let (volume, verify) = match desk.answer().await.map_err(lost)? {
        ToCopier::Grant { target, verify, .. } => (target, verify),
        ToCopier::Refuse(why) => return Err(Failure::new(Class::Volume, why)),
        _ => return Err(lost(io::Error::other("an answer to no question"))),
    };
    let disk = open(source, target, volume.as_deref(), allocated, verify).await?;
    desk.obey(disk.source.request_limit());
    let progress = Arc::clone(&disk.progress);
    let hashes = disk.hashes.clone();
    let settings = settings(allocated, verify);
    let shared = Arc::new(Shared {
        settings,
        pool: buffers(&settings, None),
        limit: Arc::new(Remote {
            desk: Arc::clone(desk),
            credit: Mutex::new(0),
            stop: stop.clone(),
        }),
        stop: stop.clone(),
    });
    let result = tokio::select! {
        result = copy_disk(&shared, disk) => result.map_err(|e| copy_failure(&e)),
        e = report(desk, &progress) => Err(lost(e)),
    };
    if let Some(path) = hashes {
        let _ = std::fs::remove_file(path);
    }
    result?;
    desk.say(&FromCopier::Done(counts(&progress))).await.map_err(lost)
}

async fn open(
    source: &str,
    target: &str,
    volume: Option<&Path>,
    allocated: bool,
    verify: bool,
) -> Result<Disk, Failure> {
    let uri = |text: &str| {
        text.parse::<NbdUri>().map_err(|e| Failure::new(Class::Internal, e.to_string()))
    };
    let say = |text: String| eprintln!("nbdcopy: {text}");
    let from = patient::open(&uri(source)?, say).await.map_err(|e| source_failure(&e))?;
    let to: Target = match volume {
        // The supervisor holds the lock, and virt-v2v's idle nbdkit has it open.
        Some(path) => {
            let files =
                FileOptions { direct: true, allocate: allocated, exclusive: false, is_zero: false };
            place::open_file_target(path, files).map_err(|e| target_failure(&e))?
        }
        None => place::open_nbd_target(uri(target)?, patient::OPTIONS, allocated, false, MAX_ZERO)
            .await
            .map_err(|e| target_failure(&e))?,
    };
    let hashes =
        verify.then(|| std::env::temp_dir().join(format!("nbdcopy-{}.hashes", std::process::id())));
    Ok(Disk {
        source: from,
        target: to,
        journal: None,
        keep_when_done: false,
        hashes,
        progress: Arc::default(),
    })
}

fn settings(allocated: bool, verify: bool) -> Settings {
    let settings = onto_volumes(patient::retry(), verify);
    if allocated { Settings { sparse: 0, ..settings } } else { settings }
}

fn counts(progress: &Progress) -> Counts {
    Counts {
        size: get(&progress.size),
        done: get(&progress.done),
        copied: get(&progress.copied),
        verified: get(&progress.verified),
        retries: get(&progress.retries),
    }
}

/// Reports until the supervisor is gone.
async fn report(desk: &Desk, progress: &Progress) -> io::Error {
    loop {
        tokio::time::sleep(REPORT_EVERY).await;
        if let Err(e) = desk.say(&FromCopier::Progress(counts(progress))).await {
            return e;
        }
    }
}

/// The connection to the supervisor.
#[derive(Debug)]
struct Desk {
    answers: Mutex<mpsc::Receiver<ToCopier>>,
    requests: watch::Receiver<u64>,
    write: Mutex<OwnedWriteHalf>,
}

impl Desk {
    async fn connect(socket: &Path) -> io::Result<Self> {
        let (read, write) = UnixStream::connect(socket).await?.into_split();
        let (send_answer, answers) = mpsc::channel(1);
        let (send_requests, requests) = watch::channel(0);
        tokio::spawn(listen(read, send_answer, send_requests));
        Ok(Self { answers: Mutex::new(answers), requests, write: Mutex::new(write) })
    }

    /// Keeps the source's requests as small as the supervisor says, now and later.
    fn obey(&self, limit: Option<RequestLimit>) {
        let Some(limit) = limit else { return };
        let mut requests = self.requests.clone();
        requests.mark_changed();
        tokio::spawn(async move {
            while requests.changed().await.is_ok() {
                let bytes = *requests.borrow_and_update();
                if bytes > 0 {
                    limit.set(bytes);
                }
            }
        });
    }

    async fn say(&self, message: &FromCopier) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.write.lock().await.write_all(&line).await
    }

    async fn answer(&self) -> io::Result<ToCopier> {
        let answer = self.answers.lock().await.recv().await;
        answer.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Tells answers and orders apart, until the supervisor is gone or talks nonsense.
async fn listen(
    read: OwnedReadHalf,
    answers: mpsc::Sender<ToCopier>,
    requests: watch::Sender<u64>,
) {
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(ToCopier::Requests(bytes)) => {
                requests.send_replace(bytes);
            }
            Ok(answer) => {
                if answers.send(answer).await.is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// The supervisor's bucket, asked for a few MiB at a time.
#[derive(Debug)]
struct Remote {
    desk: Arc<Desk>,
    credit: Mutex<u64>,
    stop: CancellationToken,
}

impl Remote {
    async fn take(&self, bytes: u64) {
        let mut credit = self.credit.lock().await;
        while *credit < bytes {
            let wanted = TAKE.max(bytes);
            let asked = async {
                self.desk.say(&FromCopier::Take(wanted)).await?;
                self.desk.answer().await
            };
            if let Ok(ToCopier::Given(given)) = asked.await {
                *credit += given;
            } else {
                self.stop.cancel();
                std::future::pending::<()>().await;
            }
        }
        *credit -= bytes;
    }
}

impl Limit for Remote {
    fn take(&self, bytes: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(Self::take(self, bytes))
    }
}
