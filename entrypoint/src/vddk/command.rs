//! `v2v-pod vddk probe`.

use super::{PROBE_LIMIT, TRANSPORTS, helper, probe, watch};
use crate::failure::{Class, Failure};
use crate::secret;
use crate::trust::Endpoint;
use crate::trust::Fingerprint;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;
use vddk_sidecar::probe::{Connect, ProblemKind, Report, Settings};
use vddk_sidecar::vix::error::{Kind, lookup};

/// `v2v-pod vddk …`
#[derive(Debug, Subcommand)]
pub enum VddkCommand {
    /// Load a VDDK in a throw-away process, and say what is wrong with it
    #[command(long_about = PROBE_HELP)]
    Probe(Box<ProbeArgs>),
}

const PROBE_HELP: &str = "\
Finds VDDK in a folder, checks it (complete, x86-64, the functions that nbdkit needs, its
dependencies), loads and initialises it in a throw-away process, and says version, file and
transport modes, or what is wrong and what to do. A library that crashes or hangs there harms
nothing else.

With --connect it also connects to a server, opens a disk read-only, and reads its first sector.

Exits with 0 when VDDK is usable, else with the code of the failure's class (see docs/contract.md).

Examples:
  v2v-pod vddk probe
  v2v-pod vddk probe --libdir ./vmware-vix-disklib-distrib --json
  v2v-pod vddk probe --connect --server vcenter.example.com --user admin@vsphere.local \\
      --password-file /etc/secret/secretKey --vm vm-16 --disk '[datastore1] web/web.vmdk' \\
      --thumbprint \"$(v2v-pod thumbprint vcenter.example.com --json | jq -r .sha1)\"";

/// Arguments of `probe`.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// The unpacked VDDK
    #[arg(long, value_name = "FOLDER", default_value = "/opt/vmware-vix-disklib-distrib")]
    pub libdir: PathBuf,
    /// VDDK's configuration file; unknown and misspelt settings are named
    #[arg(long, value_name = "FILE")]
    pub conf: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Seconds that the whole probe may take
    #[arg(long, value_name = "SECONDS", default_value_t = PROBE_LIMIT.as_secs())]
    pub timeout: u64,
    /// Also open a disk and read its first sector
    #[arg(long, requires_all = ["server", "user", "password_file", "vm", "disk"])]
    pub connect: bool,
    /// vCenter or ESXi host, with a port where it is not 443
    #[arg(long, value_name = "HOST[:PORT]", requires = "connect")]
    pub server: Option<Endpoint>,
    /// User name at the server
    #[arg(long, requires = "connect")]
    pub user: Option<String>,
    /// File with the password in its first line
    #[arg(long, value_name = "FILE", requires = "connect")]
    pub password_file: Option<PathBuf>,
    /// Reference of the VM, such as vm-16
    #[arg(long, value_name = "MOREF", requires = "connect")]
    pub vm: Option<String>,
    /// The disk, such as '[datastore1] web/web.vmdk'
    #[arg(long, requires = "connect")]
    pub disk: Option<String>,
    /// SHA-1 thumbprint of the server's certificate
    #[arg(long, value_name = "AA:BB:…", requires = "connect")]
    pub thumbprint: Option<Fingerprint>,
    /// Reference of a snapshot; needed while the VM runs
    #[arg(long, value_name = "MOREF", requires = "connect")]
    pub snapshot: Option<String>,
    /// Port of the data [default: 902]
    #[arg(long, value_name = "PORT", requires = "connect")]
    pub nfc_port: Option<u16>,
    /// Ways of reading that may be used
    #[arg(long, value_name = "MODE:MODE", default_value = TRANSPORTS)]
    pub transports: String,
}

/// Runs it; the report as text or JSON, and the failure that it stands for.
pub async fn run(args: &ProbeArgs) -> Result<(String, Option<Failure>), Failure> {
    let settings = Settings {
        libdir: args.libdir.clone(),
        conf: args.conf.clone(),
        helper: helper(),
        tmp: std::env::temp_dir(),
        timeout: Duration::from_secs(args.timeout.max(1)),
        connect: connect(args)?,
    };
    let report = probe(settings).await;
    let text = if args.json {
        serde_json::to_string_pretty(&report).unwrap_or_default()
    } else {
        report.to_text()
    };
    Ok((text, failure(&report)))
}

fn connect(args: &ProbeArgs) -> Result<Option<Connect>, Failure> {
    let given = (&args.server, &args.user, &args.password_file, &args.vm, &args.disk);
    let (Some(server), Some(user), Some(file), Some(vm), Some(disk)) = given else {
        return Ok(None);
    };
    let thumbprint = match &args.thumbprint {
        Some(sha1 @ Fingerprint::Sha1(_)) => Some(sha1.to_string()),
        Some(Fingerprint::Sha256(_)) => {
            let message = "--thumbprint is an SHA-256 digest, and VDDK compares SHA-1";
            return Err(Failure::new(Class::Config, message)
                .advise(format!("v2v-pod thumbprint {server} shows both")));
        }
        None => None,
    };
    Ok(Some(Connect {
        server: server.host.to_string(),
        port: server.port,
        nfc_port: args.nfc_port,
        user: user.clone(),
        password: secret::read(file, "password")?,
        thumbprint,
        vm: vm.clone(),
        disk: disk.clone(),
        snapshot: args.snapshot.clone(),
        transports: Some(args.transports.clone()),
    }))
}

/// What an unusable VDDK means for whoever needs it.
pub fn failure(report: &Report) -> Option<Failure> {
    let problem = report.problem.as_ref()?;
    let class = match problem.code.and_then(lookup) {
        Some(code) if problem.kind == ProblemKind::CallFailed && code.kind != Kind::Other => {
            watch::class(code.kind)
        }
        _ if problem.thumbprint => Class::Trust,
        _ => Class::Vddk,
    };
    Some(
        Failure::new(class, format!("{}: {}", report.name(), problem.message))
            .advise(problem.advice.clone()),
    )
}
