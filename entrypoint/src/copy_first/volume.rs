//! What tells one volume from another, as text for a journal. The number of a device or of a file system is none of it
//! where anything better is known: it changes when the volume is attached to another node.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Names that the kernel has for a device, the best first.
const NAMES: [&str; 5] = ["dm/uuid", "wwid", "device/wwid", "serial", "device/serial"];

/// The volume; `None` leaves it to the engine, which goes by numbers.
pub fn identity(path: &Path) -> Option<String> {
    let m = fs::metadata(path).ok()?;
    if m.file_type().is_block_device() {
        let (major, minor) = (nix::sys::stat::major(m.rdev()), nix::sys::stat::minor(m.rdev()));
        return of_device(Path::new(&format!("/sys/dev/block/{major}:{minor}")));
    }
    // The time of birth tells it from every other file, be it on another volume.
    let born = m.created().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos();
    Some(format!("image {}, born {born}", m.ino()))
}

fn of_device(sys: &Path) -> Option<String> {
    let read = |name: &str| {
        let text = fs::read_to_string(sys.join(name)).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| format!("device {text}"))
    };
    NAMES.iter().find_map(|name| read(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_told_from_another_one() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "").unwrap();
        fs::write(&b, "").unwrap();
        assert_eq!(identity(&a), identity(&a));
        assert_ne!(identity(&a), identity(&b));
        let before = identity(&a);
        fs::remove_file(&a).unwrap();
        fs::write(&a, "").unwrap();
        assert_ne!(identity(&a), before, "made anew");
        assert_eq!(identity(&dir.path().join("c")), None);
    }

    #[test]
    fn a_device_has_the_best_name_that_the_kernel_knows() {
        let sys = tempfile::tempdir().unwrap();
        assert_eq!(of_device(sys.path()), None);
        fs::create_dir(sys.path().join("device")).unwrap();
        fs::write(sys.path().join("serial"), "\n").unwrap();
        fs::write(sys.path().join("device/wwid"), "naa.6001405\n").unwrap();
        assert_eq!(of_device(sys.path()).unwrap(), "device naa.6001405");
        fs::create_dir(sys.path().join("dm")).unwrap();
        fs::write(sys.path().join("dm/uuid"), "LVM-abc\n").unwrap();
        assert_eq!(of_device(sys.path()).unwrap(), "device LVM-abc");
    }
}
