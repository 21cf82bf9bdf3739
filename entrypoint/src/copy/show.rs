//! What a person or program sees of a copy: a bar for each disk, lines, or JSON.

use crate::failure::Failure;
use crate::sinks::human::{human_bytes, human_duration, human_rate, printable};
use datapath::progress::{Progress, Stage, get};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tracing_subscriber::filter::LevelFilter;

/// Between two drawings of the bars.
const REFRESH: Duration = Duration::from_millis(200);
/// Between two JSON lines.
const JSON_EVERY: Duration = Duration::from_secs(1);
/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Bars,
    Lines,
    Json,
    Quiet,
}

/// One disk on display.
#[derive(Debug)]
struct Row {
    source: String,
    target: String,
    progress: Arc<Progress>,
    bar: ProgressBar,
    rate: Rate,
}

#[derive(Debug)]
struct Board {
    style: Style,
    start: Instant,
    all: MultiProgress,
    rows: Mutex<Vec<Row>>,
    ended: AtomicBool,
}

/// The running display.
#[derive(Debug)]
pub struct Show {
    board: Arc<Board>,
    thread: Option<(JoinHandle<()>, mpsc::Sender<()>)>,
}

#[derive(Serialize)]
struct Line<'a> {
    r#type: &'static str,
    elapsed_seconds: f64,
    disks: Vec<DiskLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'a str>,
}

#[derive(Serialize)]
struct DiskLine<'a> {
    disk: usize,
    source: &'a str,
    target: &'a str,
    stage: &'static str,
    size_bytes: u64,
    done_bytes: u64,
    copied_bytes: u64,
    zero_bytes: u64,
    resumed_bytes: u64,
    verified_bytes: u64,
    untouched_tail_bytes: u64,
    retries: u64,
    bytes_per_second: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<String>,
}

