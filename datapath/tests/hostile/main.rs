//! The NBD client against servers that break the protocol, stall or vanish, and against correct ones of every age.
//!
//! The fake server has its own code for the protocol's bytes, so that a wrong number in the client is seen.

// clippy.toml allows these in `#[test]` functions only; here everything is test code.
#![allow(clippy::unwrap_used, clippy::panic)]

mod correct;
mod disk;
mod fake;
mod frames;
mod handshake;
mod memory;
mod pieces;
mod reconnect;
mod replies;
mod shake;
mod silence;
mod status;

use datapath::nbd::{NbdClient, NbdError, NbdOptions, NbdUri};
use fake::Server;
use std::sync::mpsc;
use std::time::Duration;

/// How long the client waits for a silent server here.
const PATIENCE: Duration = Duration::from_millis(300);
/// No test takes longer.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs a test on a thread of its own, so that a loop that never yields fails too.
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
    NbdOptions { connections: 4, extents: true, patience: PATIENCE }
}

async fn connect(server: &Server) -> Result<NbdClient, NbdError> {
    let uri: NbdUri = server.uri().parse().unwrap();
    NbdClient::connect(uri, options()).await
}

async fn read(client: &NbdClient, offset: u64, length: usize) -> Result<Vec<u8>, NbdError> {
    let buffer = bytes::BytesMut::zeroed(length);
    client.read(offset, buffer).await.map(|data| data.to_vec())
}

/// The error is of this kind, and its text has this word in it.
macro_rules! assert_error {
    ($error:expr, $kind:pat, $word:expr) => {{
        let error = $error;
        assert!(
            matches!(error, $kind) && error.to_string().contains($word),
            "wanted {} with {:?}: {error:?}",
            stringify!($kind),
            $word
        );
    }};
}
use assert_error;
