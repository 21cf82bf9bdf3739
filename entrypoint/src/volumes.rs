//! The volumes of a run, open and locked from preflight to the last fsync.

use crate::disks::{self, DiskError, DiskMap, OpenVolume};
use crate::failure::{Class, Failure};
use crate::links::{self, LinkError};
use std::fs;
use std::path::{Path, PathBuf};

/// All volumes, opened.
#[derive(Debug)]
pub struct Volumes {
    /// Which disk goes where.
    pub map: DiskMap,
    open: Vec<OpenVolume>,
    links: Vec<PathBuf>,
    thin: bool,
}

impl Volumes {
    /// Opens every volume; returns all problems, not just the first. With `thin` an image file may
    /// have a larger virtual size than its file system has room.
    pub async fn open(map: DiskMap, thin: bool) -> Result<Self, Vec<DiskError>> {
        let (mut open, mut problems) = (Vec::new(), Vec::new());
        for volume in map.volumes() {
            match disks::open(volume).await {
                Ok(volume) => open.push(volume),
                Err(e) => problems.push(e),
            }
        }
        if problems.is_empty() {
            Ok(Self { map, open, links: Vec::new(), thin })
        } else {
            Err(problems)
        }
    }

    /// Everything that is wrong for a source with disks of these sizes.
    pub fn check_sizes(&self, disks: &[u64]) -> Vec<DiskError> {
        let rooms = disks::rooms(&self.open, disks, self.thin);
        self.map.check_sizes(disks, &rooms)
    }

    /// Makes the links that lead virt-v2v here.
    pub fn link(&mut self, work: &Path, name: &str) -> Result<(), LinkError> {
        self.links = links::make(work, name, &self.map)?;
        Ok(())
    }

    /// The links in disk order.
    pub fn links(&self) -> &[PathBuf] {
        &self.links
    }

    /// Each link with the volume that it leads to, in disk order.
    pub fn links_and_targets(&self) -> Vec<(PathBuf, PathBuf)> {
        let targets = self.map.volumes().iter().map(|v| v.path().to_owned());
        self.links.iter().cloned().zip(targets).collect()
    }

    /// The failure for a disk that virt-v2v makes at a path that is none of the links.
    pub fn stray_disk(&self, path: &Path) -> Option<Failure> {
        let stray = !self.links.is_empty() && !self.links.iter().any(|l| l == path);
        stray.then(|| {
            let message =
                format!("virt-v2v writes a disk to {}, which leads to no volume", path.display());
            Failure::new(Class::Volume, message)
                .advise("the source names the guest differently: set V2V_NewName (or --name)")
        })
    }

    /// Makes the data durable and checks that it went where it should: nothing is reported done
    /// before this has succeeded, and a failed fsync is final.
    pub fn seal(&self) -> Result<(), Failure> {
        for (link, volume) in self.links.iter().zip(self.map.volumes()) {
            if fs::read_link(link).ok().as_deref() != Some(volume.path()) {
                let message = format!(
                    "{} no longer leads to {}: the disk was written elsewhere",
                    link.display(),
                    volume.path().display()
                );
                return Err(Failure::new(Class::Io, message));
            }
        }
        self.sync()
    }

    /// Makes everything that was written durable.
    pub fn sync(&self) -> Result<(), Failure> {
        for (open, volume) in self.open.iter().zip(self.map.volumes()) {
            open.sync().map_err(|e| {
                let message = format!("fsync of {} failed: {e}", volume.path().display());
                Failure::new(Class::Io, message)
            })?;
        }
        Ok(())
    }

    /// The volumes by name, for people.
    pub fn names(&self) -> Vec<String> {
        self.map.volumes().iter().map(|v| v.path().display().to_string()).collect()
    }
}

impl Drop for Volumes {
    /// An image that we made and that nobody wrote to is taken away again.
    fn drop(&mut self) {
        for (open, volume) in self.open.iter().zip(self.map.volumes()) {
            if open.made_for_nothing() {
                // It may be in use by now, or the volume gone: then it stays.
                let _ = fs::remove_file(volume.path());
            }
        }
    }
}

/// One failure out of several problems with volumes.
pub fn failure(problems: &[DiskError]) -> Failure {
    let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Failure::new(Class::Volume, text)
}