impl Show {
    /// Starts the display and the log (on stderr, above the bars).
    pub fn start(json: bool, quiet: bool) -> Self {
        let style = match (json, quiet) {
            (true, _) => Style::Json,
            (_, true) => Style::Quiet,
            _ if io::stderr().is_terminal() => Style::Bars,
            _ => Style::Lines,
        };
        let target = match style {
            Style::Bars => ProgressDrawTarget::stderr_with_hz(20),
            _ => ProgressDrawTarget::hidden(),
        };
        let board = Arc::new(Board {
            style,
            start: Instant::now(),
            all: MultiProgress::with_draw_target(target),
            rows: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let log = Arc::clone(&board);
        let level = if quiet { LevelFilter::WARN } else { LevelFilter::INFO };
        let _ = tracing_subscriber::fmt()
            .without_time()
            .with_target(false)
            .with_ansi(style == Style::Bars)
            .with_max_level(level)
            .with_writer(move || LogWriter(Arc::clone(&log)))
            .try_init();
        let thread = (style != Style::Quiet).then(|| spawn(Arc::clone(&board))).flatten();
        Self { board, thread }
    }

    /// Adds a disk.
    pub fn add(&self, source: &str, target: &str, progress: Arc<Progress>) {
        let mut rows = self.board.rows();
        let bar = self.board.all.add(ProgressBar::new(get(&progress.size).max(1)));
        if let Ok(style) =
            ProgressStyle::with_template("{prefix} {wide_bar:.cyan} {percent:>3}%  {msg}")
        {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.set_prefix(format!("disk {}", rows.len()));
        let (source, target) = (printable(source), printable(target));
        rows.push(Row { source, target, progress, bar, rate: Rate::default() });
    }

    /// Shows how it ended.
    pub fn end(mut self, failure: Option<&Failure>) {
        self.board.ended.store(true, Ordering::Release);
        if let Some((thread, wake)) = self.thread.take() {
            drop(wake);
            let _ = thread.join();
        }
        self.board.finish(failure);
    }
}

fn spawn(board: Arc<Board>) -> Option<(JoinHandle<()>, mpsc::Sender<()>)> {
    let (wake, wait) = mpsc::channel::<()>();
    let step = match board.style {
        Style::Bars => REFRESH,
        Style::Json => JSON_EVERY,
        _ => LINE_EVERY,
    };
    let draw = move || {
        while wait.recv_timeout(step) == Err(mpsc::RecvTimeoutError::Timeout) {
            board.draw();
        }
        board.draw();
    };
    thread::Builder::new().name("progress".into()).spawn(draw).ok().map(|t| (t, wake))
}

impl Board {
    fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self) {
        let mut rows = self.rows();
        for row in rows.iter_mut() {
            row.rate.look(moved(&row.progress), Instant::now());
        }
        match self.style {
            Style::Bars => rows.iter().for_each(draw_bar),
            Style::Json if !self.ended.load(Ordering::Acquire) => {
                self.json(&rows, "progress", None, None);
            }
            Style::Lines if !self.ended.load(Ordering::Acquire) => {
                for (index, row) in rows.iter().enumerate() {
                    if row.progress.stage() != Stage::Waiting {
                        say(&mut io::stderr(), &format!("disk {index}: {}", words(row)));
                    }
                }
            }
            _ => {}
        }
    }

    fn json(&self, rows: &[Row], kind: &'static str, ok: Option<bool>, failure: Option<&Failure>) {
        let line = Line {
            r#type: kind,
            elapsed_seconds: (self.start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
            disks: rows.iter().enumerate().map(|(n, row)| disk_line(n, row)).collect(),
            ok,
            class: failure.map(|f| f.class.name()),
            error: failure.map(|f| f.message.as_str()),
            advice: failure.map(|f| f.advice.as_str()),
        };
        say(&mut io::stdout(), &serde_json::to_string(&line).unwrap_or_default());
    }

    fn finish(&self, failure: Option<&Failure>) {
        let rows = self.rows();
        for row in rows.iter() {
            row.bar.abandon();
        }
        if self.style == Style::Json {
            self.json(&rows, "result", Some(failure.is_none()), failure);
        }
        let mut err = io::stderr();
        if let Some(failure) = failure {
            say(&mut err, &format!("v2v-pod copy: {}", printable(&failure.message)));
            say(&mut err, &format!("  try: {}", failure.advice));
        } else if matches!(self.style, Style::Bars | Style::Lines) {
            let seconds = self.start.elapsed();
            for (index, row) in rows.iter().enumerate() {
                say(&mut err, &format!("disk {index}  {}", summary(row)));
            }
            say(
                &mut err,
                &format!("Copied in {}, all durable.", human_duration(seconds.as_secs())),
            );
        }
    }
}

fn moved(p: &Progress) -> u64 {
    get(&p.copied) + get(&p.verified)
}

fn draw_bar(row: &Row) {
    let p = &row.progress;
    let done = if p.stage() == Stage::Verifying { get(&p.verified) } else { get(&p.done) };
    row.bar.set_length(get(&p.size).max(1));
    row.bar.set_position(if p.stage() == Stage::Done {
        row.bar.length().unwrap_or(1)
    } else {
        done
    });
    row.bar.set_message(words(row));
}

/// `copying 1.2 GiB of 4.0 GiB, 500.0 MiB/s, 6s left`.
fn words(row: &Row) -> String {
    let p = &row.progress;
    if let Some(trouble) = p.current_trouble() {
        return format!("waiting: {}", printable(&trouble));
    }
    let (size, done) = (get(&p.size), get(&p.done));
    match p.stage() {
        stage @ (Stage::Copying | Stage::Verifying) => {
            let done = if stage == Stage::Verifying { get(&p.verified) } else { done };
            let left = row.rate.seconds_for(size.saturating_sub(done));
            let left = left.map_or_else(String::new, |s| format!(", {} left", human_duration(s)));
            let (done, size) = (human_bytes(done), human_bytes(size));
            format!("{} {done} of {size}, {}{left}", stage_word(stage), human_rate(row.rate.smooth))
        }
        stage => stage_word(stage).to_owned(),
    }
}

fn summary(row: &Row) -> String {
    let p = &row.progress;
    let mut parts = vec![format!("{} copied", human_bytes(get(&p.copied)))];
    for (bytes, what) in [
        (get(&p.zeroed), "zero"),
        (get(&p.resumed), "there from an earlier run"),
        (get(&p.verified), "verified"),
        (get(&p.tail), "behind its end left as they were"),
    ] {
        if bytes > 0 {
            parts.push(format!("{} {what}", human_bytes(bytes)));
        }
    }
    if get(&p.retries) > 0 {
        parts.push(format!("{} requests repeated", get(&p.retries)));
    }
    format!("{} -> {}: {}", row.source, row.target, parts.join(", "))
}

fn disk_line(disk: usize, row: &Row) -> DiskLine<'_> {
    let p = &row.progress;
    // The cast saturates.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let bytes_per_second = row.rate.smooth as u64;
    DiskLine {
        disk,
        source: &row.source,
        target: &row.target,
        stage: stage_word(p.stage()),
        size_bytes: get(&p.size),
        done_bytes: get(&p.done),
        copied_bytes: get(&p.copied),
        zero_bytes: get(&p.zeroed),
        resumed_bytes: get(&p.resumed),
        verified_bytes: get(&p.verified),
        untouched_tail_bytes: get(&p.tail),
        retries: get(&p.retries),
        bytes_per_second,
        waiting_for: p.current_trouble(),
    }
}

fn stage_word(stage: Stage) -> &'static str {
    match stage {
        Stage::Waiting => "waiting",
        Stage::Copying => "copying",
        Stage::Flushing => "flushing",
        Stage::Verifying => "verifying",
        Stage::Done => "done",
        Stage::Failed => "failed",
    }
}

/// Bytes per second, smoothed over some ten looks.
#[derive(Debug, Default)]
struct Rate {
    last: Option<(u64, Instant)>,
    smooth: f64,
}

impl Rate {
    fn look(&mut self, bytes: u64, now: Instant) {
        if let Some((before, then)) = self.last {
            let seconds = now.duration_since(then).as_secs_f64();
            if seconds <= 0.0 {
                return;
            }
            #[allow(clippy::cast_precision_loss)] // shown with one decimal
            let new = bytes.saturating_sub(before) as f64 / seconds;
            self.smooth = if self.smooth == 0.0 { new } else { self.smooth * 0.8 + new * 0.2 };
        }
        self.last = Some((bytes, now));
    }

    fn seconds_for(&self, bytes: u64) -> Option<u64> {
        if self.smooth < 1.0 {
            return None;
        }
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        Some((bytes as f64 / self.smooth) as u64)
    }
}

/// Puts log lines above the bars.
struct LogWriter(Arc<Board>);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        self.0.all.suspend(|| say(&mut io::stderr(), line.trim_end_matches('\n')));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A closed pipe at the other end is the reader's choice, not an error.
fn say(out: &mut impl Write, text: &str) {
    let _ = writeln!(out, "{text}");
}
