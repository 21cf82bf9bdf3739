//! What passes between the harness, the process inside the namespaces and the stand-ins, as JSON files
//! under `/.harness` of the run's root.

use crate::cases::Step;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Folder inside the root that belongs to the harness.
pub const HARNESS: &str = "/.harness";
/// Script of the stand-ins.
pub const SCRIPT: &str = "/.harness/script.json";
/// One [`Record`] per line.
pub const RECORD: &str = "/.harness/record.jsonl";
/// [`Observed`].
pub const OBSERVED: &str = "/.harness/observed.json";
/// Standard output of the pod.
pub const STDOUT: &str = "/.harness/stdout";
/// Standard error of the pod.
pub const STDERR: &str = "/.harness/stderr";
/// Where the harness's own binary is inside the root.
pub const TOOL: &str = "/.harness/tool";
/// Where the pod's binary is inside the root.
pub const POD: &str = "/usr/bin/v2v-pod";
/// The contract's work directory.
pub const WORKDIR: &str = "/var/tmp/v2v";
/// The contract's link to the CA bundle.
pub const CA_LINK: &str = "/opt/ca-bundle.crt";
/// Kubernetes' termination message file.
pub const TERMINATION: &str = "/dev/termination-log";

/// What the stand-ins are to do.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Script {
    /// Exit code by tool.
    pub rc: BTreeMap<String, i32>,
    /// What the inspector finds.
    pub os: String,
    /// Whether the tools know `--no-fstrim` (a RHEL-only patch).
    pub fstrim: bool,
    /// Name of the guest, for the file virt-v2v writes when no `-on` is given.
    pub vm_name: String,
    /// Answer of `virsh dumpxml`.
    pub domain_xml: Option<String>,
    /// Output of virt-v2v, step by step; none: the usual output at once.
    pub steps: Vec<String>,
    /// Whether virt-v2v heeds `--machine-readable=fd:N`.
    pub json: bool,
}

/// What the process inside the namespaces is to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Drive {
    /// The run's root directory.
    pub root: PathBuf,
    /// Host file -> path inside the root, bind mounted.
    pub binds: Vec<(PathBuf, String)>,
    /// `/dev/blockN` -> device number of a loop device; none: a regular file.
    pub blocks: Vec<(String, Option<u64>)>,
    /// Command-line flags of the pod.
    pub flags: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Requests to `:8080`.
    pub http: Vec<(String, String)>,
    /// Output and expected metrics.
    pub steps: Vec<Step>,
    /// Files to hand back.
    pub files: Vec<String>,
    /// Limit of the whole run.
    pub timeout_s: u64,
}

/// One line written by a stand-in.
#[derive(Debug, Serialize, Deserialize)]
pub enum Record {
    /// A tool was started.
    Call(Box<Call>),
    /// `:8080` answered while this tool was running.
    Early8080(String),
    /// A stand-in could not do its part.
    Broken(String),
}

/// A tool was started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    /// Name it was called by, then its arguments.
    pub argv: Vec<String>,
    /// It was only asked what it can do; nothing was converted.
    pub query: bool,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Links in the work directory at that moment.
    pub links: BTreeMap<String, String>,
    /// `virsh` only: the file `LIBVIRT_AUTH_FILE` names.
    pub auth_file: Option<String>,
}

/// What was seen of the pod, apart from the stand-ins' records.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Observed {
    /// Exit code, unless it was ended by a signal.
    pub exit: Option<i32>,
    /// The signal.
    pub signal: Option<i32>,
    /// It was killed because of the case's time limit.
    pub timed_out: bool,
    /// Answers, in the order of the requests.
    pub http: Vec<HttpSeen>,
    /// Metrics after each step.
    pub steps: Vec<MetricsSeen>,
    /// Links in the work directory.
    pub links: BTreeMap<String, String>,
    /// All names in the work directory.
    pub workdir: Vec<String>,
    /// Target of the CA link.
    pub ca_link: Option<String>,
    /// The files asked for, where they exist.
    pub files: BTreeMap<String, String>,
    /// Termination message.
    pub termination: String,
    /// Things the harness could not do.
    pub trouble: Vec<String>,
}

/// An HTTP answer, or none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HttpSeen {
    /// `METHOD PATH`.
    pub request: String,
    /// None: the connection was closed or never made; see `error`.
    pub status: Option<u16>,
    /// Content-Type header.
    pub content_type: Option<String>,
    /// Body.
    pub body: String,
    /// Why there is no answer.
    pub error: Option<String>,
}

/// `/metrics` after one step.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct MetricsSeen {
    /// Lines that start with `v2v_disk_transfers`.
    pub lines: Vec<String>,
    /// Comment lines that name it.
    pub help: Vec<String>,
    /// Content-Type header.
    pub content_type: Option<String>,
    /// Why nothing could be read.
    pub error: Option<String>,
}
