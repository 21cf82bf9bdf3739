//! The files of an OVA and where their bytes are, whatever form it has. Reads headers and names of local ones.

use super::error::OvaError;
use super::manifest::{self, Entry};
use super::names::Name;
use super::ovf::{self, Ovf};
use super::tar::{self, BLOCK, Listing};
use super::unpack::Packing;
use crate::sources;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use url::Url;

/// As much of a file as tells what it is: a header of tar.
pub const HEAD_BYTES: u64 = BLOCK;
const MOST_FILES: usize = 10_000;
const DEEPEST: usize = 8;

/// Where a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// On this machine.
    File(PathBuf),
    /// On a web server.
    Url(Url),
}

/// A file of an OVA: a range of bytes somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// In what.
    pub store: Store,
    /// From here.
    pub offset: u64,
    /// So many.
    pub size: u64,
    /// It is the whole of it.
    pub whole: bool,
}

impl Piece {
    /// A whole file on this machine.
    pub fn file(path: PathBuf, size: u64) -> Self {
        Self { store: Store::File(path), offset: 0, size, whole: true }
    }

    /// Reads some of a local piece; fewer bytes at its end.
    pub fn read_local(&self, path: &Path, most: u64) -> Result<Vec<u8>, OvaError> {
        let mut bytes = Vec::new();
        let read = self.open_local(path).and_then(|f| f.take(most).read_to_end(&mut bytes));
        let what = || path.display().to_string();
        read.map(|_| bytes).map_err(|source| OvaError::Read { what: what(), source })
    }

    /// Its bytes, from its beginning to its end.
    pub fn open_local(&self, path: &Path) -> io::Result<impl Read + use<>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        Ok(file.take(self.size))
    }
}

/// What an OVA has.
#[derive(Debug, Clone)]
pub struct Contents {
    /// For messages.
    pub shown: String,
    /// By name.
    pub files: BTreeMap<Name, Piece>,
    /// It ends without its mark.
    pub cut: bool,
    /// virt-v2v finds the same files under the same names.
    pub plain: bool,
    links_out: BTreeSet<Name>,
}

/// What a file is by its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Files one after another.
    Tar,
    /// To be unpacked first.
    Packed(Packing),
    /// A description.
    Ovf,
}

/// Tells the forms of an OVA apart.
pub fn kind(shown: &str, head: &[u8]) -> Result<Kind, OvaError> {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let packing = |packing| OvaError::Packing { ova: shown.to_owned(), packing };
    match head {
        [0x1f, 0x8b, ..] => Ok(Kind::Packed(Packing::Gzip)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Ok(Kind::Packed(Packing::Xz)),
        [b'P', b'K', 3, 4, ..] => Ok(Kind::Packed(Packing::Zip)),
        [b'B', b'Z', b'h', ..] => Err(packing("packed with bzip2")),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Err(packing("packed with zstd")),
        [b'7', b'z', 0xbc, 0xaf, ..] => Err(packing("a 7z archive")),
        _ if is_tar(head) => Ok(Kind::Tar),
        _ if text.starts_with(b"<") => Ok(Kind::Ovf),
        _ => Err(OvaError::Unknown(shown.to_owned())),
    }
}

/// By the sum over the first header, which every form of tar has.
fn is_tar(head: &[u8]) -> bool {
    let Some(header) = head.get(..512) else { return false };
    let sum: u32 = header
        .iter()
        .enumerate()
        .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) })
        .sum();
    let mut block = ::tar::Header::new_old();
    block.as_mut_bytes().copy_from_slice(header);
    block.cksum().is_ok_and(|written| written == sum)
}

impl Contents {
    /// Of a tar archive.
    pub fn of_listing(shown: String, listing: Listing, store: &Store) -> Self {
        let plain =
            listing.members.iter().all(|m| m.as_written && m.name.is_plain()) && !listing.unusual;
        let piece = |offset, size| Piece { store: store.clone(), offset, size, whole: false };
        let files =
            listing.members.into_iter().map(|m| (m.name, piece(m.offset, m.size))).collect();
        Self { shown, files, cut: !listing.has_end, plain, links_out: BTreeSet::new() }
    }

    /// Of a tar archive here.
    pub fn of_tar(path: &Path) -> Result<Self, OvaError> {
        let shown = path.display().to_string();
        let failed = |source| OvaError::Read { what: shown.clone(), source };
        let file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let listing = tar::list(file, bytes)
            .map_err(|source| OvaError::Tar { ova: shown.clone(), source })?;
        Ok(Self::of_listing(shown, listing, &Store::File(path.to_owned())))
    }

