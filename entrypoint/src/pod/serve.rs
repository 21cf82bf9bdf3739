//! The Serve phase: the result on its port until the controller has fetched it.

use super::Pod;
use crate::config::pod::Job;
use crate::failure::{Class, Failure};
use crate::sinks::result::{self, ResultFiles, ShutdownCause};
use std::path::PathBuf;

/// As Go's `net/http` does.
const BACKLOG: u32 = 1024;

impl Pod<'_> {
    /// Opens the port and waits for `/shutdown`.
    pub(super) async fn serve(&mut self, yaml: Option<PathBuf>) -> Result<(), Failure> {
        let files = ResultFiles {
            yaml,
            in_place: matches!(self.config.job, Job::InPlace { .. }),
            inspection: self.config.paths.inspection.clone(),
            warnings: self.runner.bus.snapshot().warnings,
        };
        let port = self.config.runtime.ports.result;
        let failed = |e: std::io::Error| {
            Failure::new(Class::Internal, format!("cannot serve the result on port {port}: {e}"))
        };
        let socket = self
            .ready
            .result_port
            .take()
            .ok_or_else(|| failed(std::io::ErrorKind::AddrNotAvailable.into()))?;
        let listener = socket.listen(BACKLOG).map_err(failed)?;
        tracing::info!(port, "the result is ready; waiting for /shutdown");
        let mut stop = self.runner.stop.clone();
        let mut cause = None;
        let served = result::serve(listener, files, async { cause = Some(stop.next().await) })
            .await
            .map_err(failed)?;
        match (served, cause) {
            (ShutdownCause::Cancelled, Some(cause)) => Err(cause.failure()),
            _ => Ok(()),
        }
    }
}
