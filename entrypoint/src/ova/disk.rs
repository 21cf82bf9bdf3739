//! A disk of an OVA: its format, which it may not choose itself; its size; and what of it qemu is to open.

use super::error::OvaError;
use super::ovf::{self, Ovf};
use super::package::{Piece, Store};
use super::tar::BLOCK;
use crate::failure::{Class, Failure};
use crate::guest::image::{ImageError, ImageFormat, ImageInfo, decide_format, refuse_external};
use crate::toolbox::Toolbox;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Over a slow network a few requests are needed.
const LIMIT: Duration = Duration::from_secs(300);

/// Whether a VMDK holds its data itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vmdk {
    /// `streamOptimized` or `monolithicSparse`.
    Sparse,
    /// Its data is in other files.
    Descriptor,
}

/// A disk and where it is.
#[derive(Debug, Clone)]
pub struct Disk {
    name: String,
    /// Its bytes.
    pub piece: Piece,
    format: ImageFormat,
    vmdk: Option<Vmdk>,
}

/// One that qemu can open.
#[derive(Debug, Clone)]
pub struct Image {
    disk: Disk,
    socket: Option<PathBuf>,
}

impl Disk {
    /// Decides the format by what the description or the name says; the first bytes have to agree.
    pub fn new(
        name: &str,
        described: &ovf::Disk,
        piece: Piece,
        head: &[u8],
    ) -> Result<Self, OvaError> {
        let file = name.to_owned();
        let vmdk = vmdk(head);
        let format = match (described.format, vmdk) {
            (Some(ImageFormat::Vmdk), Some(_)) => ImageFormat::Vmdk,
            (Some(ImageFormat::Vmdk), None) => {
                let reason =
                    "the description says that it is a VMDK, but it does not begin like one";
                return Err(OvaError::Disk { file, reason: reason.to_owned() });
            }
            _ => {
                // `disk.vmdk.000000001` and `disk.vmdk.gz` are named by what is before.
                let mut path = PathBuf::from(name);
                let is_packing = |p: &PathBuf| {
                    let extension = p.extension().unwrap_or_default().to_string_lossy();
                    extension == "gz"
                        || extension.bytes().all(|b| b.is_ascii_digit()) && !extension.is_empty()
                };
                while is_packing(&path) {
                    path.set_extension("");
                }
                decide_format(&path, described.format, head, false)
                    .map_err(|source| OvaError::Image { file: file.clone(), source })?
            }
        };
        // What is no image of its own is a text that names others, however it begins.
        let vmdk = (format == ImageFormat::Vmdk).then(|| vmdk.unwrap_or(Vmdk::Descriptor));
        let packed = described.gzip || described.chunked;
        let alone = piece.whole && matches!(piece.store, Store::File(_)) && !packed;
        if vmdk == Some(Vmdk::Descriptor) && !alone {
            let reason = "it only names other files that have the data; an OVA has its disks in one file each";
            return Err(OvaError::Disk { file, reason: reason.to_owned() });
        }
        Ok(Self { name: file, piece, format, vmdk })
    }

    /// Whether virt-v2v, which lets qemu look for the format, comes to the same conclusion.
    pub fn is_plain_vmdk(&self) -> bool {
        self.vmdk.is_some()
    }

    /// The image, served on this socket if it is not local.
    pub fn at(self, socket: Option<PathBuf>) -> Image {
        Image { disk: self, socket }
    }
}

/// By qemu's own rule: a header without a size is one of a descriptor, and so is a text with a version.
fn vmdk(head: &[u8]) -> Option<Vmdk> {
    if head.starts_with(b"COWD") {
        return Some(Vmdk::Sparse);
    }
    if let Some(rest) = head.strip_prefix(b"KDMV") {
        let capacity = rest.get(8..16)?;
        return Some(if capacity == [0; 8] { Vmdk::Descriptor } else { Vmdk::Sparse });
    }
    (ImageFormat::claimed_by(head) == Some(ImageFormat::Vmdk)).then_some(Vmdk::Descriptor)
}