    /// Of files that are each somewhere.
    pub fn of_files(shown: String, files: BTreeMap<Name, Piece>) -> Self {
        Self { shown, files, cut: false, plain: false, links_out: BTreeSet::new() }
    }

    /// Of a folder.
    pub fn of_folder(top: &Path) -> Result<Self, OvaError> {
        let shown = top.display().to_string();
        let failed = |source| OvaError::Read { what: shown.clone(), source };
        let real = fs::canonicalize(top).map_err(failed)?;
        let mut found = Self { plain: true, ..Self::of_files(shown.clone(), BTreeMap::new()) };
        found.walk(&real, &real, 0)?;
        Ok(found)
    }

    fn walk(&mut self, top: &Path, dir: &Path, depth: usize) -> Result<(), OvaError> {
        let failed = |source| OvaError::Read { what: dir.display().to_string(), source };
        for entry in fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let below = path.strip_prefix(top).unwrap_or(&path);
            let Ok(name) = Name::parse(below.as_os_str().as_encoded_bytes()) else {
                // Somebody else's file, but virt-v2v may stumble over it.
                self.plain = false;
                continue;
            };
            let is_link = path.is_symlink();
            // A broken link is no file.
            let Ok(meta) = fs::metadata(&path) else { continue };
            if meta.is_dir() {
                self.plain &= !is_link;
                if !is_link && depth < DEEPEST {
                    self.walk(top, &path, depth + 1)?;
                }
                continue;
            }
            let real = if is_link { fs::canonicalize(&path).map_err(failed)? } else { path };
            if !real.starts_with(top) || !meta.is_file() {
                self.plain = false;
                self.links_out.insert(name);
                continue;
            }
            if self.files.len() == MOST_FILES {
                return Err(OvaError::Tar { ova: self.shown.clone(), source: tar::TarError::Many });
            }
            self.plain &= name.is_plain() && !is_link;
            self.files.insert(name, Piece::file(real, meta.len()));
        }
        Ok(())
    }

    /// The file of this name, if there is one.
    pub fn get(&self, name: &Name) -> Result<Option<&Piece>, OvaError> {
        if self.links_out.contains(name) {
            let (file, folder) = (name.to_string(), self.shown.clone());
            return Err(OvaError::LinkOut { file, folder });
        }
        Ok(self.files.get(name))
    }

    /// Why a file may be missing.
    pub fn cut(&self) -> &'static str {
        if self.cut {
            "; it ends without the mark of its end, so it is probably truncated"
        } else {
            ""
        }
    }

    /// The one description, or the chosen one.
    pub fn ovf(&self, chosen: Option<&Name>) -> Result<Name, OvaError> {
        let all = || self.files.keys().chain(&self.links_out).filter(|n| n.has_extension("ovf"));
        let names = all().filter(|n| chosen.is_none_or(|c| c == *n));
        match names.collect::<Vec<_>>().as_slice() {
            [] => Err(OvaError::NoOvf { ova: self.shown.clone(), cut: self.cut() }),
            [one] => self.get(one).map(|_| (*one).clone()),
            [first, second, ..] => Err(OvaError::TwoOvfs {
                ova: self.shown.clone(),
                first: (*first).clone(),
                second: (*second).clone(),
            }),
        }
    }

    /// The manifests; that of the chosen description alone, when there is one.
    pub fn manifests(&self, chosen: Option<&Name>) -> Vec<Name> {
        let stem = |name: &Name| name.as_str().rsplit_once('.').map(|(stem, _)| stem.to_owned());
        let is_its = |name: &&Name| chosen.is_none_or(|c| stem(c) == stem(name));
        self.files.keys().filter(|n| n.has_extension("mf")).filter(is_its).cloned().collect()
    }
}

/// An OVA whose description was read.
#[derive(Debug, Clone)]
pub struct Package {
    /// Its files.
    pub contents: Contents,
    /// The description's name.
    pub ovf_name: Name,
    /// The description.
    pub ovf: Ovf,
    /// The checksums in it.
    pub manifests: Vec<(Name, Vec<Entry>)>,
}

