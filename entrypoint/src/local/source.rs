//! The source of `convert`: what it is, how large its disks are, and whether the targets fit.

use super::Opened;
use super::targets::{Targets, absolute, targets};
use super::{guest_name, libvirt};
use crate::cli::{ConvertArgs, InputKind};
use crate::disks::{DiskMap, Pv};
use crate::failure::{Class, Failure};
use crate::guest::disks_domain::disks_domain;
use crate::guest::domain_disks::parse_disks;
use crate::guest::domain_xml::{DiskLink, DomainXmlError, point_disks};
use crate::preflight::Report;
use crate::sources::measure::{Image, Measured, common_format, measure_all};
use crate::toolbox::Toolbox;
use crate::volumes::{self, Volumes};
use crate::vsphere::access;
use crate::xen::url::XenUrl;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use v2v_args::{Input, disk_link_name};

/// A source as far as it is known before virt-v2v opens it.
struct Found {
    input: Input,
    /// Of each disk, where they can be had now. 0 is not known.
    sizes: Option<Vec<u64>>,
    /// All files that it is read from, as far as they are known.
    files: Vec<PathBuf>,
}

/// Source and volumes, checked against each other; problems go into the report. The folder is set
/// when the number of disks is not known before virt-v2v has opened the source.
pub async fn prepare(
    args: &ConvertArgs,
    toolbox: &Toolbox,
    opened: Opened<'_>,
    run_dir: &Path,
    report: &mut Report,
) -> Option<(Input, Volumes, Option<PathBuf>)> {
    let mut fail = |failure: Failure| {
        report.problem("source", failure);
        None
    };
    let Found { input, sizes, files } = match read(args, toolbox, opened, run_dir).await {
        Ok(source) => source,
        Err(failure) => return fail(failure),
    };
    let map = match targets(args) {
        Ok(Targets::Each(volumes)) => DiskMap::new(volumes),
        Ok(Targets::Folder(dir)) => {
            let Some(count) = sizes.as_ref().map(Vec::len) else {
                // Only virt-v2v will know how many there are; it writes into the folder itself, which may be the source's.
                let in_the_way = || libvirt::in_the_way(&dir, &guest_name(args));
                if let Some(failure) = local_url(args).and_then(|_| in_the_way()) {
                    return fail(failure);
                }
                let none = Volumes::open(DiskMap::new(Vec::new()), args.thin).await.ok()?;
                return Some((input, none, Some(dir)));
            };
            let name = guest_name(args);
            DiskMap::new((0..count).map(|i| Pv::File(dir.join(disk_link_name(&name, i)))).collect())
        }
        Err(failure) => return fail(failure),
    };
    let count = sizes.as_ref().map_or(map.len(), Vec::len);
    if count != map.len() {
        return fail(Failure::new(Class::Volume, map.count_error(count).to_string()));
    }
    if let Some(failure) = overwrites_source(&files, &map) {
        return fail(failure);
    }
    let opened = match Volumes::open(map, args.thin).await {
        Ok(opened) => opened,
        Err(problems) => return fail(volumes::failure(&problems)),
    };
    let problems = sizes.map(|s| opened.check_sizes(&s)).unwrap_or_default();
    if !problems.is_empty() {
        return fail(volumes::failure(&problems));
    }
    report.ok("volumes", opened.names().join(" "));
    Some((input, opened, None))
}

/// The failure for a target that is the source itself, or a part of it: virt-v2v would empty it first
/// of all.
fn overwrites_source(files: &[PathBuf], map: &DiskMap) -> Option<Failure> {
    let identity = |path: &Path| {
        let meta = fs::metadata(path).ok()?;
        Some(if meta.file_type().is_block_device() {
            (meta.rdev(), 0)
        } else {
            (meta.dev(), meta.ino())
        })
    };
    let is_source = |target: &Path| {
        identity(target).is_some_and(|t| files.iter().any(|s| identity(s) == Some(t)))
    };
    let target = map.volumes().iter().map(Pv::path).find(|t| is_source(t))?;
    let message = format!("target {} is the source itself", target.display());
    Some(
        Failure::new(Class::Config, message).advise("name another target: the source is only read"),
    )
}

