//! Where the files of a tar archive are, from its headers alone. The disks are neither read nor unpacked.

use super::names::{Name, NameError};
use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;
use tar::{Archive, Entry, EntryType};
use thiserror::Error;

/// An appliance has a handful.
const MOST_MEMBERS: usize = 10_000;
/// Headers between two members: long names and pax records. More would be read into memory.
const MOST_HEADER_BYTES: u64 = 1 << 20;
/// Sizes are rounded up to it.
pub const BLOCK: u64 = 512;

/// A file in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: Name,
    /// Written as [`Name`] writes it (not `./web.ovf`).
    pub as_written: bool,
    /// Where its bytes begin.
    pub offset: u64,
    /// How many there are.
    pub size: u64,
}

/// The files of an archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// In their order.
    pub members: Vec<Member>,
    /// The archive ends with its mark, and not just somewhere.
    pub has_end: bool,
    /// It has extended headers that not every program heeds.
    pub unusual: bool,
}

/// What is wrong with an archive.
#[derive(Debug, Error)]
pub enum TarError {
    /// No tar, or a damaged one.
    #[error("its tar archive cannot be read behind {after}")]
    Broken {
        /// The last file that was well.
        after: String,
        /// tar's reason.
        source: io::Error,
    },
    /// Ends too early.
    #[error("it is truncated: {name} should end at byte {end}, but there are {bytes} bytes only")]
    Truncated {
        /// The file that is cut.
        name: Name,
        /// Where it would end.
        end: u64,
        /// What there is.
        bytes: u64,
    },
    /// A name that is refused.
    #[error("a file in it has {0}")]
    Name(#[from] NameError),
    /// A link, a device.
    #[error("{name} in it is {kind}; an OVA has files and folders only")]
    Kind {
        /// Which.
        name: Name,
        /// What it is.
        kind: &'static str,
    },
    /// Which of them is meant?
    #[error("it has two files with the name {0}")]
    Twice(Name),
    /// Which of the readings is meant?
    #[error("at {name} it has {what}, which programs read differently")]
    Ambiguous {
        /// Where.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// Too many.
    #[error("it has more than {MOST_MEMBERS} files")]
    Many,
}

impl TarError {
    /// An accident, and nobody's intention.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Broken { .. } | Self::Truncated { .. })
    }
}

/// Lists an archive of `bytes` bytes.
pub fn list(reader: impl Read + Seek, bytes: u64) -> Result<Listing, TarError> {
    let (metered, budget) = Metered::new(reader);
    let mut archive = Archive::new(metered);
    let mut listing = Listing::default();
    let (mut seen, mut after, mut end) = (HashSet::new(), "its beginning".to_owned(), 0);
    let mut headers = Headers::default();
    let broken = |after: &str, source| TarError::Broken { after: after.to_owned(), source };
    let mut entries = archive.entries_with_seek().map_err(|e| broken(&after, e))?;
    loop {
        budget.set(MOST_HEADER_BYTES);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(|e| broken(&after, e))?;
        let (offset, size) = (entry.raw_file_position(), entry.size());
        listing.unusual |= !headers.are_usual(&mut entry)?;
        let Some((name, as_written)) = file_name(&mut entry)? else { continue };
        end = offset.saturating_add(size);
        if end > bytes {
            return Err(TarError::Truncated { name, end, bytes });
        }
        if !seen.insert(name.clone()) {
            return Err(TarError::Twice(name));
        }
        if seen.len() > MOST_MEMBERS {
            return Err(TarError::Many);
        }
        name.as_str().clone_into(&mut after);
        listing.members.push(Member { name, as_written, offset, size });
    }
    listing.has_end = end.next_multiple_of(BLOCK) + BLOCK <= bytes;
    Ok(listing)
}

/// Looks at the headers before each entry: whether GNU tar, which virt-v2v asks, reads them as we do.
#[derive(Debug, Default)]
pub struct Headers {
    /// Where the entry before ended.
    end: u64,
}

impl Headers {
    /// Whether there is nothing in them that one program heeds and another does not. Where that is a name or a place, the
    /// entry is refused: there is no telling which one is meant.
    pub fn are_usual<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<bool, TarError> {
        let global = entry.header().entry_type() == EntryType::XGlobalHeader;
        let extended = entry.raw_header_position() > self.end;
        let end = entry.raw_file_position().saturating_add(entry.size());
        self.end = end.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX);
        let path = entry.path_bytes().into_owned();
        let name: String = String::from_utf8_lossy(&path).chars().take(100).collect();
        let differs = |what| Err(TarError::Ambiguous { name: name.clone(), what });
        if global && extended {
            return differs("a header for the next file before one for all files");
        }
        let header = entry.header().as_bytes();
        let (magic, version, prefix) = (&header[257..263], &header[263..265], header[345]);
        if magic == b"ustar\0" && version != b"00" && prefix != 0 {
            return differs("a long name in a header of an unknown version");
        }
        let records = entry.pax_extensions();
        let records = records.map_err(|source| TarError::Broken { after: name.clone(), source })?;
        let Some(records) = records else { return Ok(true) };
        let (mut usual, mut seen) = (true, BTreeMap::new());
        for record in records {
            // A value with a line feed, as extended attributes may have, is not understood; virt-v2v is not to read it either.
            let Ok(record) = record else {
                usual = false;
                continue;
            };
            let (key, value) = (record.key_bytes(), record.value_bytes());
            let matters = matters(key);
            usual &= !global || key == b"comment";
            if !key.first().is_some_and(u8::is_ascii_graphic) || key.contains(&0) {
                return differs("an extended header with an unreadable key");
            }
            if matters && global {
                return differs("a name or a size for all files");
            }
            if key == b"size" && !is_number(value) {
                return differs("a size that is no number");
            }
            if key == b"path" && value != path {
                return differs("two names for one file");
            }
            if let Some(before) = seen.insert(key, value) {
                usual = false;
                if matters && before != value {
                    return differs("two values for one key of an extended header");
                }
            }
        }
        Ok(usual)
    }
}

