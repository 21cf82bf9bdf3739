//! OVAs as sources: what virt-v2v reads, made from an OVA of any form, here or on a web server.
//!
//! A plain OVA goes to virt-v2v as it is, after the checks. For any other, virt-v2v gets a folder of ours: the same
//! description, whose disks are qcow2 overlays over the bytes where they are (in the archive, or on the server), so that
//! nothing is copied twice. Only what is compressed or in pieces is unpacked first. Nothing is written beside the OVA.

mod answer;
mod disk;
mod error;
mod find;
pub mod manifest;
pub mod names;
mod nbdkit;
pub mod ovf;
mod package;
pub mod place;
mod ranges;
pub mod tar;
mod unpack;
mod url;
mod verify;

pub use place::{Place, PlaceError, Verify, Wanted};
pub use url::Login;

use self::url::Remote;
use crate::failure::{Class, Failure};
use crate::preflight::Report;
use crate::sources::answer::{self as told, Answer};
use crate::toolbox::Toolbox;
use disk::Disk;
use error::OvaError;
use names::Name;
use nbdkit::Nbdkit;
use package::{HEAD_BYTES, Package, Piece, Store};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tar::BLOCK;
use unpack::Room;

const CHECK: &str = "source";

/// An OVA that virt-v2v can read now.
#[derive(Debug)]
pub struct Source {
    /// For `-i ova`.
    pub path: PathBuf,
    /// Files of this machine that the disks are in.
    pub files: Vec<PathBuf>,
    /// Of the disks in bytes, in order.
    pub sizes: Vec<u64>,
    /// What the OVA calls the guest.
    pub name: Option<String>,
    /// `file`, `http` or `https`.
    pub transport: &'static str,
    /// `ca`, `thumbprint`, `insecure` or `none`; empty for a local one.
    pub trust: &'static str,
    /// For the result.
    pub warnings: Vec<String>,
    /// They serve the disks while virt-v2v reads them.
    _servers: Vec<Nbdkit>,
}

/// Opens an OVA: finds its files, verifies them, measures its disks. Writes only into `run`.
pub async fn open(
    wanted: &Wanted,
    login: &Login,
    toolbox: &Toolbox,
    run: &Path,
    report: &mut Report,
) -> Result<Source, Failure> {
    work(wanted, login, toolbox, run, report).await?.open(wanted, report).await
}

/// What an OVA has, and no more: nothing is verified that is only verified, and nothing made for virt-v2v. What is packed
/// is unpacked for it, though, into `run`.
pub async fn look(
    wanted: &Wanted,
    login: &Login,
    toolbox: &Toolbox,
    run: &Path,
    report: &mut Report,
) -> Result<Answer, Failure> {
    work(wanted, login, toolbox, run, report).await?.look(wanted, report).await
}

async fn work<'a>(
    wanted: &Wanted,
    login: &Login,
    toolbox: &'a Toolbox,
    run: &Path,
    report: &mut Report,
) -> Result<Work<'a>, Failure> {
    let dir = run.join("ova");
    fs::create_dir_all(&dir)
        .map_err(|source| OvaError::Write { what: dir.display().to_string(), source })?;
    let remote = match &wanted.place {
        Place::Local(_) => None,
        Place::Url(url) => {
            let at = (toolbox, dir.as_path());
            Some(Remote::admit(url, login, wanted.trust, wanted.thumbprint, at, report).await?)
        }
    };
    let cancel = Cancel::default();
    Ok(Work { toolbox, dir, remote, cancelled: Arc::clone(&cancel.0), _cancel: cancel })
}

/// What still runs on another thread ends soon after this is dropped.
#[derive(Debug, Default)]
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Work<'a> {
    toolbox: &'a Toolbox,
    dir: PathBuf,
    remote: Option<Remote>,
    cancelled: Arc<AtomicBool>,
    _cancel: Cancel,
}

/// An OVA whose files are known and here, as far as they have to be.
struct Opened {
    package: Package,
    /// Of each disk.
    files: Vec<Vec<Name>>,
    /// Where virt-v2v may read it by itself, if its disks are such.
    path: Option<PathBuf>,
}

