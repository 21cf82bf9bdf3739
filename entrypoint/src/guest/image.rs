//! Decides what a local source image is, and refuses images that point at other files.
//!
//! The Prepare phase calls [`decide_format`] with the first bytes of each image, runs
//! `qemu-img info --output=json -f FORMAT PATH` with the answer, and hands the output to
//! [`ImageInfo::parse`] and [`refuse_external`] before virt-v2v sees the file. Nothing here does
//! I/O.
//!
//! The reason for the care: everything in a raw image, its first sector too, is written by the
//! guest. If a tool *probes* such an image, the guest chooses the format, and with a qcow2 header
//! that names `/etc/shadow` or another tenant's volume as backing file it reads what it likes. So
//! a format is never concluded from content: content may only confirm what the file name or the
//! user said, and where they disagree a person decides.

use serde_json::Value;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// How many bytes of an image [`decide_format`] looks at: as many as qemu does when it probes.
pub const HEADER_LEN: usize = 512;

/// Why an image was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A name that is none of ours.
    #[error("unknown image format {name:?}: use raw, qcow2, vmdk, vhdx, vpc or vdi")]
    UnknownFormat {
        /// The name as given.
        name: String,
    },
    /// What would be taken as raw starts like something else.
    #[error(
        "{} would be read as raw, but starts like {found}, which its guest may have written: \
         give --format raw or --format {found}", path.display()
    )]
    Ambiguous {
        /// The image.
        path: PathBuf,
        /// The format its header claims.
        found: ImageFormat,
    },
    /// What would be taken as raw starts like a format that is not read here, but by qemu.
    #[error(
        "{} starts like {found}, an image format that is not read here: convert it with \
         `qemu-img convert`, or give --format raw if these are the guest's own bytes", path.display()
    )]
    Foreign {
        /// The image.
        path: PathBuf,
        /// qemu's name of the format.
        found: &'static str,
    },
    /// The file name promises a format that the content does not have.
    #[error(
        "{} is named as {expected} but starts like {}: give --format, or the right file \
         (for VMware the small descriptor, not the -flat.vmdk)",
        path.display(), found.map_or("no known format", ImageFormat::as_str)
    )]
    NotAsNamed {
        /// The image.
        path: PathBuf,
        /// The format its extension means.
        expected: ImageFormat,
        /// The format its header claims, if any.
        found: Option<ImageFormat>,
    },
    /// `qemu-img info` printed something else than its JSON.
    #[error("the output of qemu-img info is not its JSON")]
    Info(#[from] serde_json::Error),
    /// A member of that JSON is missing or of the wrong type.
    #[error("the output of qemu-img info has no usable {member:?}")]
    InfoMember {
        /// The member's name.
        member: &'static str,
    },
    /// The image refers to something outside itself.
    #[error("{image} refers to {kind} {reference:?}: {remedy}", remedy = kind.remedy())]
    External {
        /// The image, as qemu-img names it.
        image: String,
        /// In what way.
        kind: ExternalKind,
        /// What it refers to.
        reference: String,
    },
}

/// The ways in which an image can refer to other files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalKind {
    /// A backing file (a base image, or a snapshot's parent).
    BackingFile,
    /// A qcow2 external data file.
    DataFile,
    /// A VMDK extent that is not in the descriptor's own folder.
    Extent,
    /// A symbolic link where an extent should be.
    Link,
    /// A `json:` or `protocol:` name, which makes qemu open any block device it can reach.
    Protocol,
}

impl ExternalKind {
    fn remedy(self) -> &'static str {
        match self {
            Self::BackingFile => "flatten it first, with `qemu-img convert`",
            Self::DataFile => "make it one file first, with `qemu-img convert`",
            Self::Extent => "put the extents beside the descriptor and name them without a path",
            Self::Link => "put the extent itself beside the descriptor",
            Self::Protocol => "only plain files are accepted; convert it to one first",
        }
    }
}

impl fmt::Display for ExternalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BackingFile => "the backing file",
            Self::DataFile => "the external data file",
            Self::Extent => "the extent",
            Self::Link => "the symbolic link",
            Self::Protocol => "the non-file",
        })
    }
}

/// The image formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// The guest's bytes, nothing else.
    Raw,
    /// qemu's own.
    Qcow2,
    /// VMware's.
    Vmdk,
    /// Hyper-V's, since 2012.
    Vhdx,
    /// Virtual PC's and older Hyper-V's, usually called VHD.
    Vpc,
    /// VirtualBox's.
    Vdi,
}

