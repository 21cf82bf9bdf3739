//! A file or block device as target: direct I/O where it works, else buffered with a small window of
//! dirty pages, so that a copy never fills the page cache of its pod.

use super::TargetError;
use super::zero::Zeroer;
use crate::buffer::aligned;
use crate::sys;
use bytes::BytesMut;
use nix::fcntl::{Flock, FlockArg};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

/// Direct I/O is aligned to this: no disk in use has larger sectors.
const DIRECT_ALIGN: u64 = 4096;
/// Dirty pages that are left to the kernel at once, when buffered.
const DIRTY_WINDOW: u64 = 16 << 20;
/// Zeroes are written in pieces of this size.
const ZERO_PIECE: usize = 1 << 20;

/// How a target is opened.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools)] // switches
pub struct FileOptions {
    /// Go past the page cache where possible.
    pub direct: bool,
    /// Allocate all space, leave no holes.
    pub allocate: bool,
    /// Refuse a target that somebody else uses: an exclusive lock, and a device that is not mounted.
    pub exclusive: bool,
    /// The caller answers for the target being all zeroes.
    pub is_zero: bool,
}

/// What the target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    Regular,
    /// Block device.
    Block,
}

/// An open target.
#[derive(Debug)]
pub struct FileTarget {
    path: PathBuf,
    buffered: File,
    _lock: Option<Flock<File>>,
    direct: Option<File>,
    direct_works: AtomicBool,
    kind: Kind,
    sector: u64,
    created: bool,
    allocate: bool,
    zeroer: Zeroer,
    known_zero: AtomicBool,
    dirty: Mutex<VecDeque<(u64, u64)>>,
    /// A failed write or sync stays failed: the kernel tells an error of the page cache once, and then
    /// forgets it, and the data.
    broken: AtomicBool,
    /// Read by whoever may be told such an error, written by a sync: no sync slips in before the error
    /// is noted.
    telling: RwLock<()>,
}

