//! v2v-pod under the name `nbdcopy`: a stand-in for the original, with its command line.
//!
//! Called by virt-v2v in a conversion ([`pipeline`]) it copies for the supervisor; elsewhere it does
//! what nbdcopy does. What it does not do itself goes to the real one, if there is one.

mod args;
mod bar;
pub mod pipeline;
mod server;

use crate::shim;
use args::{Args, ArgsError, Asked, Word};
use datapath::CopyError;
use datapath::buffer::BufferPool;
use datapath::engine::{Disk, Settings, Shared, copy_disk};
use datapath::error_chain;
use datapath::nbd::NbdOptions;
use datapath::place::{self, Place};
use datapath::plan::Shape;
use datapath::progress::Progress;
use datapath::rate::Bucket;
use datapath::retry::Retry;
use datapath::source::Source;
use datapath::stream;
use datapath::target::{FileOptions, Target};
use datapath::units::Rate;
use server::Server;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The work unit of nbdcopy; also the longest range it zeroes at once.
const UNIT: u64 = 128 << 20;
/// Memory for all requests in flight, whatever the options say.
const MOST_IN_FLIGHT: u64 = 48 << 20;
/// A silent server is waited for this long.
const PATIENCE: Duration = Duration::from_secs(120);

const USAGE: &str = "
Copy to and from an NBD server:

    nbdcopy [--allocated] [-C N|--connections=N]
            [--destination-is-zero|--target-is-zero] [--flush]
            [--no-extents] [-p|--progress|--progress=FD]
            [--queue-size=N] [--request-size=N] [-R N|--requests=N]
            [-S N|--sparse=N] [--synchronous] [-T N|--threads=N]
            [-v|--verbose]
            SOURCE DESTINATION

    SOURCE, DESTINATION := - | FILE | DEVICE | NBD-URI | [ CMD ARGS ... ]
    DESTINATION += null:

This is v2v-pod under the name of nbdcopy; see also `v2v-pod copy --help`.
";

/// Whether we were called by this name.
pub fn is_name(program: Option<&OsString>) -> bool {
    shim::is_name(program, "nbdcopy")
}

