//! Unpacks what can only be read from its beginning: compressed archives, compressed disks, disks in pieces.
//!
//! What comes out of a small file can be larger than any disk, so every byte counts against a limit, and writing stops
//! where it is exceeded. Runs on a thread of its own; [`Room`] tells it when nobody waits any more.

use super::error::OvaError;
use super::names::Name;
use super::ovf::{self, Ovf};
use super::package::{Piece, Store};
use super::tar::{self, Metered, TarError};
use flate2::read::MultiGzDecoder;
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use zip::ZipArchive;

/// Left free for virt-v2v, which refuses to start with less.
const RESERVE: u64 = 1 << 30;
/// `xz -9` needs 65 MiB to unpack; an archive that wants more is made to hurt.
const XZ_MEMORY: u64 = 128 << 20;
/// An appliance may bring its installation media; more of what is not needed is made to keep us busy.
const MOST_BALLAST: u64 = 64 << 30;
const BUFFER: usize = 1 << 20;

/// How an archive is packed as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Packing {
    Gzip,
    Xz,
    Zip,
}

/// What may still be written, and whether to go on.
#[derive(Debug, Clone)]
pub struct Room {
    free: u64,
    cancelled: Arc<AtomicBool>,
}

impl Room {
    /// The free space of a folder, less what virt-v2v needs.
    pub fn of(folder: &Path, cancelled: Arc<AtomicBool>) -> Self {
        let free = nix::sys::statvfs::statvfs(folder)
            .map_or(0, |fs| fs.blocks_available().saturating_mul(fs.fragment_size()));
        Self { free: free.saturating_sub(RESERVE), cancelled }
    }

    /// Fails for so many bytes that will not fit.
    pub fn check(&self, what: &str, bytes: u64) -> Result<(), OvaError> {
        let free = self.free;
        if bytes <= free {
            return Ok(());
        }
        Err(OvaError::NoRoom { what: what.to_owned(), bytes, free })
    }

    /// Writes what the reader gives, at most `most` bytes; returns how many they were.
    pub fn fill(
        &mut self,
        what: &str,
        reader: &mut impl Read,
        into: &mut impl Write,
        most: u64,
    ) -> Result<u64, OvaError> {
        let mut buffer = vec![0; BUFFER];
        let mut done: u64 = 0;
        loop {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(OvaError::Cancelled);
            }
            let read = match reader.read(&mut buffer) {
                Ok(0) => return Ok(done),
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(OvaError::Unpack { what: what.to_owned(), source }),
            };
            done += read as u64;
            if done > most {
                return Err(OvaError::Bomb { what: what.to_owned(), most });
            }
            self.free = match self.free.checked_sub(read as u64) {
                Some(free) => free,
                None => {
                    return Err(OvaError::NoRoom { what: what.to_owned(), bytes: done, free: 0 });
                }
            };
            into.write_all(&buffer[..read])
                .map_err(|source| OvaError::Write { what: what.to_owned(), source })?;
        }
    }
}

/// Most bytes of the file of a disk with this capacity: compressed or not, a disk image is hardly larger than its disk.
fn most_of(capacity: Option<u64>) -> u64 {
    const EXTRA: u64 = 64 << 20;
    capacity.map_or(u64::MAX, |c| c.saturating_add(c / 8).saturating_add(EXTRA))
}

/// Unpacks an archive into a folder: the description, the manifests and the disks, nothing else.
pub fn archive(packing: Packing, file: &Path, into: &Path, room: Room) -> Result<(), OvaError> {
    let shown = file.display().to_string();
    let open = File::open(file).map_err(|source| OvaError::Read { what: shown.clone(), source })?;
    let open = BufReader::with_capacity(BUFFER, open);
    let mut out = Out { into, room, ballast: MOST_BALLAST, ovf: None };
    match packing {
        Packing::Gzip => out.tar(&shown, MultiGzDecoder::new(open)),
        Packing::Xz => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)
                .map_err(|e| OvaError::Unpack { what: shown.clone(), source: e.into() })?;
            out.tar(&shown, XzDecoder::new_stream(open, stream))
        }
        Packing::Zip => out.zip(&shown, open),
    }
}

/// Puts the pieces of a disk together, and unpacks it if it is compressed by itself.
pub fn disk(
    what: &str,
    pieces: Vec<Piece>,
    gzip: bool,
    into: &Path,
    capacity: Option<u64>,
    room: &mut Room,
) -> Result<(), OvaError> {
    let mut all: Box<dyn Read> = Box::new(io::empty());
    for piece in pieces {
        let Store::File(path) = &piece.store else { continue };
        let failed = |source| OvaError::Read { what: path.display().to_string(), source };
        all = Box::new(all.chain(piece.open_local(path).map_err(failed)?));
    }
    let mut file = create(into)?;
    let most = most_of(capacity);
    if gzip {
        let packed = BufReader::with_capacity(BUFFER, all);
        return room.fill(what, &mut MultiGzDecoder::new(packed), &mut file, most).map(|_| ());
    }
    room.fill(what, &mut all, &mut file, most).map(|_| ())
}