impl FileTarget {
    /// Opens a target without changing its content; a file that is not there is created, empty.
    pub fn open(path: &Path, options: FileOptions) -> Result<Self, TargetError> {
        let failed = |source| TargetError::Open { path: path.to_owned(), source };
        let mut created = false;
        let metadata = match std::fs::metadata(path) {
            Ok(m) => Some(m),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(failed(e)),
        };
        let kind = match metadata.as_ref().map(std::fs::Metadata::file_type) {
            None => {
                created = true;
                Kind::Regular
            }
            Some(t) if t.is_file() => Kind::Regular,
            Some(t) if t.is_block_device() => Kind::Block,
            Some(_) => return Err(TargetError::Kind(path.to_owned())),
        };
        let mut how = OpenOptions::new();
        how.read(true).write(true).mode(0o644);
        if created {
            how.create_new(true);
        } else if kind == Kind::Block && options.exclusive {
            // For a block device this means: not mounted, and in nobody's exclusive use.
            how.custom_flags(libc::O_EXCL);
        }
        let file = how.open(path).map_err(|e| match e.raw_os_error() {
            Some(libc::EBUSY) => TargetError::Busy(path.to_owned()),
            _ => failed(e),
        })?;
        let lock = if options.exclusive { Some(lock(&file, path)?) } else { None };
        let direct = options.direct.then(|| open_direct(path)).flatten();
        let sector = match kind {
            Kind::Block => u64::from(sys::sector_size(&file).map_err(failed)?),
            Kind::Regular => 1,
        };
        Ok(Self {
            path: path.to_owned(),
            buffered: file,
            _lock: lock,
            direct_works: AtomicBool::new(direct.is_some()),
            direct,
            kind,
            sector,
            created,
            allocate: options.allocate,
            zeroer: Zeroer::default(),
            known_zero: AtomicBool::new(options.is_zero),
            dirty: Mutex::default(),
            broken: AtomicBool::new(false),
            telling: RwLock::default(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// File or device.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The open file, for metadata and cloning.
    pub fn file(&self) -> &File {
        &self.buffered
    }

    /// Bytes of a device or file.
    pub fn size(&self) -> io::Result<u64> {
        (&self.buffered).seek(SeekFrom::End(0))
    }

    /// Names this very file or device, for journals.
    pub fn identity(&self) -> io::Result<String> {
        let m = self.buffered.metadata()?;
        Ok(match self.kind {
            Kind::Regular => {
                // The time of birth tells a new file from an old one with the same inode number.
                let born =
                    m.created().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
                let born = born.map_or_else(String::new, |t| format!(", born {}", t.as_nanos()));
                format!("file {}:{} of {}{born}", m.dev(), m.ino(), m.len())
            }
            Kind::Block => format!("device {} of {}", m.rdev(), self.size()?),
        })
    }

    /// Whether what was not written yet reads as zeroes.
    pub fn known_zero(&self) -> bool {
        self.known_zero.load(Ordering::Relaxed)
    }

    /// Makes a regular file `size` bytes long and empty (`fresh`), or only that long. A device must
    /// be large enough; nothing is changed when it is not.
    pub fn prepare(&self, size: u64, fresh: bool) -> Result<(), TargetError> {
        if self.kind == Kind::Block {
            let room = self.size().map_err(|e| self.failed("measure", 0, 0, e))?;
            if room < size {
                return Err(TargetError::TooSmall {
                    target: self.path.display().to_string(),
                    room,
                    size,
                });
            }
            return Ok(());
        }
        let failed = |e| self.failed("resize", 0, size, e);
        if fresh && !self.known_zero() {
            self.buffered.set_len(0).map_err(failed)?;
        }
        self.buffered.set_len(size).map_err(failed)?;
        if fresh {
            self.known_zero.store(true, Ordering::Relaxed);
        }
        if self.allocate && size > 0 {
            self.preallocate(size)?;
        }
        Ok(())
    }

    fn preallocate(&self, size: u64) -> Result<(), TargetError> {
        let length = i64::try_from(size)
            .map_err(|_| self.failed("allocate", 0, size, io::ErrorKind::InvalidInput.into()))?;
        match nix::fcntl::posix_fallocate(&self.buffered, 0, length) {
            Ok(()) => Ok(()),
            Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::EINVAL) => {
                // Then the zeroes themselves are written.
                self.known_zero.store(false, Ordering::Relaxed);
                Ok(())
            }
            Err(e) => Err(self.failed("allocate", 0, size, e.into())),
        }
    }

    /// From now on unwritten parts may hold anything.
    pub fn forget_zero(&self) {
        self.known_zero.store(false, Ordering::Relaxed);
    }

    /// Writes all of `data`.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<(), TargetError> {
        let whole = self.write_direct(offset, data)?;
        if whole < data.len() {
            self.write_buffered(offset + whole as u64, &data[whole..])?;
        }
        Ok(())
    }

    /// Bytes that went past the page cache: the aligned part, if the target can.
    fn write_direct(&self, offset: u64, data: &[u8]) -> Result<usize, TargetError> {
        let align = usize::try_from(DIRECT_ALIGN).unwrap_or(4096);
        let length = data.len() / align * align;
        let fits =
            offset.is_multiple_of(DIRECT_ALIGN) && (data.as_ptr() as usize).is_multiple_of(align);
        let Some(direct) = self.direct.as_ref().filter(|_| fits && length > 0) else {
            return Ok(0);
        };
        if !self.direct_works.load(Ordering::Relaxed) {
            return Ok(0);
        }
        match direct.write_all_at(&data[..length], offset) {
            Ok(()) => Ok(length),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                tracing::info!(target = %self.path.display(), "no direct I/O here, writing through the page cache");
                self.direct_works.store(false, Ordering::Relaxed);
                Ok(0)
            }
            Err(e) => Err(self.failed("write", offset, data.len() as u64, e)),
        }
    }

    fn write_buffered(&self, offset: u64, data: &[u8]) -> Result<(), TargetError> {
        let _telling = self.telling.read().unwrap_or_else(PoisonError::into_inner);
        self.write_cached(offset, data).inspect_err(|_| self.broken.store(true, Ordering::SeqCst))
    }

    fn write_cached(&self, offset: u64, data: &[u8]) -> Result<(), TargetError> {
        let failed = |e| self.failed("write", offset, data.len() as u64, e);
        self.buffered.write_all_at(data, offset).map_err(failed)?;
        let length = data.len() as u64;
        if self.direct_works.load(Ordering::Relaxed) {
            return Ok(()); // an odd tail
        }
        // Started now, waited for when enough came after it: few pages are dirty at any time.
        let start = sys::write_out(&self.buffered, offset, length, false);
        if start.as_ref().is_err_and(|e| e.raw_os_error() != Some(libc::ESPIPE)) {
            return start.map_err(failed);
        }
        for (offset, length) in self.leave_window(offset, length) {
            sys::write_out(&self.buffered, offset, length, true)
                .map_err(|e| self.failed("write out", offset, length, e))?;
            let (Ok(o), Ok(l)) = (i64::try_from(offset), i64::try_from(length)) else { continue };
            let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
            let _ = nix::fcntl::posix_fadvise(&self.buffered, o, l, advice);
        }
        Ok(())
    }

    fn leave_window(&self, offset: u64, length: u64) -> Vec<(u64, u64)> {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        dirty.push_back((offset, length));
        let mut bytes: u64 = dirty.iter().map(|(_, l)| l).sum();
        let mut out = Vec::new();
        while bytes > DIRTY_WINDOW
            && let Some(oldest) = dirty.pop_front()
        {
            bytes -= oldest.1;
            out.push(oldest);
        }
        out
    }

    /// Zeroes a range, by writing when nothing else works.
    pub fn zero(&self, offset: u64, length: u64) -> Result<(), TargetError> {
        let end = offset + length;
        // A block device zeroes whole sectors only; an odd head or tail is written.
        let (start, stop) = match self.kind {
            Kind::Regular => (offset, end),
            Kind::Block => {
                (offset.next_multiple_of(self.sector).min(end), end / self.sector * self.sector)
            }
        };
        if start >= stop {
            return self.write_zeroes(offset, length);
        }
        self.write_zeroes(offset, start - offset)?;
        if !self.zeroer.zero(&self.buffered, start, stop - start, self.allocate) {
            self.write_zeroes(start, stop - start)?;
        }
        self.write_zeroes(stop, end - stop)
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), TargetError> {
        if length == 0 {
            return Ok(());
        }
        let piece = usize::try_from(length).unwrap_or(usize::MAX).min(ZERO_PIECE);
        let zeroes = aligned(piece);
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let step = usize::try_from(end - at).unwrap_or(usize::MAX).min(piece);
            self.write(at, &zeroes[..step])?;
            at += step as u64;
        }
        Ok(())
    }

