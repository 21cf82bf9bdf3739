//! The log: `tracing` set up for the three ways of reading it, and the line for each event.
//!
//! JSON and plain lines leave through a [`Spool`]; on a terminal the lines go to the thread that
//! draws the bars. Nothing here can block the run.

use crate::event::{Event, Severity, Snapshot};
use crate::spool::Spool;
use std::fmt::Debug;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc::{self, TrySendError};
use std::time::Duration;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, format, format::Writer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Target of the lines that tools print.
const TOOL: &str = "tool";
/// Target of the lines for events that the bars of a terminal show already.
const EVENT: &str = "event";

/// A way of writing the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// One JSON object per line, on stdout.
    Json,
    /// Short lines on stdout.
    Plain,
    /// Short lines above the bars of a terminal.
    Terminal,
}

/// The running log.
#[derive(Debug)]
pub struct Logging {
    spool: Option<Spool>,
}

impl Logging {
    /// Starts the log. `tool_lines` shows what the tools print; `terminal` takes the lines in
    /// [`Style::Terminal`].
    pub fn start(
        style: Style,
        tool_lines: bool,
        spill_dir: PathBuf,
        terminal: Option<mpsc::SyncSender<String>>,
    ) -> io::Result<Self> {
        let level = if tool_lines { LevelFilter::DEBUG } else { LevelFilter::OFF };
        let filter = Targets::new().with_default(LevelFilter::INFO).with_target(TOOL, level);
        if let (Style::Terminal, Some(lines)) = (style, terminal) {
            let layer = fmt::layer()
                .without_time()
                .with_target(false)
                .with_ansi(true)
                .fmt_fields(format::debug_fn(for_people))
                .with_writer(move || LineSender { lines: lines.clone(), partial: Vec::new() })
                .with_filter(filter.with_target(EVENT, LevelFilter::WARN));
            let _ = tracing_subscriber::registry().with(layer).try_init();
            return Ok(Self { spool: None });
        }
        let spool = Spool::start(io::stdout(), spill_dir)?;
        let writer = spool.clone();
        let registry = tracing_subscriber::registry();
        if style == Style::Json {
            let layer = fmt::layer()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false);
            let _ = registry
                .with(layer.with_writer(move || writer.clone()).with_filter(filter))
                .try_init();
        } else {
            let layer = fmt::layer()
                .with_target(false)
                .with_ansi(false)
                .with_writer(move || writer.clone());
            let _ = registry.with(layer.with_filter(filter)).try_init();
        }
        Ok(Self { spool: Some(spool) })
    }

    /// Waits for the reader, but not for a dead one.
    pub fn finish(&self) {
        if let Some(spool) = &self.spool {
            spool.finish(Duration::from_secs(5));
        }
    }
}

/// On a terminal only what was said, and what to do about it.
fn for_people(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    match field.name() {
        "message" => write!(writer, "{value:?}"),
        "advice" => write!(writer, " -> {value:?}"),
        "error" => write!(writer, ": {value:?}"),
        _ => Ok(()),
    }
}

/// Gathers one formatted line and sends it on.
struct LineSender {
    lines: mpsc::SyncSender<String>,
    partial: Vec<u8>,
}

impl Write for LineSender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.partial.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineSender {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.partial);
        match self.lines.try_send(text.trim_end().to_owned()) {
            // A terminal that was stopped for so long loses lines, not the run.
            Ok(()) | Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Disconnected(line)) => {
                // The thread that draws has ended; nothing is drawn over any more.
                let _ = writeln!(io::stderr(), "{line}");
            }
        }
    }
}

/// A line that a tool printed.
pub fn tool_line(tool: &'static str, line: &str) {
    tracing::debug!(target: TOOL, tool, "{line}");
}

/// The line for an event; percents are logged by [`progress`].
pub fn event(event: &Event) {
    match event {
        Event::Described { vm, source, transport, trust, targets } => {
            let targets = targets.join(" ");
            tracing::info!(target: EVENT, vm, source, transport, trust, disks = targets, "conversion described");
        }
        Event::Accelerator(name) => {
            tracing::info!(target: EVENT, accelerator = name, "appliance accelerator");
        }
        Event::PhaseEntered(phase) => {
            tracing::info!(target: EVENT, phase = phase.as_str(), "phase");
        }
        Event::DiskSize { disk, bytes } => tracing::debug!(target: EVENT, disk, bytes, "disk size"),
        Event::DiskStarted { disk, total } => {
            tracing::info!(target: EVENT, disk, total, "copying disk");
        }
        Event::DiskResumed { disk, bytes } => {
            tracing::info!(target: EVENT, disk, bytes, "a part of the disk is there from an earlier run");
        }
        Event::DiskPercent { .. } => {}
        Event::CopyFinished => tracing::info!(target: EVENT, "all disks copied"),
        Event::Message { severity, tool, text } => match severity {
            Severity::Info => tracing::info!(tool, "{text}"),
            Severity::Warning => tracing::warn!(tool, "{text}"),
            Severity::Error => tracing::error!(tool, "{text}"),
        },
        Event::Warned(w) => tracing::warn!(reason = w.reason, "{}", w.message),
        Event::Finished { exit_code: 0, .. } => tracing::info!(target: EVENT, "finished"),
        Event::Finished { exit_code, reason } => tracing::error!(exit_code, reason, "failed"),
    }
}

/// Logs a disk's progress whenever it passes another tenth.
pub fn progress(before: &Snapshot, after: &Snapshot) {
    for (index, disk) in after.disks.iter().enumerate() {
        let old = before.disks.get(index).and_then(|d| d.percent).unwrap_or(0.0);
        let new = disk.percent.unwrap_or(0.0);
        if (new / 10.0).floor() > (old / 10.0).floor() {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let rate = disk.rate_bytes_per_second as u64;
            tracing::info!(
                target: EVENT,
                disk = index,
                percent = new,
                bytes = disk.done_bytes,
                size = disk.size_bytes,
                bytes_per_second = rate,
                "progress"
            );
        }
    }
}
