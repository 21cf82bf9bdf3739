//! `v2v-pod copy` on the command line, and what it means.

use super::rate::RateArgs;
use clap::Args;
use datapath::buffer::BufferPool;
use datapath::engine::Settings;
use datapath::nbd::NbdOptions;
use datapath::plan::Shape;
use datapath::retry::Retry;
use datapath::target::FileOptions;
use datapath::units::Size;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Help text of the command.
pub const COPY_HELP: &str = "\
Copies disks: from files, block devices or NBD servers onto files, block devices or NBD servers.

The copy ends when the targets are durable (flushed). Zeroes become holes where the target can have
them; a target is never taken for empty. A disk that was interrupted (kill, reboot, lost source)
continues where it was when the same command is run again: a journal beside the target file, or in
the work folder for a device, records what is durable.

SRC: a file, a block device, nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH, or nbds://…
DST: the same, or null:

Examples:
  v2v-pod copy disk.img /dev/vg/disk
  v2v-pod copy nbd://esx-proxy:10809/disk0 /mnt/disks/disk0/disk.img --verify
  v2v-pod copy a.img /dev/block0 b.img /dev/block1 --rate 200MiB/s
  v2v-pod copy nbd+unix:///?socket=/run/nbd.sock disk.img --rate-file /etc/v2v/rate --json";

/// Bytes of a chunk: one request to the source, one write to the target.
const CHUNK: u64 = 1 << 20;
/// Zeroes between data shorter than this are copied as data: fewer and larger requests are quicker.
const GAP: u64 = 64 << 10;
/// Part of a disk that is planned at once.
const UNIT: u64 = 128 << 20;
/// … where there is nothing but zeroes.
const MAX_UNIT: u64 = 1 << 30;
/// Longest range that an NBD target is asked to zero at once: the fall-back of nbdkit before 1.44.1
/// zeroes only the first 64 MiB of a longer one.
pub const MAX_ZERO: u64 = 32 << 20;

/// Bytes in flight, and for sources that answer slowly.
const IN_FLIGHT: (usize, usize) = (16 << 20, 40 << 20);

/// How volumes are written, by `copy` and in virt-v2v's pipeline.
pub fn onto_volumes(retry: Retry, verify: bool) -> Settings {
    Settings {
        shape: Shape { chunk: CHUNK, gap: GAP, align: 4096 },
        sparse: 64 << 10,
        extents: true,
        unit: UNIT,
        max_unit: MAX_UNIT,
        retry,
        flush: true,
        verify,
        clone: false,
    }
}

/// Buffers for these settings.
pub fn buffers(settings: &Settings, in_flight: Option<Size>) -> Arc<BufferPool> {
    let size = |n: u64| usize::try_from(n).unwrap_or(1 << 20);
    let (first, most) = in_flight.map_or(IN_FLIGHT, |s| (size(s.0), size(s.0)));
    BufferPool::new(size(settings.shape.chunk), first, most)
}