async fn read(
    args: &ConvertArgs,
    toolbox: &Toolbox,
    (server, ova): Opened<'_>,
    run_dir: &Path,
) -> Result<Found, Failure> {
    match args.input {
        InputKind::Disk => read_disks(args, toolbox, run_dir).await,
        InputKind::Ova => Ok(ova.map_or_else(unknown, |ova| Found {
            input: Input::Ova(ova.path.clone()),
            sizes: Some(ova.sizes.clone()),
            files: ova.files.clone(),
        })),
        InputKind::Libvirtxml => read_domain(args, toolbox, run_dir).await,
        InputKind::Libvirt => {
            if args.libvirt_url.is_none() {
                return Err(Failure::new(Class::Config, "-i libvirt needs the URL of the source")
                    .advise("add -ic URL, e.g. -ic vpx://admin@vcenter/DC/esx1"));
            }
            let Some(server) = server else { return Ok(unknown()) };
            let input = Input::Libvirt(server.input(args, single(args)?));
            if let Some(url) = local_url(args) {
                let libvirt::Disks { sizes, files } =
                    libvirt::disks(toolbox, url, single(args)?).await;
                return Ok(Found { input, sizes, files });
            }
            // virt-v2v has the sizes of a vSphere guest first.
            let sizes = server.sizes().or_else(|| server.disks().map(|n| vec![0; n]));
            Ok(Found { input, sizes, files: Vec::new() })
        }
    }
}

/// The URL of a libvirt whose guests' disks virt-v2v takes for files of this machine.
fn local_url(args: &ConvertArgs) -> Option<&str> {
    let url = args.libvirt_url.as_deref().filter(|_| args.input == InputKind::Libvirt)?;
    (!XenUrl::is_one(url) && !access::is_for_vsphere(url)).then_some(url)
}

/// What is wrong with the source is in the report already.
fn unknown() -> Found {
    Found {
        input: Input::Disks { format: None, paths: Vec::new() },
        sizes: None,
        files: Vec::new(),
    }
}

/// The only source.
pub fn single(args: &ConvertArgs) -> Result<&str, Failure> {
    match args.sources.as_slice() {
        [one] => Ok(one),
        more => Err(Failure::new(
            Class::Config,
            format!("exactly one source is expected here, not {}: {}", more.len(), more.join(" ")),
        )),
    }
}

/// Images from the command line: `-i disk`, or a domain of ours when their formats differ.
async fn read_disks(
    args: &ConvertArgs,
    toolbox: &Toolbox,
    run_dir: &Path,
) -> Result<Found, Failure> {
    let image = |source: &String| {
        Ok::<_, Failure>(Image { path: absolute(Path::new(source))?, format: args.format })
    };
    let images = args.sources.iter().map(image).collect::<Result<Vec<_>, _>>()?;
    let measured = measure_all(toolbox, &images, args.allow_backing).await?;
    let input = if let Some(format) = common_format(&measured) {
        let paths = images.into_iter().map(|image| image.path).collect();
        Input::Disks { format: Some(format.as_str().to_owned()), paths }
    } else {
        let disks: Vec<_> = measured.iter().map(|m| (m.path.clone(), m.format)).collect();
        let xml = disks_domain(&disks).map_err(|e| unwritable(&e))?;
        Input::LibvirtXml(keep(run_dir, &xml)?)
    };
    Ok(found(input, measured))
}

fn found(input: Input, measured: Vec<Measured>) -> Found {
    let sizes = Some(measured.iter().map(|image| image.size).collect());
    Found { input, sizes, files: measured.into_iter().flat_map(|image| image.files).collect() }
}

