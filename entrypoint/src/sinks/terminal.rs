//! Progress for a person at a terminal: a header and one bar per disk on stderr.
//!
//! Drawn by a thread of its own, because a stopped terminal (Ctrl-S, a closed laptop) blocks its
//! writer for as long as it likes; the run must neither wait for it nor for its end.

use super::human::{human_duration, human_percent, printable};
use super::{plain, totals};
use crate::bus::{self, Bus};
use crate::event::{Snapshot, UnixMs};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Time between two drawings.
const REFRESH: Duration = Duration::from_millis(200);

/// How long [`Terminal::finish`] waits for the last drawing.
const FINISH: Duration = Duration::from_secs(2);

/// How many log lines are printed between two drawings; more would starve the bars.
const LINES_PER_DRAWING: usize = 500;

/// Steps of a bar; finer than a character of it.
const STEPS: u64 = 1000;

/// The running display. Dropping it ends the drawing without waiting.
#[derive(Debug)]
pub struct Terminal {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Closed by the thread when it has drawn the last state.
    done: Receiver<()>,
}

impl Terminal {
    /// Begins drawing the state of `bus` on stderr, with `lines` printed above the bars.
    ///
    /// Sending to `lines` fails once the display has ended (or could not start): print the line
    /// oneself then. Where stderr is no terminal, only the lines are printed.
    pub fn start(bus: Bus, lines: Receiver<String>) -> Terminal {
        // The target's own limit is above ours, so that no drawing of ours is skipped.
        Self::start_on(bus, lines, || ProgressDrawTarget::stderr_with_hz(20))
    }

    fn start_on(
        bus: Bus,
        lines: Receiver<String>,
        target: impl FnOnce() -> ProgressDrawTarget + Send + 'static,
    ) -> Terminal {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let (ended, done) = mpsc::channel::<()>();
        let thread = thread::Builder::new()
            .name("terminal".to_owned())
            .spawn(move || {
                let mut display = Display::new(MultiProgress::with_draw_target(target()));
                loop {
                    // Read before the drawing: what was emitted before the stop is drawn.
                    let last = stopped.load(Ordering::Acquire);
                    display.print(&lines, if last { usize::MAX } else { LINES_PER_DRAWING });
                    display.draw(&bus.snapshot(), bus::now_ms());
                    if last {
                        break;
                    }
                    thread::park_timeout(REFRESH);
                }
                display.end();
                drop(ended);
            })
            .ok();
        Terminal { stop, thread, done }
    }

    /// Draws the final state, leaves it on the screen, and ends the thread. Waits for a terminal
    /// that does not take the output for two seconds at most.
    pub fn finish(mut self) {
        self.tell();
        let Some(thread) = self.thread.take() else {
            return;
        };
        if self.done.recv_timeout(FINISH) != Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = thread.join();
        }
    }

    fn tell(&self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tell();
    }
}

/// What is on the screen.
struct Display {
    all: MultiProgress,
    header: ProgressBar,
    /// By disk index; `None` until its copy begins.
    disks: Vec<Option<ProgressBar>>,
}

impl Display {
    fn new(all: MultiProgress) -> Self {
        let header = all.add(ProgressBar::new_spinner().with_style(style("{spinner} {msg}")));
        Self { all, header, disks: Vec::new() }
    }

    /// Prints waiting log lines above the bars.
    fn print(&self, lines: &Receiver<String>, at_most: usize) {
        let waiting: Vec<String> = lines.try_iter().take(at_most).collect();
        if waiting.is_empty() {
            return;
        }
        let text = waiting.iter().map(|l| l.trim_end()).collect::<Vec<_>>().join("\n");
        // indicatif drops what is printed to a hidden target. Nobody is left to be told when
        // stderr itself fails.
        if self.all.is_hidden() {
            let _ = writeln!(std::io::stderr(), "{text}");
        } else {
            let _ = self.all.println(text);
        }
    }

    fn draw(&mut self, snapshot: &Snapshot, now: UnixMs) {
        self.disks.resize(snapshot.disks.len().max(self.disks.len()), None);
        for (index, (disk, slot)) in snapshot.disks.iter().zip(&mut self.disks).enumerate() {
            let Some(percent) = disk.percent else {
                continue;
            };
            let bar = slot.get_or_insert_with(|| {
                // Disks may begin in any order; with `--parallel` they do. Bars stay in the order
                // of their beginning.
                let bar = ProgressBar::new(STEPS);
                let bar = bar.with_style(style("  {prefix} [{wide_bar:.cyan}] {msg}"));
                self.all.add(bar.with_prefix(plain::disk_name(index, disk)))
            });
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss
            )] // 0 to 1000
            bar.set_position((percent / 100.0 * STEPS as f64) as u64);
            bar.set_message(plain::disk_progress(disk));
        }
        self.header.set_message(header_line(snapshot, now));
        self.header.tick();
    }

    /// Leaves everything on the screen as it is.
    fn end(&self) {
        for bar in self.disks.iter().flatten() {
            bar.abandon();
        }
        self.header.abandon();
    }
}

/// `copy, 2m 05s: web01 from vsphere over vddk, 42%`
fn header_line(snapshot: &Snapshot, now: UnixMs) -> String {
    let elapsed = human_duration(totals::elapsed_ms(snapshot, now) / 1000);
    let mut line = match (snapshot.phase(), snapshot.exit_code) {
        (None, _) => "starting".to_owned(),
        (Some(_), Some(0)) => format!("done in {elapsed}"),
        (Some(_), Some(code)) => {
            let reason = snapshot.reason.unwrap_or("unknown reason");
            format!("failed after {elapsed} ({reason}, exit code {code})")
        }
        (Some(phase), None) => format!("{}, {elapsed}", phase.as_str()),
    };
    // Writing to a String cannot fail.
    if !snapshot.vm.is_empty() {
        let vm = printable(&snapshot.vm);
        let _ = write!(line, ": {vm} from {} over {}", snapshot.source, snapshot.transport);
    }
    // One disk's bar says the same.
    if snapshot.disks.len() > 1 && snapshot.disks.iter().any(|d| d.percent.is_some()) {
        let percent = totals::total(&snapshot.disks).percent;
        let _ = write!(line, ", {}", human_percent(percent));
    }
    line
}

/// The templates are constants; a wrong one shows as indicatif's default style.
fn style(template: &'static str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
        .tick_chars("|/-\\ ")
}

#[cfg(test)]
#[path = "terminal_tests.rs"]
mod tests;
