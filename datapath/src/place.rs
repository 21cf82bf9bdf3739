//! Names of sources and targets, and how they are opened.

use crate::nbd::{NbdClient, NbdError, NbdOptions, NbdUri, UriError, is_nbd_uri};
use crate::source::{FileSource, Source, SourceError};
use crate::target::{FileOptions, FileTarget, NbdTarget, Target, TargetError};
use std::path::PathBuf;
use std::sync::Arc;

/// A source or target, as named by people and programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file or device.
    Path(PathBuf),
    /// An NBD server.
    Nbd(NbdUri),
    /// Nowhere; a target only.
    Null,
    /// Standard input or output.
    Stdio,
}

impl std::str::FromStr for Place {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        Ok(match text {
            "-" => Self::Stdio,
            "null:" => Self::Null,
            uri if is_nbd_uri(uri) => Self::Nbd(uri.parse()?),
            path => Self::Path(path.into()),
        })
    }
}

/// The URI without what may be secret or private in it, for messages and journals.
pub fn nbd_name(uri: &NbdUri) -> String {
    let scheme = if uri.tls.is_some() { "nbds" } else { "nbd" };
    format!("{scheme}:{}/{}", uri.address, uri.export)
}

/// Opens a file or device as source.
pub fn open_file_source(path: &std::path::Path) -> Result<Source, SourceError> {
    let name = path.display().to_string();
    FileSource::open(path)
        .map(|f| Source::File(Arc::new(f)))
        .map_err(|source| SourceError::Open { name, source })
}

/// Connects to an NBD server as source.
pub async fn open_nbd_source(uri: NbdUri, options: NbdOptions) -> Result<Source, SourceError> {
    let name = nbd_name(&uri);
    match NbdClient::connect(uri, options).await {
        Ok(client) => Ok(Source::nbd(client, name)),
        Err(source) => Err(SourceError::Nbd { name, source }),
    }
}

/// Opens a file or device as target; its content is not changed.
pub fn open_file_target(
    path: &std::path::Path,
    options: FileOptions,
) -> Result<Target, TargetError> {
    FileTarget::open(path, options).map(|f| Target::File(Arc::new(f)))
}

/// Connects to an NBD server as target.
pub async fn open_nbd_target(
    uri: NbdUri,
    options: NbdOptions,
    allocate: bool,
    is_zero: bool,
    max_zero: u64,
) -> Result<Target, TargetError> {
    let name = nbd_name(&uri);
    let connected: Result<NbdClient, NbdError> = NbdClient::connect_for_writing(uri, options).await;
    match connected {
        Ok(client) => {
            Ok(Target::Nbd(Arc::new(NbdTarget::new(client, name, allocate, is_zero, max_zero))))
        }
        Err(source) => Err(TargetError::Nbd { target: name, source }),
    }
}
