//! The command line of `v2v-pod bench`.

pub use crate::serve_disks::Way;
use crate::trust::Fingerprint;
use crate::vsphere::access::TrustMode;
use clap::{Args, Subcommand, ValueEnum};
use std::fmt;
use std::path::PathBuf;

/// `v2v-pod bench …`
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// The disks of a VM over HTTPS and over VDDK, copied by nbdcopy and by v2v-pod
    #[command(long_about = TRANSPORTS_HELP)]
    Transports(Box<TransportsArgs>),
}

const TRANSPORTS_HELP: &str = "\
Reads the disks of a VM over HTTPS (nbdkit-curl) and over VDDK (nbdkit-vddk), with the command lines
of virt-v2v, and copies them with nbdcopy and with v2v-pod copy: all four in turns, 1, 2 and 4 disks
at once. The VM must be off and have no snapshots; it is only read.

The copies go nowhere (null:), so that the target costs nothing; with --scratch they go to files in
a private folder there, are flushed, and removed; those of the first round of each row are compared
with each other. If a measurement fails, what was measured before is reported all the same.

Each disk is read whole, once for each round and competitor: a disk of 100 GiB in 3 rounds is read
12 times. Choose a small one with --disk. The network is yours as it is: the round trip is measured
and reported. `make bench-transports` in the source tree has a simulated vCenter behind round trips
of 0, 5 and 20 ms, for comparing copiers rather than sites.

Prints a table: seconds (median, least and most of the rounds), MiB/s, how many times as fast as
nbdcopy over the same transport, and as the same copier over HTTPS, CPU seconds for each GiB of the
copier and of nbdkit. Versions, settings and the command lines are in the report.

Examples:
  v2v-pod bench transports --url vpx://admin%40vsphere.local@vcenter.example.com/DC/Cluster/esx1 \\
      --vm web --disk 1 --password-file /etc/secret/secretKey --libdir ./vmware-vix-disklib-distrib
  v2v-pod bench transports --url esx://root@esx1 --vm web --password-file pw \\
      --transports https --copiers v2v-pod --disks 1 --rounds 1 --thumbprint AA:BB:…
  v2v-pod bench transports … --scratch /mnt/fast --report transports.json";

/// A program that copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tool {
    /// libnbd's
    Nbdcopy,
    /// `v2v-pod copy`
    #[value(name = "v2v-pod")]
    V2vPod,
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nbdcopy => "nbdcopy",
            Self::V2vPod => "v2v-pod",
        })
    }
}

/// One of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Competitor {
    /// How the disks are read.
    pub transport: Way,
    /// Who copies them.
    pub copier: Tool,
}

/// Arguments of `transports`.
#[derive(Debug, Args)]
pub struct TransportsArgs {
    /// The server, as libvirt names it.
    #[arg(
        long,
        value_name = "URL",
        help = "vpx://USER@VCENTER/DATACENTER/CLUSTER/ESXI or esx://USER@ESXI"
    )]
    pub url: String,
    /// Name of the VM
    #[arg(long, value_name = "NAME")]
    pub vm: String,
    /// File with the password in its first line
    #[arg(long, value_name = "FILE")]
    pub password_file: PathBuf,
    /// A disk of the VM, by number from 1 or as '[datastore] folder/name.vmdk'; may be repeated (default: all)
    #[arg(long = "disk", value_name = "DISK")]
    pub disk: Vec<String>,
    /// How many disks are copied at once, one row each (default: those of 1, 2 and 4 that there are)
    #[arg(long, value_delimiter = ',', value_name = "1,2,4", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub disks: Vec<u16>,
    /// Transports to compare
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["https", "vddk"], value_name = "LIST")]
    pub transports: Vec<Way>,
    /// Copiers to compare
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["nbdcopy", "v2v-pod"], value_name = "LIST")]
    pub copiers: Vec<Tool>,
    /// Rounds; each measures every competitor once
    #[arg(long, default_value_t = 3, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rounds: u16,
    /// The unpacked VDDK
    #[arg(long, value_name = "FOLDER", default_value = "/opt/vmware-vix-disklib-distrib")]
    pub libdir: PathBuf,
    /// Copy into files in this folder, in place of nowhere; it needs the room of the disks
    #[arg(long, value_name = "FOLDER")]
    pub scratch: Option<PathBuf>,
    /// How the server proves itself
    #[arg(long, value_enum, default_value = "auto", value_name = "MODE")]
    pub trust: TrustMode,
    /// CA certificates for it (default: the system's)
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// SHA-1 or SHA-256 thumbprint of its certificate
    #[arg(long, value_name = "AA:BB:…")]
    pub thumbprint: Option<Fingerprint>,
    /// Print JSON in place of the table
    #[arg(long)]
    pub json: bool,
    /// Also write the report, as JSON, into this file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

impl TransportsArgs {
    /// All that are to be measured, in the order of their turns, each once.
    pub fn competitors(&self) -> Vec<Competitor> {
        let mut all = Vec::new();
        for &transport in &self.transports {
            for &copier in &self.copiers {
                let one = Competitor { transport, copier };
                if !all.contains(&one) {
                    all.push(one);
                }
            }
        }
        all
    }

    /// Whether VDDK takes part.
    pub fn wants_vddk(&self) -> bool {
        self.transports.contains(&Way::Vddk)
    }
}