impl ImageFormat {
    /// The name that virt-v2v and qemu use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhdx => "vhdx",
            Self::Vpc => "vpc",
            Self::Vdi => "vdi",
        }
    }

    /// What the first bytes of an image claim. A claim, not a fact: see the module's text.
    pub(crate) fn claimed_by(header: &[u8]) -> Option<Self> {
        const MAGICS: [(&[u8], ImageFormat); 6] = [
            (b"QFI\xfb", ImageFormat::Qcow2),
            (b"KDMV", ImageFormat::Vmdk),
            (b"COWD", ImageFormat::Vmdk),
            (b"# Disk DescriptorFile", ImageFormat::Vmdk),
            (b"vhdxfile", ImageFormat::Vhdx),
            (b"conectix", ImageFormat::Vpc),
        ];
        let by_magic = MAGICS.iter().find(|(magic, _)| header.starts_with(magic));
        if let Some((_, format)) = by_magic {
            return Some(*format);
        }
        let is_vdi = header.get(VDI_MAGIC_AT..).is_some_and(|rest| rest.starts_with(VDI_MAGIC));
        is_vdi.then_some(Self::Vdi).or_else(|| starts_as_descriptor(header).then_some(Self::Vmdk))
    }

    /// What a file name claims.
    fn named_by(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "img" | "raw" | "bin" => Some(Self::Raw),
            "qcow2" | "qcow" => Some(Self::Qcow2),
            "vmdk" => Some(Self::Vmdk),
            "vhdx" => Some(Self::Vhdx),
            "vhd" | "vpc" => Some(Self::Vpc),
            "vdi" => Some(Self::Vdi),
            _ => None,
        }
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ImageFormat {
    type Err = ImageError;

    /// Accepts qemu's names, in any case, and `vhd` for `vpc`.
    fn from_str(name: &str) -> Result<Self, ImageError> {
        match name.to_ascii_lowercase().as_str() {
            "raw" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            "vmdk" => Ok(Self::Vmdk),
            "vhdx" => Ok(Self::Vhdx),
            "vpc" | "vhd" => Ok(Self::Vpc),
            "vdi" => Ok(Self::Vdi),
            _ => Err(ImageError::UnknownFormat { name: name.to_owned() }),
        }
    }
}

/// Where a VDI has its mark, behind a text that may be any.
const VDI_MAGIC_AT: usize = 64;
const VDI_MAGIC: &[u8] = b"\x7f\x10\xda\xbe";

/// What qemu takes for a VMDK descriptor without its usual first line: comments and blank lines, then
/// the version. A guest could begin its raw disk so, and name any file of ours as an extent.
fn starts_as_descriptor(header: &[u8]) -> bool {
    let lines = header.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    let mut lines = lines.skip_while(|line| line.is_empty() || line.starts_with(b"#"));
    lines.next().is_some_and(|line| line.starts_with(b"version="))
}

/// Formats that qemu would probe and that have backing files, but that nobody has guests in.
fn foreign(header: &[u8]) -> Option<&'static str> {
    header.starts_with(b"QED\0").then_some("qed")
}

/// The format that qemu would see in an image which is to be raw, if any.
pub fn claim(header: &[u8]) -> Option<&'static str> {
    ImageFormat::claimed_by(header).map(ImageFormat::as_str).or_else(|| foreign(header))
}

/// The format to open `path` with.
///
/// `explicit` is what the user said, and is final. `header` is the start of the image
/// ([`HEADER_LEN`] bytes, fewer if the image is shorter). The name of a block device says nothing,
/// so one is raw. A fixed VHD has its mark at the end only, so `.vhd` needs no magic.
pub fn decide_format(
    path: &Path,
    explicit: Option<ImageFormat>,
    header: &[u8],
    is_block_device: bool,
) -> Result<ImageFormat, ImageError> {
    if let Some(format) = explicit {
        return Ok(format);
    }
    let named = if is_block_device { None } else { ImageFormat::named_by(path) };
    if let Some(found) = foreign(header) {
        return Err(ImageError::Foreign { path: path.to_owned(), found });
    }
    match (named, ImageFormat::claimed_by(header)) {
        (None | Some(ImageFormat::Raw), None) => Ok(ImageFormat::Raw),
        (None | Some(ImageFormat::Raw), Some(found)) => {
            Err(ImageError::Ambiguous { path: path.to_owned(), found })
        }
        (Some(ImageFormat::Vpc), None) => Ok(ImageFormat::Vpc),
        (Some(expected), found) if found == Some(expected) => Ok(expected),
        (Some(expected), found) => {
            Err(ImageError::NotAsNamed { path: path.to_owned(), expected, found })
        }
    }
}

