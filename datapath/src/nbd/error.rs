//! What can go wrong with an NBD server.

use super::wire::{Command, errno_text};
use std::io;

/// Failures of the NBD client. The server's own texts are quoted, cut and cleaned of control characters.
#[derive(Debug, thiserror::Error)]
pub enum NbdError {
    /// No connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// Host and port, or the socket's path.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The server is not one that can be used.
    #[error("NBD handshake: {0}")]
    Handshake(String),
    /// The server refused an option.
    #[error("the NBD server refused {what}: {reason}")]
    Refused {
        /// What was asked for.
        what: String,
        /// Its reason.
        reason: String,
        /// It has no such export now, or is shutting down.
        passing: bool,
    },
    /// TLS failed.
    #[error("TLS with the NBD server: {0}")]
    Tls(String),
    /// The server broke the protocol.
    #[error("the NBD server broke the protocol: {0}")]
    Protocol(String),
    /// The connection is gone.
    #[error("the connection to the NBD server was lost: {0}")]
    Lost(String),
    /// The server is silent.
    #[error("the NBD server stalled: {what} got no answer for {seconds} s")]
    Stalled {
        /// What waits.
        what: String,
        /// For how long.
        seconds: u64,
    },
    /// The server answered with an error.
    #[error("the NBD server failed to {command} {length} bytes at {offset}: {}{}", errno_text(*errno), quoted(message))]
    Server {
        /// What was asked.
        command: Command,
        /// Where.
        offset: u64,
        /// How much.
        length: u64,
        /// Error number of the protocol.
        errno: u32,
        /// The server's text, may be empty.
        message: String,
    },
    /// The export is another one after a reconnection.
    #[error("after a reconnection the export has {now} bytes instead of {before}")]
    Changed {
        /// Size at first.
        before: u64,
        /// Size now.
        now: u64,
    },
    /// A request that the server cannot take.
    #[error(
        "a {command} of {length} bytes at {offset} is not possible on an export of {size} bytes"
    )]
    OutOfRange {
        /// What was asked.
        command: Command,
        /// Where.
        offset: u64,
        /// How much.
        length: u64,
        /// Size of the export.
        size: u64,
    },
}

impl NbdError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { source, .. } => !matches!(
                source.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
            ),
            Self::Lost(_) | Self::Stalled { .. } => true,
            // EIO, ENOMEM, ESHUTDOWN: a busy or restarting server. EINVAL, EPERM, ENOSPC stay.
            Self::Server { errno, .. } => matches!(errno, 5 | 12 | 108),
            _ => false,
        }
    }

    /// Whether the connection it came from is of no more use.
    pub fn breaks_connection(&self) -> bool {
        !matches!(self, Self::Server { .. } | Self::OutOfRange { .. })
    }
}

fn quoted(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// A text of the server, fit for a log line.
pub fn clean(text: &[u8]) -> String {
    String::from_utf8_lossy(text)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(300)
        .collect::<String>()
        .trim()
        .to_owned()
}
