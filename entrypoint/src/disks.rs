//! The disk map: which volume takes which source disk, explicit and by number.
//!
//! Finding and numbering is pure ([`DiskMap::from_names`]); opening and measuring is at the end.
//! Every mistake is found before a byte is written.

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// How often a device that is not ready is tried, and the first and longest pause between tries.
const TRIES: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Where a disk is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pv {
    /// A block device.
    Block(PathBuf),
    /// An image file on a filesystem volume.
    File(PathBuf),
}

impl Pv {
    /// The device or the image.
    pub fn path(&self) -> &Path {
        match self {
            Self::Block(path) | Self::File(path) => path,
        }
    }
}

/// What is wrong with the volumes.
#[derive(Debug, Error)]
pub enum DiskError {
    /// None found.
    #[error("no volume found: neither {block_pattern} nor {file_pattern} exists")]
    None {
        /// Where block volumes would be.
        block_pattern: String,
        /// Where filesystem volumes would be.
        file_pattern: String,
    },
    /// The numbers are not 0, 1, 2 …
    #[error("the volumes are numbered {present}, but number {missing} is missing")]
    Hole {
        /// The first missing number.
        missing: usize,
        /// The numbers found.
        present: String,
    },
    /// A number is there as a block and as a filesystem volume.
    #[error("volume number {number} is there twice: {block} and {file}")]
    Twice {
        /// The number.
        number: usize,
        /// Block device.
        block: PathBuf,
        /// Filesystem volume.
        file: PathBuf,
    },
    /// A path cannot be used.
    #[error("volume {path} cannot be opened for writing: {source}")]
    Open {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else is at that path.
    #[error("volume {path} is not a {expected}")]
    Kind {
        /// The path.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// Another run uses it.
    #[error("volume {path} is being written by another v2v-pod")]
    Busy {
        /// The path.
        path: PathBuf,
    },
    /// Fewer or more volumes than source disks.
    #[error("the source has {disks} disk(s), but there are {volumes} volume(s): {list}")]
    Count {
        /// Disks of the source.
        disks: usize,
        /// Volumes.
        volumes: usize,
        /// The volumes by name.
        list: String,
    },
    /// The disk does not fit.
    #[error("disk {index} has {disk_bytes} bytes, but {path} has room for {room_bytes} only")]
    TooSmall {
        /// Disk index.
        index: usize,
        /// Size of the source disk.
        disk_bytes: u64,
        /// The volume.
        path: PathBuf,
        /// Its size.
        room_bytes: u64,
    },
    /// A folder cannot be read.
    #[error("cannot list {path}: {source}")]
    List {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Source disk i goes to the i-th volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskMap {
    volumes: Vec<Pv>,
}

impl DiskMap {
    /// A map of explicitly named volumes, in disk order.
    pub fn new(volumes: Vec<Pv>) -> Self {
        Self { volumes }
    }

    /// The volumes in disk order.
    pub fn volumes(&self) -> &[Pv] {
        &self.volumes
    }

    /// Number of disks.
    pub fn len(&self) -> usize {
        self.volumes.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.volumes.is_empty()
    }

    /// Builds the map from names: `blockN` in `dev`, `diskN` in `mounts`. Other names are ignored.
    /// An empty map is no error here: remote inspection needs none.
    pub fn from_names(
        dev: &Path,
        blocks: &[String],
        mounts: &Path,
        disks: &[String],
    ) -> Result<Self, DiskError> {
        let blocks = numbered("block", blocks);
        let files = numbered("disk", disks);
        let mut all: BTreeMap<usize, Pv> = BTreeMap::new();
        for (number, name) in blocks {
            all.insert(number, Pv::Block(dev.join(name)));
        }
        for (number, name) in files {
            let file = mounts.join(name).join("disk.img");
            if let Some(Pv::Block(block)) = all.insert(number, Pv::File(file.clone())) {
                return Err(DiskError::Twice { number, block, file });
            }
        }
        let missing = (0..).zip(all.keys()).find(|(want, have)| want != *have);
        if let Some((missing, _)) = missing {
            let present = all.keys().map(usize::to_string).collect::<Vec<_>>().join(", ");
            return Err(DiskError::Hole { missing, present });
        }
        Ok(Self { volumes: all.into_values().collect() })
    }

    /// Looks for `/dev/blockN` and `/mnt/disks/diskN`.
    pub fn discover(dev: &Path, mounts: &Path) -> Result<Self, DiskError> {
        Self::from_names(dev, &list(dev)?, mounts, &list(mounts)?)
    }

    /// Compares with the sizes of the source's disks, in order. Returns everything that is wrong.
    pub fn check_sizes(&self, disks: &[u64], rooms: &[u64]) -> Vec<DiskError> {
        let mut problems = Vec::new();
        if disks.len() != self.len() {
            problems.push(self.count_error(disks.len()));
        }
        for (index, ((volume, disk), room)) in self.volumes.iter().zip(disks).zip(rooms).enumerate()
        {
            if disk > room {
                problems.push(DiskError::TooSmall {
                    index,
                    disk_bytes: *disk,
                    path: volume.path().to_owned(),
                    room_bytes: *room,
                });
            }
        }
        problems
    }

    /// The error for a source of `disks` disks.
    pub fn count_error(&self, disks: usize) -> DiskError {
        let list = self
            .volumes
            .iter()
            .map(|v| v.path().display().to_string())
            .collect::<Vec<_>>()
            .join(" ");
        DiskError::Count { disks, volumes: self.len(), list }
    }
}

/// `prefix` and decimal digits, nothing else; a name like `block0x` or `block00` is no volume.
fn numbered<'a>(prefix: &str, names: &'a [String]) -> impl Iterator<Item = (usize, &'a str)> {
    names.iter().filter_map(move |name| {
        let digits = name.strip_prefix(prefix)?;
        let number: usize = digits.parse().ok()?;
        (number.to_string() == digits).then_some((number, name.as_str()))
    })
}

fn list(dir: &Path) -> Result<Vec<String>, DiskError> {
    let failed = |source| DiskError::List { path: dir.to_owned(), source };
    match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(failed(e)),
        Ok(entries) => entries
            .map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()).map_err(failed))
            .collect(),
    }
}

