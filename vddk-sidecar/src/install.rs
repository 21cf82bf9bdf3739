//! Puts a VDDK tree into a shared volume: copied under a temporary name, checked, listed, and shown under its final name
//! by one rename. At any moment the final name is absent, or a whole tree.

use crate::library;
use crate::manifest::{self, Item, Manifest};
use crate::repair;
use crate::tree::{self, EntryKind, Problem, TreeError};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

const TEMPORARY: &str = ".partial";

/// What to install.
#[derive(Debug, Clone)]
pub struct Request {
    /// The unpacked VDDK.
    pub from: PathBuf,
    /// The volume; the tree's own name is put under it.
    pub to: PathBuf,
    /// Dependencies that the conversion image is known to have.
    pub allowed: Vec<String>,
}

/// What was done.
#[derive(Debug)]
pub struct Outcome {
    /// The tree.
    pub path: PathBuf,
    /// Its list.
    pub manifest: Manifest,
    /// Nothing was done: the same tree was there.
    pub unchanged: bool,
    /// Another tree was there before.
    pub replaced: bool,
    /// What had to be repaired, in words.
    pub repairs: Vec<String>,
    /// Why it is not certain that its name would outlive a power failure.
    pub unsynced: Option<InstallError>,
}

/// Why nothing was installed. The final name is as it was.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// I/O on a path.
    #[error("{}: {error}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The source has no name of its own, or is where it should go.
    #[error("--from {}: {reason}", path.display())]
    Source {
        /// It.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// The source cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The tree is not usable.
    #[error("the VDDK in {} is not usable:\n{}", path.display(), lines(problems))]
    Unusable {
        /// Where it came from.
        path: PathBuf,
        /// All that is wrong.
        problems: Vec<Problem>,
    },
    /// What is at the final name cannot be moved away.
    #[error(
        "{} cannot be replaced: it is a mount point, part of an image's layer, or another user's: mount the volume one level higher, or remove it first",
        .0.display()
    )]
    Stuck(PathBuf),
    /// The copy is not the original.
    #[error("{path} was copied wrongly: the copy differs from the original")]
    Copy {
        /// It.
        path: String,
    },
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|p| format!("  - {p}")).collect::<Vec<_>>().join("\n")
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |error| InstallError::Io { path, error }
}

/// Installs, or finds that there is nothing to do.
pub fn install(request: &Request) -> Result<Outcome, InstallError> {
    let bad = |reason| InstallError::Source { path: request.from.clone(), reason };
    let from = fs::canonicalize(&request.from).map_err(at(&request.from))?;
    let to = fs::canonicalize(&request.to).map_err(at(&request.to))?;
    if !from.is_dir() {
        return Err(bad("it is no folder"));
    }
    // The name as given: a link may lead to a folder that is called otherwise.
    let name = request.from.file_name().or(from.file_name());
    let name = name.ok_or_else(|| bad("it has no name"))?.to_owned();
    let target = to.join(&name);
    if target == from || to.starts_with(&from) {
        return Err(bad("it is where it should be copied to"));
    }
    // One at a time; released by the end of the process, however that comes. Some network file systems have no locks.
    let lock = File::open(&to).ok().and_then(|dir| Flock::lock(dir, FlockArg::LockExclusive).ok());
    let prefix = format!(".{}.", name.to_string_lossy());
    // Without the lock (NFS has none for folders) somebody may be at work on them.
    if lock.is_some() {
        remove_leftovers(&to, &prefix);
    }

    let listing = manifest::list(&from)?;
    let source = manifest::digest(&listing);
    if let Some(manifest) = installed(&target).filter(|m| m.source == source) {
        return Ok(Outcome {
            path: target,
            manifest,
            unchanged: true,
            replaced: false,
            repairs: Vec::new(),
            unsynced: None,
        });
    }
    let temporary = tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(TEMPORARY)
        .tempdir_in(&to)
        .map_err(at(&to))?;
    let copy = temporary.path();
    copy_tree(&from, copy)?;
    compare(&listing, &manifest::list(copy)?)?;
    let repairs = repair::repair(copy)?;
    let problems = tree::problems(copy, &tree::scan(copy)?, &request.allowed);
    if !problems.is_empty() {
        let problems = problems.into_iter().map(|p| p.at(copy, &request.from)).collect();
        return Err(InstallError::Unusable { path: request.from.clone(), problems });
    }
    let manifest = write_manifest(copy, source)?;
    sync(copy)?;
    let replaced = publish(copy, &target)?;
    // After an exchange the old thing has the temporary name; it need not be a folder.
    let old = temporary.keep();
    if replaced {
        remove(&old);
    }
    // The tree itself is safe already, and it is there: this is about its name, after a power failure.
    let unsynced = sync(&to).err();
    Ok(Outcome { path: target, manifest, unchanged: false, replaced, repairs, unsynced })
}

