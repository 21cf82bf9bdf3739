//! Disks copied from and to real NBD servers: nbdkit, qemu-nbd, nbd-server, and the `nbd` crate's.
//!
//! A tool that is missing fails its tests: `scripts/install-deps.sh lab` installs all of them.

// clippy.toml allows these in `#[test]` functions only; here everything is test code.
#![allow(clippy::unwrap_used, clippy::panic)]

mod content;
mod filters;
mod others;
mod peer;
mod plugins;
mod tls;

use datapath::CopyError;
use datapath::buffer::BufferPool;
use datapath::engine::{Disk, Settings, Shared, copy_disk};
use datapath::nbd::{NbdClient, NbdOptions};
use datapath::place;
use datapath::plan::Shape;
use datapath::progress::Progress;
use datapath::rate::Bucket;
use datapath::retry::Retry;
use datapath::source::{Source, SourceError};
use datapath::target::{FileOptions, Target, TargetError};
use datapath::units::Rate;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

const CHUNK: u64 = 256 << 10;
/// No test takes longer.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a test on a thread of its own, so that even a blocked one fails.
fn timed(test: impl Future<Output = ()> + Send + 'static) {
    let (say, heard) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test);
        runtime.shutdown_background();
        let _ = say.send(());
    });
    match heard.recv_timeout(LIMIT) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs: not done after {LIMIT:?}"),
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
            if let Err(panicked) = thread.join() {
                std::panic::resume_unwind(panicked);
            }
        }
    }
}

fn options() -> NbdOptions {
    NbdOptions { connections: 4, extents: true, patience: Duration::from_secs(10) }
}

/// The client behind an open source.
fn client(source: &Source) -> &NbdClient {
    source.client().unwrap()
}

async fn source(uri: &str) -> Result<Source, SourceError> {
    place::open_nbd_source(uri.parse().unwrap(), options()).await
}

async fn target(uri: &str) -> Result<Target, TargetError> {
    place::open_nbd_target(uri.parse().unwrap(), options(), false, false, 128 << 20).await
}

fn file_source(path: &Path) -> Source {
    place::open_file_source(path).unwrap()
}

fn file_target(path: &Path) -> Target {
    let options = FileOptions { direct: true, allocate: false, exclusive: true, is_zero: false };
    place::open_file_target(path, options).unwrap()
}

fn settings() -> Settings {
    Settings {
        shape: Shape { chunk: CHUNK, gap: 64 << 10, align: 4096 },
        sparse: 64 << 10,
        extents: true,
        unit: 8 << 20,
        max_unit: 1 << 30,
        retry: Retry {
            attempts: 20,
            first: Duration::from_millis(1),
            longest: Duration::from_millis(50),
            give_up: Duration::from_secs(30),
        },
        flush: true,
        verify: false,
        clone: false,
    }
}

async fn copy(source: Source, target: Target) -> Result<Arc<Progress>, CopyError> {
    let shared = Shared {
        settings: settings(),
        pool: BufferPool::new(usize::try_from(CHUNK).unwrap(), 4 << 20, 0),
        limit: Arc::new(Bucket::new(Rate::UNLIMITED)),
        stop: tokio_util::sync::CancellationToken::new(),
    };
    let progress = Arc::<Progress>::default();
    let (journal, hashes) = (None, None);
    let disk = Disk {
        source,
        target,
        journal,
        keep_when_done: false,
        hashes,
        progress: Arc::clone(&progress),
    };
    copy_disk(&Arc::new(shared), disk).await.map(|()| progress)
}

/// All of a server, by way of the engine.
async fn bytes_of(uri: &str) -> Vec<u8> {
    bytes_and_progress(uri).await.0
}

async fn bytes_and_progress(uri: &str) -> (Vec<u8>, Arc<Progress>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("copy");
    let source = source(uri).await.unwrap();
    let progress = copy(source, file_target(&path)).await.unwrap();
    (std::fs::read(path).unwrap(), progress)
}

/// Copies a file onto a server and reads all of it back.
async fn there_and_back(uri: &str, file: &Path) {
    copy(file_source(file), target(uri).await.unwrap()).await.unwrap();
    content::assert_same(&bytes_of(uri).await, &std::fs::read(file).unwrap());
}
