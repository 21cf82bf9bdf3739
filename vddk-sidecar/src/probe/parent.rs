//! The side that asks: what can be seen without loading, then the child.

use super::{CHILD, Connect, Order, Problem, ProblemKind, Report, Step, Word};
use crate::elf;
use crate::library::{self, Found};
use crate::manifest::{Manifest, ManifestError};
use crate::vix::error::{self, Kind, Nature};
use crate::{conf, tree};
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Lines of the library's log that are kept, and bytes of a line.
const LOG_LINES: usize = 30;
const LOG_LINE: usize = 1000;
/// Folders where the loader looks, beside `LD_LIBRARY_PATH`.
const SYSTEM_FOLDERS: [&str; 5] =
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/usr/lib"];

/// What to try.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The tree.
    pub libdir: PathBuf,
    /// VDDK's configuration file.
    pub conf: Option<PathBuf>,
    /// `vddk-sidecar`, which is linked with nothing of what VDDK brings along.
    pub helper: PathBuf,
    /// A folder for what the library writes.
    pub tmp: PathBuf,
    /// How long the child may take.
    pub timeout: Duration,
    /// Also connect.
    pub connect: Option<Connect>,
}

/// Tries everything; all that goes wrong is in the report.
pub fn probe(settings: &Settings) -> Report {
    let mut report = Report::new(settings.libdir.clone());
    if let Some(conf) = &settings.conf {
        match fs::read(conf) {
            Ok(bytes) => report.conf_findings.extend(
                conf::check(&String::from_utf8_lossy(&bytes)).iter().map(ToString::to_string),
            ),
            Err(e) => report.warnings.push(format!("{} cannot be read: {e}", conf.display())),
        }
    }
    let found = match library::find(&settings.libdir) {
        Ok(found) => found,
        Err(e) => {
            report.problem = Some(Problem::new(
                ProblemKind::NotFound,
                &e.to_string(),
                "fill the volume with the VDDK sidecar (vddk-sidecar install), or set V2V_transport=https",
            ));
            return report;
        }
    };
    report.library = Some(found.path.clone());
    report.file = Some(found.file.clone());
    report.major = Some(found.major);
    report.version.clone_from(&found.version);
    report.problem =
        manifest(&mut report, &settings.libdir).or_else(|| look_at_file(&mut report, &found));
    if report.problem.is_none() {
        ask_child(&mut report, settings, &found);
    }
    report
}

fn manifest(report: &mut Report, libdir: &Path) -> Option<Problem> {
    match Manifest::verify(libdir) {
        Ok(manifest) => {
            report.manifest = format!(
                "{} entries, all as installed by {}",
                manifest.entries.len(),
                manifest.tool
            );
            None
        }
        Err(ManifestError::Missing) => {
            "none".clone_into(&mut report.manifest);
            report.warnings.push(
                "the tree has no manifest (an image that copies with cp -r): whether it is complete is not known"
                    .to_owned(),
            );
            None
        }
        Err(e) => {
            report.manifest = format!("broken: {e}");
            let advice = "install the tree anew: empty the volume and run the sidecar again";
            Some(Problem::new(ProblemKind::Changed, &e.to_string(), advice))
        }
    }
}

/// What the file itself tells: another processor, cut off, missing functions and libraries.
fn look_at_file(report: &mut Report, found: &Found) -> Option<Problem> {
    let shown = found.path.display();
    let bytes = match fs::read(&found.path) {
        Ok(bytes) => bytes,
        Err(e) => {
            let advice = "make the file readable for the pod's user";
            return Some(Problem::new(ProblemKind::BadFile, &format!("{shown}: {e}"), advice));
        }
    };
    let library = match elf::library(&bytes) {
        Ok(library) => library,
        Err(e) => {
            let advice = "take VDDK for Linux x86-64, and build the sidecar's image from its unchanged archive";
            return Some(Problem::new(ProblemKind::BadFile, &format!("{shown}: {e}"), advice));
        }
    };
    report.missing_symbols = crate::vix::SYMBOLS
        .iter()
        .filter(|s| !library.vix_symbols.iter().any(|v| v == *s))
        .map(|s| format!("{}{s}", crate::vix::PREFIX))
        .collect();
    report.missing_libraries = tree::needed_but_missing(&found.path, &found.folder, |name| {
        SYSTEM_FOLDERS.iter().any(|f| Path::new(f).join(name).exists())
    });
    if !report.missing_symbols.is_empty() {
        return Some(no_symbols(&report.missing_symbols));
    }
    None
}

