//! Where in a VDDK tree the library is.

use nix::fcntl::OFlag;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Versions of the interface, newest first; each is `libvixDiskLib.so.N`.
pub const MAJORS: [u32; 4] = [9, 8, 7, 6];
/// Bytes of a file that can be a library. VDDK's largest has some 30 MB.
pub const LARGEST: u64 = 1 << 30;
/// How the library's file names begin.
pub const STEM: &str = "libvixDiskLib.so";

/// The library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// As nbdkit would open it: `<libdir>/lib64/libvixDiskLib.so.8`.
    pub path: PathBuf,
    /// The folder of it and of the libraries that belong to it.
    pub folder: PathBuf,
    /// The number in its name.
    pub major: u32,
    /// The file itself, links followed.
    pub file: PathBuf,
    /// As far as the file's name tells it (`8.0.3`).
    pub version: Option<String>,
}

/// Why there is none; each text says what was looked for.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// No such folder, or it cannot be looked into.
    #[error("{}: {error}", path.display())]
    Folder {
        /// It.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The folder has none of the names.
    #[error("no {STEM}.9, .8, .7 or .6 in {}/lib64: {hint}", libdir.display())]
    None {
        /// Where.
        libdir: PathBuf,
        /// What is there instead.
        hint: String,
    },
    /// A link that leads nowhere.
    #[error("{} leads to {}, which is not there: the tree is incomplete, or is still being copied", path.display(), target.display())]
    Dangling {
        /// The link.
        path: PathBuf,
        /// Its target.
        target: PathBuf,
    },
}

impl FindError {
    /// Whether it is for lack of permission.
    pub fn denied(&self) -> bool {
        matches!(self, Self::Folder { error, .. } if error.kind() == ErrorKind::PermissionDenied)
    }
}

/// The content of a file that may be anything: no pipe is waited for, no endless file is loaded.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let options = OFlag::O_NONBLOCK.bits();
    let mut file = OpenOptions::new().read(true).custom_flags(options).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    if meta.len() > most {
        return Err(io::Error::other(format!("it is too large ({} bytes)", meta.len())));
    }
    let mut bytes = Vec::new();
    file.by_ref().take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Looks where nbdkit looks: newest first, in `lib64`, then in the folder itself.
pub fn find(libdir: &Path) -> Result<Found, FindError> {
    let folder_error = |error| FindError::Folder { path: libdir.to_owned(), error };
    // The loader takes a path without a slash for a name to search.
    let libdir = &std::path::absolute(libdir).map_err(folder_error)?;
    fs::read_dir(libdir).map_err(folder_error)?;
    for major in MAJORS {
        for folder in [libdir.join("lib64"), libdir.clone()] {
            let path = folder.join(format!("{STEM}.{major}"));
            match fs::symlink_metadata(&path) {
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    continue;
                }
                Err(error) => return Err(FindError::Folder { path: folder, error }),
            }
            let file = fs::canonicalize(&path).map_err(|_| FindError::Dangling {
                target: fs::read_link(&path).unwrap_or_default(),
                path: path.clone(),
            })?;
            let version = version_of(&file);
            return Ok(Found { path, folder, major, file, version });
        }
    }
    Err(FindError::None { libdir: libdir.clone(), hint: hint(libdir) })
}

fn version_of(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let version = name.strip_prefix(STEM)?.strip_prefix('.')?;
    Some(version.to_owned()).filter(|v| v.contains('.'))
}

/// What an operator should know about a tree without the library.
fn hint(libdir: &Path) -> String {
    let names = |dir: &Path| -> Vec<String> {
        let read = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            read.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let inner = names(&libdir.join("lib64"));
    if let Some(name) = inner.iter().find(|n| n.starts_with(&format!("{STEM}."))) {
        return format!(
            "there is {name}, but the symbolic link that is named after its version is not: the tree has lost its symbolic links (unpack it where they can exist, or use vddk-sidecar install, which makes them)"
        );
    }
    if libdir.join(crate::DISTRIB).is_dir() {
        return format!(
            "the tree is one level deeper, in {}",
            libdir.join(crate::DISTRIB).display()
        );
    }
    if libdir.join("lib32").is_dir() && inner.is_empty() {
        return "there is only lib32: take the 64-bit VDDK".to_owned();
    }
    if inner.is_empty() && names(libdir).is_empty() {
        return "the folder is empty: did the sidecar's init container run?".to_owned();
    }
    "is this an unpacked VDDK for Linux (VMware-vix-disklib-*.x86_64.tar.gz)?".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_newest_is_found_and_its_version_read() {
        let dir = tempfile::tempdir().unwrap();
        let lib64 = dir.path().join("lib64");
        fs::create_dir(&lib64).unwrap();
        fs::write(lib64.join("libvixDiskLib.so.8.0.3"), "").unwrap();
        symlink("libvixDiskLib.so.8.0.3", lib64.join("libvixDiskLib.so.8")).unwrap();
        fs::write(lib64.join("libvixDiskLib.so.7"), "").unwrap();
        let found = find(dir.path()).unwrap();
        assert_eq!((found.major, found.version.as_deref()), (8, Some("8.0.3")));
        assert_eq!(found.folder, lib64);
    }

    #[test]
    fn what_is_missing_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let text = |d: &Path| find(d).unwrap_err().to_string();
        assert!(text(dir.path()).contains("the folder is empty"));
        assert!(text(&dir.path().join("x")).contains("No such file"));
        let lib64 = dir.path().join("lib64");
        fs::create_dir(&lib64).unwrap();
        fs::write(lib64.join("libvixDiskLib.so.8.0.3"), "").unwrap();
        assert!(text(dir.path()).contains("lost its symbolic links"));
        symlink("libvixDiskLib.so.8.0.4", lib64.join("libvixDiskLib.so.8")).unwrap();
        assert!(text(dir.path()).contains("leads to libvixDiskLib.so.8.0.4"));
    }
}
