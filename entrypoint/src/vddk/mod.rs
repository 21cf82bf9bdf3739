//! VDDK as seen from the entrypoint: asked about in a throw-away process, watched while virt-v2v uses it. The library
//! itself is loaded by nbdkit and by the prober, never by v2v-pod.

pub mod command;
pub mod watch;

use std::path::PathBuf;
use std::time::Duration;
use vddk_sidecar::probe::{self, Problem, ProblemKind, Report, Settings};

/// Loading and initialising takes a second or two; a busy node several.
pub const PROBE_LIMIT: Duration = Duration::from_secs(30);
/// With an older library, ≥ 8, an open without `transports=` crashes where this folder is missing (RHEL-54377).
pub const SCSI_DISKS: &str = "/sys/class/scsi_disk";
/// What a pod can use; all of them, so that nothing is lost by naming them.
pub const TRANSPORTS: &str = "file:nbdssl:nbd";

const HELPER: &str = "vddk-sidecar";
const HELPER_FOLDER: &str = "/usr/libexec/v2v-pod";

/// The program that loads the library: beside ours, in libexec, or somewhere in PATH.
pub fn helper() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(HELPER)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).map(|dir| dir.join(HELPER)).collect::<Vec<_>>();
    let libexec = PathBuf::from(HELPER_FOLDER).join(HELPER);
    let mut candidates = beside.clone().into_iter().chain([libexec]).chain(folders);
    candidates.find(|p| p.is_file()).or(beside).unwrap_or_else(|| HELPER.into())
}

/// Runs a probe beside everything else.
pub async fn probe(settings: Settings) -> Report {
    let (libdir, helper) = (settings.libdir.clone(), settings.helper.clone());
    let result = tokio::task::spawn_blocking(move || probe::probe(&settings)).await;
    result.unwrap_or_else(|e| {
        let message = format!("the prober {} failed: {e}", helper.display());
        Report::failed(
            libdir,
            Problem::new(ProblemKind::NoHelper, &message, "report this with the log"),
        )
    })
}
