//! Compares the files of an OVA with the checksums of its manifest.

use super::error::OvaError;
use super::manifest::{Entry, Hasher};
use super::names::Name;
use super::package::{Package, Piece, Store};
use super::place::Verify;
use super::url::Remote;
use crate::failure::{Class, Failure};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const BUFFER: usize = 1 << 20;

/// What came of it, for the report.
#[derive(Debug, Default)]
pub struct Verified {
    /// Files whose checksum was right.
    pub right: usize,
    /// Left to virt-v2v.
    pub left: usize,
    /// On a server, and not read for it.
    pub unread: Vec<String>,
    /// In a manifest, but not in the OVA.
    pub absent: Vec<String>,
}

/// Verifies. With `virt_v2v` it reads the same OVA and compares what it understands itself.
pub async fn all(
    package: &Package,
    disks: &[Vec<Name>],
    verify: Verify,
    virt_v2v: bool,
    remote: Option<&Remote>,
    cancelled: &Arc<AtomicBool>,
) -> Result<Verified, Failure> {
    let mut result = Verified::default();
    if verify == Verify::Never {
        return Ok(result);
    }
    let mut listed = BTreeSet::new();
    for (manifest, entries) in &package.manifests {
        for entry in entries {
            let named = |source| OvaError::ManifestName { manifest: manifest.clone(), source };
            let name = manifest.sibling(&entry.file).map_err(named)?;
            let Some(piece) = package.contents.get(&name)? else {
                result.absent.push(name.to_string());
                continue;
            };
            listed.insert(name.clone());
            if virt_v2v && entry.known_to_virt_v2v && is_found(manifest, entry, &name) {
                result.left += 1;
                continue;
            }
            let is_ovf = name == package.ovf_name;
            let local = matches!(piece.store, Store::File(_));
            if !local && !is_ovf && verify == Verify::Auto {
                result.unread.push(name.to_string());
                continue;
            }
            one(&name, manifest, entry, piece, remote, cancelled).await?;
            result.right += 1;
        }
    }
    let needed = disks.iter().flatten().chain([&package.ovf_name]);
    if let Some(file) = needed.into_iter().find(|n| !listed.contains(n))
        && verify == Verify::Always
    {
        let (file, ova) = (file.clone(), package.contents.shown.clone());
        return Err(OvaError::NotInManifest { file, ova }.into());
    }
    Ok(result)
}

/// Whether virt-v2v finds the file: it looks for it byte for byte.
fn is_found(manifest: &Name, entry: &Entry, name: &Name) -> bool {
    let relative = match manifest.folder() {
        None => Some(name.as_str()),
        Some(folder) => name.as_str().strip_prefix(folder).and_then(|n| n.strip_prefix('/')),
    };
    relative == Some(entry.file.as_str())
}

async fn one(
    name: &Name,
    manifest: &Name,
    entry: &Entry,
    piece: &Piece,
    remote: Option<&Remote>,
    cancelled: &Arc<AtomicBool>,
) -> Result<(), Failure> {
    tracing::info!(file = name.as_str(), bytes = piece.size, "comparing with the manifest");
    let mut hasher = entry.algorithm.hasher();
    let found = match (&piece.store, remote) {
        (Store::Url(url), Some(remote)) => {
            let update = |part: &[u8]| {
                hasher.update(part);
                Ok(())
            };
            remote.each_part(url, (piece.offset, piece.size), update).await?;
            hasher.finish()
        }
        (Store::Url(_), None) => {
            return Err(Failure::new(Class::Internal, "a file on a server without a server"));
        }
        (Store::File(path), _) => {
            let (piece, path, cancelled) = (piece.clone(), path.clone(), Arc::clone(cancelled));
            let work = move || local(&piece, &path, hasher, &cancelled);
            let joined = tokio::task::spawn_blocking(work).await;
            joined.map_err(|e| Failure::new(Class::Internal, e.to_string()))??
        }
    };
    if found == entry.digest {
        return Ok(());
    }
    Err(OvaError::Checksum {
        file: name.clone(),
        manifest: manifest.clone(),
        algorithm: entry.algorithm,
        expected: entry.digest.clone(),
        found,
    }
    .into())
}

fn local(
    piece: &Piece,
    path: &Path,
    mut hasher: Hasher,
    cancelled: &AtomicBool,
) -> Result<String, OvaError> {
    let failed = |source| OvaError::Read { what: path.display().to_string(), source };
    let mut reader = piece.open_local(path).map_err(failed)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        if cancelled.load(Ordering::Relaxed) {
            return Err(OvaError::Cancelled);
        }
        match reader.read(&mut buffer).map_err(failed)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ova::manifest;

    #[test]
    fn virt_v2v_finds_files_by_their_very_name() {
        let found = |manifest_name: &str, file: &str| {
            let manifest_name = Name::parse(manifest_name.as_bytes()).unwrap();
            let line = format!("SHA1({file})= {}", "0".repeat(40));
            let entry = manifest::parse(line.as_bytes()).unwrap().remove(0);
            let name = manifest_name.sibling(file).unwrap();
            is_found(&manifest_name, &entry, &name)
        };
        assert!(found("web.mf", "disk.vmdk") && found("s/web.mf", "a/disk.vmdk"));
        for (manifest, file) in
            [("web.mf", "./disk.vmdk"), ("web.mf", "a//d"), ("s/web.mf", "../d"), ("s/w.mf", "./d")]
        {
            assert!(!found(manifest, file), "{file}");
        }
    }
}
