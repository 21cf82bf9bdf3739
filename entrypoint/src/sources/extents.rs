//! The files of a VMDK: there, plain, long enough, and in the descriptor's own folder.

use super::measure::{ADVICE, read_header, unreadable};
use crate::failure::{Class, Failure};
use crate::guest::image::{ExternalKind, ImageError, ImageInfo};
use crate::guest::vmdk::{DESCRIPTOR_BYTES, Descriptor, Extent, embedded, holds_data};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Checks what the descriptor of `path` refers to; the extents that are files of their own.
pub fn check_vmdk(path: &Path, header: &[u8], allow: bool) -> Result<Vec<PathBuf>, Failure> {
    let Some(text) = read_descriptor(path, header).map_err(|e| unreadable(path, &e))? else {
        return Ok(Vec::new());
    };
    let descriptor = Descriptor::parse(&text).map_err(|e| {
        Failure::new(Class::Config, format!("{}: {e}", path.display())).advise(
            "make it a plain disk first, with VMware's vmkfstools -i or vmware-vdiskmanager -r",
        )
    })?;
    if let Some(parent) = descriptor.parent.filter(|_| !allow) {
        return Err(refuse(path, ExternalKind::BackingFile, &parent));
    }
    // A descriptor inside a file with data names that file, maybe as it was called once.
    if holds_data(header) {
        return Ok(Vec::new());
    }
    check_extents(path, &descriptor.extents, allow)
}

/// What qemu has opened must be what [`check_vmdk`] has looked at: two readers of one text may differ.
pub fn confirm(path: &Path, checked: &[PathBuf], info: &ImageInfo) -> Result<(), Failure> {
    let opened = info.extents.iter().map(Path::new);
    let is_known = |file: &Path| file == path || checked.iter().any(|known| known == file);
    let Some(file) = opened.into_iter().find(|file| !is_known(file)) else { return Ok(()) };
    let message = format!(
        "qemu reads {} as a part of {}, whose descriptor does not name it in the usual way",
        file.display(),
        path.display()
    );
    Err(Failure::new(Class::Config, message).advise(
        "make it a plain disk first, with VMware's vmkfstools -i or vmware-vdiskmanager -r",
    ))
}

fn refuse(image: &Path, kind: ExternalKind, reference: &str) -> Failure {
    let image = image.display().to_string();
    let error = ImageError::External { image, kind, reference: reference.to_owned() };
    Failure::new(Class::Config, error.to_string()).advise(ADVICE)
}

fn read_descriptor(path: &Path, header: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
    let (at, length) = if header.starts_with(b"KDMV") {
        let Some(place) = embedded(header) else { return Ok(None) };
        place
    } else if header.starts_with(b"COWD") {
        // An ESX sparse extent has no descriptor in it.
        return Ok(None);
    } else {
        (0, DESCRIPTOR_BYTES)
    };
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(at))?;
    let mut text = Vec::new();
    file.take(length).read_to_end(&mut text)?;
    Ok(Some(text))
}

fn check_extents(path: &Path, extents: &[Extent], allow: bool) -> Result<Vec<PathBuf>, Failure> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut missing = Vec::new();
    let mut found = Vec::new();
    for extent in extents {
        if extent.is_remote() {
            return Err(refuse(path, ExternalKind::Protocol, &extent.file));
        }
        if !allow && !extent.is_beside() {
            return Err(refuse(path, ExternalKind::Extent, &extent.file));
        }
        let file = folder.join(&extent.file);
        match fs::symlink_metadata(&file) {
            Ok(meta) if meta.is_symlink() && !allow => {
                return Err(refuse(path, ExternalKind::Link, &extent.file));
            }
            Ok(_) => check_file(path, &file, extent)?,
            Err(e) if e.kind() == ErrorKind::NotFound => missing.push(extent.file.as_str()),
            Err(e) => return Err(unreadable(&file, &e)),
        }
        found.push(file);
    }
    if missing.is_empty() {
        return Ok(found);
    }
    let message = format!(
        "{} of {} extent(s) of {} are missing in {}: {}",
        missing.len(),
        extents.len(),
        path.display(),
        folder.display(),
        missing.join(", ")
    );
    Err(Failure::new(Class::NotFound, message).advise(
        "copy all files of the disk into one folder: the descriptor and the files that it names",
    ))
}

/// qemu reads as zeros what a file is too short for. A sparse extent that holds no data may be another
/// descriptor, whose extents qemu would open too.
fn check_file(image: &Path, file: &Path, extent: &Extent) -> Result<(), Failure> {
    let meta = fs::metadata(file).map_err(|e| unreadable(file, &e))?;
    if !meta.is_file() {
        let message = format!("the extent {} of {} is no file", file.display(), image.display());
        return Err(Failure::new(Class::Config, message).advise(ADVICE));
    }
    if meta.len() < extent.least_bytes {
        let message = format!(
            "the extent {} has {} bytes, but {} says {}: it is not complete",
            file.display(),
            meta.len(),
            image.display(),
            extent.least_bytes
        );
        return Err(Failure::new(Class::Io, message).advise("copy the disk again"));
    }
    if extent.has_header && !holds_data(&read_header(file)?.0) {
        let message = format!(
            "the sparse extent {} of {} has no data of its own",
            file.display(),
            image.display()
        );
        return Err(Failure::new(Class::Config, message).advise("copy the disk again"));
    }
    Ok(())
}
