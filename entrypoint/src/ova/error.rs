//! What is wrong with an OVA, and what kind of failure that is.

use super::manifest::{Algorithm, ManifestError};
use super::names::{Name, NameError};
use super::ovf::OvfError;
use super::tar::TarError;
use crate::failure::{Class, Failure};
use crate::guest::image::ImageError;
use std::io;
use thiserror::Error;

/// The errors of this folder. Every one names the OVA or the file in it.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum OvaError {
    #[error("{what} cannot be read")]
    Read { what: String, source: io::Error },
    #[error("{0}")]
    Missing(String),
    #[error(
        "{0} is neither a tar archive (plain, or with gzip or xz), a zip archive, an .ovf file nor a folder with one"
    )]
    Unknown(String),
    #[error("{ova} is {packing}; plain tar, gzip, xz and zip are known")]
    Packing { ova: String, packing: &'static str },
    #[error("{ova}")]
    Tar { ova: String, source: TarError },
    #[error("{ova}: its zip archive cannot be read")]
    Zip { ova: String, source: zip::result::ZipError },
    #[error("a file below {folder} has {source}")]
    Name { folder: String, source: NameError },
    #[error("{file} in {folder} is a link that leads out of it")]
    LinkOut { file: String, folder: String },
    #[error("{file} is {bytes} bytes long, which no description or manifest is")]
    Long { file: String, bytes: u64 },
    #[error("{ova} has no .ovf file{cut}")]
    NoOvf { ova: String, cut: &'static str },
    #[error("{ova} has more than one .ovf file: {first} and {second}")]
    TwoOvfs { ova: String, first: Name, second: Name },
    #[error("{ovf}")]
    Ovf { ovf: String, source: OvfError },
    #[error("{ovf} refers to {source}")]
    Reference { ovf: String, source: NameError },
    #[error("{ovf} names the disk {file}, but {ova} does not have it{cut}")]
    NoDisk { ovf: Name, file: Name, ova: String, cut: &'static str },
    #[error("of the disk {file} piece {missing} is missing")]
    Piece { file: Name, missing: usize },
    #[error("{file} has {bytes} bytes, but the description says {expected}: it is cut off")]
    Short { file: String, bytes: u64, expected: u64 },
    #[error("the manifest {manifest}")]
    Manifest { manifest: Name, source: ManifestError },
    #[error("the manifest {manifest} has {source}")]
    ManifestName { manifest: Name, source: NameError },
    #[error(
        "{file} is not what it was: its {algorithm} checksum is {found}, but the manifest {manifest} has {expected}"
    )]
    Checksum { file: Name, manifest: Name, algorithm: Algorithm, expected: String, found: String },
    #[error("{file} is to be verified (always), but no manifest in {ova} has its checksum")]
    NotInManifest { file: Name, ova: String },
    #[error("{what} needs {bytes} bytes unpacked, but there is room for {free} only")]
    NoRoom { what: String, bytes: u64, free: u64 },
    #[error(
        "{what} becomes larger than {most} bytes when it is unpacked, which is more than it has reason to"
    )]
    Bomb { what: String, most: u64 },
    #[error("{what} cannot be unpacked")]
    Unpack { what: String, source: io::Error },
    #[error("{what} cannot be written")]
    Write { what: String, source: io::Error },
    #[error("the disk {file}: {source}")]
    Image { file: String, source: ImageError },
    #[error("the disk {file}: {reason}")]
    Disk { file: String, reason: String },
    #[error("stopped")]
    Cancelled,
}

const DAMAGED: &str = "get or export the OVA once more: this copy is damaged";
const MADE_WRONG: &str = "export the OVA once more, with another tool if need be, and do not use it if you do not trust who made it";

impl OvaError {
    fn class(&self) -> Class {
        match self {
            Self::Missing(_) | Self::NoDisk { .. } | Self::Piece { .. } | Self::NoOvf { .. } => {
                Class::NotFound
            }
            Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Class::NoSpace
            }
            Self::Read { .. }
            | Self::Write { .. }
            | Self::Unpack { .. }
            | Self::Zip { .. }
            | Self::Disk { .. }
            | Self::Short { .. } => Class::Io,
            Self::Tar { source, .. } if source.is_damage() => Class::Io,
            Self::Checksum { .. } => Class::Integrity,
            Self::NoRoom { .. } => Class::NoSpace,
            Self::Cancelled => Class::Terminated,
            _ => Class::Config,
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Missing(_) => {
                "check V2V_diskPath (or the path on the command line) and the mount of the OVA volume"
            }
            Self::Unknown(_) | Self::Packing { .. } => {
                "give an OVA, the folder with its .ovf, or the .ovf itself"
            }
            Self::NoRoom { .. } => {
                "unpack the OVA beforehand, or give a larger work volume (TMPDIR, /var/tmp)"
            }
            Self::NotInManifest { .. } => {
                "set V2V_ovaVerify to auto, or get an OVA with a complete manifest"
            }
            Self::Manifest { .. } | Self::ManifestName { .. } => {
                "correct the manifest, or set V2V_ovaVerify=never to do without it"
            }
            Self::Ovf { source: OvfError::Systems(_), .. } => "export each guest by itself",
            Self::TwoOvfs { .. } => {
                "name the .ovf file that is meant, or keep each in a folder of its own"
            }
            Self::Image { .. } => {
                "flatten the disk with `qemu-img convert` and make the OVA anew; a disk of an OVA refers to no other file"
            }
            _ if matches!(self.class(), Class::Io | Class::Integrity | Class::NotFound) => DAMAGED,
            _ => MADE_WRONG,
        }
    }
}

impl From<OvaError> for Failure {
    fn from(e: OvaError) -> Self {
        Self::new(e.class(), datapath::error_chain(&e)).advise(e.advice())
    }
}
