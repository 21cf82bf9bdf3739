//! The typed event stream of a run and the state that it adds up to.
//!
//! The supervisor and the flow emit [`Event`]s; [`Snapshot::apply`] is the one place that folds
//! them into the state that every sink shows (terminal, log, metrics, live page). Pure: the time
//! comes in as an argument. Nothing here knows of virt-v2v's text or of HTTP.

use serde::Serialize;
use std::collections::VecDeque;

/// How many recent messages a snapshot keeps for the live page.
pub const RECENT_MESSAGES: usize = 40;

/// Weight of the newest sample in the smoothed rate; about the last ten samples count.
const RATE_WEIGHT: f64 = 0.2;

/// Milliseconds since the Unix epoch.
pub type UnixMs = u64;

/// The stage of a run. `Done` and `Failed` are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Looking for everything that would make the run fail, before anything is written.
    Preflight,
    /// Making links, overlays and temporary folders.
    Prepare,
    /// virt-v2v is opening the source and converting the guest.
    Convert,
    /// Disks are being copied onto the volumes.
    Copy,
    /// virt-v2v-inspector is reading the converted guest.
    Inspect,
    /// The result is complete and offered to the controller.
    Serve,
    /// Finished well.
    Done,
    /// Finished with an error.
    Failed,
}

impl Phase {
    /// Every phase, in the order of a run; one that copies first has `Copy` before `Convert`.
    pub const ALL: [Phase; 8] = [
        Phase::Preflight,
        Phase::Prepare,
        Phase::Convert,
        Phase::Copy,
        Phase::Inspect,
        Phase::Serve,
        Phase::Done,
        Phase::Failed,
    ];

    /// The lower-case word used in logs, metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Preflight => "preflight",
            Phase::Prepare => "prepare",
            Phase::Convert => "convert",
            Phase::Copy => "copy",
            Phase::Inspect => "inspect",
            Phase::Serve => "serve",
            Phase::Done => "done",
            Phase::Failed => "failed",
        }
    }

    /// True for `Done` and `Failed`.
    pub fn is_final(self) -> bool {
        matches!(self, Phase::Done | Phase::Failed)
    }
}

/// How much a message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Progress of the run.
    Info,
    /// Something an operator should read afterwards.
    Warning,
    /// The reason of a failure.
    Error,
}

/// A warning that is part of the result (`/warnings`); the fields are Forklift's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// CamelCase reason, as in Kubernetes conditions.
    pub reason: String,
    /// The sentence for the operator.
    pub message: String,
}

/// One thing that happened. Disks are numbered from 0, in virt-v2v's order.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The run is described: what is converted, from where, onto what.
    Described {
        /// Name of the VM as the source knows it.
        vm: String,
        /// Kind of source: `vsphere`, `ova`, `disk`, …
        source: &'static str,
        /// Transport of the data: `https`, `vddk`, `file`, …
        transport: &'static str,
        /// How the source proved itself: `ca`, `thumbprint`, `insecure`; empty where nothing is asked.
        trust: &'static str,
        /// Target of each disk, e.g. `/dev/block0`.
        targets: Vec<String>,
    },
    /// The machine under the appliance: `kvm` or `tcg`.
    Accelerator(&'static str),
    /// A new phase began.
    PhaseEntered(Phase),
    /// The virtual size of a disk became known, in bytes.
    DiskSize {
        /// Disk index.
        disk: usize,
        /// Bytes.
        bytes: u64,
    },
    /// The copy of a disk began.
    DiskStarted {
        /// Disk index.
        disk: usize,
        /// How many disks virt-v2v says there are.
        total: usize,
    },
    /// So much of a disk is there from an earlier run; not part of its rate.
    DiskResumed {
        /// Disk index.
        disk: usize,
        /// Bytes.
        bytes: u64,
    },
    /// The copy of a disk is this far, in percent (0 to 100). Never goes back.
    DiskPercent {
        /// Disk index.
        disk: usize,
        /// Percent.
        percent: f64,
    },
    /// Every disk is completely copied.
    CopyFinished,
    /// A line for people: from virt-v2v's machine-readable stream or from us.
    Message {
        /// How much it matters.
        severity: Severity,
        /// Who said it: `virt-v2v`, `v2v-pod`, …
        tool: &'static str,
        /// One line.
        text: String,
    },
    /// A warning that belongs to the result.
    Warned(Warning),
    /// The run ended. `exit_code` 0 is success; `reason` is the failure class otherwise.
    Finished {
        /// The code the process will exit with.
        exit_code: u8,
        /// Failure class, `None` on success.
        reason: Option<&'static str>,
    },
}