/// The list of the tree that is there, if it is whole.
fn installed(target: &Path) -> Option<Manifest> {
    Manifest::verify(target).ok()
}

/// Temporary trees of runs that were killed. The lock is ours, so nobody works on them.
fn remove_leftovers(to: &Path, prefix: &str) {
    for item in fs::read_dir(to).into_iter().flatten().flatten() {
        let name = item.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(prefix) && name.ends_with(TEMPORARY) {
            remove(&item.path());
        }
    }
}

/// What cannot be removed costs space and nothing else.
fn remove(path: &Path) {
    let folder = fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    let _ = if folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

/// Copies with links kept and sharing blocks where the file system can. The pod that reads it has another user, so
/// everything becomes readable.
fn copy_tree(from: &Path, to: &Path) -> Result<(), InstallError> {
    fs::set_permissions(to, Permissions::from_mode(0o755)).map_err(at(to))?;
    for entry in tree::scan(from)? {
        let (source, copy) = (from.join(&entry.path), to.join(&entry.path));
        match entry.kind {
            _ if entry.path == Path::new(manifest::FILE) => {}
            EntryKind::Folder => {
                fs::create_dir(&copy).map_err(at(&copy))?;
                fs::set_permissions(&copy, Permissions::from_mode(0o755)).map_err(at(&copy))?;
            }
            EntryKind::Link { target } => symlink(&target, &copy).map_err(at(&copy))?,
            EntryKind::File { mode, .. } => {
                reflink_copy::reflink_or_copy(&source, &copy).map_err(at(&copy))?;
                let mode = if mode & 0o111 == 0 { 0o644 } else { 0o755 };
                fs::set_permissions(&copy, Permissions::from_mode(mode)).map_err(at(&copy))?;
            }
        }
    }
    Ok(())
}

fn compare(source: &[Item], copy: &[Item]) -> Result<(), InstallError> {
    let pairs = source.iter().zip(copy);
    match pairs.into_iter().find(|(a, b)| a != b) {
        Some((a, _)) => Err(InstallError::Copy { path: a.path.clone() }),
        None if source.len() != copy.len() => Err(InstallError::Copy { path: ".".to_owned() }),
        None => Ok(()),
    }
}

fn write_manifest(copy: &Path, source: String) -> Result<Manifest, InstallError> {
    let found = library::find(copy).map_err(|e| InstallError::Unusable {
        path: copy.to_owned(),
        problems: vec![Problem::NoLibrary(e.to_string())],
    })?;
    let library =
        found.path.strip_prefix(copy).unwrap_or(&found.path).to_string_lossy().into_owned();
    let manifest = Manifest::new(library, found.version, source, manifest::list(copy)?);
    let path = copy.join(manifest::FILE);
    let text = serde_json::to_vec_pretty(&manifest).map_err(|e| at(&path)(e.into()))?;
    fs::write(&path, text).map_err(at(&path))?;
    fs::set_permissions(&path, Permissions::from_mode(0o644)).map_err(at(&path))?;
    Ok(manifest)
}

/// The final name, in one step; whether there was a tree before.
fn publish(copy: &Path, target: &Path) -> Result<bool, InstallError> {
    if fs::symlink_metadata(target).is_err() {
        return fs::rename(copy, target).map(|()| false).map_err(at(target));
    }
    match renameat2(AT_FDCWD, copy, AT_FDCWD, target, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => Ok(true),
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => replace(copy, target),
        Err(Errno::EBUSY | Errno::EXDEV | Errno::EPERM) => {
            Err(InstallError::Stuck(target.to_owned()))
        }
        Err(e) => Err(at(target)(e.into())),
    }
}

/// Where the file system cannot exchange (NFS): the final name is absent for a moment.
fn replace(copy: &Path, target: &Path) -> Result<bool, InstallError> {
    let old = copy.with_extension(format!("old{TEMPORARY}"));
    fs::rename(target, &old).map_err(at(target))?;
    if let Err(e) = fs::rename(copy, target) {
        fs::rename(&old, target).map_err(at(target))?;
        return Err(at(target)(e));
    }
    remove(&old);
    Ok(true)
}

/// Everything of this file system is on its disk.
fn sync(path: &Path) -> Result<(), InstallError> {
    let dir = File::open(path).map_err(at(path))?;
    nix::unistd::syncfs(&dir).map_err(|e| at(path)(e.into()))
}
