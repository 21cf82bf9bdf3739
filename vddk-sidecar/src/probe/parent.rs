//! The side that asks: what can be seen without loading, then the child.

use super::verdict::{self, Heard};
use super::{Connect, Order, Problem, ProblemKind, Report, run};
use crate::elf;
use crate::library::{self, Found};
use crate::manifest::{Manifest, ManifestError};
use crate::{conf, tree};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A day; more than that is a slip.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Shorter ones are not searched for: they are parts of ordinary words.
const SHORTEST_SECRET: usize = 3;
/// The warning about a tree that may be incomplete.
pub const NO_MANIFEST: &str = "the tree has no manifest (an image that copies with cp -r): whether it is complete is not known";
const READABLE: &str = "make the folder and all in it readable for the pod's user (chmod -R a+rX)";
const UNCHANGED: &str =
    "take VDDK for Linux x86-64, and build the sidecar's image from its unchanged archive";
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
    match absolute(settings) {
        Ok(settings) => try_all(&mut report, &settings),
        Err(e) => {
            let advice = "give absolute paths";
            report.problem = Some(Problem::new(ProblemKind::NotFound, &e.to_string(), advice));
        }
    }
    if let Some(connect) = &settings.connect {
        conceal(&mut report, &connect.password);
    }
    report
}

fn try_all(report: &mut Report, settings: &Settings) {
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
            let advice = if e.denied() {
                READABLE
            } else {
                "fill the volume with the VDDK sidecar (vddk-sidecar install), or set V2V_transport=https"
            };
            report.problem = Some(Problem::new(ProblemKind::NotFound, &e.to_string(), advice));
            return;
        }
    };
    report.library = Some(found.path.clone());
    report.file = Some(found.file.clone());
    report.major = Some(found.major);
    report.version.clone_from(&found.version);
    report.problem = manifest(report, &settings.libdir).or_else(|| look_at_file(report, &found));
    if report.problem.is_none() {
        ask_child(report, settings, &found);
    }
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
            report.warnings.push(NO_MANIFEST.to_owned());
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
    let bytes = match library::read(&found.path, library::LARGEST) {
        Ok(bytes) => bytes,
        Err(e) => {
            let denied = e.kind() == std::io::ErrorKind::PermissionDenied;
            let advice = if denied { READABLE } else { UNCHANGED };
            return Some(Problem::new(ProblemKind::BadFile, &format!("{shown}: {e}"), advice));
        }
    };
    let library = match elf::library(&bytes) {
        Ok(library) => library,
        Err(e) => {
            return Some(Problem::new(ProblemKind::BadFile, &format!("{shown}: {e}"), UNCHANGED));
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

pub(super) fn no_symbols(names: &[String]) -> Problem {
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
    if !settings.tmp.is_dir() {
        let message = format!("{} is no folder (for temporary files)", settings.tmp.display());
        let advice = "set TMPDIR to a folder in which the library may write";
        report.problem = Some(Problem::new(ProblemKind::NoHelper, &message, advice));
        return;
    }
    let mut child = match run::start(settings, found, &order) {
        Ok(child) => child,
        Err(e) => {
            let message = format!("{} cannot be run: {e}", settings.helper.display());
            let advice =
                "v2v-pod needs vddk-sidecar beside it, or in /usr/libexec/v2v-pod, or in PATH";
            report.problem = Some(Problem::new(ProblemKind::NoHelper, &message, advice));
            return;
        }
    };
    let words = child.stdout.take().map(run::words_of);
    let log = child.stderr.take().map(run::Tail::start);
    let deadline = Instant::now() + settings.timeout;
    let mut heard = Heard::default();
    if let Some(words) = words {
        heard.listen(&words, deadline, report);
    }
    let end = run::end(&mut child, if heard.is_over() { Instant::now() } else { deadline });
    let problem = heard.judge(end, settings, report);
    let log = log.map(run::Tail::finish).unwrap_or_default();
    if let Some(mut problem) = problem {
        verdict::improve(&mut problem, &log);
        report.problem = Some(problem);
        report.log = log;
    }
}

/// The library was given the password, and may print it.
fn conceal(report: &mut Report, password: &str) {
    if password.len() < SHORTEST_SECRET {
        return;
    }
    let hide = |text: &mut String| *text = text.replace(password, "(password)");
    report.log.iter_mut().for_each(hide);
    report.transport_modes.iter_mut().for_each(hide);
    if let Some(problem) = &mut report.problem {
        hide(&mut problem.message);
    }
    if let Some(connected) = &mut report.connected {
        hide(&mut connected.transport);
    }
}

/// The child works in another folder.
fn absolute(settings: &Settings) -> std::io::Result<Settings> {
    let mut settings = settings.clone();
    settings.libdir = std::path::absolute(&settings.libdir)?;
    settings.tmp = std::path::absolute(&settings.tmp)?;
    settings.conf = settings.conf.map(std::path::absolute).transpose()?;
    // A name alone is looked for in PATH.
    if settings.helper.components().count() > 1 {
        settings.helper = std::path::absolute(&settings.helper)?;
    }
    settings.timeout = settings.timeout.min(LONGEST);
    Ok(settings)
}
