//! The links that make virt-v2v write straight onto the volumes: `<work>/<name>-sdX` → volume.

use crate::disks::DiskMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use thiserror::Error;
use v2v_args::{disk_link_name, sanitize_slash};

/// A link could not be made.
#[derive(Debug, Error)]
#[error("cannot make the link {link} to {target}: {source}")]
pub struct LinkError {
    /// The link.
    pub link: PathBuf,
    /// Its target.
    pub target: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Makes all links, replacing those of an earlier run, and removes links to disks that are no
/// longer there: virt-v2v would write through them. Returns them in disk order.
pub fn make(work: &Path, name: &str, map: &DiskMap) -> Result<Vec<PathBuf>, LinkError> {
    remove_stale(work, name);
    map.volumes()
        .iter()
        .enumerate()
        .map(|(index, volume)| {
            let link = work.join(disk_link_name(name, index));
            point(&link, volume.path())?;
            Ok(link)
        })
        .collect()
}

/// Points the link at `target`; whatever link or file was there is replaced in one step.
pub fn point(link: &Path, target: &Path) -> Result<(), LinkError> {
    let failed = |source| LinkError { link: link.to_owned(), target: target.to_owned(), source };
    let mut fresh = link.as_os_str().to_owned();
    fresh.push(".new");
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    symlink(target, &fresh).and_then(|()| fs::rename(&fresh, link)).map_err(failed)
}

fn remove_stale(work: &Path, name: &str) {
    let prefix = format!("{}-sd", sanitize_slash(name));
    for entry in fs::read_dir(work).into_iter().flatten().flatten() {
        let file_name = entry.file_name();
        let Some(letters) = file_name.to_str().and_then(|n| n.strip_prefix(&prefix)) else {
            continue;
        };
        let is_link = entry.file_type().is_ok_and(|t| t.is_symlink());
        if is_link && !letters.is_empty() && letters.bytes().all(|b| b.is_ascii_lowercase()) {
            // One that cannot be removed is replaced, or fails, right after.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disks::Pv;

    fn map(n: usize) -> DiskMap {
        DiskMap::new((0..n).map(|i| Pv::Block(format!("/dev/block{i}").into())).collect())
    }

    #[test]
    fn links_are_made_anew_over_whatever_was_there() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/old", dir.path().join("a_b-sda")).unwrap();
        fs::write(dir.path().join("a_b-sdb"), b"left by a broken run").unwrap();
        symlink("/old", dir.path().join("a_b-sdc")).unwrap();
        symlink("/old", dir.path().join("a_b-sdx.qcow2")).unwrap();
        let links = make(dir.path(), "a/b", &map(2)).unwrap();
        assert_eq!(links, [dir.path().join("a_b-sda"), dir.path().join("a_b-sdb")]);
        assert_eq!(fs::read_link(&links[1]).unwrap(), Path::new("/dev/block1"));
        assert!(!dir.path().join("a_b-sdc").is_symlink(), "a link beyond the last disk is gone");
        assert!(dir.path().join("a_b-sdx.qcow2").is_symlink(), "other files stay");
    }

    #[test]
    fn sixty_disks_have_their_letters() {
        let dir = tempfile::tempdir().unwrap();
        let links = make(dir.path(), "v", &map(60)).unwrap();
        assert_eq!(fs::read_link(dir.path().join("v-sdbh")).unwrap(), Path::new("/dev/block59"));
        assert_eq!(links.len(), 60);
    }

    #[test]
    fn a_folder_in_the_way_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("v-sda")).unwrap();
        assert!(make(dir.path(), "v", &map(1)).unwrap_err().to_string().contains("v-sda"));
    }
}