fn is_number(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(u8::is_ascii_digit)
}

/// Keys that change what a file is called or where it is.
fn matters(key: &[u8]) -> bool {
    matches!(key, b"path" | b"linkpath" | b"size" | b"hdrcharset") || key.starts_with(b"GNU.")
}

/// The name of an entry that is a file; `None` for a folder. Also says whether it is written as it is read.
pub fn file_name<R: Read>(entry: &mut Entry<'_, R>) -> Result<Option<(Name, bool)>, TarError> {
    let kind = entry.header().entry_type();
    if kind == EntryType::XGlobalHeader {
        return Ok(None);
    }
    let raw = entry.path_bytes().into_owned();
    // `tar -C folder .` begins with the folder itself.
    if kind.is_dir() && matches!(&raw[..], b"." | b"./") {
        return Ok(None);
    }
    let name = Name::parse(&raw)?;
    let refused = match kind {
        EntryType::Regular | EntryType::Continuous => sparse(entry).then_some("a sparse file"),
        EntryType::Directory => return Ok(None),
        EntryType::GNUSparse => Some("a sparse file"),
        EntryType::Symlink | EntryType::Link => Some("a link"),
        EntryType::Char | EntryType::Block | EntryType::Fifo => Some("a device"),
        _ => Some("of an unknown kind"),
    };
    if let Some(kind) = refused {
        return Err(TarError::Kind { name, kind });
    }
    let as_written = raw == name.as_str().as_bytes();
    Ok(Some((name, as_written)))
}

/// GNU tar's sparse files in the pax form are regular files by their type.
fn sparse<R: Read>(entry: &mut Entry<'_, R>) -> bool {
    let Ok(Some(extensions)) = entry.pax_extensions() else { return false };
    extensions.flatten().any(|e| e.key_bytes().starts_with(b"GNU.sparse"))
}

/// A reader that gives no more than it is allowed to: tar's headers are read into memory whole, and their size is
/// what the archive says.
pub struct Metered<R> {
    inner: R,
    budget: Rc<Cell<u64>>,
}

impl<R> Metered<R> {
    /// The reader, and what it may still give.
    pub fn new(inner: R) -> (Self, Rc<Cell<u64>>) {
        let budget = Rc::new(Cell::new(MOST_HEADER_BYTES));
        (Self { inner, budget: Rc::clone(&budget) }, budget)
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let left = self.budget.get().checked_sub(read as u64);
        self.budget.set(left.ok_or_else(|| io::Error::other("a header is too long"))?);
        Ok(read)
    }
}

impl<R: Seek> Seek for Metered<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

#[cfg(test)]
#[path = "tar_tests.rs"]
mod tests;
