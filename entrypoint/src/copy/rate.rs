//! The bandwidth limit as `copy`, `convert` and pod mode are given it, and the bucket it becomes.

use crate::failure::{Class, Failure};
use clap::Args;
use datapath::rate::{Bucket, follow_rate_file, read_rate_file};
use datapath::units::Rate;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::task::JoinSet;

/// `--rate` and `--rate-file`.
#[derive(Debug, Clone, Default, Args)]
pub struct RateArgs {
    /// Most bytes per second, for all disks together: 200MiB/s
    #[arg(long, value_name = "RATE", conflicts_with = "rate_file")]
    pub rate: Option<Rate>,
    /// File with the rate, read again when it changes
    #[arg(long, value_name = "FILE")]
    pub rate_file: Option<PathBuf>,
}

/// Where the rate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateSource {
    /// Given once.
    Fixed(Rate),
    /// A file that may change.
    File(PathBuf),
}

impl RateArgs {
    /// Where the rate comes from; the file, which can be changed while it runs, wins.
    pub fn source(&self) -> Option<RateSource> {
        let file = self.rate_file.clone().map(RateSource::File);
        file.or(self.rate.map(RateSource::Fixed))
    }
}

/// A bucket with the present rate. A file is followed by one of `tasks`.
pub fn bucket(
    source: Option<&RateSource>,
    tasks: &mut JoinSet<()>,
) -> Result<Arc<Bucket>, Failure> {
    let file = match source {
        None => return Ok(Arc::new(Bucket::new(Rate::UNLIMITED))),
        Some(RateSource::Fixed(rate)) => return Ok(Arc::new(Bucket::new(*rate))),
        Some(RateSource::File(file)) => file,
    };
    let rate = read_rate_file(file).map_err(|e| {
        Failure::new(Class::Config, datapath::error_chain(&e))
            .advise("write a rate like 200MiB/s into the file, or 0 for no limit")
    })?;
    let bucket = Arc::new(Bucket::new(rate));
    tasks.spawn(follow_rate_file(file.clone(), Arc::clone(&bucket)));
    Ok(bucket)
}