fn no_symbols(names: &[String]) -> Problem {
    let message =
        format!("{} function(s) that nbdkit needs are missing: {}", names.len(), names.join(" "));
    Problem::new(ProblemKind::MissingSymbols, &message, "take VDDK 6.7 or newer")
}

fn ask_child(report: &mut Report, settings: &Settings, found: &Found) {
    let order = Order {
        library: found.path.clone(),
        libdir: settings.libdir.clone(),
        conf: settings.conf.clone(),
        connect: settings.connect.clone(),
    };
    let mut child = match start(settings, found, &order) {
        Ok(child) => child,
        Err(e) => {
            let message = format!("{} cannot be run: {e}", settings.helper.display());
            let advice =
                "v2v-pod needs vddk-sidecar beside it, or in /usr/libexec/v2v-pod, or in PATH";
            report.problem = Some(Problem::new(ProblemKind::NoHelper, &message, advice));
            return;
        }
    };
    let words = child.stdout.take().map(words_of);
    let log = child.stderr.take().map(|stderr| thread::spawn(move || tail(stderr)));
    let mut heard = Heard { step: Step::Start, failed: None, done: false };
    let in_time = words.is_none_or(|words| heard.listen(&words, settings.timeout, report));
    let status = end(&mut child, in_time);
    let problem = heard.judge(in_time, status, settings, report);
    let log = log.and_then(|t| t.join().ok()).unwrap_or_default();
    if let Some(mut problem) = problem {
        improve(&mut problem, &log);
        report.problem = Some(problem);
        report.log = log;
    }
}

fn start(settings: &Settings, found: &Found, order: &Order) -> std::io::Result<Child> {
    let mut child = Command::new(&settings.helper)
        .arg(CHILD)
        .env_clear()
        .env("LD_LIBRARY_PATH", &found.folder)
        .env("HOME", &settings.tmp)
        .env("TMPDIR", &settings.tmp)
        .env("LC_ALL", "C.UTF-8")
        .current_dir(&settings.tmp)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that ends without reading is judged by its end.
        let _ = stdin.write_all(&serde_json::to_vec(order)?);
    }
    Ok(child)
}

fn words_of(stdout: impl Read + Send + 'static) -> Receiver<Word> {
    let (send, receive) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let Ok(word) = serde_json::from_str(&line) else { continue };
            if send.send(word).is_err() {
                break;
            }
        }
    });
    receive
}

/// The last lines, in bounded memory.
fn tail(stream: impl Read) -> Vec<String> {
    let mut lines: VecDeque<String> = VecDeque::new();
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.by_ref().take(1 << 16).read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line);
        let text: String =
            text.trim_end().chars().filter(|c| !c.is_control()).take(LOG_LINE).collect();
        if !text.is_empty() {
            lines.push_back(text);
        }
        if lines.len() > LOG_LINES {
            lines.pop_front();
        }
        line.clear();
    }
    lines.into()
}

/// Ends the child's whole group, whatever state it is in.
fn end(child: &mut Child, in_time: bool) -> Option<ExitStatus> {
    if !in_time && let Ok(pid) = i32::try_from(child.id()) {
        // Already gone is as good.
        let _ = nix::sys::signal::killpg(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        );
    }
    child.wait().ok()
}

struct Heard {
    step: Step,
    failed: Option<Word>,
    done: bool,
}

