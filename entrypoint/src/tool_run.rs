//! One tool of the virt-v2v family, run to its end: what it says becomes events, log lines and,
//! if it fails, the reason.

use crate::bus::Bus;
use crate::classify::Evidence;
use crate::event::{Event, Severity};
use crate::failure::{Class, Failure};
use crate::grant::CopySettings;
use crate::grant::server::GrantServer;
use crate::source_check;
use crate::supervise::stop::{Stop, StopCause};
use crate::supervise::{self, Ended, RunError, Spec};
use crate::tool_ear::{Ear, Findings};
use crate::toolbox::Toolbox;
use crate::vddk::watch::Watch;
use crate::volumes::{self, Volumes};
use crate::vsphere::domain_watch::Meant;
use crate::xen::said;
use std::convert::Infallible;
use std::ffi::OsString;
use std::future::{Future, pending};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::oneshot;

/// Before the first new start of a tool; doubles.
pub const RETRY_WAIT: Duration = Duration::from_secs(15);
/// The longest wait.
pub const RETRY_LONGEST: Duration = Duration::from_secs(300);
/// virt-v2v waits 30 s for nbdkit, which a busy node can exceed.
const NO_NBDKIT: &str = "nbdkit did not start up";

/// What every run of a tool needs.
#[derive(Debug, Clone)]
pub struct Runner {
    /// Takes the events.
    pub bus: Bus,
    /// Says when to stop.
    pub stop: Stop,
    /// Programs and environment.
    pub toolbox: Toolbox,
    /// Working folder of the tools; also where their temporary files are.
    pub tmp: PathBuf,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// A file that takes the complete output, beside the log.
    pub transcript: Option<PathBuf>,
    /// How virt-v2v's disks are copied.
    pub copy: CopySettings,
    /// How often a tool is started again after a failure of the source that may pass.
    pub retries: u32,
    /// The VM that virt-v2v is to read, where it reads one from libvirt.
    pub meant: Option<Meant>,
    /// Takes what virt-v2v says of the guest's drivers.
    pub findings: Option<Findings>,
}

/// Which tool, and whether it speaks `--machine-readable=fd:N`.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// Name of the program.
    pub name: &'static str,
    /// It answered `--machine-readable` with facts.
    pub messages: bool,
    /// The class of a failure for which nothing better is known.
    pub class: Class,
    /// It copies disks, with nbdcopy.
    pub copies: bool,
}

impl Tool {
    /// It works on the only copy that there is.
    fn in_place(self) -> bool {
        self.name == "virt-v2v-in-place"
    }
}

/// A run of a tool that failed.
struct Failed {
    failure: Failure,
    /// It may be started again as it is.
    again: bool,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self { failure, again: false }
    }
}