impl Package {
    /// Parses description and manifests.
    pub fn new(
        contents: Contents,
        ovf_name: Name,
        ovf: &[u8],
        manifests: &[(Name, Vec<u8>)],
    ) -> Result<Self, OvaError> {
        let named = |source| OvaError::Ovf { ovf: ovf_name.to_string(), source };
        let ovf = Ovf::parse(ovf).map_err(named)?;
        let parse = |(name, bytes): &(Name, Vec<u8>)| match manifest::parse(bytes) {
            Ok(entries) => Ok((name.clone(), entries)),
            Err(source) => Err(OvaError::Manifest { manifest: name.clone(), source }),
        };
        let manifests = manifests.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { contents, ovf_name, ovf, manifests })
    }

    /// The files of each disk in order: one, or its pieces.
    pub fn disk_files(&self) -> Result<Vec<Vec<Name>>, OvaError> {
        self.ovf.disks.iter().map(|disk| self.files_of(disk)).collect()
    }

    /// Fails for a disk whose files have less than the description says. Of a compressed one that may be the size unpacked.
    pub fn check_sizes(&self, files: &[Vec<Name>]) -> Result<(), OvaError> {
        for (disk, names) in self.ovf.disks.iter().zip(files) {
            let size = |name: &Name| self.contents.files.get(name).map_or(0, |p| p.size);
            if let (Some(expected), Some((_, all_but_last))) = (disk.chunk_size, names.split_last())
                && let Some(file) = all_but_last.iter().find(|n| size(n) < expected)
            {
                return Err(OvaError::Short {
                    file: file.to_string(),
                    bytes: size(file),
                    expected,
                });
            }
            let bytes = names.iter().map(size).fold(0, u64::saturating_add);
            let short = disk.size.filter(|expected| bytes < *expected && !disk.gzip);
            // A size that was left behind when the disk was packed anew is no harm where the checksum is compared.
            let proven = names.len() == 1 && names.iter().all(|name| self.is_compared(name));
            if let Some(expected) = short.filter(|_| !proven) {
                return Err(OvaError::Short { file: disk.href.clone(), bytes, expected });
            }
        }
        Ok(())
    }

    /// A manifest has the checksum of this file, which is here.
    fn is_compared(&self, file: &Name) -> bool {
        let here = self.contents.files.get(file);
        here.is_some_and(|piece| matches!(piece.store, Store::File(_)))
            && self.manifests.iter().any(|(manifest, entries)| {
                entries.iter().any(|e| manifest.sibling(&e.file).is_ok_and(|name| name == *file))
            })
    }

    fn files_of(&self, disk: &ovf::Disk) -> Result<Vec<Name>, OvaError> {
        let named = |source| OvaError::Reference { ovf: self.ovf_name.to_string(), source };
        let file = self.ovf_name.sibling(&disk.href).map_err(named)?;
        if self.contents.get(&file)?.is_some() {
            return Ok(vec![file]);
        }
        // Some tools write references as in an address.
        let decoded = percent_encoding::percent_decode_str(&disk.href).decode_utf8_lossy();
        let decoded = self.ovf_name.sibling(&decoded).map_err(named)?;
        if self.contents.get(&decoded)?.is_some() {
            return Ok(vec![decoded]);
        }
        let numbers = self.numbers(&file);
        match numbers.last() {
            None => Err(OvaError::NoDisk {
                ovf: self.ovf_name.clone(),
                file,
                ova: self.contents.shown.clone(),
                cut: self.contents.cut(),
            }),
            Some(_) if disk.chunked => {
                if let Some((missing, _)) = (0..).zip(&numbers).find(|(want, (n, _))| want != n) {
                    return Err(OvaError::Piece { file, missing });
                }
                Ok(numbers.into_iter().map(|(_, name)| name).collect())
            }
            // A snapshot that VMware exported under another name than it wrote; virt-v2v takes the last one, too.
            Some((_, name)) => Ok(vec![name.clone()]),
        }
    }

    /// `disk.vmdk.000000000` and so on.
    fn numbers(&self, file: &Name) -> Vec<(usize, Name)> {
        let number = |name: &Name| {
            let digits = name.as_str().strip_prefix(file.as_str())?.strip_prefix('.')?;
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
        };
        let mut found: Vec<(usize, Name)> = self
            .contents
            .files
            .keys()
            .filter_map(|name| number(name).map(|n| (n, name.clone())))
            .collect();
        found.sort();
        found
    }
}

/// The path of a local OVA, if it is there: with the .ovf that was named, when it was.
pub fn locate(path: &Path) -> Result<(PathBuf, Option<Name>), OvaError> {
    let meta = fs::metadata(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => OvaError::Missing(sources::not_found(path)),
        _ => OvaError::Read { what: path.display().to_string(), source: e },
    })?;
    if !meta.is_file() && !meta.is_dir() {
        return Err(OvaError::Unknown(path.display().to_string()));
    }
    let named = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("ovf"));
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(file)) if meta.is_file() && named => {
            let name = Name::parse(file.as_encoded_bytes());
            let folder = folder.to_path_buf();
            let shown = folder.display().to_string();
            let name = name.map_err(|source| OvaError::Name { folder: shown, source })?;
            let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
            Ok((folder, Some(name)))
        }
        _ => Ok((path.to_owned(), None)),
    }
}

#[cfg(test)]
#[path = "package_tests.rs"]
mod tests;