impl Heard {
    /// Follows the child; `false`: it took too long.
    fn listen(&mut self, words: &Receiver<Word>, timeout: Duration, report: &mut Report) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            match words.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Word::Step(step)) => self.step = step,
                Ok(Word::Modes(modes)) => {
                    report.transport_modes =
                        modes.split(':').filter(|m| !m.is_empty()).map(str::to_owned).collect();
                }
                Ok(Word::Connected(connected)) => report.connected = Some(connected),
                Ok(word @ Word::Failed { .. }) => self.failed = Some(word),
                Ok(Word::Done) => self.done = true,
                Err(RecvTimeoutError::Disconnected) => return true,
                // What has failed or is done counts, even when the library's exit handlers hang.
                Err(RecvTimeoutError::Timeout) => return self.done || self.failed.is_some(),
            }
        }
    }

    fn judge(
        self,
        in_time: bool,
        status: Option<ExitStatus>,
        settings: &Settings,
        report: &mut Report,
    ) -> Option<Problem> {
        let step = self.step;
        let found = match self.failed {
            Some(Word::Failed { function, code, text, symbols }) => {
                report.missing_symbols.clone_from(&symbols);
                failed(function.as_deref(), code, &text, &symbols, report)
            }
            _ if !in_time => {
                let seconds = settings.timeout.as_secs();
                let message =
                    format!("VDDK hangs {step}: nothing came for {seconds} s, and it was killed");
                let mut hung = Problem::new(
                    ProblemKind::Hung,
                    &message,
                    "check the server and the network between; try another version of VDDK",
                );
                hung.nature = Nature::Unknown;
                hung
            }
            _ if self.done => {
                if let Some(signal) = status.and_then(|s| s.signal()) {
                    report.warnings.push(format!(
                        "the library was killed by signal {signal} at its end, after all had worked"
                    ));
                }
                return None;
            }
            _ => {
                let how = status.map_or_else(|| "it was lost".to_owned(), |s| s.to_string());
                let message = format!("VDDK crashed {step} ({how})");
                Problem::new(ProblemKind::Crashed, &message, CRASH)
            }
        };
        Some(Problem { step, ..found })
    }
}

const CRASH: &str = "try another version of VDDK; with VDDK 8 and later give transports (file:nbdssl:nbd), since it crashes where /sys/class/scsi_disk is missing; or set V2V_transport=https";

fn failed(
    function: Option<&str>,
    code: Option<u16>,
    text: &str,
    symbols: &[String],
    report: &mut Report,
) -> Problem {
    if !symbols.is_empty() {
        return no_symbols(symbols);
    }
    let Some(function) = function else { return not_loaded(text, report) };
    let known = code.and_then(error::lookup);
    let code_text = code.map(|c| format!("error {c}, ")).unwrap_or_default();
    let message = format!("{}{function} failed: {code_text}{text}", crate::vix::PREFIX);
    let advice = known.map_or("see VDDK's log above and its release notes", |k| k.remedy);
    Problem {
        code,
        nature: known.map_or(Nature::Unknown, |k| k.nature),
        ..Problem::new(ProblemKind::CallFailed, &message, advice)
    }
}

/// `libfoo.so.1: cannot open shared object file: No such file or directory`
fn not_loaded(text: &str, report: &mut Report) -> Problem {
    if let Some((name, _)) = text.split_once(": cannot open shared object file") {
        let name = name.rsplit(' ').next().unwrap_or(name).to_owned();
        if !report.missing_libraries.contains(&name) {
            report.missing_libraries.push(name);
        }
    }
    if report.missing_libraries.is_empty() {
        return Problem::new(
            ProblemKind::NotLoadable,
            text,
            "take the VDDK that fits this image, unchanged; a version mix in lib64 is the usual reason",
        );
    }
    let message = format!(
        "libraries that VDDK needs are missing: {} ({text})",
        report.missing_libraries.join(" ")
    );
    Problem::new(
        ProblemKind::MissingLibraries,
        &message,
        "copy the whole tree, with its symbolic links; what is not VDDK's own must be in the conversion image",
    )
}

/// The library's log often knows what its result does not say: thumbprint, NFC memory.
fn improve(problem: &mut Problem, log: &[String]) {
    let has = |word: &str| log.iter().any(|l| l.to_lowercase().contains(word));
    if problem.code == Some(1) && has("thumbprint") {
        "the server's certificate has another thumbprint than the one given: see v2v-pod thumbprint SERVER".clone_into(&mut problem.advice);
        problem.thumbprint = true;
    }
    if let Some(known) = log
        .iter()
        .rev()
        .find_map(|l| error::by_text(l))
        .filter(|k| problem.code == Some(1) && k.kind == Kind::HostMemory)
    {
        known.remedy.clone_into(&mut problem.advice);
        problem.nature = known.nature;
    }
}
