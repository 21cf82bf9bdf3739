//! Local disk images as sources: format, size, and what they must not point at.
//!
//! Both modes call it in preflight. It only reads. What an image refers to (a backing file, the extents
//! of a VMDK) is looked at in the same way, down to the last file, before qemu is asked.

use super::extents::{check_vmdk, confirm};
use super::not_found;
use crate::failure::{Class, Failure};
use crate::guest::image::{
    HEADER_LEN, ImageError, ImageFormat, ImageInfo, claim, decide_format, refuse_external,
};
use crate::toolbox::Toolbox;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Reading a header takes milliseconds; a network file system may take longer.
const LIMIT: Duration = Duration::from_secs(60);

/// More than anybody stacks; a chain that is longer is a circle.
const LONGEST_CHAIN: usize = 200;

pub(super) const ADVICE: &str =
    "flatten the image with `qemu-img convert`, or allow it with --allow-backing if you trust it";

/// An image that is to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Absolute.
    pub path: PathBuf,
    /// What the user said.
    pub format: Option<ImageFormat>,
}

/// What an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// The image as given.
    pub path: PathBuf,
    /// What it is to be opened as.
    pub format: ImageFormat,
    /// Size in bytes as the guest sees it.
    pub size: u64,
    /// All files that it is read from: itself, its extents, its backing files.
    pub files: Vec<PathBuf>,
}

/// Measures images, in order; stops at the first that cannot be used.
pub async fn measure_all(
    toolbox: &Toolbox,
    images: &[Image],
    allow_backing: bool,
) -> Result<Vec<Measured>, Failure> {
    let mut measured = Vec::new();
    for image in images {
        measured.push(measure(toolbox, image, allow_backing).await?);
    }
    Ok(measured)
}

/// The format of all of them, if they have one and the same.
pub fn common_format(images: &[Measured]) -> Option<ImageFormat> {
    let first = images.first()?.format;
    images.iter().all(|image| image.format == first).then_some(first)
}

/// The failure for images of different formats, where only one can be given to virt-v2v.
pub fn require_one_format(images: &[Measured]) -> Result<(), Failure> {
    let Some(first) = images.first() else { return Ok(()) };
    let Some(other) = images.iter().find(|image| image.format != first.format) else {
        return Ok(());
    };
    let message = format!(
        "{} is {}, but {} is {}: one run of a pod converts images of one format",
        first.path.display(),
        first.format,
        other.path.display(),
        other.format
    );
    Err(Failure::new(Class::Config, message)
        .advise("convert them to one format first, e.g. with `qemu-img convert -O raw`"))
}

async fn measure(
    toolbox: &Toolbox,
    image: &Image,
    allow_backing: bool,
) -> Result<Measured, Failure> {
    let mut top: Option<(ImageFormat, u64)> = None;
    let (mut layers, mut files): (Vec<PathBuf>, Vec<PathBuf>) = (Vec::new(), Vec::new());
    let mut next = Some(image.clone());
    while let Some(layer) = next.take() {
        if layers.contains(&layer.path) || layers.len() > LONGEST_CHAIN {
            let message = format!(
                "the backing files of {} lead back to {}",
                image.path.display(),
                layer.path.display()
            );
            return Err(Failure::new(Class::Config, message).advise("repair the image"));
        }
        let (format, info, extents) = look(toolbox, &layer, allow_backing).await?;
        top.get_or_insert((format, info.virtual_size));
        layers.push(layer.path.clone());
        files.push(layer.path.clone());
        files.extend(extents);
        next = backing_of(&layer.path, &info)?;
    }
    let (format, size) = top.unwrap_or((ImageFormat::Raw, 0));
    Ok(Measured { path: image.path.clone(), format, size, files })
}

/// One file of a chain: its format, what qemu says of it, and its extents.
async fn look(
    toolbox: &Toolbox,
    image: &Image,
    allow_backing: bool,
) -> Result<(ImageFormat, ImageInfo, Vec<PathBuf>), Failure> {
    let path = image.path.as_path();
    let (header, is_block) = read_header(path)?;
    let format = decide_format(path, image.format, &header, is_block).map_err(|e| {
        // Without a known header it may just be empty; another format's header is a trap.
        let unknown = matches!(e, ImageError::NotAsNamed { found: None, .. });
        let class = if unknown { Class::Io } else { Class::Config };
        Failure::new(class, e.to_string()).advise("name the true format with --format")
    })?;
    let extents = match format {
        ImageFormat::Vmdk => check_vmdk(path, &header, allow_backing)?,
        ImageFormat::Vpc => no_differencing_vhd(path).map(|()| Vec::new())?,
        _ => Vec::new(),
    };
    let info = ask_qemu(toolbox, path, format).await?;
    refuse_external(&info, allow_backing)
        .map_err(|e| Failure::new(Class::Config, e.to_string()).advise(ADVICE))?;
    if format == ImageFormat::Vmdk {
        confirm(path, &extents, &info)?;
    }
    Ok((format, info, extents))
}

