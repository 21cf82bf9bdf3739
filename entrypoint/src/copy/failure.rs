//! The class of a failed copy, and what to do about it.

use crate::failure::{Class, Failure};
use datapath::CopyError;
use datapath::error_chain;
use datapath::nbd::NbdError;
use datapath::source::SourceError;
use datapath::target::TargetError;
use std::io;

/// A failed copy.
pub fn copy_failure(error: &CopyError) -> Failure {
    let text = error_chain(error);
    match error {
        CopyError::Source(e) => source_failure(e),
        CopyError::Target(e) => target_failure(e),
        CopyError::GaveUp { source, .. } => {
            let cause = copy_failure(source);
            Failure { message: text, ..cause }
                .advise("when the source is back, run the same command again: it continues from what is durable")
        }
        CopyError::SameFile(_) => Failure::new(Class::Volume, text).advise("name another target"),
        CopyError::Journal { source, .. } => Failure::new(io_class(source), text).advise(
            "name a writable place with --journal or --work, or go without with --no-journal",
        ),
        CopyError::Differs { .. } => Failure::new(Class::Integrity, text),
        CopyError::SourceChanged { .. } => Failure::new(Class::Integrity, text)
            .advise("copy from a snapshot, or from a VM that is powered off"),
        CopyError::Stopped => Failure::new(Class::Terminated, text),
        CopyError::Internal(_) => Failure::new(Class::Internal, text),
    }
}

/// A source that failed.
pub fn source_failure(error: &SourceError) -> Failure {
    let text = error_chain(error);
    match error {
        SourceError::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Failure::new(Class::NotFound, text).advise("check the path of the source")
        }
        SourceError::Open { .. } => {
            Failure::new(Class::Io, text).advise("check the path and permissions of the source")
        }
        SourceError::Io { .. } => Failure::new(Class::Io, text),
        SourceError::Nbd { source, .. } => nbd_failure(source, text),
    }
}

/// A target that failed.
pub fn target_failure(error: &TargetError) -> Failure {
    let text = error_chain(error);
    match error {
        TargetError::Open { .. } | TargetError::Kind(_) => {
            Failure::new(Class::Volume, text).advise("check the path and permissions of the target")
        }
        TargetError::Busy(_) => Failure::new(Class::Volume, text)
            .advise("unmount it, or end the program that uses it, and start again"),
        TargetError::TooSmall { .. } => Failure::new(Class::Volume, text)
            .advise("give a target at least as large as the source"),
        TargetError::ReadOnly(_) => Failure::new(Class::Volume, text).advise("make it writable"),
        TargetError::Io { source, .. } => Failure::new(io_class(source), text),
        TargetError::Nbd { source: NbdError::Server { errno: 28, .. }, .. } => {
            Failure::new(Class::NoSpace, text)
        }
        TargetError::Nbd { source, .. } => nbd_failure(source, text),
    }
}

fn io_class(error: &io::Error) -> Class {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Class::NoSpace,
        _ => Class::Io,
    }
}

fn nbd_failure(error: &NbdError, text: String) -> Failure {
    match error {
        NbdError::Connect { .. } | NbdError::Lost(_) | NbdError::Stalled { .. } => {
            Failure::new(Class::Network, text)
                .advise("check that the NBD server runs and can be reached, and start again")
        }
        NbdError::Handshake(_) | NbdError::Protocol(_) => Failure::new(Class::Network, text)
            .advise("check that the address is that of a sound NBD server"),
        NbdError::Refused { .. } => Failure::new(Class::NotFound, text)
            .advise("check the export's name in the URI, and nbds:// for a server that wants TLS"),
        NbdError::Tls(_) => Failure::new(Class::Trust, text)
            .advise("check tls-certificates= or tls-psk-file= in the URI against the server's"),
        NbdError::Server { .. } | NbdError::Changed { .. } | NbdError::OutOfRange { .. } => {
            Failure::new(Class::Io, text)
        }
    }
}