/// Whether an extent that qemu found is the image itself: by its name, or as the `file` below the image's format.
fn is_itself(image: &str, extent: &str) -> bool {
    let layers = |name: &str| serde_json::from_str::<Value>(name.strip_prefix("json:")?).ok();
    image == extent
        || layers(image).is_some_and(|image| layers(extent).is_some_and(|e| image["file"] == e))
}

impl Image {
    /// For qemu: the image format over the bytes, each layer named, so that nothing is left to be guessed.
    fn layers(&self) -> Value {
        let piece = &self.disk.piece;
        let base = match (&piece.store, &self.socket) {
            (_, Some(socket)) => json!({
                "driver": "nbd", "export": "",
                "server": {"type": "unix", "path": socket.to_string_lossy()},
            }),
            (Store::File(path), None) => {
                json!({"driver": "file", "filename": path.to_string_lossy()})
            }
            (Store::Url(_), None) => Value::Null,
        };
        let file = if piece.whole {
            base
        } else {
            // What is behind the last byte is padding in a tar archive.
            let size = piece.size.next_multiple_of(BLOCK);
            json!({"driver": "raw", "offset": piece.offset, "size": size, "file": base})
        };
        json!({"driver": self.disk.format.as_str(), "file": file})
    }

    /// It is nothing but the bytes that the guest sees.
    pub fn is_raw(&self) -> bool {
        self.disk.format == ImageFormat::Raw
    }

    /// The size as the guest sees it. An image that refers to other files is refused.
    pub async fn measure(&self, toolbox: &Toolbox) -> Result<u64, Failure> {
        let descriptor = self.disk.vmdk == Some(Vmdk::Descriptor);
        let image = match &self.disk.piece.store {
            Store::File(path) if descriptor => path.to_string_lossy().into_owned(),
            _ => format!("json:{}", self.layers()),
        };
        let mut args = vec!["info", "--output=json"];
        if descriptor {
            args.extend(["-f", "vmdk"]);
        }
        args.push(&image);
        let file = || self.disk.name.clone();
        let (status, text) = ask(toolbox, &args).await?;
        if !status.success() {
            let reason = format!("it cannot be read as {}: {}", self.disk.format, text.trim());
            return Err(OvaError::Disk { file: file(), reason }.into());
        }
        let refused = |source| OvaError::Image { file: file(), source };
        let info = ImageInfo::from_output(&text).map_err(refused)?;
        if descriptor {
            refuse_external(&info, false).map_err(refused)?;
            let is_file = |e: &String| fs::symlink_metadata(e).is_ok_and(|m| m.is_file());
            if let Some(extent) = info.extents.iter().find(|e| !is_file(e)) {
                let reason = format!("its extent {extent} is no file");
                return Err(OvaError::Disk { file: file(), reason }.into());
            }
        } else if let Some(other) = info.backing_filename.as_ref().or(info.data_file.as_ref()) {
            let kind = crate::guest::image::ExternalKind::BackingFile;
            let (image, reference) = (file(), other.clone());
            return Err(refused(ImageError::External { image, kind, reference }).into());
        } else if let Some(other) = info.extents.iter().find(|e| !is_itself(&info.filename, e)) {
            let kind = crate::guest::image::ExternalKind::Extent;
            let (image, reference) = (file(), other.clone());
            return Err(refused(ImageError::External { image, kind, reference }).into());
        }
        Ok(info.virtual_size)
    }
}

/// Makes a folder with the description and an overlay over each image.
pub async fn folder(
    toolbox: &Toolbox,
    dir: &Path,
    ovf: &Ovf,
    images: &[Image],
    sizes: &[u64],
) -> Result<PathBuf, Failure> {
    let folder = dir.join("for-virt-v2v");
    let written =
        |what: &Path, source| OvaError::Write { what: what.display().to_string(), source };
    fs::create_dir_all(&folder).map_err(|e| written(&folder, e))?;
    let names: Vec<String> = (0..images.len()).map(|i| format!("disk{i}.qcow2")).collect();
    for ((image, size), name) in images.iter().zip(sizes).zip(&names) {
        let overlay = folder.join(name).to_string_lossy().into_owned();
        let (backing, size) = (format!("json:{}", image.layers()), size.to_string());
        let format = image.disk.format.as_str();
        let args =
            ["create", "-q", "-u", "-f", "qcow2", "-F", format, "-b", &backing, &overlay, &size];
        let (status, text) = ask(toolbox, &args).await?;
        if !status.success() {
            let message = format!("no overlay for the disk {}: {}", image.disk.name, text.trim());
            return Err(Failure::new(Class::Io, message));
        }
    }
    let description = folder.join("guest.ovf");
    fs::write(&description, ovf.pointing_at(&names)).map_err(|e| written(&description, e))?;
    Ok(folder)
}

