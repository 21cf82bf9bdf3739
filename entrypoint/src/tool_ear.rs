//! What a tool says, heard: events, log lines, the evidence for a failure, and the reasons to stop it.

use crate::classify::{self, Evidence};
use crate::event::{Event, Severity};
use crate::grant::server::GrantServer;
use crate::guest::capabilities::Reader;
use crate::log;
use crate::progress::{self, MachineMessage, Tracker};
use crate::source_check;
use crate::supervise::Heard;
use crate::supervise::lines::End;
use crate::supervise::stop::StopCause;
use crate::tool_run::Runner;
use crate::vddk::watch::{Verdict, Watch};
use crate::volumes::{self, Volumes};
use crate::vsphere::domain_watch::DomainWatch;
use crate::vsphere::snapshots::Snapshots;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A smaller request size needs some time to show that it is small enough.
const SHRINK_EVERY: Duration = Duration::from_secs(20);

/// Takes what a tool says of the guest's drivers; shared with who wants to know at the end.
pub type Findings = Arc<Mutex<Reader>>;

/// Listens to one tool.
pub struct Ear<'a> {
    runner: &'a Runner,
    name: &'static str,
    volumes: Option<&'a Volumes>,
    opened: Option<oneshot::Sender<()>>,
    /// How far it is.
    pub tracker: Tracker,
    /// What may explain a failure.
    pub evidence: Evidence,
    transcript: Option<File>,
    counted: bool,
    /// What VDDK said.
    pub watch: Watch,
    snapshots: Snapshots,
    domain: Option<DomainWatch>,
    /// The copiers' counterpart.
    pub grants: Option<&'a GrantServer>,
    shrunk: Option<Instant>,
}

impl<'a> Ear<'a> {
    /// Ears for a tool. `opened` hears when the source is open.
    pub fn new(
        runner: &'a Runner,
        name: &'static str,
        volumes: Option<&'a Volumes>,
        opened: oneshot::Sender<()>,
    ) -> Self {
        let transcript = runner.transcript.as_deref().and_then(open_transcript);
        Self {
            runner,
            name,
            volumes,
            opened: Some(opened),
            tracker: Tracker::default(),
            evidence: Evidence::default(),
            transcript,
            counted: false,
            watch: Watch::default(),
            snapshots: Snapshots::default(),
            domain: runner.meant.clone().map(DomainWatch::new),
            grants: None,
            shrunk: None,
        }
    }

    /// Takes what the tool said.
    pub fn hear(&mut self, heard: &Heard<'_>) {
        match heard {
            Heard::Output(line, end) => self.output(line, *end),
            Heard::Message(message) => self.message(message),
        }
        self.check_count();
    }

    fn output(&mut self, line: &str, end: End) {
        if end != End::CarriageReturn {
            log::tool_line(self.name, line);
            if let Some(file) = &mut self.transcript {
                // The transcript is a copy; a full disk must not end the conversion here.
                let _ = writeln!(file, "{line}");
            }
            self.evidence.line(self.name, line);
            if let Some(findings) = &self.runner.findings {
                findings.lock().unwrap_or_else(PoisonError::into_inner).line(line);
            }
            let other = self.domain.as_mut().and_then(|d| d.line(line));
            if let Some(failure) = other.or_else(|| self.snapshots.line(line)) {
                self.runner.stop.set(StopCause::Abort(failure));
            }
            if let Some(verdict) = self.watch.line(line, Instant::now()) {
                self.source_failed(verdict);
            }
        }
        if line.contains(source_check::OPENING) {
            self.source_is_open();
        }
        if let Some(failure) =
            progress::created_path(line).and_then(|p| self.volumes?.stray_disk(Path::new(p)))
        {
            self.runner.stop.set(StopCause::Abort(failure));
        }
        let bus = &self.runner.bus;
        self.tracker.output(line, &mut |event| bus.emit(&event));
    }

    /// nbdkit tries everything again for a minute, also what cannot pass, and with requests as large as before.
    fn source_failed(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Fatal(failure) => self.runner.stop.set(StopCause::Abort(failure)),
            Verdict::Passing(code) => {
                tracing::warn!(
                    code = code.code,
                    name = code.name,
                    advice = code.remedy,
                    "VDDK failed in a way that may pass; it is tried again"
                );
            }
            Verdict::HostMemory => {
                if self.shrunk.is_some_and(|at| at.elapsed() < SHRINK_EVERY) {
                    return;
                }
                self.shrunk = Some(Instant::now());
                if let Some(bytes) = self.grants.and_then(GrantServer::shrink_requests) {
                    tracing::warn!(
                        request_bytes = bytes,
                        "the ESXi host has no NFC memory left; reading in smaller requests"
                    );
                }
            }
        }
    }

    fn message(&mut self, message: &MachineMessage) {
        let severity = message.severity();
        if severity == Severity::Error {
            self.evidence.error(&message.message);
        }
        if message.message.starts_with(source_check::OPENING) {
            self.source_is_open();
        }
        let bus = &self.runner.bus;
        bus.emit(&Event::Message {
            severity,
            tool: self.name,
            text: classify::redact_urls(&message.message),
        });
        self.tracker.message(message, &mut |event| bus.emit(&event));
    }

    fn source_is_open(&mut self) {
        if let Some(opened) = self.opened.take() {
            // Nobody listens when there is nothing to compare with.
            let _ = opened.send(());
        }
    }

    /// The last guard: a copy of another number of disks than there are volumes.
    fn check_count(&mut self) {
        if let (false, Some(volumes), Some(total)) =
            (self.counted, self.volumes, self.tracker.total())
        {
            self.counted = true;
            if total != volumes.map.len() {
                let problem = volumes.map.count_error(total);
                self.runner.stop.set(StopCause::Abort(volumes::failure(&[problem])));
            }
        }
    }
}

fn open_transcript(path: &Path) -> Option<File> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .inspect_err(
            |e| tracing::warn!(path = %path.display(), error = %e, "no transcript of the tools"),
        )
        .ok()
}
