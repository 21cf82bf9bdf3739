//! A source that is another program's server, which waits for its own server: opened and read with patience.

use datapath::nbd::{NbdError, NbdOptions, NbdUri};
use datapath::place;
use datapath::retry::Retry;
use datapath::source::{Source, SourceError};
use std::time::Duration;

/// nbdkit waits for its server itself (retry filter: a minute).
const PATIENCE: Duration = Duration::from_secs(120);
/// How such servers are connected to.
pub const OPTIONS: NbdOptions = NbdOptions { connections: 8, extents: true, patience: PATIENCE };
/// Before the source is opened again.
const OPEN_AGAIN: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(30),
];

/// What to do about failures that may pass.
pub fn retry() -> Retry {
    Retry {
        attempts: 6,
        first: Duration::from_millis(200),
        longest: Duration::from_secs(10),
        // A failure reaches us after the minute for which nbdkit's retry filter tried by itself.
        give_up: Duration::from_secs(900),
    }
}

/// nbdkit asks its server for the disk's length at each opening, and refuses the export when that fails.
pub async fn open(uri: &NbdUri, say: impl Fn(String)) -> Result<Source, SourceError> {
    for wait in OPEN_AGAIN {
        match place::open_nbd_source(uri.clone(), OPTIONS).await {
            Err(e) if is_refusal(&e) => {
                say(format!("{}; trying again in {} s", datapath::error_chain(&e), wait.as_secs()));
            }
            result => return result,
        }
        tokio::time::sleep(wait).await;
    }
    place::open_nbd_source(uri.clone(), OPTIONS).await
}

fn is_refusal(e: &SourceError) -> bool {
    matches!(e, SourceError::Nbd { source, .. }
        if matches!(source, NbdError::Refused { passing: true, .. } | NbdError::Lost(_)))
}
