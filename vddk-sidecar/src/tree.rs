//! A VDDK tree: what is in it, what is wrong with it, what can be repaired.

use crate::elf::{self, ElfError};
use crate::library::{self, STEM};
use crate::repair;
use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use walkdir::WalkDir;

/// Libraries of the system that every conversion image has: glibc's, gcc's, and two that VDDK may expect.
const SYSTEM: [&str; 19] = [
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libresolv.so.2",
    "libutil.so.1",
    "libnsl.so.1",
    "libanl.so.1",
    "libgcc_s.so.1",
    "libstdc++.so.6",
    "libz.so.1",
    "libcrypt.so.1",
    "libcrypt.so.2",
    "libuuid.so.1",
    "libmvec.so.1",
    "libatomic.so.1",
    "linux-vdso.so.1",
];

/// One thing in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
}

/// Kinds of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A folder.
    Folder,
    /// A file.
    File {
        /// In bytes.
        size: u64,
        /// Permission bits.
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// As written.
        target: PathBuf,
    },
}

/// Why a tree cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// I/O.
    #[error("{}: {error}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A pipe, socket or device.
    #[error("{} is neither file, folder nor symbolic link", path.display())]
    Special {
        /// It.
        path: PathBuf,
    },
    /// A name that JSON cannot hold.
    #[error("{}: the name is not UTF-8", path.display())]
    Name {
        /// It.
        path: PathBuf,
    },
}

/// What is wrong with a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Target missing.
    #[error("{}: the link leads to {}, which is not there", path.display(), target.display())]
    Broken {
        /// The link.
        path: PathBuf,
        /// Its target.
        target: PathBuf,
    },
    /// Leads out of the tree.
    #[error("{}: the link leads out of the tree, to {}", path.display(), target.display())]
    Escaping {
        /// The link.
        path: PathBuf,
        /// Its target.
        target: PathBuf,
    },
    /// No library.
    #[error("{0}")]
    NoLibrary(String),
    /// A library that cannot be loaded.
    #[error("{}: {error}", path.display())]
    Elf {
        /// It.
        path: PathBuf,
        /// Why.
        error: ElfError,
    },
    /// Named after another version than its own.
    #[error("{}: its own name is {soname}, and it is named as if it were {expected}", path.display())]
    Soname {
        /// The library.
        path: PathBuf,
        /// What it says.
        soname: String,
        /// What the name says.
        expected: String,
    },
    /// A dependency that is nowhere.
    #[error("{}: needs {needed}, which is neither in the tree nor part of the system", path.display())]
    Missing {
        /// Which library needs it.
        path: PathBuf,
        /// What it needs.
        needed: String,
    },
    /// Functions that nbdkit needs.
    #[error("{}: {} of the {} functions that nbdkit needs are missing: {}; VDDK 6.7 or newer is needed", path.display(), names.len(), crate::vix::SYMBOLS.len(), names.join(" "))]
    Symbols {
        /// The library.
        path: PathBuf,
        /// Their names.
        names: Vec<String>,
    },
}

impl Problem {
    /// Of a copy, as it is about the original.
    #[must_use]
    pub fn at(self, copy: &Path, original: &Path) -> Self {
        let (copy, original) = (copy.display().to_string(), original.display().to_string());
        match self {
            Self::NoLibrary(text) => Self::NoLibrary(text.replace(&copy, &original)),
            other => other,
        }
    }
}

pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> TreeError {
    let path = path.to_owned();
    move |error| TreeError::Io { path, error }
}

/// Everything below `root`, folders before what is in them, sorted by name.
pub fn scan(root: &Path) -> Result<Vec<Entry>, TreeError> {
    let mut entries = Vec::new();
    for item in WalkDir::new(root).min_depth(1).sort_by_file_name() {
        let item = item.map_err(|e| TreeError::Io {
            path: e.path().unwrap_or(root).to_owned(),
            error: e.into(),
        })?;
        let path = item.path();
        let relative = path.strip_prefix(root).unwrap_or(path).to_owned();
        if relative.to_str().is_none() {
            return Err(TreeError::Name { path: path.to_owned() });
        }
        let meta = fs::symlink_metadata(path).map_err(io_error(path))?;
        let kind = if meta.is_dir() {
            EntryKind::Folder
        } else if meta.is_symlink() {
            EntryKind::Link { target: fs::read_link(path).map_err(io_error(path))? }
        } else if meta.is_file() {
            EntryKind::File { size: meta.len(), mode: meta.permissions().mode() & 0o7777 }
        } else {
            return Err(TreeError::Special { path: path.to_owned() });
        };
        entries.push(Entry { path: relative, kind });
    }
    Ok(entries)
}

/// All that is wrong; `allowed` are dependencies that the conversion image is known to have.
pub fn problems(root: &Path, entries: &[Entry], allowed: &[String]) -> Vec<Problem> {
    let mut problems = link_problems(root, entries);
    match library::find(root) {
        Ok(found) => library_problems(root, &found, allowed, &mut problems),
        Err(e) => {
            problems.push(Problem::NoLibrary(e.to_string()));
            problems.extend(damaged_libraries(root));
        }
    }
    problems
}

