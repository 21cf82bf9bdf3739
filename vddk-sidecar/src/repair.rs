//! Makes a VDDK tree whole again that an archive or a file system without symbolic links has spoiled.

use crate::library::{self, STEM};
use crate::tree::{TreeError, io_error, read_library};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A link that became a text file holds no more than a name.
const MOST_LINK_TEXT: u64 = 256;

/// Makes the links again that a file system or an archive without links has lost; says what it did.
///
/// Links that became text files (their content is the name of a neighbour) are turned back. A library that is not
/// there under its own name (`DT_SONAME`) gets a link of that name, as ldconfig would make it.
pub fn repair(root: &Path) -> Result<Vec<String>, TreeError> {
    let mut done = Vec::new();
    let real_root = fs::canonicalize(root).map_err(io_error(root))?;
    for folder in [root.join("lib64"), root.to_owned()] {
        // A lib64 that leads out of the tree is nobody's to change.
        let inside = fs::canonicalize(&folder).is_ok_and(|f| f.starts_with(&real_root));
        if inside && folder.is_dir() {
            texts_to_links(&folder, &mut done)?;
            links_for_names(&folder, &mut done)?;
        }
    }
    Ok(done)
}

/// Regular files that are named like libraries; older versions before newer ones.
pub(crate) fn files_in(folder: &Path) -> Result<Vec<PathBuf>, TreeError> {
    let mut files = Vec::new();
    for item in fs::read_dir(folder).map_err(io_error(folder))? {
        let path = item.map_err(io_error(folder))?.path();
        let named_so = path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.contains(".so"));
        if named_so && fs::symlink_metadata(&path).is_ok_and(|m| m.is_file()) {
            files.push(path);
        }
    }
    files.sort_by_cached_key(|path| version_key(path));
    Ok(files)
}

/// What is no version (`.so.8.0.3.bak`) comes first, then by number: 8.0.9 before 8.0.10.
fn version_key(path: &Path) -> (bool, Vec<u64>, PathBuf) {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let after = name.split_once(".so").map_or("", |(_, after)| after);
    let parts = after.split('.').filter(|p| !p.is_empty());
    let numbers: Option<Vec<u64>> = parts.map(|p| p.parse().ok()).collect();
    (numbers.is_some(), numbers.unwrap_or_default(), path.to_owned())
}

/// `libvixDiskLib.so.8` for a file `libvixDiskLib.so.8.0.3` that does not say it itself.
fn name_of_unnamed(path: &Path) -> Option<String> {
    let version = path.file_name()?.to_str()?.strip_prefix(STEM)?.strip_prefix('.')?;
    let major = version.split('.').next()?.parse::<u32>().ok()?;
    Some(format!("{STEM}.{major}"))
}

fn texts_to_links(folder: &Path, done: &mut Vec<String>) -> Result<(), TreeError> {
    for path in files_in(folder)? {
        if fs::metadata(&path).is_ok_and(|m| m.len() > MOST_LINK_TEXT) {
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let target = text.trim_end();
        let neighbour = !target.is_empty() && !target.contains('/') && target.contains(".so");
        if !neighbour || !folder.join(target).exists() || path.ends_with(target) {
            continue;
        }
        fs::remove_file(&path).map_err(io_error(&path))?;
        symlink(target, &path).map_err(io_error(&path))?;
        done.push(format!("{} was a text file; it is a link to {target} again", path.display()));
    }
    Ok(())
}

fn links_for_names(folder: &Path, done: &mut Vec<String>) -> Result<(), TreeError> {
    let mut wanted: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in files_in(folder)? {
        let Ok(library) = read_library(&path) else { continue };
        let soname = library.soname.or_else(|| name_of_unnamed(&path));
        let Some(soname) = soname.filter(|s| !s.contains('/') && !s.is_empty()) else {
            continue;
        };
        // Sorted, so that of several versions the last is the newest.
        wanted.insert(soname, path);
    }
    // Forklift's validator and programs that are linked with it ask for the name without a number.
    for major in library::MAJORS {
        let name = format!("{STEM}.{major}");
        if wanted.contains_key(&name) || folder.join(&name).exists() {
            wanted.insert(STEM.to_owned(), folder.join(&name));
            break;
        }
    }
    for (name, file) in wanted {
        let link = folder.join(&name);
        if fs::symlink_metadata(&link).is_ok() {
            continue;
        }
        let Some(target) = file.file_name() else { continue };
        symlink(target, &link).map_err(io_error(&link))?;
        done.push(format!("{name} was missing; it is a link to {} now", target.to_string_lossy()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_was_a_link_becomes_one() {
        let dir = tempfile::tempdir().unwrap();
        let lib64 = dir.path().join("lib64");
        fs::create_dir(&lib64).unwrap();
        fs::copy("/lib/x86_64-linux-gnu/libm.so.6", lib64.join("libm-2.so")).unwrap();
        fs::write(lib64.join("libfoo.so.1"), "libm-2.so\n").unwrap();
        fs::write(lib64.join("libself.so"), "libself.so").unwrap();
        let done = repair(dir.path()).unwrap();
        assert_eq!(done.len(), 2, "{done:?}");
        assert_eq!(fs::read_link(lib64.join("libfoo.so.1")).unwrap(), Path::new("libm-2.so"));
        assert_eq!(fs::read_link(lib64.join("libm.so.6")).unwrap(), Path::new("libm-2.so"));
        assert!(repair(dir.path()).unwrap().is_empty(), "a second time there is nothing to do");
    }

    #[test]
    fn the_newest_version_is_last_and_backups_are_first() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.so.8.0.10", "a.so.8.0.9", "a.so.8.0.9.bak", "a.so.8", "b.so"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let files = files_in(dir.path()).unwrap();
        let names: Vec<_> =
            files.iter().map(|f| f.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.so.8.0.9.bak", "b.so", "a.so.8", "a.so.8.0.9", "a.so.8.0.10"]);
    }
}