/// A volume that is open and locked against another run of ours.
#[derive(Debug)]
pub struct OpenVolume {
    /// Bytes that fit on it.
    pub room_bytes: u64,
    /// For an image: its file system, and what the image takes there already.
    shared: Option<(u64, u64)>,
    made: bool,
    file: Flock<File>,
}

impl OpenVolume {
    /// True for an image that did not exist before and is still empty.
    pub fn made_for_nothing(&self) -> bool {
        self.made && self.file.metadata().is_ok_and(|m| m.len() == 0)
    }

    /// Makes everything written so far durable, through whatever descriptor it was written.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

/// Room for each disk. Images on one file system share its free space: what the disks before need
/// is no longer there. With `thin`, images have all the room they want.
pub fn rooms(volumes: &[OpenVolume], disks: &[u64], thin: bool) -> Vec<u64> {
    let mut promised: BTreeMap<u64, u64> = BTreeMap::new();
    let mut rooms = Vec::new();
    for (volume, disk) in volumes.iter().zip(disks) {
        let Some((device, taken)) = volume.shared else {
            rooms.push(volume.room_bytes);
            continue;
        };
        let before = promised.entry(device).or_default();
        rooms.push(if thin { u64::MAX } else { volume.room_bytes.saturating_sub(*before) });
        *before = before.saturating_add(disk.saturating_sub(taken));
    }
    rooms
}

/// Opens a volume for writing without changing it; makes the image of a filesystem volume that has
/// none. A device that is not ready is tried again.
pub async fn open(volume: &Pv) -> Result<OpenVolume, DiskError> {
    let path = volume.path();
    let made = matches!(volume, Pv::File(_)) && !path.exists();
    let file = match volume {
        Pv::Block(_) => {
            retry(|| OpenOptions::new().read(true).write(true).open(path), tokio::time::sleep).await
        }
        // A link in the volume could lead anywhere in the pod: it is not followed.
        Pv::File(_) => OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o660)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(path),
    }
    .map_err(|source| DiskError::Open { path: path.to_owned(), source })?;
    let room_bytes = room(volume, &file)?;
    let meta =
        file.metadata().map_err(|source| DiskError::Open { path: path.to_owned(), source })?;
    let shared =
        matches!(volume, Pv::File(_)).then(|| (meta.dev(), meta.blocks().saturating_mul(512)));
    let file =
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => DiskError::Busy { path: path.to_owned() },
            other => DiskError::Open { path: path.to_owned(), source: other.into() },
        })?;
    Ok(OpenVolume { room_bytes, shared, made, file })
}

/// Tries again while the device says that it is not ready, at most ten times.
async fn retry<T, F: Future<Output = ()>>(
    mut open: impl FnMut() -> io::Result<T>,
    mut sleep: impl FnMut(Duration) -> F,
) -> io::Result<T> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        match open() {
            Err(e) if not_ready(&e) => {
                tracing::warn!(error = %e, pause_ms = pause.as_millis(), "block device is not ready, trying again");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            result => return result,
        }
    }
    open()
}

fn not_ready(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::ENXIO | Errno::ENOENT | Errno::EIO)
    )
}

/// Size of the device, or free space plus what the image already takes.
fn room(volume: &Pv, mut file: &File) -> Result<u64, DiskError> {
    let path = volume.path();
    let failed = |source| DiskError::Open { path: path.to_owned(), source };
    let meta = file.metadata().map_err(failed)?;
    match volume {
        Pv::Block(_) if meta.file_type().is_block_device() || meta.is_file() => {
            file.seek(SeekFrom::End(0)).map_err(failed)
        }
        Pv::Block(_) => Err(DiskError::Kind { path: path.to_owned(), expected: "block device" }),
        Pv::File(_) if meta.is_file() => {
            let fs = nix::sys::statvfs::fstatvfs(file).map_err(|e| failed(e.into()))?;
            let free = fs.blocks_available().saturating_mul(fs.fragment_size());
            Ok(free.saturating_add(meta.blocks().saturating_mul(512)))
        }
        Pv::File(_) => Err(DiskError::Kind { path: path.to_owned(), expected: "regular file" }),
    }
}

#[cfg(test)]
#[path = "disks_tests.rs"]
mod tests;