fn create(path: &Path) -> Result<File, OvaError> {
    let failed = |source| OvaError::Write { what: path.display().to_string(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    File::create_new(path).map_err(failed)
}

struct Out<'a> {
    into: &'a Path,
    room: Room,
    /// So much may still come that is not needed.
    ballast: u64,
    /// Once it has come.
    ovf: Option<(Name, Ovf)>,
}

impl Out<'_> {
    fn tar(&mut self, shown: &str, decoder: impl Read) -> Result<(), OvaError> {
        let broken = |after: &str, source: io::Error| {
            let source = TarError::Broken { after: after.to_owned(), source };
            OvaError::Tar { ova: shown.to_owned(), source }
        };
        let tar_error = |source| OvaError::Tar { ova: shown.to_owned(), source };
        let (metered, budget) = Metered::new(decoder);
        let mut archive = ::tar::Archive::new(metered);
        let (mut after, mut headers) = ("its beginning".to_owned(), tar::Headers::default());
        let mut entries = archive.entries().map_err(|e| broken(&after, e))?;
        loop {
            budget.set(2 << 20);
            let Some(entry) = entries.next() else { return Ok(()) };
            let mut entry = entry.map_err(|e| broken(&after, e))?;
            headers.are_usual(&mut entry).map_err(tar_error)?;
            budget.set(u64::MAX);
            let size = entry.size();
            let name = tar::file_name(&mut entry).map_err(tar_error)?;
            if let Some((name, _)) = name {
                self.member(&name, size, &mut entry)?;
                name.as_str().clone_into(&mut after);
            }
            // What is left of it is read here, where it counts as content.
            self.skip(&mut entry).map_err(|e| match e {
                OvaError::Unpack { source, .. } => broken(&after, source),
                e => e,
            })?;
        }
    }

    /// Reads what nobody needs.
    fn skip(&mut self, reader: &mut impl Read) -> Result<(), OvaError> {
        let what = "what the archive has besides the guest";
        let mut no_room = Room { free: u64::MAX, ..self.room.clone() };
        self.ballast -= no_room.fill(what, reader, &mut io::sink(), self.ballast)?;
        Ok(())
    }

    fn zip(&mut self, shown: &str, reader: BufReader<File>) -> Result<(), OvaError> {
        let zip_error = |source| OvaError::Zip { ova: shown.to_owned(), source };
        let mut archive = ZipArchive::new(reader).map_err(zip_error)?;
        // The description first: it says how large the others may be.
        let mut order: Vec<usize> = (0..archive.len()).collect();
        order.sort_by_key(|i| {
            let name = archive.name_for_index(*i);
            !name.and_then(Result::ok).is_some_and(|n| n.to_ascii_lowercase().ends_with(".ovf"))
        });
        for index in order {
            let mut entry = archive.by_index(index).map_err(zip_error)?;
            if entry.is_dir() {
                continue;
            }
            let refused = |source| OvaError::Tar { ova: shown.to_owned(), source };
            let name = Name::parse(entry.name_raw()).map_err(|e| refused(e.into()))?;
            if entry.is_symlink() {
                return Err(refused(TarError::Kind { name, kind: "a link" }));
            }
            let size = entry.size();
            self.member(&name, size, &mut entry)?;
        }
        Ok(())
    }

    /// Writes a file, if it is one that we need.
    fn member(&mut self, name: &Name, size: u64, reader: &mut impl Read) -> Result<(), OvaError> {
        let path = self.into.join(name.as_str());
        if name.has_extension("ovf") || name.has_extension("mf") {
            if size > ovf::MOST_BYTES {
                return Err(OvaError::Long { file: name.to_string(), bytes: size });
            }
            let mut bytes = Vec::new();
            self.room.fill(name.as_str(), reader, &mut bytes, size)?;
            self.room.fill(name.as_str(), &mut &bytes[..], &mut self.create(name, &path)?, size)?;
            if name.has_extension("ovf") && self.ovf.is_none() {
                let ovf = Ovf::parse(&bytes);
                let failed = |source| OvaError::Ovf { ovf: name.to_string(), source };
                self.ovf = Some((name.clone(), ovf.map_err(failed)?));
            }
            return Ok(());
        }
        let most = match &self.ovf {
            None => u64::MAX,
            Some((ovf_name, ovf)) => match most_for(ovf_name, ovf, name) {
                Some(most) => most,
                None => return Ok(()),
            },
        };
        if size > most {
            return Err(OvaError::Bomb { what: name.to_string(), most });
        }
        self.room.check(name.as_str(), size)?;
        let mut file = self.create(name, &path)?;
        let written = self.room.fill(name.as_str(), reader, &mut file, size)?;
        if written < size {
            let source = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(OvaError::Unpack { what: name.to_string(), source });
        }
        Ok(())
    }

    fn create(&self, name: &Name, path: &Path) -> Result<File, OvaError> {
        create(path).map_err(|e| match e {
            OvaError::Write { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                OvaError::Tar {
                    ova: self.into.display().to_string(),
                    source: TarError::Twice(name.clone()),
                }
            }
            e => e,
        })
    }
}

/// How large a file may be by the description; `None` for one that it does not need.
fn most_for(ovf_name: &Name, ovf: &Ovf, name: &Name) -> Option<u64> {
    ovf.disks.iter().find_map(|disk| {
        let file = ovf_name.sibling(&disk.href).ok()?;
        let rest = name.as_str().strip_prefix(file.as_str())?;
        // `disk.vmdk`, or a piece of it.
        let piece = rest.strip_prefix('.').is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        (rest.is_empty() || piece).then(|| most_of(disk.capacity))
    })
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
