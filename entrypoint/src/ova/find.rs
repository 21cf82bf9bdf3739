//! Finds the files of an OVA, here or on a server; brings here what has to be here.

use super::error::OvaError;
use super::names::Name;
use super::package::{self, Contents, HEAD_BYTES, Kind, Piece, Store};
use super::unpack::{self, Packing, Room};
use super::{Work, blocking, ovf, place, ranges};
use crate::failure::{Class, Failure};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What was found.
pub struct Found {
    /// Its files.
    pub contents: Contents,
    /// The description, where several would be.
    pub chosen: Option<Name>,
    /// Where virt-v2v finds the same.
    pub path: Option<PathBuf>,
    /// What an operator should know.
    pub notes: Vec<String>,
}

impl Work<'_> {
    /// A local OVA.
    pub async fn find(&self, path: &Path) -> Result<Found, Failure> {
        let (path, chosen) = package::locate(path)?;
        if path.is_dir() {
            let contents = Contents::of_folder(&path)?;
            return Ok(Found { contents, chosen, path: Some(path), notes: Vec::new() });
        }
        let shown = path.display().to_string();
        let head = Piece::file(path.clone(), HEAD_BYTES).read_local(&path, HEAD_BYTES)?;
        match package::kind(&shown, &head)? {
            Kind::Tar => {
                let contents = Contents::of_tar(&path)?;
                Ok(Found { contents, chosen: None, path: Some(path), notes: Vec::new() })
            }
            Kind::Packed(packing) => self.unpacked(packing, path).await,
            // Its name says something else.
            Kind::Ovf => Err(OvaError::Unknown(shown).into()),
        }
    }

    /// An OVA on a server.
    pub async fn find_at(&self, url: &::url::Url) -> Result<Found, Failure> {
        let remote = self.remote()?;
        let shown = place::without_secrets(url);
        let (first, bytes) = remote.read(url, 0, ranges::WINDOW).await?;
        let store = Store::Url(url.clone());
        match package::kind(&shown, &first)? {
            Kind::Tar => {
                let listing = ranges::list(remote, url, first, bytes).await?;
                let contents = Contents::of_listing(shown, listing, &store);
                Ok(Found { contents, chosen: None, path: None, notes: Vec::new() })
            }
            Kind::Packed(packing) => {
                let piece = Piece { store, offset: 0, size: bytes, whole: true };
                let file = self.dir.join("downloaded");
                self.download(&shown, &piece, &file).await?;
                let found = self.unpacked(packing, file.clone()).await;
                // Its place is needed for other things.
                let _ = fs::remove_file(file);
                found
            }
            Kind::Ovf => {
                let (ovf, bytes) = remote.read(url, 0, ovf::MOST_BYTES.min(bytes)).await?;
                let (contents, notes) = self.beside(url, &shown, &ovf, bytes).await?;
                Ok(Found { contents, chosen: None, path: None, notes })
            }
        }
    }

    /// The files of an `.ovf` on a server: those that it names, and its manifest.
    async fn beside(
        &self,
        url: &::url::Url,
        shown: &str,
        ovf: &[u8],
        bytes: u64,
    ) -> Result<(Contents, Vec<String>), Failure> {
        let (remote, mut notes) = (self.remote()?, Vec::new());
        let piece = |url, size| Piece { store: Store::Url(url), offset: 0, size, whole: true };
        let file = url.path_segments().and_then(|mut s| s.next_back()).unwrap_or_default();
        let file = percent_encoding::percent_decode_str(file).decode_utf8_lossy();
        let stem = file.strip_suffix(".ovf").unwrap_or(&file);
        let named = |source| OvaError::Name { folder: shown.to_owned(), source };
        let name = Name::parse(format!("{stem}.ovf").as_bytes()).map_err(named)?;
        let parsed = ovf::Ovf::parse(ovf);
        let parsed = parsed.map_err(|source| OvaError::Ovf { ovf: shown.to_owned(), source })?;
        let mut files = BTreeMap::from([(name.clone(), piece(url.clone(), bytes))]);
        let manifest = name.sibling(&format!("{stem}.mf")).map_err(named)?;
        let mut wanted = Vec::new();
        for disk in &parsed.disks {
            let refers = |source| OvaError::Reference { ovf: shown.to_owned(), source };
            let disk_file = name.sibling(&disk.href).map_err(refers)?;
            let pieces = (0..).map(|n| disk_file.with_suffix(&format!(".{n:09}")));
            if !disk.chunked {
                wanted.push(disk_file);
                continue;
            }
            for (number, file) in pieces.take(10_000).enumerate() {
                let at = address(url, &file)?;
                // The first must be there; which one is the last is known by the next.
                let size = match number {
                    0 => remote.size(&at).await?,
                    // Without its length a disk would end where the server does not give out the next piece.
                    _ if disk.size.is_none() => remote.size(&at).await?,
                    _ => remote.size_of_optional(&at, &mut notes).await?,
                };
                let Some(size) = size else { break };
                files.insert(file, piece(at, size));
            }
        }
        for file in wanted {
            let at = address(url, &file)?;
            if let Some(size) = remote.size(&at).await? {
                files.insert(file, piece(at, size));
            }
        }
        let at = address(url, &manifest)?;
        if let Some(size) = remote.size_of_optional(&at, &mut notes).await? {
            files.insert(manifest, piece(at, size));
        }
        Ok((Contents::of_files(shown.to_owned(), files), notes))
    }

    /// An archive that has to be unpacked.
    async fn unpacked(&self, packing: Packing, file: PathBuf) -> Result<Found, Failure> {
        let into = self.dir.join("unpacked");
        let room = Room::of(&self.dir, Arc::clone(&self.cancelled));
        tracing::info!(file = %file.display(), "unpacking the OVA");
        let (from, to) = (file, into.clone());
        blocking(move || unpack::archive(packing, &from, &to, room)).await?;
        fs::create_dir_all(&into)
            .map_err(|source| OvaError::Write { what: into.display().to_string(), source })?;
        let contents = Contents::of_folder(&into)?;
        Ok(Found { contents, chosen: None, path: Some(into), notes: Vec::new() })
    }

    /// A description or a manifest.
    pub async fn small(&self, contents: &Contents, name: &Name) -> Result<Vec<u8>, Failure> {
        let Some(piece) = contents.get(name)? else { return Ok(Vec::new()) };
        if piece.size > ovf::MOST_BYTES {
            return Err(OvaError::Long { file: name.to_string(), bytes: piece.size }.into());
        }
        self.read(piece, piece.size).await
    }

    /// The beginning of a file.
    pub async fn read(&self, piece: &Piece, most: u64) -> Result<Vec<u8>, Failure> {
        match &piece.store {
            Store::File(path) => Ok(piece.read_local(path, most)?),
            // A range of nothing cannot be asked for.
            Store::Url(_) if piece.size == 0 => Ok(Vec::new()),
            Store::Url(url) => {
                let most = most.min(piece.size);
                Ok(self.remote()?.read(url, piece.offset, most).await?.0)
            }
        }
    }

    /// Makes a file that has to be read from its beginning one of this machine.
    pub async fn bring(&self, contents: &mut Contents, name: &Name) -> Result<(), Failure> {
        let Some(piece) = contents.files.get_mut(name) else { return Ok(()) };
        if matches!(piece.store, Store::File(_)) {
            return Ok(());
        }
        let folder = self.dir.join("fetched-files");
        fs::create_dir_all(&folder)
            .map_err(|source| OvaError::Write { what: folder.display().to_string(), source })?;
        let number = fs::read_dir(&folder).map_or(0, Iterator::count);
        let file = folder.join(number.to_string());
        self.download(name.as_str(), piece, &file).await?;
        *piece = Piece::file(file, piece.size);
        Ok(())
    }

    async fn download(&self, what: &str, piece: &Piece, file: &Path) -> Result<(), Failure> {
        use std::io::Write as _;
        let Store::Url(url) = &piece.store else { return Ok(()) };
        Room::of(&self.dir, Arc::clone(&self.cancelled)).check(what, piece.size)?;
        tracing::info!(file = what, bytes = piece.size, "downloading, since it is compressed");
        let failed = |source| OvaError::Write { what: file.display().to_string(), source };
        let mut out = fs::File::create(file).map_err(failed)?;
        let write = |part: &[u8]| out.write_all(part).map_err(|e| failed(e).into());
        self.remote()?.each_part(url, (piece.offset, piece.size), write).await
    }
}

/// Another file in the folder of `url`.
fn address(url: &::url::Url, file: &Name) -> Result<::url::Url, Failure> {
    let mut at = url.clone();
    let no_path = |()| Failure::new(Class::Config, "the URL of the OVA has no path");
    at.path_segments_mut().map_err(no_path)?.pop().extend(file.as_str().split('/'));
    Ok(at)
}