async fn ask_qemu(
    toolbox: &Toolbox,
    path: &Path,
    format: ImageFormat,
) -> Result<ImageInfo, Failure> {
    let shown = path.display();
    let name = path.to_str().ok_or_else(|| {
        let message = format!("the path of {shown} is not UTF-8");
        Failure::new(Class::Config, message).advise("rename it")
    })?;
    let args = ["info", "--output=json", "-f", format.as_str(), name];
    let (status, text) = toolbox.ask("qemu-img", &args, LIMIT).await.ok_or_else(|| {
        let message =
            format!("qemu-img is not installed or does not answer: {shown} cannot be measured");
        Failure::new(Class::Tool, message)
    })?;
    if !status.success() {
        let message = format!("{shown} cannot be read as {format}: {}", text.trim());
        return Err(Failure::new(Class::Io, message)
            .advise("check that the image is whole, and that this is its format"));
    }
    ImageInfo::from_output(&text).map_err(|e| Failure::new(Class::Io, format!("{shown}: {e}")))
}

/// The backing file, which [`refuse_external`] has let pass. Its format must be said in the image: qemu
/// would probe it, and with a raw one the guest would choose.
fn backing_of(image: &Path, info: &ImageInfo) -> Result<Option<Image>, Failure> {
    let Some(name) = info.full_backing_filename.as_ref().or(info.backing_filename.as_ref()) else {
        return Ok(None);
    };
    let folder = image.parent().unwrap_or(Path::new("/"));
    let path = folder.join(name);
    let shown = image.display();
    let Some(format) = &info.backing_format else {
        let message = format!("{shown} does not say which format its backing file {name} has");
        return Err(Failure::new(Class::Config, message).advise(format!(
            "write it into the image, if you trust it: `qemu-img rebase -u -b {name} -F FORMAT {shown}`, where \
             FORMAT is that of {name}; a wrong one gives a guest of garbage"
        )));
    };
    let format = format.parse::<ImageFormat>().map_err(|e| {
        Failure::new(Class::Config, format!("{shown} has the backing file {name}: {e}"))
    })?;
    if !path.exists() {
        let message = format!("the backing file of {shown} is missing: {}", not_found(&path));
        return Err(Failure::new(Class::NotFound, message)
            .advise("make it readable here under that path, or flatten the image"));
    }
    if format == ImageFormat::Raw {
        no_other_format(image, name, &path)?;
    }
    Ok(Some(Image { path, format: Some(format) }))
}

/// A raw base that starts like another format is more often one of that format than a guest's trick; with
/// the wrong format all of the guest would be garbage.
fn no_other_format(image: &Path, name: &str, base: &Path) -> Result<(), Failure> {
    let Some(found) = claim(&read_header(base)?.0) else { return Ok(()) };
    let shown = image.display();
    let message =
        format!("{shown} says that its backing file {name} is raw, but it starts like {found}");
    Err(Failure::new(Class::Config, message).advise(format!(
        "if it is {found}, say so: `qemu-img rebase -u -b {name} -F {found} {shown}`; if its guest wrote that, \
         flatten the image with `qemu-img convert`"
    )))
}

/// qemu reads a differencing VHD as if all that is in its parent were zeros.
fn no_differencing_vhd(path: &Path) -> Result<(), Failure> {
    const FOOTER: i64 = 512;
    const TYPE_AT: usize = 60;
    const DIFFERENCING: [u8; 4] = [0, 0, 0, 4];
    let failed = |e: std::io::Error| unreadable(path, &e);
    let mut file = File::open(path).map_err(failed)?;
    let mut footer = Vec::new();
    // A dynamic one has a copy of its footer at the beginning; the original may be damaged.
    for place in [SeekFrom::Start(0), SeekFrom::End(-FOOTER)] {
        footer.clear();
        if file.seek(place).is_err() {
            continue;
        }
        file.by_ref().take(FOOTER.unsigned_abs()).read_to_end(&mut footer).map_err(failed)?;
        let is_differencing = footer.starts_with(b"conectix")
            && footer.get(TYPE_AT..).is_some_and(|rest| rest.starts_with(&DIFFERENCING));
        if is_differencing {
            let message = format!(
                "{} is a differencing VHD: what is in its parent disk would be missing",
                path.display()
            );
            return Err(Failure::new(Class::Config, message)
                .advise("merge it into its parent first, with Hyper-V's Merge-VHD"));
        }
    }
    Ok(())
}

pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::NotFound => Failure::new(Class::NotFound, not_found(path))
            .advise("check the path of the source disk"),
        _ => Failure::new(Class::Io, format!("{} cannot be read: {error}", path.display())),
    }
}

pub(super) fn read_header(path: &Path) -> Result<(Vec<u8>, bool), Failure> {
    let failed = |e: std::io::Error| unreadable(path, &e);
    // Looked at before it is opened: a pipe would wait for its writer.
    let kind = std::fs::metadata(path).map_err(failed)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(Failure::new(
            Class::Config,
            format!("{} is neither a file nor a block device", path.display()),
        ));
    }
    let mut header = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(HEADER_LEN as u64).read_to_end(&mut header).map_err(failed)?;
    Ok((header, kind.is_block_device()))
}

#[cfg(test)]
#[path = "measure_tests.rs"]
mod tests;