/// More than any domain has.
const DOMAIN_BYTES: u64 = 4 << 20;
const NO_DISK: &str = "name the XML file, not a disk";

/// All of a regular file. A pipe would wait for its writer, and a device may have no end.
fn read_text(file: &Path) -> std::io::Result<String> {
    if !fs::metadata(file)?.is_file() {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    File::open(file)?.take(DOMAIN_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > DOMAIN_BYTES {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    String::from_utf8(bytes).map_err(|_| std::io::ErrorKind::InvalidData.into())
}

/// A domain file. virt-v2v gets a copy in which each disk has its format, since it would probe where
/// none is said, and an absolute path.
async fn read_domain(
    args: &ConvertArgs,
    toolbox: &Toolbox,
    run_dir: &Path,
) -> Result<Found, Failure> {
    let file = absolute(Path::new(single(args)?))?;
    let shown = file.display();
    let failed =
        |e: std::io::Error| Failure::new(Class::Io, format!("{shown} cannot be read: {e}"));
    let refused = |e: &dyn std::fmt::Display| Failure::new(Class::Config, format!("{shown}: {e}"));
    let xml = read_text(&file).map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => {
            refused(&"it is not UTF-8 text, so no domain XML").advise(NO_DISK)
        }
        std::io::ErrorKind::FileTooLarge => {
            refused(&"it is too large for a libvirt domain").advise(NO_DISK)
        }
        std::io::ErrorKind::InvalidInput => refused(&"it is no regular file").advise(NO_DISK),
        _ => failed(e),
    })?;
    let disks = parse_disks(&xml).map_err(|e| {
        refused(&e).advise(
            "virt-v2v reads a domain as `virsh dumpxml` writes it, with disks that are files or block \
             devices here; copy others to a file first, e.g. with `v2v-pod copy nbd://HOST/NAME FILE`",
        )
    })?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    let image = |disk: crate::guest::domain_disks::DomainDisk| {
        let path = absolute(&folder.join(disk.path))?;
        Ok::<_, Failure>(Image { path, format: disk.format.or(args.format) })
    };
    let images = disks.into_iter().map(image).collect::<Result<Vec<_>, _>>()?;
    let measured = measure_all(toolbox, &images, args.allow_backing).await?;
    let links: Vec<DiskLink> =
        measured.iter().map(|m| DiskLink { path: m.path.clone(), format: m.format }).collect();
    let xml = point_disks(&xml, &links).map_err(|e| refused(&e))?;
    let mut found = found(Input::LibvirtXml(keep(run_dir, &xml)?), measured);
    found.files.push(file);
    Ok(found)
}

/// The domain that virt-v2v reads, in the run's private folder.
fn keep(run_dir: &Path, xml: &str) -> Result<PathBuf, Failure> {
    let path = run_dir.join("domain.xml");
    fs::write(&path, xml).map_err(|e| {
        Failure::new(Class::NoSpace, format!("{} cannot be written: {e}", path.display()))
    })?;
    Ok(path)
}

fn unwritable(error: &DomainXmlError) -> Failure {
    Failure::new(Class::Config, error.to_string()).advise("rename the image")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_of_a_domains_size_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (file, pipe) = (dir.path().join("web.xml"), dir.path().join("pipe"));
        fs::write(&file, "<domain/>").unwrap();
        assert_eq!(read_text(&file).unwrap(), "<domain/>");
        fs::write(&file, b"\xff").unwrap();
        assert_eq!(read_text(&file).unwrap_err().kind(), std::io::ErrorKind::InvalidData);
        File::options().write(true).open(&file).unwrap().set_len(DOMAIN_BYTES + 1).unwrap();
        assert_eq!(read_text(&file).unwrap_err().kind(), std::io::ErrorKind::FileTooLarge);
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for no_file in [pipe.as_path(), Path::new("/dev/zero"), dir.path()] {
            assert_eq!(read_text(no_file).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
        }
    }
}
