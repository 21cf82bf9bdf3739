//! What a probe found, for people and programs.

use crate::vix::error::Nature;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// How far the child had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Before anything.
    #[default]
    Start,
    /// `dlopen`.
    Load,
    /// `VixDiskLib_InitEx`.
    Init,
    /// `VixDiskLib_ListTransportModes`.
    Modes,
    /// `VixDiskLib_ConnectEx`.
    Connect,
    /// `VixDiskLib_Open`.
    Open,
    /// `VixDiskLib_ReadAsync`.
    Read,
    /// `VixDiskLib_Close`, `Disconnect`, `Exit`.
    Finish,
}

impl Step {
    /// Whether a server takes part in it.
    pub fn is_remote(self) -> bool {
        matches!(self, Self::Connect | Self::Open | Self::Read)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "before it was loaded",
            Self::Load => "while it was loaded (dlopen)",
            Self::Init => "in VixDiskLib_InitEx",
            Self::Modes => "in VixDiskLib_ListTransportModes",
            Self::Connect => "in VixDiskLib_ConnectEx",
            Self::Open => "in VixDiskLib_Open",
            Self::Read => "in VixDiskLib_ReadAsync",
            Self::Finish => "in VixDiskLib_Close, Disconnect or Exit",
        })
    }
}

/// Kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// No library there.
    NotFound,
    /// The tree is not as it was installed.
    Changed,
    /// Made for another processor, damaged, or no library.
    BadFile,
    /// Libraries it depends on are missing.
    MissingLibraries,
    /// Functions that nbdkit needs are missing.
    MissingSymbols,
    /// `dlopen` refused for another reason.
    NotLoadable,
    /// A call failed.
    CallFailed,
    /// The process died.
    Crashed,
    /// Nothing came for too long.
    Hung,
    /// The helper program could not be run.
    NoHelper,
}

/// Why it is not usable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its kind.
    pub kind: ProblemKind,
    /// How far it came.
    pub step: Step,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub advice: String,
    /// VIX error code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Whether it may pass.
    pub nature: Nature,
    /// The server's certificate has another thumbprint than the one given.
    #[serde(skip)]
    pub thumbprint: bool,
}

impl Problem {
    /// One that was found before anything was loaded.
    pub fn new(kind: ProblemKind, message: &str, advice: &str) -> Self {
        Self {
            kind,
            step: Step::Start,
            message: message.to_owned(),
            advice: advice.to_owned(),
            code: None,
            nature: Nature::Fatal,
            thumbprint: false,
        }
    }
}

/// A disk that was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// `[datastore] folder/disk.vmdk`.
    pub disk: String,
    /// In bytes.
    pub size: u64,
    /// How its data comes: nbdssl, nbd, hotadd, san, file.
    pub transport: String,
    /// Until it was connected, in milliseconds.
    pub connect_ms: u64,
    /// For the first sector, in milliseconds.
    pub read_ms: u64,
}

/// Everything that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where was looked.
    pub libdir: PathBuf,
    /// The library, when there is one.
    pub library: Option<PathBuf>,
    /// The file behind it.
    pub file: Option<PathBuf>,
    /// The number in its name.
    pub major: Option<u32>,
    /// Version, as the file's name has it.
    pub version: Option<String>,
    /// Whether the tree has a list of its files, and is as the list says.
    pub manifest: String,
    /// `file`, `nbdssl`, …
    pub transport_modes: Vec<String>,
    /// Functions that are missing.
    pub missing_symbols: Vec<String>,
    /// Libraries that are missing.
    pub missing_libraries: Vec<String>,
    /// Lines of the configuration file without effect.
    pub conf_findings: Vec<String>,
    /// The disk, when one was asked for.
    pub connected: Option<Connected>,
    /// Why it is not usable; `None`: it is.
    pub problem: Option<Problem>,
    /// What does not prevent it.
    pub warnings: Vec<String>,
    /// The last lines of the library's own log, when there is a problem.
    pub log: Vec<String>,
}

impl Report {
    /// Nothing known yet.
    pub(super) fn new(libdir: PathBuf) -> Self {
        Self {
            libdir,
            library: None,
            file: None,
            major: None,
            version: None,
            manifest: String::new(),
            transport_modes: Vec::new(),
            missing_symbols: Vec::new(),
            missing_libraries: Vec::new(),
            conf_findings: Vec::new(),
            connected: None,
            problem: None,
            warnings: Vec::new(),
            log: Vec::new(),
        }
    }

    /// Nothing but a problem.
    pub fn failed(libdir: PathBuf, problem: Problem) -> Self {
        Self { problem: Some(problem), ..Self::new(libdir) }
    }

    /// `VDDK 8.0.3`, as well as it is known.
    pub fn name(&self) -> String {
        match (&self.version, self.major) {
            (Some(version), _) => format!("VDDK {version}"),
            (None, Some(major)) => format!("VDDK {major}"),
            (None, None) => "VDDK".to_owned(),
        }
    }

    /// For a person.
    pub fn to_text(&self) -> String {
        let mut lines = vec![format!("folder      {}", self.libdir.display())];
        let path = |p: &Option<PathBuf>| p.as_ref().map(|p| p.display().to_string());
        let mut line = |name: &str, value: Option<String>| {
            if let Some(value) = value.filter(|v| !v.is_empty()) {
                lines.push(format!("{name:<11} {value}"));
            }
        };
        line("library", path(&self.library));
        line("file", path(&self.file).filter(|_| self.file != self.library));
        line("version", self.major.map(|_| self.name()));
        line("manifest", Some(self.manifest.clone()));
        line("transports", Some(self.transport_modes.join(" ")));
        line(
            "missing",
            Some([self.missing_libraries.clone(), self.missing_symbols.clone()].concat().join(" ")),
        );
        if let Some(c) = &self.connected {
            line("disk", Some(format!("{}, {} bytes", c.disk, c.size)));
            let ways = format!(
                "{}, connected in {} ms, first sector in {} ms",
                c.transport, c.connect_ms, c.read_ms
            );
            line("read", Some(ways));
        }
        lines
            .extend(self.conf_findings.iter().map(|f| format!("warning: configuration file, {f}")));
        lines.extend(self.warnings.iter().map(|w| format!("warning: {w}")));
        match &self.problem {
            None => lines.push("usable".to_owned()),
            Some(p) => {
                lines.extend(self.log.iter().map(|l| format!("  | {l}")));
                lines.push(format!("NOT USABLE: {}", p.message));
                lines.push(format!("  what to do: {}", p.advice));
            }
        }
        lines.join("\n") + "\n"
    }
}
