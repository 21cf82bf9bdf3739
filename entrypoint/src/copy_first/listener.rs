//! What the servers of the disks say while they are read: log lines, and what VDDK's failures mean for the copy.

use crate::failure::Failure;
use crate::log;
use crate::serve_disks::children::Ear;
use crate::supervise::stop::{Stop, StopCause};
use crate::vddk::watch::{Verdict, Watch};
use datapath::source::RequestLimit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A smaller request size needs some time to show that it is small enough.
const SHRINK_EVERY: Duration = Duration::from_secs(20);
/// Read requests after the source ran out of memory for the first time.
const FIRST_REQUESTS: u64 = 256 << 10;

/// Listens to all servers of a run.
#[derive(Debug, Clone)]
pub struct Listener {
    tool: &'static str,
    stop: Stop,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Debug, Default)]
struct Heard {
    watch: Watch,
    limits: Vec<RequestLimit>,
    bytes: u64,
    shrunk: Option<Instant>,
}

impl Listener {
    /// For servers of this name.
    pub fn new(tool: &'static str, stop: Stop) -> Self {
        Self { tool, stop, heard: Arc::default() }
    }

    /// For the servers.
    pub fn ear(&self) -> Ear {
        let this = self.clone();
        Arc::new(move |line| this.line(line))
    }

    /// Requests that are to become smaller when the source runs out of memory.
    pub fn obeyed_by(&self, limit: Option<RequestLimit>) {
        let mut heard = self.heard();
        let bytes = heard.bytes;
        if let Some(limit) = limit {
            if bytes > 0 {
                limit.set(bytes);
            }
            heard.limits.push(limit);
        }
    }

    /// The failure for which VDDK has the better reason.
    pub fn explain(&self, failure: Failure) -> Failure {
        crate::tool_run::explain(failure, &self.heard().watch)
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, line: &str) {
        log::tool_line(self.tool, line);
        let mut heard = self.heard();
        match heard.watch.line(line, Instant::now()) {
            None => {}
            Some(Verdict::Fatal(failure)) => self.stop.set(StopCause::Abort(failure)),
            Some(Verdict::Passing(code)) => {
                tracing::warn!(
                    code = code.code,
                    name = code.name,
                    advice = code.remedy,
                    "VDDK failed in a way that may pass; it is tried again"
                );
            }
            Some(Verdict::HostMemory) => heard.shrink(),
        }
    }
}

impl Heard {
    fn shrink(&mut self) {
        if self.shrunk.is_some_and(|at| at.elapsed() < SHRINK_EVERY) {
            return;
        }
        let next = if self.bytes == 0 { FIRST_REQUESTS } else { self.bytes / 2 };
        if next < RequestLimit::LEAST {
            return;
        }
        (self.bytes, self.shrunk) = (next, Some(Instant::now()));
        self.limits.iter().for_each(|limit| limit.set(next));
        tracing::warn!(
            request_bytes = next,
            "the ESXi host has no NFC memory left; reading in smaller requests"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Class;

    const MEMORY: &str = "nbdkit: error: command 5: asynchronous read failed: Failed to allocate the requested 24117272 bytes";
    const LOCKED: &str =
        "nbdkit: vddk[1]: error: VixDiskLib_Open: [ds] a.vmdk: The file is already in use";

    #[test]
    fn a_failure_that_cannot_pass_ends_the_copy() {
        let stop = Stop::default();
        let listener = Listener::new("nbdkit", stop.clone());
        (listener.ear())("nbdkit: curl[1]: error: something else");
        assert_eq!(stop.cause(), None);
        (listener.ear())(LOCKED);
        let Some(StopCause::Abort(failure)) = stop.cause() else { panic!("not stopped") };
        assert_eq!(failure.class, Class::SourceBusy);
    }

    #[test]
    fn a_host_without_memory_gets_smaller_requests_once_in_a_while() {
        let listener = Listener::new("nbdkit", Stop::default());
        let ear = listener.ear();
        listener.obeyed_by(Some(RequestLimit::default()));
        ear(MEMORY);
        ear(MEMORY);
        assert_eq!(listener.heard().bytes, FIRST_REQUESTS);
        listener.heard().shrunk = None;
        ear(MEMORY);
        assert_eq!(listener.heard().bytes, FIRST_REQUESTS / 2);
        listener.heard().bytes = RequestLimit::LEAST;
        listener.heard().shrunk = None;
        ear(MEMORY);
        assert_eq!(listener.heard().bytes, RequestLimit::LEAST);
    }
}
