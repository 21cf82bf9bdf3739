//! The private temporary folder of a run, and what earlier runs left behind.
//!
//! Everything that virt-v2v and its helpers put into temporary folders goes in here, so one removal
//! cleans up after success, failure and SIGTERM. After SIGKILL the next run does it: a folder whose
//! lock nobody holds has no owner any more.

use nix::fcntl::{Flock, FlockArg};
use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

const PREFIX: &str = "v2v-pod.";
const MAKING_PREFIX: &str = ".v2v-pod-new.";
const LOCK: &str = "lock";
/// `sun_path` holds 108 bytes; virt-v2v adds `/tmp/v2v.XXXXXX/out59`.
const SOCKET_PATH_BYTES: usize = 107;
const LONGEST_SUFFIX: usize = PREFIX.len() + 6 + "/tmp/libguestfsXXXXXX/guestfsd.sock".len() + 2;

/// The folder; removed when dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: Flock<File>,
}

impl RunDir {
    /// True when sockets below `base` have a short enough path.
    pub fn fits(base: &Path) -> bool {
        base.as_os_str().len() + LONGEST_SUFFIX <= SOCKET_PATH_BYTES
    }

    /// Removes what dead runs left in `base`, then makes a new folder there.
    pub fn create(base: &Path) -> io::Result<Self> {
        fs::create_dir_all(base)?;
        remove_stale(base);
        // Made and locked under a name that nobody cleans up, so that no other run takes it for dead.
        let private = fs::Permissions::from_mode(0o700);
        let making =
            tempfile::Builder::new().prefix(MAKING_PREFIX).permissions(private).tempdir_in(base)?;
        let lock = File::create(making.path().join(LOCK))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, e)| io::Error::from(e))?;
        let name = making.path().to_string_lossy().replace(MAKING_PREFIX, PREFIX);
        let path = PathBuf::from(name);
        fs::rename(making.path(), &path)?;
        let _ = making.keep();
        DirBuilder::new().mode(0o700).create(path.join("tmp"))?;
        Ok(Self { path, _lock: lock })
    }

    /// The folder itself, for files of ours.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `TMPDIR` of the tools.
    pub fn tmp(&self) -> PathBuf {
        self.path.join("tmp")
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.path) {
            tracing::warn!(folder = %self.path.display(), error = %e, "temporary folder not removed");
        }
        remove_dead_appliance_sockets(Path::new("/tmp"));
    }
}

fn remove_stale(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) || !is_ownerless(&entry.path())
        {
            continue;
        }
        match fs::remove_dir_all(entry.path()) {
            Ok(()) => {
                tracing::info!(folder = %entry.path().display(), "removed what a dead run left");
            }
            Err(e) => {
                tracing::warn!(folder = %entry.path().display(), error = %e, "cannot remove what a dead run left");
            }
        }
    }
    remove_dead_appliance_sockets(Path::new("/tmp"));
}

/// A folder without a lock file is one that is being made, or not ours: it stays.
fn is_ownerless(dir: &Path) -> bool {
    let Ok(lock) = File::open(dir.join(LOCK)) else { return false };
    Flock::lock(lock, FlockArg::LockExclusiveNonblock).is_ok()
}

/// libguestfs puts its sockets into `/tmp/libguestfsXXXXXX` whatever TMPDIR is when it runs as
/// root, and leaves them when it is killed. One that is ours and that no process listens on is dead.
fn remove_dead_appliance_sockets(tmp: &Path) {
    let Ok(listening) = fs::read_to_string("/proc/net/unix") else { return };
    let listening: HashSet<&str> =
        listening.lines().filter_map(|l| l.split_whitespace().nth(7)).collect();
    let us = nix::unistd::geteuid().as_raw();
    for entry in fs::read_dir(tmp).into_iter().flatten().flatten() {
        let ours = entry.metadata().is_ok_and(|m| m.is_dir() && m.uid() == us);
        if !ours || !entry.file_name().to_string_lossy().starts_with("libguestfs") {
            continue;
        }
        let inside: Vec<_> = fs::read_dir(entry.path()).into_iter().flatten().flatten().collect();
        let all_dead_sockets = !inside.is_empty()
            && inside.iter().all(|e| {
                e.file_type().is_ok_and(|t| t.is_socket())
                    && !listening.contains(&*e.path().to_string_lossy())
            });
        if all_dead_sockets {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_folder_is_private_and_goes_with_its_run() {
        let base = tempfile::tempdir().unwrap();
        let run = RunDir::create(base.path()).unwrap();
        assert_eq!(fs::metadata(run.path()).unwrap().mode() & 0o777, 0o700);
        fs::write(run.tmp().join("x"), b"x").unwrap();
        let path = run.path().to_owned();
        drop(run);
        assert!(!path.exists());
    }

    #[test]
    fn the_next_run_removes_dead_folders_only() {
        let base = tempfile::tempdir().unwrap();
        let alive = RunDir::create(base.path()).unwrap();
        let dead = base.path().join("v2v-pod.dead01");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), b"").unwrap();
        let unlocked = base.path().join("v2v-pod.making");
        fs::create_dir(&unlocked).unwrap();
        let other = base.path().join("other");
        fs::create_dir(&other).unwrap();
        let _next = RunDir::create(base.path()).unwrap();
        assert!(!dead.exists() && alive.path().exists() && unlocked.exists() && other.exists());
    }

    #[test]
    fn only_dead_sockets_of_the_appliance_are_removed() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = |name: &str| {
            let d = tmp.path().join(name);
            fs::create_dir(&d).unwrap();
            d
        };
        let (dead, live, files) =
            (dir("libguestfsDEAD01"), dir("libguestfsLIVE01"), dir("libguestfsFILE01"));
        drop(UnixListener::bind(dead.join("guestfsd.sock")).unwrap());
        let _listener = UnixListener::bind(live.join("guestfsd.sock")).unwrap();
        fs::write(files.join("x"), b"x").unwrap();
        remove_dead_appliance_sockets(tmp.path());
        assert!(!dead.exists() && live.exists() && files.exists());
    }

    #[test]
    fn a_long_base_does_not_fit_sockets() {
        assert!(RunDir::fits(Path::new("/var/tmp")));
        assert!(!RunDir::fits(Path::new(&"/x".repeat(40))));
    }
}