impl Runner {
    /// Runs the tool, and again after a failure of the source that may pass, as long as nothing was copied.
    pub async fn run(
        &self,
        tool: Tool,
        volumes: Option<&Volumes>,
        mut args: impl FnMut(Option<i32>) -> Vec<OsString>,
    ) -> Result<(), Failure> {
        let mut wait = RETRY_WAIT;
        for left in (0..self.retries).rev() {
            match self.run_once(tool, volumes, &mut args).await {
                Err(Failed { failure, again: true }) if self.stop.cause().is_none() => {
                    let again = format!(
                        "{failure}: this may pass; {} is started again in {} s ({left} more times after that)",
                        tool.name,
                        wait.as_secs()
                    );
                    tracing::warn!(
                        class = failure.class.name(),
                        advice = failure.advice,
                        "{again}"
                    );
                    let severity = Severity::Warning;
                    self.bus.emit(&Event::Message { severity, tool: "v2v-pod", text: again });
                }
                result => return result.map_err(|f| f.failure),
            }
            let mut stop = self.stop.clone();
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                cause = stop.next() => return Err(cause.failure()),
            }
            wait = (wait * 2).min(RETRY_LONGEST);
        }
        self.run_once(tool, volumes, &mut args).await.map_err(|f| f.failure)
    }

    /// Runs the tool. With `volumes`, the source's disks are compared with them while the guest is
    /// being converted, and the tool is stopped before it writes when they do not fit.
    async fn run_once(
        &self,
        tool: Tool,
        volumes: Option<&Volumes>,
        args: impl FnOnce(Option<i32>) -> Vec<OsString>,
    ) -> Result<(), Failed> {
        let program = self.toolbox.find(tool.name).ok_or_else(|| missing(tool.name))?;
        let grants = self.grants(tool, volumes)?;
        let env = match &grants {
            Some(server) => server.toolbox(&self.toolbox).env(),
            None => self.toolbox.env(),
        };
        let spec = Spec {
            program: &program,
            env: &env,
            dir: &self.tmp,
            grace: self.grace,
            messages: tool.messages,
            certificates: self.toolbox.certificates(),
        };
        let (opened, is_open) = oneshot::channel();
        let mut ear = Ear::new(self, tool.name, volumes, opened);
        ear.grants = grants.as_ref();
        let argv = |fd| {
            let argv = args(fd);
            let shown: Vec<_> = argv.iter().map(|a| a.to_string_lossy()).collect();
            tracing::info!(
                tool = tool.name,
                arguments = crate::classify::redact_urls(&shown.join(" ")),
                "starting"
            );
            argv
        };
        let ended = {
            let run = supervise::run(&spec, argv, &self.stop, |heard| ear.hear(&heard));
            with_side_task(run, self.compare_sizes(volumes, is_open)).await
        };
        if grants.as_ref().is_some_and(|g| g.calls() == 0) && ear.tracker.total().is_some() {
            tracing::warn!(
                "virt-v2v did not call v2v-pod's copier but copied with a program of its own"
            );
        }
        // Whoever copies: what was written once is not written over unasked.
        let copied =
            ear.tracker.total().is_some() || grants.as_ref().is_some_and(|g| g.calls() > 0);
        let judged = judge(tool, &ended.map_err(|e| not_run(&e))?, &ear.evidence);
        judged.map_err(|failure| {
            let failure = explain(failure, &ear.watch);
            let failure = said::explain(failure, &ear.evidence, copied);
            // The server was reached in preflight, so it is away for a moment only.
            let passing = failure.passing || failure.class == Class::Network;
            let again = passing && !copied && !tool.in_place();
            Failed { failure, again }
        })?;
        match (grants, volumes) {
            (Some(grants), Some(volumes)) => Ok(self.all_verified(&grants, volumes.map.len())?),
            _ => Ok(()),
        }
    }

    /// A verification that was asked for must not be left out in silence.
    fn all_verified(&self, grants: &GrantServer, disks: usize) -> Result<(), Failure> {
        let done = grants.done();
        if self.copy.verify && done != disks {
            let message = format!(
                "{done} of {disks} disks were copied and verified by v2v-pod; virt-v2v copied the others itself"
            );
            return Err(Failure::new(Class::Integrity, message).advise(
                "go without V2V_verifyCopy (--verify), or report this with virt-v2v's version",
            ));
        }
        Ok(())
    }

    /// The copier's counterpart, for a tool that copies.
    fn grants(
        &self,
        tool: Tool,
        volumes: Option<&Volumes>,
    ) -> Result<Option<GrantServer>, Failure> {
        if !tool.copies {
            return Ok(None);
        }
        // Beside the tools' temporary folder, which they may fill as they like.
        let folder = self.tmp.parent().unwrap_or(&self.tmp);
        let targets = volumes.map(Volumes::links_and_targets).unwrap_or_default();
        GrantServer::start(&self.copy, folder, targets, self.bus.clone(), self.stop.clone())
    }

    /// Waits until the source is open, measures it, and asks to stop if it does not fit.
    async fn compare_sizes(&self, volumes: Option<&Volumes>, is_open: oneshot::Receiver<()>) {
        let (Some(volumes), Ok(())) = (volumes, is_open.await) else { return };
        let Some(sizes) = source_check::sizes(&self.toolbox, &self.tmp).await else {
            tracing::warn!(
                "the sizes of the source's disks could not be asked for; the copier will check them"
            );
            return;
        };
        for (disk, bytes) in sizes.iter().enumerate().take(volumes.map.len()) {
            self.bus.emit(&Event::DiskSize { disk, bytes: *bytes });
        }
        let problems = volumes.check_sizes(&sizes);
        if !problems.is_empty() {
            self.stop.set(StopCause::Abort(volumes::failure(&problems)));
        }
    }
}

/// What the end of the tool means.
fn judge(tool: Tool, ended: &Ended, evidence: &Evidence) -> Result<(), Failure> {
    if let Some(cause) = &ended.stopped {
        return Err(cause.failure());
    }
    if ended.status.success() {
        return Ok(());
    }
    if ended.status.signal() == Some(9) {
        return Err(Failure::new(
            Class::Memory,
            format!("{} was killed; the usual reason is the memory limit", tool.name),
        ));
    }
    let how = ended
        .status
        .code()
        .map_or_else(|| ended.status.to_string(), |c| format!("exit status {c}"));
    let failure = evidence.failure(tool.name, &how);
    Err(if failure.class == Class::Conversion {
        Failure::new(tool.class, failure.message)
    } else {
        failure
    })
}

/// A failure for which VDDK has the better reason.
pub fn explain(failure: Failure, watch: &Watch) -> Failure {
    let own = matches!(
        failure.class,
        Class::Conversion
            | Class::Inspection
            | Class::Io
            | Class::Network
            | Class::Memory
            | Class::Vddk
    );
    match watch.passing().filter(|_| own) {
        Some(vddk) => {
            let message = format!("{failure} ({vddk})");
            vddk.with_message(message)
        }
        None if failure.message.contains(NO_NBDKIT) => failure.may_pass(),
        None => failure,
    }
}

/// Runs `main` to its end; `side` goes along and is dropped with it.
async fn with_side_task<T>(main: impl Future<Output = T>, side: impl Future<Output = ()>) -> T {
    tokio::pin!(main);
    let side = async {
        side.await;
        pending::<Infallible>().await
    };
    tokio::select! {
        result = &mut main => result,
        never = side => match never {},
    }
}

/// The failure for a tool that is not installed.
pub fn missing(tool: &str) -> Failure {
    Failure::new(Class::Tool, format!("{tool} is not installed (not found in PATH)"))
}

fn not_run(error: &RunError) -> Failure {
    let cause = std::error::Error::source(error).map(|s| format!(": {s}")).unwrap_or_default();
    Failure::new(Class::Tool, format!("{error}{cause}"))
}

#[cfg(test)]
#[path = "tool_run_tests.rs"]
mod tests;
