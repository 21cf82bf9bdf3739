//! Where the disks of a local conversion go: what `--to` means.

use crate::cli::ConvertArgs;
use crate::disks::Pv;
use crate::failure::{Class, Failure};
use crate::sources;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Where the disks go.
pub enum Targets {
    /// `FOLDER/NAME-sdX` for as many disks as the source has.
    Folder(PathBuf),
    /// One for each disk.
    Each(Vec<Pv>),
}

/// Reads `--to`.
pub fn targets(args: &ConvertArgs) -> Result<Targets, Failure> {
    if let [only] = args.to.as_slice()
        && only.is_dir()
    {
        return Ok(Targets::Folder(absolute(only)?));
    }
    args.to.iter().map(|path| target(path)).collect::<Result<Vec<_>, _>>().map(Targets::Each)
}

fn target(path: &Path) -> Result<Pv, Failure> {
    let problem = |text: &str| {
        Failure::new(Class::Volume, format!("target {} {text}", path.display())).advise(
            "name an existing folder or block device, or an image file in an existing folder",
        )
    };
    match fs::metadata(path) {
        Ok(meta) if meta.file_type().is_block_device() => Ok(Pv::Block(absolute(path)?)),
        Ok(meta) if meta.is_dir() => Ok(Pv::File(absolute(path)?.join("disk.img"))),
        Ok(meta) if meta.is_file() => Ok(Pv::File(absolute(path)?)),
        Ok(_) => Err(problem("is neither a folder, a block device nor a file")),
        Err(_) => {
            let parent =
                path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let file = path.file_name().ok_or_else(|| problem("is no file name"))?;
            match fs::canonicalize(parent) {
                Ok(dir) => Ok(Pv::File(dir.join(file))),
                Err(_) => Err(problem("does not exist, nor does its folder")),
            }
        }
    }
}

/// The path from the root, without links; it must exist.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    fs::canonicalize(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Failure::new(Class::NotFound, sources::not_found(path))
            .advise("check the path of the source"),
        _ => Failure::new(Class::Io, format!("{} cannot be read: {e}", path.display())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_what_is_there_or_a_new_file_in_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        fs::write(root.join("old.img"), b"").unwrap();
        assert_eq!(target(&root).unwrap(), Pv::File(root.join("disk.img")));
        assert_eq!(target(&root.join("old.img")).unwrap(), Pv::File(root.join("old.img")));
        assert_eq!(target(&root.join("new.img")).unwrap(), Pv::File(root.join("new.img")));
        let error = target(&root.join("no/new.img")).unwrap_err();
        assert!(error.message.contains("no/new.img") && error.class == Class::Volume);
        assert_eq!(target(Path::new("/dev/null")).unwrap_err().class, Class::Volume);
    }
}