/// Runs under the name of nbdcopy; the exit code is 0 or 1, as virt-v2v expects.
pub async fn run(arguments: Vec<OsString>) -> u8 {
    let asked = args::parse(arguments.iter().cloned());
    if let Some(socket) = pipeline::socket() {
        if let Ok(Asked::Copy(args)) = &asked
            && let Some((source, target)) = both_nbd(args)
        {
            return pipeline::run(&socket, source, target, args.allocated).await;
        }
        // Every other call is answered by the real one.
        return become_the_real_one(&arguments);
    }
    match asked {
        Ok(Asked::Copy(args)) => match copy(&args).await {
            Ok(()) => 0,
            Err(text) => fail(&text),
        },
        Ok(Asked::Help) => print(USAGE),
        Ok(Asked::LongOptions) => {
            let shown = args::LONG.iter().filter(|l| !l.ends_with("-options"));
            print(&lines(shown.map(|l| format!("--{l}"))))
        }
        Ok(Asked::ShortOptions) => print(&lines(args::SHORT.iter().map(|s| format!("-{s}")))),
        Ok(Asked::Version) if real().is_some() => become_the_real_one(&arguments),
        Ok(Asked::Version) => print(concat!("nbdcopy (v2v-pod) ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(ArgsError::Value(text)) => fail(&text),
        Err(ArgsError::Usage) => {
            let _ = io::stderr().write_all(USAGE.as_bytes());
            1
        }
    }
}

fn lines(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join("\n") + "\n"
}

fn print(text: &str) -> u8 {
    u8::from(io::stdout().write_all(text.as_bytes()).is_err())
}

fn fail(text: &str) -> u8 {
    let _ = writeln!(io::stderr(), "nbdcopy: {text}");
    1
}

fn both_nbd(args: &Args) -> Option<(&str, &str)> {
    match (&args.source, &args.target) {
        (Word::Place(s), Word::Place(t))
            if datapath::nbd::is_nbd_uri(s) && datapath::nbd::is_nbd_uri(t) =>
        {
            Some((s, t))
        }
        _ => None,
    }
}

/// The first nbdcopy in PATH that is not this program.
fn real() -> Option<PathBuf> {
    shim::real("nbdcopy")
}

fn become_the_real_one(arguments: &[OsString]) -> u8 {
    fail(&shim::become_real("nbdcopy", arguments, &[]))
}

/// One end of a copy, opened.
enum End {
    Source(Source),
    Target(Target),
    Pipe(tokio::fs::File),
}

async fn copy(args: &Args) -> Result<(), String> {
    let mut servers = Vec::new();
    let result = tokio::select! {
        result = copy_with(args, &mut servers) => result,
        _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
    };
    let mut result = result;
    for server in servers {
        let stopped = server.stop(result.is_ok()).await;
        result = result.and(stopped.map_err(|e| format!("the NBD server did not end: {e}")));
    }
    result
}

async fn copy_with(args: &Args, servers: &mut Vec<Server>) -> Result<(), String> {
    let from = open_source(args, servers).await?;
    let to = open_target(args, servers).await?;
    let (preferred, settings) = settings(args, &from, &to);
    if args.verbose {
        tell(&from, &to, preferred);
    }
    let progress: Arc<Progress> = Arc::default();
    let copying = run_copy(args, settings, from, to, Arc::clone(&progress));
    let result = tokio::select! {
        result = copying => result,
        () = bar::show(args.progress, progress) => Ok(()),
    };
    result.map_err(|e| describe(&e))?;
    bar::finish(args.progress);
    Ok(())
}

async fn run_copy(
    args: &Args,
    settings: Settings,
    from: End,
    to: End,
    progress: Arc<Progress>,
) -> Result<(), CopyError> {
    match (from, to) {
        (End::Pipe(mut pipe), End::Target(target)) => {
            stream::pipe_to_disk(&mut pipe, &target, &settings, &progress).await.map(drop)
        }
        (End::Pipe(mut from), End::Pipe(mut to)) => {
            let copied = tokio::io::copy(&mut from, &mut to).await;
            copied.map(drop).map_err(|e| CopyError::Internal(e.to_string()))
        }
        (End::Source(source), End::Pipe(mut pipe)) => {
            stream::disk_to_pipe(&source, &mut pipe, &settings, &progress).await
        }
        (End::Source(source), End::Target(target)) if args.synchronous => {
            stream::disk_to_disk(&source, &target, &settings, &progress).await
        }
        (End::Source(source), End::Target(target)) => {
            let size = |n: u64| usize::try_from(n).unwrap_or(1 << 20);
            let per_connection =
                args.queue.min(u64::from(args.requests).saturating_mul(settings.shape.chunk));
            let in_flight =
                per_connection.saturating_mul(u64::from(connections(args))).min(MOST_IN_FLIGHT);
            let shared = Arc::new(Shared {
                settings,
                pool: BufferPool::new(size(settings.shape.chunk), size(in_flight), 0),
                limit: Arc::new(Bucket::new(Rate::UNLIMITED)),
                stop: CancellationToken::new(),
            });
            copy_disk(
                &shared,
                Disk {
                    source,
                    target,
                    journal: None,
                    keep_when_done: false,
                    hashes: None,
                    progress,
                },
            )
            .await
        }
        (End::Target(_), _) | (_, End::Source(_)) => {
            Err(CopyError::Internal("ends mixed up".into()))
        }
    }
}

fn describe(error: &CopyError) -> String {
    use datapath::target::TargetError;
    match error {
        CopyError::Target(TargetError::TooSmall { room, size, .. }) => {
            format!("error: destination size ({room}) is smaller than source size ({size})")
        }
        CopyError::Target(TargetError::ReadOnly(name)) => {
            format!("{name}: the destination is read-only, cannot write to it")
        }
        other => error_chain(other),
    }
}

/// As many as threads may use, none more for servers in brackets.
fn connections(args: &Args) -> u32 {
    let bracket =
        matches!(args.source, Word::Command(_)) || matches!(args.target, Word::Command(_));
    if bracket || args.synchronous {
        return 1;
    }
    let cores =
        std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
    let threads = if args.threads == 0 { cores } else { args.threads };
    args.connections.min(threads).max(1)
}

fn nbd_options(args: &Args) -> NbdOptions {
    NbdOptions {
        connections: connections(args) as usize,
        extents: args.extents,
        patience: PATIENCE,
    }
}

fn settings(args: &Args, from: &End, to: &End) -> ((u32, u32), Settings) {
    let from = if let End::Source(s) = from { s.preferred_block() } else { 4096 };
    let to_block = if let End::Target(t) = to { t.preferred_block() } else { 4096 };
    let chunk = args.request.max(u64::from(from)).max(u64::from(to_block));
    let sparse = match args.sparse {
        0 => 0,
        _ if args.allocated => 0,
        n => n.max(u64::from(if to_block > 4096 { to_block } else { 0 })).min(chunk),
    };
    let settings = Settings {
        shape: Shape {
            chunk,
            // Holes are only read over when they are found again in the data.
            gap: if sparse == 0 { 0 } else { chunk.min(64 << 10) },
            align: 4096.max(u64::from(to_block)).min(chunk),
        },
        sparse: usize::try_from(sparse).unwrap_or(0),
        extents: args.extents,
        unit: UNIT.max(chunk),
        max_unit: UNIT.max(chunk),
        retry: Retry::NONE,
        flush: args.flush,
        verify: false,
        clone: false,
    };
    ((from, to_block), settings)
}

async fn open_source(args: &Args, servers: &mut Vec<Server>) -> Result<End, String> {
    let place = match &args.source {
        Word::Command(command) => Place::Nbd(start(command, servers)?),
        Word::Place(text) => text.parse::<Place>().map_err(|e| e.to_string())?,
    };
    match place {
        Place::Stdio => pipe_or(0, Path::new("/dev/stdin"), |p| {
            place::open_file_source(p).map(End::Source).map_err(|e| error_chain(&e))
        }),
        Place::Path(path) if is_pipe(&path) => {
            let file =
                std::fs::File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            Ok(End::Pipe(tokio::fs::File::from_std(file)))
        }
        Place::Path(path) => {
            place::open_file_source(&path).map(End::Source).map_err(|e| error_chain(&e))
        }
        Place::Nbd(uri) => place::open_nbd_source(uri, nbd_options(args))
            .await
            .map(End::Source)
            .map_err(|e| error_chain(&e)),
        Place::Null => Err("null: can only be the destination".into()),
    }
}

async fn open_target(args: &Args, servers: &mut Vec<Server>) -> Result<End, String> {
    let place = match &args.target {
        Word::Command(command) => Place::Nbd(start(command, servers)?),
        Word::Place(text) => text.parse::<Place>().map_err(|e| e.to_string())?,
    };
    let files = FileOptions {
        direct: true,
        allocate: args.allocated,
        exclusive: false,
        is_zero: args.is_zero,
    };
    match place {
        Place::Stdio if io::stdout().is_terminal() => Err("refusing to write to tty".into()),
        Place::Stdio => pipe_or(1, Path::new("/dev/stdout"), |p| {
            place::open_file_target(p, files).map(End::Target).map_err(|e| error_chain(&e))
        }),
        Place::Path(path) if is_pipe(&path) => {
            let file = std::fs::OpenOptions::new().write(true).open(&path);
            let file = file.map_err(|e| format!("{}: {e}", path.display()))?;
            Ok(End::Pipe(tokio::fs::File::from_std(file)))
        }
        Place::Path(path) => {
            place::open_file_target(&path, files).map(End::Target).map_err(|e| error_chain(&e))
        }
        Place::Nbd(uri) => {
            place::open_nbd_target(uri, nbd_options(args), args.allocated, args.is_zero, UNIT)
                .await
                .map(End::Target)
                .map_err(|e| error_chain(&e))
        }
        Place::Null => Ok(End::Target(Target::Null)),
    }
}

/// Standard input or output: a pipe, or a file if it was redirected to one.
fn pipe_or(
    fd: i32,
    path: &Path,
    open: impl FnOnce(&Path) -> Result<End, String>,
) -> Result<End, String> {
    let file = crate::sys::inherited(fd).map_err(|e| format!("{}: {e}", path.display()))?;
    match file.metadata() {
        Ok(m) if m.is_file() || m.file_type().is_block_device() => open(path),
        _ => Ok(End::Pipe(tokio::fs::File::from_std(file))),
    }
}

fn is_pipe(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| {
        let t = m.file_type();
        t.is_fifo() || t.is_char_device() || t.is_socket()
    })
}

fn start(command: &[OsString], servers: &mut Vec<Server>) -> Result<datapath::nbd::NbdUri, String> {
    let server = Server::start(command).map_err(|e| {
        format!("{}: {e}", command.first().map_or("".into(), |c| c.to_string_lossy()))
    })?;
    let uri = server.uri();
    servers.push(server);
    Ok(uri)
}

/// What `--verbose` prints first.
fn tell(from: &End, to: &End, preferred: (u32, u32)) {
    let kind = match from {
        End::Source(Source::Nbd(_)) => "nbd_ops",
        End::Source(Source::File(_)) => "file_ops",
        _ => "pipe_ops",
    };
    let line = |side: &str, ops: &str, name: &str, size: Option<u64>, block: u32| {
        let size = size.map_or_else(|| "-1".into(), |s| format!("{s} ({})", short(s)));
        let _ = writeln!(io::stderr(), "nbdcopy: {side}: {ops} \"{name}\"");
        let _ =
            writeln!(io::stderr(), "nbdcopy: {side}: size={size}, preferred block size={block}");
    };
    match from {
        End::Source(s) => line("src", kind, &s.name(), Some(s.size()), preferred.0),
        _ => line("src", kind, "-", None, preferred.0),
    }
    match to {
        End::Target(t) => {
            let ops = match t {
                Target::Nbd(_) => "nbd_ops",
                Target::File(_) => "file_ops",
                Target::Null => "null_ops",
            };
            line("dst", ops, &t.name(), t.room(), preferred.1);
        }
        _ => line("dst", "pipe_ops", "-", None, preferred.1),
    }
}

/// `1M`: the largest unit that divides the size.
fn short(size: u64) -> String {
    let units = [("E", 60), ("P", 50), ("T", 40), ("G", 30), ("M", 20), ("K", 10)];
    units
        .iter()
        .find(|(_, bits)| size > 0 && size.is_multiple_of(1 << bits))
        .map_or_else(|| size.to_string(), |(unit, bits)| format!("{}{unit}", size >> bits))
}
