//! Local sources: images in [`measure`], and here the disks of an OVA.

mod extents;
pub mod measure;

use crate::failure::{Class, Failure};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// `path does not exist`, with what is in the folder instead.
pub fn not_found(path: &Path) -> String {
    let shown = path.display();
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(dir) else {
        return format!("{shown} does not exist, nor does its folder");
    };
    let mut names: Vec<String> =
        entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).take(20).collect();
    names.sort();
    let inside = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    format!("{shown} does not exist; its folder has: {inside}")
}

/// Number of disks that the OVF of an OVA names; `None` when the OVF cannot be found here (an
/// archive that is compressed as a whole), which virt-v2v then has to unpack first.
pub fn ova_disk_count(path: &Path) -> Result<Option<usize>, Failure> {
    let unreadable = |e: std::io::Error| {
        Failure::new(Class::Io, format!("{} cannot be read: {e}", path.display()))
    };
    let ovf =
        if path.is_dir() { ovf_in_folder(path) } else { ovf_in_tar(path) }.map_err(unreadable)?;
    let Some(ovf) = ovf else { return Ok(None) };
    let document = roxmltree::Document::parse(&ovf).map_err(|e| {
        Failure::new(Class::Config, format!("the OVF in {} is no XML: {e}", path.display()))
    })?;
    Ok(Some(document.descendants().filter(|n| n.tag_name().name() == "Disk").count())
        .filter(|n| *n > 0))
}

/// An OVF is a few KiB; a larger one is none.
const OVF_BYTES: u64 = 4 << 20;

fn ovf_in_folder(dir: &Path) -> std::io::Result<Option<String>> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("ovf")) {
            let mut text = String::new();
            File::open(path)?.take(OVF_BYTES).read_to_string(&mut text)?;
            return Ok(Some(text));
        }
    }
    Ok(None)
}

/// Walks the headers only; the disks are skipped, not read.
fn ovf_in_tar(path: &Path) -> std::io::Result<Option<String>> {
    let mut archive = tar::Archive::new(File::open(path)?);
    // What is no tar archive is left to virt-v2v, which also knows zip and compressed ones.
    let Ok(entries) = archive.entries_with_seek() else { return Ok(None) };
    for entry in entries {
        let Ok(mut entry) = entry else { return Ok(None) };
        let is_ovf = entry
            .path()
            .is_ok_and(|p| p.extension().is_some_and(|e| e.eq_ignore_ascii_case("ovf")));
        if is_ovf {
            let mut text = String::new();
            entry.by_ref().take(OVF_BYTES).read_to_string(&mut text)?;
            return Ok(Some(text));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_path_says_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("real.ova"), b"").unwrap();
        assert!(not_found(&dir.path().join("x.ova")).ends_with("its folder has: real.ova"));
        assert!(not_found(Path::new("/nonexistent/x")).contains("nor does its folder"));
    }

    #[test]
    fn disks_of_an_ova_are_counted_in_a_folder_and_in_a_tar() {
        const OVF: &str = r#"<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"><DiskSection><Info/><Disk/><Disk/></DiskSection></Envelope>"#;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("vm.ovf"), OVF).unwrap();
        assert_eq!(ova_disk_count(dir.path()).unwrap(), Some(2));
        let ova = dir.path().join("vm.ova");
        let mut builder = tar::Builder::new(File::create(&ova).unwrap());
        builder.append_path_with_name(dir.path().join("vm.ovf"), "vm.ovf").unwrap();
        builder.finish().unwrap();
        assert_eq!(ova_disk_count(&ova).unwrap(), Some(2));
        std::fs::write(&ova, b"PK\x03\x04 not a tar").unwrap();
        assert_eq!(ova_disk_count(&ova).unwrap(), None);
    }
}