/// `v2v-pod copy`.
#[derive(Debug, Clone, Args)]
#[allow(clippy::struct_excessive_bools)] // flags
pub struct CopyArgs {
    /// Sources and targets, in turn
    #[arg(required = true, num_args = 2.., value_names = ["SRC", "DST"])]
    pub places: Vec<String>,
    /// Bandwidth.
    #[command(flatten)]
    pub rate: RateArgs,
    /// Read the targets back and compare them with what was read from the sources
    #[arg(long)]
    pub verify: bool,
    /// Journal: a file for one disk, a folder for several
    #[arg(long, value_name = "PATH", conflicts_with = "no_journal")]
    pub journal: Option<PathBuf>,
    /// Keep no journal: an interrupted copy starts from the beginning
    #[arg(long)]
    pub no_journal: bool,
    /// What tells versions of a source apart, e.g. a snapshot's id; once for each disk
    #[arg(long = "source-id", value_name = "ID")]
    pub source_ids: Vec<String>,
    /// Folder for journals of devices and for temporary files (default: $TMPDIR or /var/tmp)
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,
    /// Disks that are copied at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub disks: u16,
    /// Bytes in flight, for all disks together (default: 16MiB, and 40MiB for sources that answer slowly)
    #[arg(long, value_name = "SIZE")]
    pub in_flight: Option<Size>,
    /// Connections to each NBD server that allows several
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub connections: u16,
    /// Allocate all space of file targets, leave no holes
    #[arg(long)]
    pub allocated: bool,
    /// Runs of zeroes in data that become holes, at least; 0 for none
    #[arg(long, value_name = "SIZE", default_value = "64KiB")]
    pub sparse: Size,
    /// Do not ask sources for extents, read everything
    #[arg(long)]
    pub no_extents: bool,
    /// The targets read as zeroes now; data is lost if they do not
    #[arg(long)]
    pub target_is_zero: bool,
    /// Go through the page cache even where direct I/O works
    #[arg(long)]
    pub buffered: bool,
    /// Attempts to repeat one failed request; 0 for none
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub retries: u32,
    /// Seconds before the first repetition; they double
    #[arg(long, value_name = "SECONDS", default_value_t = 0.1, value_parser = seconds)]
    pub retry_delay: f64,
    /// Give up after so many seconds without success
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub give_up_after: u64,
    /// Seconds that a silent NBD server is waited for
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,
    /// Progress and result as JSON lines on stdout
    #[arg(long)]
    pub json: bool,
    /// Show nothing but warnings and errors
    #[arg(long, short, conflicts_with = "json")]
    pub quiet: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "it must be a number of seconds".to_owned())?;
    if (0.0..=3600.0).contains(&value) {
        Ok(value)
    } else {
        Err("it must be from 0 to 3600".into())
    }
}

impl CopyArgs {
    /// Sources and targets as pairs.
    pub fn pairs(&self) -> Result<Vec<(&str, &str)>, String> {
        let (pairs, rest) = self.places.as_chunks::<2>();
        if let [alone] = rest {
            return Err(format!(
                "{alone:?} is a source without a target: give SRC DST for each disk"
            ));
        }
        if self.source_ids.len() > pairs.len() {
            return Err("there are more --source-id than disks".into());
        }
        Ok(pairs.iter().map(|[s, d]| (s.as_str(), d.as_str())).collect())
    }

    /// Settings of the engine.
    pub fn settings(&self) -> Result<Settings, String> {
        let sparse = self.sparse.0;
        if sparse != 0 && (!sparse.is_power_of_two() || !(512..=CHUNK).contains(&sparse)) {
            return Err("--sparse must be 0 or a power of two from 512 to 1 MiB".into());
        }
        if self.in_flight.is_some_and(|s| !(CHUNK..=4 << 30).contains(&s.0)) {
            return Err("--in-flight must be from 1 MiB to 4 GiB".into());
        }
        let retry = Retry {
            attempts: self.retries,
            first: Duration::from_secs_f64(self.retry_delay),
            longest: Duration::from_secs(10),
            give_up: Duration::from_secs(self.give_up_after),
        };
        Ok(Settings {
            sparse: if self.allocated { 0 } else { usize::try_from(sparse).unwrap_or(0) },
            extents: !self.no_extents,
            clone: !self.allocated,
            ..onto_volumes(retry, self.verify)
        })
    }

    /// How to connect.
    pub fn nbd(&self) -> NbdOptions {
        NbdOptions {
            connections: usize::from(self.connections),
            extents: !self.no_extents,
            patience: Duration::from_secs(self.timeout),
        }
    }

    /// How to open files and devices.
    pub fn files(&self) -> FileOptions {
        FileOptions {
            direct: !self.buffered,
            allocate: self.allocated,
            exclusive: true,
            is_zero: self.target_is_zero,
        }
    }
}