/// What `qemu-img info` says of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// The image, as given to qemu-img or as qemu describes it.
    pub filename: String,
    /// Format that qemu opened it with.
    pub format: String,
    /// Size in bytes as the guest sees it.
    pub virtual_size: u64,
    /// Bytes on disk, if qemu could tell.
    pub actual_size: Option<u64>,
    /// Backing file, as written in the image.
    pub backing_filename: Option<String>,
    /// The same as qemu would open it: relative names are taken from the image's folder.
    pub full_backing_filename: Option<String>,
    /// Format of the backing file, if the image says it. qemu probes it otherwise.
    pub backing_format: Option<String>,
    /// External data file of a qcow2.
    pub data_file: Option<String>,
    /// Files that a VMDK's descriptor refers to, the image itself included when it holds data.
    pub extents: Vec<String>,
    /// Whether the image format itself is encrypted.
    pub encrypted: bool,
}

impl ImageInfo {
    /// Reads what a run printed: stdout and stderr share a pipe, so warnings may stand before the JSON.
    pub fn from_output(text: &str) -> Result<Self, ImageError> {
        let start = text.find('{').unwrap_or(0);
        Self::parse(&text.as_bytes()[start..])
    }

    /// Reads the JSON of `qemu-img info --output=json -f FORMAT PATH`.
    ///
    /// Members that are not needed may be missing. One that is there with another type than
    /// expected is an error, so that a reference can not slip through unread.
    pub fn parse(json: &[u8]) -> Result<Self, ImageError> {
        let info: Value = serde_json::from_slice(json)?;
        let specific = &info["format-specific"]["data"];
        Ok(Self {
            filename: required(string(&info, "filename")?, "filename")?,
            format: required(string(&info, "format")?, "format")?,
            virtual_size: required(info["virtual-size"].as_u64(), "virtual-size")?,
            actual_size: info["actual-size"].as_u64(),
            backing_filename: match string(&info, "backing-filename")? {
                None => string(&info, "full-backing-filename")?,
                some => some,
            },
            full_backing_filename: string(&info, "full-backing-filename")?,
            backing_format: string(&info, "backing-filename-format")?,
            data_file: string(specific, "data-file")?,
            extents: extents(specific)?,
            encrypted: info["encrypted"].as_bool().unwrap_or(false),
        })
    }
}

fn required<T>(value: Option<T>, member: &'static str) -> Result<T, ImageError> {
    value.ok_or(ImageError::InfoMember { member })
}

fn string(of: &Value, member: &'static str) -> Result<Option<String>, ImageError> {
    match &of[member] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err(ImageError::InfoMember { member }),
    }
}

fn extents(specific: &Value) -> Result<Vec<String>, ImageError> {
    match &specific["extents"] {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => {
            list.iter().map(|extent| required(string(extent, "filename")?, "extents")).collect()
        }
        _ => Err(ImageError::InfoMember { member: "extents" }),
    }
}

/// Refuses an image that refers to anything but itself and, for a VMDK, files beside it.
///
/// With `allow_backing` a backing file, and an extent elsewhere, is accepted if it is a plain file.
/// The test is on names: whoever calls this still has to look at the backing file likewise, and to
/// make sure that the extents beside a VMDK are no symbolic links.
pub fn refuse_external(info: &ImageInfo, allow_backing: bool) -> Result<(), ImageError> {
    let refuse = |kind, reference: &str| {
        Err(ImageError::External {
            image: info.filename.clone(),
            kind,
            reference: reference.to_owned(),
        })
    };
    if has_protocol(&info.filename) {
        return refuse(ExternalKind::Protocol, &info.filename);
    }
    if let Some(file) = &info.data_file {
        return refuse(ExternalKind::DataFile, file);
    }
    if let Some(backing) = &info.backing_filename {
        if has_protocol(backing) {
            return refuse(ExternalKind::Protocol, backing);
        }
        if !allow_backing {
            return refuse(ExternalKind::BackingFile, backing);
        }
    }
    if let Some(extent) = info.extents.iter().find(|extent| has_protocol(extent)) {
        return refuse(ExternalKind::Protocol, extent);
    }
    match info.extents.iter().find(|extent| !allow_backing && !is_beside(&info.filename, extent)) {
        Some(extent) => refuse(ExternalKind::Extent, extent),
        None => Ok(()),
    }
}

/// qemu's own rule (`path_has_protocol`): a colon before the first slash.
pub(super) fn has_protocol(name: &str) -> bool {
    name.split('/').next().is_some_and(|first| first.contains(':'))
}

/// Whether `extent` lies in the same folder as `image`, by name.
fn is_beside(image: &str, extent: &str) -> bool {
    let (image, extent) = (Path::new(image), Path::new(extent));
    !has_protocol(&extent.to_string_lossy())
        && !extent.components().any(|part| part == Component::ParentDir)
        && extent.file_name().is_some()
        && extent.parent() == image.parent()
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
