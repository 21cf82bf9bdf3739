//! What the child's words and its end mean.

use super::parent::{Settings, no_symbols};
use super::run::End;
use super::{Problem, ProblemKind, Report, Step, Word};
use crate::vix::error::{self, Kind, Nature};
use std::os::unix::process::ExitStatusExt;
use std::sync::mpsc::Receiver;
use std::time::Instant;

/// What was heard of the child.
#[derive(Debug, Default)]
pub(super) struct Heard {
    step: Step,
    failed: Option<Word>,
    done: bool,
}

impl Heard {
    /// Whether the child has said all there is to say.
    pub(super) fn is_over(&self) -> bool {
        self.done || self.failed.is_some()
    }

    /// Follows the child, until its last word, the end of its words or the deadline.
    pub(super) fn listen(
        &mut self,
        words: &Receiver<Word>,
        deadline: Instant,
        report: &mut Report,
    ) {
        while !self.is_over() {
            match words.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Word::Step(step)) => self.step = step,
                Ok(Word::Modes(modes)) => {
                    report.transport_modes =
                        modes.split(':').filter(|m| !m.is_empty()).map(str::to_owned).collect();
                }
                Ok(Word::Connected(connected)) => report.connected = Some(connected),
                Ok(word @ Word::Failed { .. }) => self.failed = Some(word),
                Ok(Word::Done) => self.done = true,
                Err(_) => return,
            }
        }
    }

    /// The problem, if there is one.
    pub(super) fn judge(
        self,
        end: End,
        settings: &Settings,
        report: &mut Report,
    ) -> Option<Problem> {
        let step = self.step;
        let found = match self.failed {
            Some(Word::Failed { function, code, text, symbols }) => {
                report.missing_symbols.clone_from(&symbols);
                failed(function.as_deref(), code, &text, &symbols, report)
            }
            _ if self.done => {
                report.warnings.extend(bad_end(end));
                return None;
            }
            _ if !end.by_itself => hung(step, settings),
            _ => crashed(step, end, settings),
        };
        Some(Problem { step, ..found })
    }
}

fn bad_end(end: End) -> Option<String> {
    if !end.by_itself {
        return Some(
            "the library hangs at its end, after all had worked; it was killed".to_owned(),
        );
    }
    let signal = end.status?.signal()?;
    Some(format!("the library was killed by signal {signal} at its end, after all had worked"))
}

fn hung(step: Step, settings: &Settings) -> Problem {
    let seconds = settings.timeout.as_secs();
    let message = format!("VDDK hangs {step}: it was killed after {seconds} s");
    let advice = if step.is_remote() {
        "check the server and the network between (ports 443 and 902); try another version of VDDK"
    } else {
        OTHER_VERSION
    };
    Problem { nature: Nature::Unknown, ..Problem::new(ProblemKind::Hung, &message, advice) }
}

fn crashed(step: Step, end: End, settings: &Settings) -> Problem {
    let how = end.status.map_or_else(|| "it was lost".to_owned(), |s| s.to_string());
    if step == Step::Start {
        let message = format!("{} ended before it loaded VDDK ({how})", settings.helper.display());
        let advice = "see its words; a damaged library of VDDK's may stand in the place of the system's (libgcc_s, libc), or the helper's version is another than v2v-pod's";
        return Problem::new(ProblemKind::NoHelper, &message, advice);
    }
    let verb = if end.status.is_some_and(|s| s.signal().is_none()) {
        "ended the process"
    } else {
        "crashed"
    };
    let message = format!("VDDK {verb} {step} ({how})");
    let advice = if step.is_remote() { CRASH } else { OTHER_VERSION };
    Problem::new(ProblemKind::Crashed, &message, advice)
}

const OTHER_VERSION: &str = "try another version of VDDK, or set V2V_transport=https";
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

/// What a line about a thumbprint says when it is the reason.
const REFUSED: [&str; 5] = ["failed to verify", "expected", "match", "invalid", "wrong"];

/// The library's log often knows what its result does not say: thumbprint, NFC memory.
pub(super) fn improve(problem: &mut Problem, log: &[String]) {
    let refused = |l: &str| REFUSED.iter().any(|word| l.contains(word));
    let thumbprint =
        log.iter().map(|l| l.to_lowercase()).any(|l| l.contains("thumbprint") && refused(&l));
    if problem.code == Some(1) && thumbprint {
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
