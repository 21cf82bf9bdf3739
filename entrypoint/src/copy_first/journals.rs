//! Where the journals of a VM are, and how they go.

use crate::failure::{Class, Failure};
use datapath::journal;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// What stays as it is in the name of a file.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
/// Of a name that is longer the rest is hashed: the name of a file has 255 bytes at most.
const LONGEST: usize = 120;

/// The journals of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journals {
    folder: PathBuf,
    stem: String,
    disks: usize,
}

impl Journals {
    /// Of the VM with this name, which has so many disks.
    pub fn new(folder: &Path, vm: &str, disks: usize) -> Self {
        Self { folder: folder.to_owned(), stem: stem(vm), disks }
    }

    /// Makes the folder, and sees whether journals can be made and removed there.
    pub fn prepare(&self) -> Result<(), Failure> {
        let tried = fs::create_dir_all(&self.folder)
            .and_then(|()| tempfile::NamedTempFile::new_in(&self.folder))
            .and_then(tempfile::NamedTempFile::close);
        tried.map_err(|e| {
            let message = format!(
                "the folder for the journals, {}, cannot be used: {e}",
                self.folder.display()
            );
            Failure::new(Class::Config, message).advise(
                "make V2V_journalDir a folder that the pod may write, on a volume that outlives it",
            )
        })
    }

    /// The journal of a disk.
    pub fn of(&self, disk: usize) -> PathBuf {
        self.folder.join(format!("{}-disk{disk}.journal", self.stem))
    }

    /// Its hashes, for the verification.
    pub fn hashes(&self, disk: usize) -> PathBuf {
        journal::with_suffix(&self.of(disk), ".hashes")
    }

    /// Forgets what is known of a disk.
    pub fn remove(&self, disk: usize) -> Result<(), Failure> {
        remove(&self.of(disk)).and_then(|()| self.remove_hashes(disk))
    }

    /// Forgets what was read of a disk: a run that does not go on with the hashes must not leave them to a later one.
    pub fn remove_hashes(&self, disk: usize) -> Result<(), Failure> {
        remove(&self.hashes(disk))
    }

    /// Forgets all disks, durably. From then on the volumes may be changed.
    pub fn remove_all(&self) -> Result<(), Failure> {
        (0..self.disks).try_for_each(|disk| self.remove(disk))
    }
}

fn remove(path: &Path) -> Result<(), Failure> {
    journal::remove(path).map_err(|e| {
        let message = format!("the journal {} cannot be removed: {e}", path.display());
        // Whoever changes the volumes with it still there would have them mixed up in the next try.
        Failure::new(Class::Io, message)
            .advise("remove it, see to the volume of the journals, and start again")
    })
}

/// Another one for each name.
fn stem(vm: &str) -> String {
    let encoded = utf8_percent_encode(vm, PLAIN).to_string();
    if encoded.len() <= LONGEST {
        return encoded;
    }
    let mut stem: String = encoded.chars().take(LONGEST).collect();
    stem.push('-');
    for byte in Sha256::digest(vm.as_bytes()).iter().take(16) {
        // Writing to a String does not fail.
        let _ = write!(stem, "{byte:02x}");
    }
    stem
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_vms_do_not_share_a_file() {
        let of = |vm: &str| Journals::new(Path::new("/j"), vm, 2).of(1);
        assert_eq!(of("web"), Path::new("/j/web-disk1.journal"));
        assert_eq!(of("a/b"), Path::new("/j/a%2Fb-disk1.journal"));
        let long = "ä".repeat(200);
        for (a, b) in [("a/b", "a_b"), ("a/b", "a%2Fb"), (long.as_str(), &format!("{long}x"))] {
            assert_ne!(of(a), of(b));
        }
    }

    #[test]
    fn they_go_with_their_hashes_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("journals");
        let journals = Journals::new(&folder, "web", 2);
        journals.prepare().unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        for disk in 0..2 {
            fs::write(journals.of(disk), "").unwrap();
            fs::write(journals.hashes(disk), "").unwrap();
        }
        let others = Journals::new(&folder, "web2", 1).of(0);
        fs::write(&others, "").unwrap();
        journals.remove(1).unwrap();
        assert!(journals.of(0).exists() && !journals.of(1).exists());
        journals.remove_all().unwrap();
        journals.remove_all().unwrap();
        assert!(others.exists() && fs::read_dir(&folder).unwrap().count() == 1);
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let failure = Journals::new(&file, "web", 1).prepare().unwrap_err();
        assert!(failure.class == Class::Config && failure.message.contains("file"), "{failure}");
        let journals = Journals::new(&file, "web", 1);
        assert_eq!(journals.remove_all().unwrap_err().class, Class::Io);
    }

    proptest! {
        #[test]
        fn a_name_never_leaves_the_folder(vm in "\\PC{0,300}", disk in 0_usize..99) {
            let path = Journals::new(Path::new("/j"), &vm, 1).hashes(disk);
            prop_assert_eq!(path.parent(), Some(Path::new("/j")));
            prop_assert!(path.file_name().unwrap().len() < 255);
        }
    }
}
