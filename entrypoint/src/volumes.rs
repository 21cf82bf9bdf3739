//! The volumes of a run, open and locked from preflight to the last fsync.

use crate::disks::{self, DiskError, DiskMap, OpenVolume};
use crate::failure::{Class, Failure};
use std::fs;
use std::path::PathBuf;

/// All volumes, opened.
#[derive(Debug)]
pub struct Volumes {
    /// Which disk goes where.
    pub map: DiskMap,
    open: Vec<OpenVolume>,
}

impl Volumes {
    /// Opens every volume; returns all problems, not just the first.
    pub async fn open(map: DiskMap) -> Result<Self, Vec<DiskError>> {
        let (mut open, mut problems) = (Vec::new(), Vec::new());
        for volume in map.volumes() {
            match disks::open(volume).await {
                Ok(volume) => open.push(volume),
                Err(e) => problems.push(e),
            }
        }
        if problems.is_empty() { Ok(Self { map, open }) } else { Err(problems) }
    }

    /// Everything that is wrong for a source with disks of these sizes.
    pub fn check_sizes(&self, disks: &[u64]) -> Vec<DiskError> {
        let rooms: Vec<u64> = self.open.iter().map(|v| v.room_bytes).collect();
        self.map.check_sizes(disks, &rooms)
    }

    /// Makes the data durable and checks that it went where it should: nothing is reported done
    /// before this has succeeded, and a failed fsync is final.
    pub fn seal(&self, links: &[PathBuf]) -> Result<(), Failure> {
        for (link, volume) in links.iter().zip(self.map.volumes()) {
            if fs::read_link(link).ok().as_deref() != Some(volume.path()) {
                let message = format!(
                    "{} no longer leads to {}: the disk was written elsewhere",
                    link.display(),
                    volume.path().display()
                );
                return Err(Failure::new(Class::Io, message));
            }
        }
        for (open, volume) in self.open.iter().zip(self.map.volumes()) {
            open.sync().map_err(|e| {
                Failure::new(Class::Io, format!("fsync of {} failed: {e}", volume.path().display()))
            })?;
        }
        Ok(())
    }

    /// The volumes by name, for people.
    pub fn names(&self) -> Vec<String> {
        self.map.volumes().iter().map(|v| v.path().display().to_string()).collect()
    }
}

/// One failure out of several problems with volumes.
pub fn failure(problems: &[DiskError]) -> Failure {
    let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Failure::new(Class::Volume, text)
}
