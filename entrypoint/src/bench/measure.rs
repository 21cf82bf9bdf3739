//! One measurement: the servers started, the copiers run together, the time until the last has ended.

use crate::failure::{Class, Failure};
use crate::serve_disks::children::{Children, Line, ServerLine};
use crate::supervise::stop::Stop;
use crate::toolbox::Toolbox;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::path::Path;
use std::time::Instant;
use tokio::task::JoinSet;

/// Runs children with one environment in one folder.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The environment.
    pub toolbox: &'a Toolbox,
    /// Working folder.
    pub dir: &'a Path,
    /// Says when to stop.
    pub stop: &'a Stop,
}

impl Bench<'_> {
    fn children(&self) -> Children<'_> {
        Children { toolbox: self.toolbox, dir: self.dir, stop: self.stop, ear: None }
    }

    /// With the servers running, does `work`; then ends them. CPU seconds of the servers.
    pub async fn with_servers<T>(
        &self,
        servers: &[ServerLine],
        work: impl AsyncFnOnce() -> Result<T, Failure>,
    ) -> Result<(T, f64), Failure> {
        let timed = async || {
            let value = work().await?;
            Ok((value, cpu_of_children()))
        };
        let (value, before) = self.children().with_servers(servers, timed).await?;
        Ok((value, cpu_of_children() - before))
    }

    /// Runs the copiers together. Seconds from the start of the first to the end of the last, and the CPU
    /// seconds of all.
    pub async fn copy(&self, copiers: &[Line]) -> Result<(f64, f64), Failure> {
        let mut set = JoinSet::new();
        let (before, begin) = (cpu_of_children(), Instant::now());
        for line in copiers {
            self.children().spawn(&mut set, line, self.stop);
        }
        let mut failure = None;
        while let Some(finished) = set.join_next().await {
            match finished {
                Ok(finished) if finished.failed() => {
                    failure.get_or_insert(finished.failure());
                }
                Ok(_) => {}
                Err(e) => return Err(Failure::new(Class::Internal, e.to_string())),
            }
        }
        let seconds = begin.elapsed().as_secs_f64();
        if let Some(cause) = self.stop.cause() {
            return Err(cause.failure());
        }
        failure.map_or(Ok((seconds, cpu_of_children() - before)), Err)
    }
}

/// CPU seconds of all children that have ended.
#[allow(clippy::cast_precision_loss)] // microseconds of a few days
fn cpu_of_children() -> f64 {
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0.0, |usage| {
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        micros as f64 / 1e6
    })
}