impl Work<'_> {
    async fn look(&self, wanted: &Wanted, report: &mut Report) -> Result<Answer, Failure> {
        let Opened { package, files, .. } = self.package(wanted, report).await?;
        let disks = self.disks(&package, &files).await?;
        let (images, _servers) = self.serve(disks).await?;
        let sizes = self.sizes(&package, &images, report).await?;
        let disk =
            |(bytes, disk): (u64, &ovf::Disk)| told::Disk { bytes, name: Some(disk.href.clone()) };
        let disks = sizes.into_iter().zip(&package.ovf.disks).map(disk).collect();
        Ok(Answer { name: package.ovf.name, uuid: None, disks, nics: package.ovf.nics })
    }

    async fn open(&self, wanted: &Wanted, report: &mut Report) -> Result<Source, Failure> {
        let Opened { package, files, path } = self.package(wanted, report).await?;
        // Which disks virt-v2v may read by itself is known only when they are measured, but verifying comes first.
        let disks = self.disks(&package, &files).await?;
        let path = path.filter(|_| disks.iter().all(Disk::is_plain_vmdk));
        self.verify(&package, &files, wanted.verify, path.is_some(), report).await?;
        let files = disks.iter().filter_map(|d| match &d.piece.store {
            Store::File(path) => Some(path.clone()),
            Store::Url(_) => None,
        });
        let files = files.collect();
        let (images, servers) = self.serve(disks).await?;
        let sizes = self.sizes(&package, &images, report).await?;
        let path = match path {
            Some(path) => path,
            None => disk::folder(self.toolbox, &self.dir, &package.ovf, &images, &sizes).await?,
        };
        report.ok(CHECK, format!("{}: {} disk(s)", package.contents.shown, sizes.len()));
        Ok(Source {
            path,
            files,
            sizes,
            name: package.ovf.name,
            transport: wanted.place.transport(),
            trust: self.remote.as_ref().map_or("", |r| r.trust),
            warnings: self.remote.iter().flat_map(|r| r.warnings.clone()).collect(),
            _servers: servers,
        })
    }

    async fn package(&self, wanted: &Wanted, report: &mut Report) -> Result<Opened, Failure> {
        let found = match &wanted.place {
            Place::Local(path) => self.find(path).await?,
            Place::Url(url) => self.find_at(url).await?,
        };
        for note in &found.notes {
            report.note(CHECK, note.as_str(), "see whether the OVA is complete on the server");
        }
        let ovf_name = found.contents.ovf(found.chosen.as_ref())?;
        let ovf = self.small(&found.contents, &ovf_name).await?;
        let mut manifests = Vec::new();
        let all_manifests = found.contents.manifests(found.chosen.as_ref());
        let unwanted = wanted.verify == Verify::Never && !all_manifests.is_empty();
        for name in all_manifests.into_iter().filter(|_| !unwanted) {
            manifests.push((name.clone(), self.small(&found.contents, &name).await?));
        }
        let mut package = Package::new(found.contents, ovf_name, &ovf, &manifests)?;
        let files = package.disk_files()?;
        package.check_sizes(&files)?;
        for name in files.iter().zip(&package.ovf.disks).filter(|(f, d)| d.gzip || f.len() > 1) {
            for file in name.0 {
                self.bring(&mut package.contents, file).await?;
            }
        }
        let whole = files.iter().zip(&package.ovf.disks).all(|(files, disk)| {
            let href = package.ovf_name.sibling(&disk.href).ok();
            !disk.gzip && matches!(files.as_slice(), [one] if Some(one) == href.as_ref())
        });
        let only = package.contents.ovf(None).is_ok();
        let path = found.path.filter(|_| package.contents.plain && whole && only && !unwanted);
        Ok(Opened { package, files, path })
    }

    /// Of the disks in bytes; they must be what the description says.
    async fn sizes(
        &self,
        package: &Package,
        images: &[disk::Image],
        report: &mut Report,
    ) -> Result<Vec<u64>, Failure> {
        let mut sizes = Vec::new();
        for image in images {
            sizes.push(image.measure(self.toolbox).await?);
        }
        compare(package, images, &sizes, report)?;
        Ok(sizes)
    }

    /// The disks as files of their own bytes: those that are compressed or in pieces are put together here.
    async fn disks(&self, package: &Package, files: &[Vec<Name>]) -> Result<Vec<Disk>, Failure> {
        let mut disks = Vec::new();
        for (index, (disk, names)) in package.ovf.disks.iter().zip(files).enumerate() {
            let mut pieces = Vec::new();
            for name in names {
                pieces.extend(package.contents.get(name)?.cloned());
            }
            let name = names.first().map_or_else(|| disk.href.clone(), Name::to_string);
            let piece = match pieces.as_slice() {
                [one] if !disk.gzip => one.clone(),
                _ => {
                    let into = self.dir.join(format!("unpacked-disk{index}"));
                    self.put_together(&name, disk, pieces, into).await?
                }
            };
            let head = self.read(&piece, HEAD_BYTES).await?;
            disks.push(Disk::new(&name, disk, piece, &head)?);
        }
        Ok(disks)
    }

    async fn put_together(
        &self,
        name: &str,
        disk: &ovf::Disk,
        pieces: Vec<Piece>,
        into: PathBuf,
    ) -> Result<Piece, Failure> {
        let mut room = Room::of(&self.dir, Arc::clone(&self.cancelled));
        let (what, gzip, capacity) = (name.to_owned(), disk.gzip, disk.capacity);
        let packed: u64 = pieces.iter().map(|p| p.size).sum();
        tracing::info!(file = name, "unpacking the disk");
        let file = into.clone();
        blocking(move || unpack::disk(&what, pieces, gzip, &file, capacity, &mut room)).await?;
        let meta = fs::metadata(&into);
        let bytes = meta.map_err(|source| OvaError::Read { what: name.to_owned(), source })?.len();
        let most = bytes.max(packed);
        if let Some(expected) = disk.size.filter(|expected| most < *expected) {
            return Err(OvaError::Short { file: name.to_owned(), bytes: most, expected }.into());
        }
        Ok(Piece::file(into, bytes))
    }

    async fn verify(
        &self,
        package: &Package,
        files: &[Vec<Name>],
        verify: Verify,
        virt_v2v: bool,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let remote = self.remote.as_ref();
        let result = verify::all(package, files, verify, virt_v2v, remote, &self.cancelled).await?;
        if !result.absent.is_empty() {
            let files = result.absent.join(", ");
            let message =
                format!("the manifest has checksums of files that are not there: {files}");
            report.note(CHECK, message, "see whether the OVA is complete");
        }
        if !result.unread.is_empty() {
            let files = result.unread.join(", ");
            let message =
                format!("not compared with the manifest, since they are read in place: {files}");
            report.note(
                CHECK,
                message,
                "set V2V_ovaVerify=always (--ova-verify always) to have them read for it once more",
            );
        }
        if result.right + result.left > 0 {
            let (right, left) = (result.right, result.left);
            report.ok(
                CHECK,
                format!("{right} checksum(s) of the manifest are right, {left} left to virt-v2v"),
            );
        }
        Ok(())
    }

    /// Makes every disk one that qemu can open.
    async fn serve(&self, disks: Vec<Disk>) -> Result<(Vec<disk::Image>, Vec<Nbdkit>), Failure> {
        let (mut images, mut servers) = (Vec::new(), Vec::<Nbdkit>::new());
        let mut sockets: BTreeMap<::url::Url, PathBuf> = BTreeMap::new();
        for disk in disks {
            let Store::Url(url) = &disk.piece.store else {
                images.push(disk.at(None));
                continue;
            };
            let socket = if let Some(socket) = sockets.get(url) {
                socket.clone()
            } else {
                let socket = self.dir.join(format!("url{}.sock", servers.len()));
                let remote = self.remote()?;
                servers.push(Nbdkit::start(self.toolbox, remote.plugin(url), &socket).await?);
                let size = nbdkit::size(self.toolbox, &socket).await?;
                // qemu counts in sectors.
                let known = remote.known_size(url).map(|s| s.next_multiple_of(BLOCK));
                if known.is_some_and(|known| known != size) {
                    return Err(Remote::changed(url));
                }
                sockets.insert(url.clone(), socket.clone());
                socket
            };
            images.push(disk.at(Some(socket)));
        }
        Ok((images, servers))
    }

    fn remote(&self) -> Result<&Remote, Failure> {
        let none = || Failure::new(Class::Internal, "a file on a server without a server");
        self.remote.as_ref().ok_or_else(none)
    }
}

/// The description may say something else than the disks. One without a format of its own has no other way to be whole.
fn compare(
    package: &Package,
    images: &[disk::Image],
    sizes: &[u64],
    report: &mut Report,
) -> Result<(), OvaError> {
    for ((disk, image), size) in package.ovf.disks.iter().zip(images).zip(sizes) {
        let Some(capacity) = disk.capacity.filter(|c| c != size) else { continue };
        if image.is_raw() && disk.lacks(*size) {
            let file = disk.href.clone();
            return Err(OvaError::Short { file, bytes: *size, expected: capacity });
        }
        let message =
            format!("the disk {} has {size} bytes, but the description says {capacity}", disk.href);
        report.note(CHECK, message, "the disk itself is believed");
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OvaError> + Send + 'static,
) -> Result<T, Failure> {
    let joined = tokio::task::spawn_blocking(work).await;
    Ok(joined.map_err(|e| Failure::new(Class::Internal, e.to_string()))??)
}