/// A message as the live page shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecentMessage {
    /// When.
    pub at_ms: UnixMs,
    /// How much it matters.
    pub severity: Severity,
    /// Who said it.
    pub tool: &'static str,
    /// The line.
    pub text: String,
}

/// The state of one disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct DiskState {
    /// Where it is written to.
    pub target: String,
    /// Virtual size in bytes, once known.
    pub size_bytes: Option<u64>,
    /// Percent copied, 0 to 100; `None` until its copy begins.
    pub percent: Option<f64>,
    /// Bytes done: size × percent, 0 until the size is known.
    pub done_bytes: u64,
    /// Smoothed rate in bytes per second.
    pub rate_bytes_per_second: f64,
    /// When its copy began.
    pub started_ms: Option<UnixMs>,
    /// When its copy ended.
    pub finished_ms: Option<UnixMs>,
    /// The last sample of the rate: when, and how many bytes there were.
    #[serde(skip)]
    sampled_ms: UnixMs,
    #[serde(skip)]
    sampled_bytes: u64,
}

impl DiskState {
    /// Seconds until this disk is copied at the present rate; `None` when unknown.
    pub fn seconds_left(&self) -> Option<u64> {
        let size = self.size_bytes?;
        if self.finished_ms.is_some() {
            return Some(0);
        }
        if self.rate_bytes_per_second < 1.0 {
            return None;
        }
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let seconds =
            (size.saturating_sub(self.done_bytes) as f64 / self.rate_bytes_per_second) as u64;
        Some(seconds)
    }

    fn resume(&mut self, now: UnixMs, bytes: u64) {
        self.sampled_bytes = bytes.max(self.sampled_bytes);
        self.sampled_ms = now;
    }

    fn advance(&mut self, now: UnixMs, percent: f64) {
        let percent = percent.clamp(self.percent.unwrap_or(0.0), 100.0);
        self.percent = Some(percent);
        if percent >= 100.0 && self.finished_ms.is_none() {
            self.finished_ms = Some(now);
        }
        let Some(size) = self.size_bytes else { return };
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let done = ((size as f64 * percent / 100.0) as u64).min(size);
        self.done_bytes = done.max(self.done_bytes);
        // The rate has a base of its own: several bars may come out of one read of the pipe.
        let elapsed_ms = now.saturating_sub(self.sampled_ms);
        let grown = self.done_bytes.saturating_sub(self.sampled_bytes);
        if grown > 0 && elapsed_ms > 0 {
            #[allow(clippy::cast_precision_loss)]
            let sample = grown as f64 * 1000.0 / elapsed_ms as f64;
            self.rate_bytes_per_second = if self.rate_bytes_per_second == 0.0 {
                sample
            } else {
                self.rate_bytes_per_second * (1.0 - RATE_WEIGHT) + sample * RATE_WEIGHT
            };
            self.sampled_bytes = self.done_bytes;
            self.sampled_ms = now;
        }
    }
}

/// A phase that began at some time; the last one in the list is the present one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PhaseTime {
    /// Which.
    pub phase: Phase,
    /// When it began.
    pub started_ms: UnixMs,
}