async fn ask(
    toolbox: &Toolbox,
    args: &[&str],
) -> Result<(std::process::ExitStatus, String), Failure> {
    let missing = || Failure::new(Class::Tool, "qemu-img is not installed or does not answer");
    toolbox.ask("qemu-img", args, LIMIT).await.ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, head: &[u8], whole: bool) -> Result<Disk, OvaError> {
        let mut described =
            Ovf::parse(ovf::tests::ovf(&[("d", "")]).as_bytes()).unwrap().disks.remove(0);
        if !name.contains("vmdk") {
            described.format = None;
        }
        let piece = Piece { offset: 512, size: 700, whole, ..Piece::file("/ova/x.ova".into(), 0) };
        Disk::new(name, &described, piece, head)
    }

    fn sparse() -> Vec<u8> {
        let mut head = b"KDMV\x03\0\0\0\0\0\0\0".to_vec();
        head.extend([9, 0, 0, 0, 0, 0, 0, 0]);
        head
    }

    #[test]
    fn a_disk_does_not_choose_its_format() {
        assert!(disk("d.vmdk", &sparse(), false).unwrap().is_plain_vmdk());
        let e = disk("d.vmdk", b"QFI\xfb", false).unwrap_err().to_string();
        assert!(e.contains("does not begin like one"), "{e}");
        assert!(disk("d.img", b"QFI\xfb", false).is_err());
        assert_eq!(disk("d.img", b"\xeb\x63", false).unwrap().format, ImageFormat::Raw);
        assert!(!disk("d.qcow2.000000001", b"QFI\xfb", false).unwrap().is_plain_vmdk());
    }

    #[test]
    fn a_descriptor_is_no_disk_of_an_archive() {
        let empty_header = [&b"KDMV"[..], &[0; 60]].concat();
        for head in [
            &b"# Disk DescriptorFile\n"[..],
            &empty_header,
            b"version=1\n",
            b"\n# note\r\n \nversion=1\n",
        ] {
            let e = disk("d.vmdk", head, false).unwrap_err().to_string();
            assert!(e.contains("only names other files"), "{e}");
            assert!(disk("d.vmdk", head, true).is_ok());
        }
    }

    #[test]
    fn an_extent_is_the_image_itself_or_another_file() {
        assert!(is_itself("/ova/d.vmdk", "/ova/d.vmdk"));
        let image = r#"json:{"driver":"vmdk","file":{"driver":"raw","offset":512,"file":"x"}}"#;
        assert!(is_itself(image, r#"json:{"offset":512,"file":"x","driver":"raw"}"#));
        for other in ["/etc/secret/secretKey", r#"json:{"driver":"file","filename":"/etc/x"}"#] {
            assert!(!is_itself(image, other) && !is_itself("/ova/d.vmdk", other), "{other}");
        }
    }

    #[test]
    fn qemu_is_told_every_layer() {
        let image = disk("d.vmdk", &sparse(), false).unwrap().at(Some("/run/s".into()));
        let expected = json!({"driver": "vmdk", "file": {"driver": "raw", "offset": 512, "size": 1024,
            "file": {"driver": "nbd", "export": "", "server": {"type": "unix", "path": "/run/s"}}}});
        assert_eq!(image.layers(), expected);
        let image = disk("d.vmdk", &sparse(), true).unwrap().at(None);
        let expected =
            json!({"driver": "vmdk", "file": {"driver": "file", "filename": "/ova/x.ova"}});
        assert_eq!(image.layers(), expected);
    }
}
