//! VMDK descriptors: the small text that says in which files a VMware disk is.
//!
//! `sources/measure` reads it before qemu opens anything, so that an extent elsewhere, a missing one or
//! a parent is named clearly, and so that two things are found about which qemu is silent: an extent
//! shorter than the descriptor says is read as zeros, and lines that qemu does not know are left out.
//! Pure: bytes in, typed values out. What qemu itself makes of the file is checked once more on the
//! output of `qemu-img info`.

use super::image::has_protocol;

/// More than any descriptor has; qemu reads no more either.
pub const DESCRIPTOR_BYTES: u64 = 1 << 20;

/// The size of a sector, the unit of all numbers in a descriptor.
const SECTOR: u64 = 512;

/// Why a descriptor was not accepted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum VmdkError {
    /// Something else than text where the descriptor should be.
    #[error("its descriptor is not UTF-8 text: rename its files, and in it, to plain names")]
    NotText,
    /// A line that speaks of an extent and is none.
    #[error("its descriptor has the extent line {line:?}, which is none")]
    Line {
        /// The line.
        line: String,
    },
    /// An extent of a kind that qemu leaves out, so that what follows would be at the wrong place.
    #[error("its descriptor has the extent {line:?}: {what} is not read here")]
    Unread {
        /// The line.
        line: String,
        /// The word that is not known.
        what: String,
    },
    /// A parent is mentioned, but not in the usual form.
    #[error("its descriptor mentions a parent (parentFileNameHint) that cannot be read")]
    Parent,
}

/// One file of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// As written in the descriptor.
    pub file: String,
    /// The least size of the file: where a flat extent ends. 0 for a sparse one.
    pub least_bytes: u64,
    /// It begins with a header of its own (`KDMV` or `COWD`), which qemu follows.
    pub has_header: bool,
}

impl Extent {
    /// Whether it lies in the descriptor's own folder, by its name.
    pub fn is_beside(&self) -> bool {
        !self.file.contains('/')
            && !self.is_remote()
            && !matches!(self.file.as_str(), "" | "." | "..")
    }

    /// Whether qemu would not open a file at all, but a protocol.
    pub fn is_remote(&self) -> bool {
        has_protocol(&self.file)
    }
}

/// What a descriptor refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// The disk of which this one has only the changes (a snapshot's parent).
    pub parent: Option<String>,
    /// The files, in the order of the disk.
    pub extents: Vec<Extent>,
}

impl Descriptor {
    /// Reads a descriptor; what is padded with NUL bytes ends there.
    pub fn parse(bytes: &[u8]) -> Result<Self, VmdkError> {
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        // Only names may have other than ASCII letters, in whatever encoding VMware wrote.
        let text = str::from_utf8(&bytes[..end]).map_err(|_| VmdkError::NotText)?;
        let mut descriptor = Self { parent: parent(text)?, extents: Vec::new() };
        for line in text.lines().map(str::trim) {
            if let Some(extent) = extent(line)? {
                descriptor.extents.push(extent);
            }
        }
        Ok(descriptor)
    }
}

/// qemu looks for the word anywhere in the text, so it counts anywhere here.
fn parent(text: &str) -> Result<Option<String>, VmdkError> {
    const KEY: &str = "parentfilenamehint";
    let Some(at) = text.to_ascii_lowercase().find(KEY) else { return Ok(None) };
    let value = text[at + KEY.len()..].trim_start().strip_prefix('=').map(str::trim_start);
    let quoted = value.and_then(|v| v.strip_prefix('"')?.split_once('"'));
    match quoted {
        Some((name, _)) if !name.is_empty() => Ok(Some(name.to_owned())),
        _ => Err(VmdkError::Parent),
    }
}

/// `RW 4192256 FLAT "web-flat.vmdk" 0`; `None` for any other line.
fn extent(line: &str) -> Result<Option<Extent>, VmdkError> {
    let bad = || VmdkError::Line { line: line.to_owned() };
    let unread = |what: &str| VmdkError::Unread { line: line.to_owned(), what: what.to_owned() };
    let (access, rest) = word(line);
    if !["RW", "RDONLY", "NOACCESS"].iter().any(|known| access.eq_ignore_ascii_case(known)) {
        return Ok(None);
    }
    if access != "RW" {
        return Err(unread(access));
    }
    let (sectors, rest) = word(rest);
    let sectors: u64 = sectors.parse().map_err(|_| bad())?;
    let (kind, rest) = word(rest);
    let (is_flat, has_header) = match kind {
        "FLAT" | "VMFS" => (true, false),
        "SPARSE" | "VMFSSPARSE" => (false, true),
        "SESPARSE" => (false, false),
        other => return Err(unread(other)),
    };
    let (file, offset) =
        rest.trim_start().strip_prefix('"').and_then(|r| r.split_once('"')).ok_or_else(bad)?;
    if file.contains('\r') {
        // For qemu the name ends here.
        return Err(bad());
    }
    let offset: u64 = match offset.trim() {
        "" => 0,
        number => number.parse().map_err(|_| bad())?,
    };
    let end = offset.checked_add(sectors).and_then(|s| s.checked_mul(SECTOR)).ok_or_else(bad)?;
    let least_bytes = if is_flat { end } else { 0 };
    Ok(Some(Extent { file: file.to_owned(), least_bytes, has_header }))
}

/// The first word, and what is behind it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_once(char::is_whitespace).unwrap_or((text, ""))
}

/// A number of sectors in the header of a sparse VMDK, in bytes; as qemu computes it, in 64 bits.
fn header_bytes(header: &[u8], at: usize) -> Option<u64> {
    let bytes = header.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_le_bytes(bytes).wrapping_mul(SECTOR))
}

/// Where a sparse VMDK has its descriptor: first byte and length. `None` for one without, and for what
/// is no sparse VMDK. In a file without data qemu reads on as in a file of its own, whatever the length
/// says.
pub fn embedded(header: &[u8]) -> Option<(u64, u64)> {
    const OFFSET: usize = 28;
    const SIZE: usize = 36;
    if !header.starts_with(b"KDMV") {
        return None;
    }
    let (at, length) = (header_bytes(header, OFFSET)?, header_bytes(header, SIZE)?);
    if !holds_data(header) {
        let is_there = header.get(OFFSET..SIZE)?.iter().any(|b| *b != 0);
        return is_there.then_some((at, DESCRIPTOR_BYTES));
    }
    (at > 0 && length > 0).then_some((at, length.min(DESCRIPTOR_BYTES)))
}

/// Whether the file has the guest's data in it. qemu follows the descriptor in a file that has the
/// header of a sparse VMDK and no room for data.
pub fn holds_data(header: &[u8]) -> bool {
    const CAPACITY: std::ops::Range<usize> = 12..20;
    header.starts_with(b"COWD")
        || (header.starts_with(b"KDMV")
            && header.get(CAPACITY).is_some_and(|c| c.iter().any(|b| *b != 0)))
}

#[cfg(test)]
#[path = "vmdk_tests.rs"]
mod tests;
