//! Which way a vSphere VM's disks come: VDDK when it is there and usable, else HTTPS; never silently.

use crate::failure::Failure;
use crate::preflight::Report;
use crate::toolbox::Toolbox;
use crate::vddk::{self, PROBE_LIMIT, SCSI_DISKS, TRANSPORTS};
use std::path::{Path, PathBuf};
use std::time::Duration;
use vddk_sidecar::probe::{self, Settings};

/// What the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Wish {
    /// VDDK if it is usable, else HTTPS with a warning.
    #[default]
    Auto,
    /// VDDK, or an error.
    Vddk,
    /// HTTPS.
    Https,
}

/// A VDDK that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vddk {
    /// The tree.
    pub libdir: PathBuf,
    /// `VDDK 8.0.3`.
    pub name: String,
    /// `-io vddk-transports=`, where the library must be told.
    pub transports: Option<&'static str>,
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// Over VDDK.
    Vddk(Vddk),
    /// Over HTTPS; with the reason, when VDDK was there but is not usable.
    Https(Option<String>),
}

impl Transport {
    /// As events and metrics name it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Vddk(_) => "vddk",
            Self::Https(_) => "https",
        }
    }
}

const CHECK: &str = "transport";
const SLOW: &str =
    "HTTPS reads every byte of the disks, zeroes too, and is several times slower than VDDK";
const QUESTION_LIMIT: Duration = Duration::from_secs(60);

/// Decides, and says so in the report.
pub async fn choose(
    wish: Wish,
    libdir: &Path,
    conf: Option<&Path>,
    toolbox: &Toolbox,
    tmp: &Path,
    report: &mut Report,
) -> Transport {
    if wish == Wish::Https {
        report.ok(CHECK, "HTTPS, as asked for");
        return Transport::Https(None);
    }
    if wish == Wish::Auto && !libdir.is_dir() {
        let message = format!("HTTPS: there is no VDDK in {}", libdir.display());
        report.note(CHECK, message, SLOW);
        return Transport::Https(None);
    }
    match usable(libdir, conf, toolbox, tmp, report).await {
        Ok(vddk) => {
            report.ok(CHECK, format!("{} in {}", vddk.name, libdir.display()));
            Transport::Vddk(vddk)
        }
        Err(failure) if wish == Wish::Vddk => {
            report.problem(CHECK, failure);
            Transport::Https(None)
        }
        Err(failure) => {
            let message = format!("HTTPS instead of VDDK: {failure}");
            report.note(CHECK, &*message, format!("{SLOW}; {}", failure.advice));
            Transport::Https(Some(failure.message))
        }
    }
}

/// Our own prober first, since it explains; then nbdkit, since it has the last word.
async fn usable(
    libdir: &Path,
    conf: Option<&Path>,
    toolbox: &Toolbox,
    tmp: &Path,
    report: &mut Report,
) -> Result<Vddk, Failure> {
    let found = vddk::probe(Settings {
        libdir: libdir.to_owned(),
        conf: conf.map(Path::to_owned),
        helper: vddk::helper(),
        tmp: tmp.to_owned(),
        timeout: PROBE_LIMIT,
        connect: None,
    })
    .await;
    for finding in &found.conf_findings {
        let file = conf.map_or_else(String::new, |c| c.display().to_string());
        report.note(
            CHECK,
            format!("{file}: {finding}"),
            "correct the name in VDDK's configuration file",
        );
    }
    for warning in &found.warnings {
        let advice = if warning == probe::NO_MANIFEST {
            "use an image whose entrypoint is vddk-sidecar install"
        } else {
            "see v2v-pod vddk probe"
        };
        report.note(CHECK, &**warning, advice);
    }
    if let Some(failure) = vddk::command::failure(&found) {
        return Err(failure);
    }
    ask_nbdkit(libdir, toolbox, &found).await?;
    let crashes = found.major.is_some_and(|m| m >= 8) && !Path::new(SCSI_DISKS).exists();
    Ok(Vddk {
        libdir: libdir.to_owned(),
        name: found.name(),
        transports: crashes.then_some(TRANSPORTS),
    })
}

/// nbdkit loads the library too, with its own rules about versions.
async fn ask_nbdkit(
    libdir: &Path,
    toolbox: &Toolbox,
    found: &probe::Report,
) -> Result<(), Failure> {
    let libdir = format!("libdir={}", libdir.display());
    let args = ["vddk", "--dump-plugin", &libdir];
    // Without nbdkit nothing works, and virt-v2v's check says so.
    let Some((status, text)) = toolbox.ask("nbdkit", &args, QUESTION_LIMIT).await else {
        return Ok(());
    };
    if status.success() && text.lines().any(|l| l.starts_with("vddk_library_version=")) {
        return Ok(());
    }
    let last = text.lines().rev().find(|l| l.starts_with("nbdkit: ")).unwrap_or("it says nothing");
    let failed =
        |message, advice: String| Failure::new(crate::failure::Class::Vddk, message).advise(advice);
    if status.success() {
        let message = format!("nbdkit cannot load {} from here", found.name());
        return Err(failed(
            message,
            "this nbdkit is too old for it: use VDDK 8, or an image with a newer nbdkit".to_owned(),
        ));
    }
    let message = format!("nbdkit has no usable vddk plugin: {last}");
    Err(failed(message, "install nbdkit-plugin-vddk, or use the v2v-pod image".to_owned()))
}