    /// Makes everything written durable. After a failure, of this or of a write, every later call fails.
    pub fn sync(&self) -> Result<(), TargetError> {
        let failed = |e| self.failed("flush", 0, 0, e);
        // One at a time: of two syncs at once only one would be told an error.
        let _telling = self.telling.write().unwrap_or_else(PoisonError::into_inner);
        if self.broken.load(Ordering::SeqCst) {
            return Err(failed(io::Error::other("an earlier write or flush failed")));
        }
        let result = self
            .buffered
            .sync_data()
            .and_then(|()| if self.created { sync_parent(&self.path) } else { Ok(()) });
        if result.is_err() {
            self.broken.store(true, Ordering::SeqCst);
        }
        result.map_err(failed)
    }

    /// Reads back what is stored: past the page cache if possible, else with the cache dropped first.
    pub fn read_back(&self, offset: u64, buffer: &mut BytesMut) -> Result<(), TargetError> {
        let length = buffer.len() as u64;
        let failed = |e| self.failed("read back", offset, length, e);
        let fits = offset.is_multiple_of(DIRECT_ALIGN)
            && length.is_multiple_of(DIRECT_ALIGN)
            && (buffer.as_ptr() as u64).is_multiple_of(DIRECT_ALIGN);
        if let Some(direct) = self.direct.as_ref().filter(|_| fits)
            && self.direct_works.load(Ordering::Relaxed)
        {
            match direct.read_exact_at(buffer, offset) {
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
                other => return other.map_err(failed),
            }
        }
        if let (Ok(o), Ok(l)) = (i64::try_from(offset), i64::try_from(length)) {
            let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
            let _ = nix::fcntl::posix_fadvise(&self.buffered, o, l, advice);
        }
        self.buffered.read_exact_at(buffer, offset).map_err(failed)
    }

    /// Whether the file system says that the range is a hole, which needs no reading.
    pub fn is_hole(&self, offset: u64, length: u64) -> bool {
        let Ok(start) = i64::try_from(offset) else { return false };
        if self.kind == Kind::Block {
            return false;
        }
        match nix::unistd::lseek(&self.buffered, start, nix::unistd::Whence::SeekData) {
            Ok(data) => u64::try_from(data).is_ok_and(|d| d >= offset + length),
            Err(e) => e == nix::errno::Errno::ENXIO,
        }
    }

    fn failed(
        &self,
        what: &'static str,
        offset: u64,
        length: u64,
        source: io::Error,
    ) -> TargetError {
        TargetError::Io { target: self.path.display().to_string(), what, offset, length, source }
    }
}

/// Nobody else who locks it may write to it while we do.
fn lock(file: &File, path: &Path) -> Result<Flock<File>, TargetError> {
    let copy =
        file.try_clone().map_err(|source| TargetError::Open { path: path.to_owned(), source })?;
    Flock::lock(copy, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| match e {
        nix::errno::Errno::EWOULDBLOCK => TargetError::Busy(path.to_owned()),
        e => TargetError::Open { path: path.to_owned(), source: e.into() },
    })
}

fn open_direct(path: &Path) -> Option<File> {
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path);
    opened
        .inspect_err(|e| tracing::info!(target = %path.display(), error = %e, "no direct I/O here"))
        .ok()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
