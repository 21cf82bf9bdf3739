//! The VMs of `disk` and `ova` providers: only what the Plan itself says of them, for the controller does not have the
//! volume with the files. Pure.
//!
//! An image's path is known, its size is not; of an OVA not even the number of disks. Reading them is the work of a pod that
//! mounts the volume, so whoever makes the target volumes must get the sizes from the user or from such a pod.

use std::path::{Component, Path};
use thiserror::Error;

/// The files of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// Disk images, one for each disk, in the order of the disks.
    Disks(Vec<String>),
    /// An OVA, or a folder with an OVF: its disks are known when it has been read.
    Ova(String),
}

impl Files {
    /// How many disks the VM has, where the paths say so.
    pub fn disks(&self) -> Option<usize> {
        match self {
            Self::Disks(paths) => Some(paths.len()),
            Self::Ova(_) => None,
        }
    }

    /// For `V2V_diskPath`, in a pod that has the volume at this folder.
    pub fn disk_path(&self, mount: &str) -> String {
        let mount = mount.trim_end_matches('/');
        match self {
            Self::Ova(path) => format!("{mount}/{path}"),
            Self::Disks(paths) => {
                let paths: Vec<String> = paths.iter().map(|p| format!("{mount}/{p}")).collect();
                paths.join(",")
            }
        }
    }
}

/// What is wrong with a VM's paths.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FilesError {
    /// None.
    #[error("the VM {vm:?} has no paths; give the paths of its files in the provider's volume")]
    None {
        /// The VM.
        vm: String,
    },
    /// An OVA is one.
    #[error("the VM {vm:?} has {count} paths; an OVA is one file or one folder")]
    Several {
        /// The VM.
        vm: String,
        /// How many.
        count: usize,
    },
    /// One leads elsewhere.
    #[error(
        "the path {path:?} of the VM {vm:?} {reason}; paths are relative to the root of the provider's volume"
    )]
    Path {
        /// The VM.
        vm: String,
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The same one twice.
    #[error("the path {path:?} of the VM {vm:?} is there twice; each disk has an image of its own")]
    Twice {
        /// The VM.
        vm: String,
        /// The path.
        path: String,
    },
}

/// The images of a VM of a `disk` provider.
pub fn disks(vm: &str, paths: &[String]) -> Result<Files, FilesError> {
    let paths = paths.iter().map(|p| inside(vm, p)).collect::<Result<Vec<_>, _>>()?;
    for (i, path) in paths.iter().enumerate() {
        if paths[..i].contains(path) {
            return Err(FilesError::Twice { vm: vm.to_owned(), path: path.clone() });
        }
    }
    if paths.is_empty() {
        return Err(FilesError::None { vm: vm.to_owned() });
    }
    Ok(Files::Disks(paths))
}

/// The OVA of a VM of an `ova` provider.
pub fn ova(vm: &str, paths: &[String]) -> Result<Files, FilesError> {
    match paths {
        [] => Err(FilesError::None { vm: vm.to_owned() }),
        [path] => inside(vm, path).map(Files::Ova),
        several => Err(FilesError::Several { vm: vm.to_owned(), count: several.len() }),
    }
}

/// The path in its plainest form, if it stays inside the volume.
fn inside(vm: &str, path: &str) -> Result<String, FilesError> {
    let wrong = |reason| FilesError::Path { vm: vm.to_owned(), path: path.to_owned(), reason };
    if path.contains(',') {
        return Err(wrong("has a comma, which separates the paths for the pod"));
    }
    if path.chars().any(char::is_control) {
        return Err(wrong("has a control character"));
    }
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_string_lossy()),
            // As people write it who think of the volume as a disk.
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(wrong("leads out of the volume"));
            }
        }
    }
    if parts.is_empty() {
        return Err(wrong("names no file"));
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn paths(list: &[&str]) -> Vec<String> {
        list.iter().map(|p| (*p).to_owned()).collect()
    }

    #[test]
    fn paths_stay_in_the_volume() {
        let files = disks("web", &paths(&["/web//boot.qcow2", "./data.img"])).unwrap();
        assert_eq!(files.disks(), Some(2));
        assert_eq!(files.disk_path("/source/"), "/source/web/boot.qcow2,/source/data.img");
        let files = ova("web", &paths(&["web.ova"])).unwrap();
        assert_eq!(
            (files.disks(), files.disk_path("/source")),
            (None, "/source/web.ova".to_owned())
        );
        for bad in ["../x", "a/../../x", "", "/", ".", "a,b", "a\nb"] {
            let error = disks("web", &paths(&[bad])).unwrap_err();
            assert!(matches!(error, FilesError::Path { .. }), "{bad:?}: {error}");
        }
        assert!(matches!(disks("web", &[]), Err(FilesError::None { .. })));
        assert!(matches!(ova("web", &paths(&["a", "b"])), Err(FilesError::Several { .. })));
        assert!(matches!(disks("web", &paths(&["a", "/a"])), Err(FilesError::Twice { .. })));
    }

    proptest! {
        #[test]
        fn no_path_leads_out(path in "[a./,\\PC]{0,20}") {
            if let Ok(Files::Ova(path)) = ova("vm", &[path]) {
                prop_assert!(!path.starts_with('/') && !path.split('/').any(|p| p == ".." || p.is_empty()));
            }
        }
    }
}
