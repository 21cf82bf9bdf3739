//! The disks of a guest of a libvirt that is neither VMware's nor Xen's (`qemu:///system`, `test:///…`): virt-v2v opens
//! them as files of this machine. They must be known beforehand, or a target could be one of them.

use super::MOST_DISKS;
use crate::failure::{Class, Failure};
use crate::guest::domain_disks::{disk_paths, is_named, parse_disks};
use crate::sources::measure::{Image, measure_all};
use crate::toolbox::Toolbox;
use crate::vsphere::virsh;
use std::path::{Path, PathBuf};
use std::time::Duration;
use v2v_args::disk_link_name;

/// It is on this machine, as a rule.
const LIMIT: Duration = Duration::from_secs(60);

/// What is known of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Disks {
    /// Of each disk; 0 is not known. `None` when it is not even known how many there are.
    pub sizes: Option<Vec<u64>>,
    /// All files that they are read from, as far as they can be told.
    pub files: Vec<PathBuf>,
}

/// Asks libvirt. It needs no answer: virt-v2v asks for itself, maybe with a password that it has.
pub async fn disks(toolbox: &Toolbox, url: &str, guest: &str) -> Disks {
    let args = ["-c", url, "--readonly", "dumpxml", "--domain", guest];
    let said = match toolbox.ask("virsh", &args, LIMIT).await {
        Some((status, said)) if status.success() => said,
        answer => {
            let text = answer.map_or_else(|| "no answer".to_owned(), |(_, text)| text);
            tracing::info!("virsh does not describe the guest {guest}: {}", text.trim());
            return Disks::default();
        }
    };
    let xml = virsh::document(&said);
    if !is_named(xml, guest) {
        // A number is a running guest's for virsh, and a name for virt-v2v.
        return Disks::default();
    }
    let disks = match parse_disks(xml) {
        Ok(disks) => disks,
        Err(e) => {
            tracing::info!("the disks of the guest {guest} are not known beforehand: {e}");
            return Disks { sizes: None, files: disk_paths(xml) };
        }
    };
    let mut sizes = Vec::new();
    let mut files = disk_paths(xml);
    for disk in disks {
        files.push(disk.path.clone());
        let image = Image { path: disk.path, format: disk.format };
        // Only to learn what it is read from: virt-v2v has the last word on what it can read.
        match measure_all(toolbox, &[image], true).await {
            Ok(measured) => {
                sizes.extend(measured.iter().map(|m| m.size));
                files.extend(measured.into_iter().flat_map(|m| m.files));
            }
            Err(e) => {
                tracing::info!("a disk of the guest {guest} was not measured: {e}");
                sizes.push(0);
            }
        }
    }
    Disks { sizes: Some(sizes), files }
}

/// The failure for a file that virt-v2v would write over, in a folder that may be the source's.
pub fn in_the_way(folder: &Path, name: &str) -> Option<Failure> {
    let names = (0..MOST_DISKS).map(|i| folder.join(disk_link_name(name, i)));
    let there = names.into_iter().find(|path| path.symlink_metadata().is_ok())?;
    let message = format!(
        "{} exists already, and it is not known whether it is a disk of the source",
        there.display()
    );
    Some(
        Failure::new(Class::Config, message)
            .advise("name another folder with --to, or another guest with --name; or remove the file if it is not needed"),
    )
}

#[cfg(test)]
#[path = "libvirt_tests.rs"]
mod tests;