/// Files that have the library's name with any version, and why they are none.
fn damaged_libraries(root: &Path) -> Vec<Problem> {
    let folders = [root.join("lib64"), root.to_owned()];
    let files = folders.iter().flat_map(|f| repair::files_in(f).unwrap_or_default());
    let named = files
        .filter(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(STEM)));
    let bad = |path: PathBuf| {
        let error = read_library(&path).err()?;
        Some(Problem::Elf { path: path.strip_prefix(root).unwrap_or(&path).to_owned(), error })
    };
    named.filter_map(bad).collect()
}

fn link_problems(root: &Path, entries: &[Entry]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for entry in entries {
        let EntryKind::Link { target } = &entry.kind else { continue };
        let (path, target) = (entry.path.clone(), target.clone());
        if leaves(&path, &target) {
            problems.push(Problem::Escaping { path, target });
        } else if !root.join(&path).exists() {
            problems.push(Problem::Broken { path, target });
        }
    }
    problems
}

/// Whether a link at `path` to `target` leads out of the tree, going by the words alone. A way through another link
/// is judged at that link.
fn leaves(path: &Path, target: &Path) -> bool {
    if target.is_absolute() {
        return true;
    }
    let mut depth = path.components().count().saturating_sub(1);
    for part in target.components() {
        match part {
            Component::ParentDir if depth == 0 => return true,
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            _ => {}
        }
    }
    false
}

/// The library and, breadth first, what it needs from its own folder.
fn library_problems(
    root: &Path,
    found: &library::Found,
    allowed: &[String],
    out: &mut Vec<Problem>,
) {
    let mut seen = BTreeSet::new();
    let mut waiting = VecDeque::from([(found.path.clone(), format!("{STEM}.{}", found.major))]);
    while let Some((path, name)) = waiting.pop_front() {
        let shown = path.strip_prefix(root).unwrap_or(&path).to_owned();
        let library = match read_library(&path) {
            Ok(library) => library,
            Err(error) => {
                out.push(Problem::Elf { path: shown, error });
                continue;
            }
        };
        if let Some(soname) = library.soname.as_ref().filter(|s| **s != name) {
            out.push(Problem::Soname {
                path: shown.clone(),
                soname: soname.clone(),
                expected: name.clone(),
            });
        }
        if path == found.path {
            let missing: Vec<String> = crate::vix::SYMBOLS
                .iter()
                .filter(|s| !library.vix_symbols.iter().any(|v| v == *s))
                .map(|s| (*s).to_owned())
                .collect();
            if !missing.is_empty() {
                out.push(Problem::Symbols { path: shown.clone(), names: missing });
            }
        }
        for needed in library.needed {
            let inside = found.folder.join(&needed);
            if !seen.insert(needed.clone()) {
                continue;
            }
            if inside.exists() {
                waiting.push_back((inside, needed));
            } else if !SYSTEM.contains(&needed.as_str()) && !allowed.contains(&needed) {
                out.push(Problem::Missing { path: shown.clone(), needed });
            }
        }
    }
}

/// Libraries that the one at `path` needs, directly or through its neighbours in `folder`, and that are neither there nor,
/// as `elsewhere` says, part of the system.
pub fn needed_but_missing(
    path: &Path,
    folder: &Path,
    elsewhere: impl Fn(&str) -> bool,
) -> Vec<String> {
    let (mut seen, mut missing) = (BTreeSet::new(), Vec::new());
    let mut waiting = VecDeque::from([path.to_owned()]);
    while let Some(path) = waiting.pop_front() {
        let Ok(library) = read_library(&path) else { continue };
        for needed in library.needed.into_iter().filter(|n| seen.insert(n.clone())) {
            if folder.join(&needed).exists() {
                waiting.push_back(folder.join(&needed));
            } else if !elsewhere(&needed) {
                missing.push(needed);
            }
        }
    }
    missing
}

pub(crate) fn read_library(path: &Path) -> Result<elf::Library, ElfError> {
    let bytes =
        library::read(path, library::LARGEST).map_err(|e| ElfError::Unreadable(e.to_string()))?;
    elf::library(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_out_of_the_tree_are_known_by_their_words() {
        let out = |path: &str, target: &str| leaves(Path::new(path), Path::new(target));
        assert!(!out("lib64/a.so", "a.so.1"));
        assert!(!out("lib64/a.so", "../bin/x"));
        assert!(out("lib64/a.so", "../../x"));
        assert!(out("a", "/etc/passwd"));
        assert!(out("a", ".."));
        assert!(!out("d/a", ".."));
    }

    #[test]
    fn broken_and_escaping_links_and_pipes_are_found() {
        let dir = tempfile::tempdir().unwrap();
        symlink("nowhere", dir.path().join("a")).unwrap();
        symlink("/etc/passwd", dir.path().join("b")).unwrap();
        let entries = scan(dir.path()).unwrap();
        let found = problems(dir.path(), &entries, &[]);
        assert!(matches!(&found[0], Problem::Broken { path, .. } if path == Path::new("a")));
        assert!(matches!(&found[1], Problem::Escaping { path, .. } if path == Path::new("b")));
        assert!(matches!(&found[2], Problem::NoLibrary(_)));
        nix::unistd::mkfifo(&dir.path().join("p"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(scan(dir.path()), Err(TreeError::Special { .. })));
    }
}
