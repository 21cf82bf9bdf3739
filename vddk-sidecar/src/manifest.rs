//! The list of what was installed, with hashes: a tree that has it is complete.

use crate::library;
use crate::tree::{self, Entry, EntryKind, TreeError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Its name, in the tree's root.
pub const FILE: &str = ".v2v-pod-manifest.json";
const FORMAT: u32 = 1;
/// Bytes of a manifest that is still read.
const LARGEST: u64 = 64 << 20;

/// The list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format.
    pub format: u32,
    /// Who wrote it.
    pub tool: String,
    /// The library, relative to the root.
    pub library: String,
    /// Its version, where the file name tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// SHA-256 over the listing of the tree that it was made from.
    pub source: String,
    /// Everything but the manifest itself.
    pub entries: Vec<Item>,
}

/// One thing in the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Relative to the root.
    pub path: String,
    /// Of a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Of a file, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Of a file, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// What a look at a tree's manifest brings.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It was not installed by `vddk-sidecar install` (but by `cp -r`, say).
    #[error("there is no manifest ({FILE})")]
    Missing,
    /// I/O or JSON.
    #[error("the manifest cannot be read: {0}")]
    Unreadable(String),
    /// The tree is not as it was installed.
    #[error("{path} is not as it was installed: {difference}")]
    Differs {
        /// Where.
        path: String,
        /// How.
        difference: &'static str,
    },
    /// The tree cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Lists a tree, reading every file.
pub fn list(root: &Path) -> Result<Vec<Item>, TreeError> {
    tree::scan(root)?
        .into_iter()
        .filter(|e| e.path != Path::new(FILE))
        .map(|entry| item(root, entry))
        .collect()
}

fn item(root: &Path, entry: Entry) -> Result<Item, TreeError> {
    let text = |p: PathBuf| p.to_string_lossy().into_owned();
    let full = root.join(&entry.path);
    let path = text(entry.path);
    Ok(match entry.kind {
        EntryKind::Folder => Item { path, link: None, size: None, sha256: None },
        EntryKind::Link { target } => {
            Item { path, link: Some(text(target)), size: None, sha256: None }
        }
        EntryKind::File { .. } => {
            let (size, sha256) =
                hash(&full).map_err(|error| TreeError::Io { path: full.clone(), error })?;
            Item { path, link: None, size: Some(size), sha256: Some(sha256) }
        }
    })
}

/// Size and SHA-256 of a file.
fn hash(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let (mut digest, mut size, mut buffer) = (Sha256::new(), 0u64, vec![0; 1 << 20]);
    loop {
        let n = file.read(&mut buffer)?;
        let Some(part) = buffer.get(..n).filter(|p| !p.is_empty()) else { break };
        digest.update(part);
        size += n as u64;
    }
    Ok((size, hex(&digest.finalize())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// One number for a whole listing.
pub fn digest(items: &[Item]) -> String {
    let text = serde_json::to_vec(items).unwrap_or_default();
    hex(&Sha256::digest(text))
}

impl Manifest {
    /// For a tree with these entries.
    pub fn new(
        library: String,
        version: Option<String>,
        source: String,
        entries: Vec<Item>,
    ) -> Self {
        let tool = concat!("vddk-sidecar ", env!("CARGO_PKG_VERSION")).to_owned();
        Self { format: FORMAT, tool, library, version, source, entries }
    }

    /// Reads the manifest of a tree, without looking at the rest.
    pub fn read(root: &Path) -> Result<Self, ManifestError> {
        let bytes = match library::read(&root.join(FILE), LARGEST) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(ManifestError::Missing),
            Err(e) => return Err(ManifestError::Unreadable(e.to_string())),
        };
        let manifest: Self =
            serde_json::from_slice(&bytes).map_err(|e| ManifestError::Unreadable(e.to_string()))?;
        if manifest.format == FORMAT {
            Ok(manifest)
        } else {
            Err(ManifestError::Unreadable(format!(
                "format {}, and {FORMAT} is known",
                manifest.format
            )))
        }
    }

    /// Compares the tree with its manifest: every name, link, size and hash.
    pub fn verify(root: &Path) -> Result<Self, ManifestError> {
        let manifest = Self::read(root)?;
        let found = list(root)?;
        let by_path: BTreeMap<&str, &Item> = found.iter().map(|i| (&*i.path, i)).collect();
        let listed: BTreeSet<&str> = manifest.entries.iter().map(|i| &*i.path).collect();
        for item in &manifest.entries {
            let differs =
                |difference| ManifestError::Differs { path: item.path.clone(), difference };
            let now = *by_path.get(&*item.path).ok_or_else(|| differs("it is gone"))?;
            if now != item {
                let kind = if now.size == item.size {
                    "its content has changed"
                } else {
                    "its size has changed"
                };
                return Err(differs(if now.link == item.link {
                    kind
                } else {
                    "its link has changed"
                }));
            }
        }
        match found.iter().find(|i| !listed.contains(&*i.path)) {
            Some(new) => Err(ManifestError::Differs {
                path: new.path.clone(),
                difference: "it was not there",
            }),
            None => Ok(manifest),
        }
    }
}