/// Everything a sink may show, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Snapshot {
    /// Name of the VM; empty until described.
    pub vm: String,
    /// Kind of source.
    pub source: &'static str,
    /// Transport of the data.
    pub transport: &'static str,
    /// How the source proved itself, where it had to.
    pub trust: &'static str,
    /// `kvm`, `tcg` or empty while unknown.
    pub accelerator: &'static str,
    /// The phases so far, oldest first.
    pub phases: Vec<PhaseTime>,
    /// The disks, by index.
    pub disks: Vec<DiskState>,
    /// The newest messages, oldest first, at most [`RECENT_MESSAGES`].
    pub messages: VecDeque<RecentMessage>,
    /// Warnings that belong to the result.
    pub warnings: Vec<Warning>,
    /// Set once the run has ended.
    pub exit_code: Option<u8>,
    /// Failure class, when it failed.
    pub reason: Option<&'static str>,
    /// When this state was reached.
    pub updated_ms: UnixMs,
}

impl Snapshot {
    /// The present phase, `None` before the first one.
    pub fn phase(&self) -> Option<Phase> {
        self.phases.last().map(|p| p.phase)
    }

    /// How long each phase took up to `now`, in milliseconds, in order.
    pub fn durations_ms(&self, now: UnixMs) -> Vec<(Phase, u64)> {
        let ends = self.phases.iter().skip(1).map(|p| p.started_ms).chain(std::iter::once(now));
        self.phases
            .iter()
            .zip(ends)
            .map(|(p, end)| (p.phase, end.saturating_sub(p.started_ms)))
            .collect()
    }

    /// Folds one event in.
    pub fn apply(&mut self, now: UnixMs, event: &Event) {
        self.updated_ms = now;
        match event {
            Event::Described { vm, source, transport, trust, targets } => {
                self.vm.clone_from(vm);
                self.source = source;
                self.transport = transport;
                self.trust = trust;
                self.disks = targets
                    .iter()
                    .map(|t| DiskState { target: t.clone(), ..DiskState::default() })
                    .collect();
            }
            Event::Accelerator(name) => self.accelerator = name,
            Event::PhaseEntered(phase) => self.enter(now, *phase),
            Event::DiskSize { disk, bytes } => self.disk(*disk).size_bytes = Some(*bytes),
            Event::DiskStarted { disk, .. } => self.start_disk(now, *disk),
            Event::DiskResumed { disk, bytes } => self.disk(*disk).resume(now, *bytes),
            Event::DiskPercent { disk, percent } => self.disk(*disk).advance(now, *percent),
            Event::CopyFinished => {
                for disk in &mut self.disks {
                    if disk.percent.is_some() {
                        disk.advance(now, 100.0);
                    }
                }
            }
            Event::Message { severity, tool, text } => self.remember(now, *severity, tool, text),
            Event::Warned(warning) => {
                if !self.warnings.contains(warning) {
                    self.warnings.push(warning.clone());
                }
            }
            Event::Finished { exit_code, reason } => {
                self.exit_code = Some(*exit_code);
                self.reason = *reason;
                self.enter(now, if *exit_code == 0 { Phase::Done } else { Phase::Failed });
            }
        }
    }

    fn enter(&mut self, now: UnixMs, phase: Phase) {
        if self.phase() != Some(phase) {
            self.phases.push(PhaseTime { phase, started_ms: now });
        }
    }

    /// The disk's state; grown when virt-v2v counts more disks than were described.
    fn disk(&mut self, index: usize) -> &mut DiskState {
        if index >= self.disks.len() {
            self.disks.resize(index + 1, DiskState::default());
        }
        &mut self.disks[index]
    }

    fn start_disk(&mut self, now: UnixMs, index: usize) {
        let disk = self.disk(index);
        if disk.started_ms.is_none() {
            disk.started_ms = Some(now);
            disk.sampled_ms = now;
            disk.percent = Some(0.0);
        }
    }

    fn remember(&mut self, now: UnixMs, severity: Severity, tool: &'static str, text: &str) {
        if self.messages.len() == RECENT_MESSAGES {
            self.messages.pop_front();
        }
        self.messages.push_back(RecentMessage {
            at_ms: now,
            severity,
            tool,
            text: text.to_owned(),
        });
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
