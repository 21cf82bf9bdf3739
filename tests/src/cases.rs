//! The recorded cases: their shape, and where they are read from. Knows nothing of how they are run.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One recorded run of the reference entrypoint.
#[derive(Debug, Clone, Deserialize)]
pub struct Case {
    /// `group/what`.
    pub name: String,
    /// `pod` (a whole run) or `monitor` (virt-v2v's output step by step).
    pub scope: String,
    /// The pod's environment, complete but for `PATH` and `HOME`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Further command-line flags.
    #[serde(default)]
    pub flags: Vec<String>,
    /// `/dev/blockN` or `/mnt/disks/diskN/disk.img`.
    #[serde(default)]
    pub disks: Vec<String>,
    /// Folders that exist.
    #[serde(default)]
    pub dirs: Vec<String>,
    /// Files that exist.
    #[serde(default)]
    pub files: BTreeMap<String, FileSpec>,
    /// What is odd about the case.
    pub note: Option<String>,
    /// Last line the reference printed. Not compared: our messages are our own.
    pub reference_last_line: Option<String>,
    /// `ID=` of `/etc/os-release`; `rhel` unless given.
    pub os_release_id: Option<String>,
    /// What the stand-ins do differently.
    #[serde(default)]
    pub behaviour: Behaviour,
    /// What the source's libvirt answers for the guest.
    pub domain_xml: Option<String>,
    /// Requests to `:8080` once it answers: method and path, in order.
    #[serde(default)]
    pub http: Vec<(String, String)>,
    /// Answers by `METHOD PATH`.
    #[serde(default)]
    pub expect_http: BTreeMap<String, HttpExpect>,
    /// Exit code. Only zero or not is compared.
    pub expect_exit: Option<i32>,
    /// The commands run, in order.
    #[serde(default)]
    pub expect_argv: Vec<Vec<String>>,
    /// Links in the work directory after the run.
    pub expect_links: Option<BTreeMap<String, String>>,
    /// Interesting variables in the tools' environment.
    pub expect_tool_env: Option<BTreeMap<String, String>>,
    /// Contents of files after the run; null: must not exist.
    #[serde(default)]
    pub expect_files: BTreeMap<String, Option<String>>,
    /// Target of `/opt/ca-bundle.crt`.
    pub expect_ca_link: Option<String>,
    /// How libvirt was reached.
    pub expect_libvirt_connect: Option<LibvirtConnect>,
    /// The guest that was looked up there.
    pub expect_libvirt_lookup: Option<String>,
    /// `monitor` only: output fed, and the metrics after it.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// `monitor` only: comment lines above the metric.
    #[serde(default)]
    pub help_lines: Vec<String>,
    /// `monitor` only: of `/metrics`.
    pub content_type: Option<String>,
    /// Fields this harness does not know. A case that has any fails: nothing recorded is skipped silently.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// A file of the case.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum FileSpec {
    /// Its text.
    Text(String),
    /// A symbolic link.
    Link {
        /// Where it points.
        symlink: String,
    },
}

/// Deviations of the stand-ins.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Behaviour {
    /// Exit code by tool name.
    #[serde(default)]
    pub rc: BTreeMap<String, i32>,
    /// What the inspector finds: `linux` unless given, or `windows`.
    pub os: Option<String>,
    /// Fields this harness does not know.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// A recorded HTTP answer.
#[derive(Debug, Clone, Deserialize)]
pub struct HttpExpect {
    /// A number, or `204-or-connection-closed`.
    pub status: Value,
    /// Null: no such header.
    pub content_type: Option<String>,
    /// Not compared when absent.
    pub body: Option<String>,
}

/// Connection data the reference gave to libvirt.
#[derive(Debug, Clone, Deserialize)]
pub struct LibvirtConnect {
    /// User name.
    pub authname: String,
    /// Password.
    pub passphrase: String,
    /// Connection URI.
    pub uri: String,
}

/// One piece of virt-v2v output and the metrics expected after it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// The output.
    pub stdin: String,
    /// All `v2v_disk_transfers` lines.
    pub metrics: Vec<String>,
}

impl Case {
    /// The part of the name before the slash.
    pub fn group(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// `pod` or `monitor`: what this harness can run.
    pub fn in_scope(&self) -> bool {
        matches!(self.scope.as_str(), "pod" | "monitor")
    }

    /// Names of fields the harness would otherwise ignore.
    pub fn unknown_fields(&self) -> Vec<String> {
        let behaviour = self.behaviour.unknown.keys().map(|k| format!("behaviour.{k}"));
        self.unknown.keys().cloned().chain(behaviour).collect()
    }

    /// Everything in the case that is secret: the source's password and the LUKS passphrases.
    pub fn secrets(&self) -> Vec<String> {
        let files = self.files.iter().filter_map(|(path, file)| match file {
            FileSpec::Text(text)
                if path == "/etc/secret/secretKey" || path.starts_with("/etc/luks/") =>
            {
                Some(text.trim().to_owned())
            }
            _ => None,
        });
        let env = self.env.iter().filter(|(k, _)| *k == "V2V_secretKey").map(|(_, v)| v.clone());
        files.chain(env).filter(|s| s.len() >= 3).collect()
    }
}

/// `<workspace>`: the parent of this crate's folder.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All cases: the workspace's own, then `../shared/conformance`, then the files in `V2V_CONFORMANCE`
/// (colon separated, relative to the workspace). A later case of the same name replaces an earlier one. Order: first seen.
pub fn load() -> Vec<Case> {
    let own = json_files(&workspace().join("tests/data/conformance"));
    let shared = json_files(&workspace().join("../shared/conformance"));
    let extra = std::env::var("V2V_CONFORMANCE").unwrap_or_default();
    // cargo runs tests in the package's folder; people think in the workspace's.
    let extra = extra.split(':').filter(|s| !s.is_empty()).map(|f| workspace().join(f));
    let mut cases: Vec<Case> = Vec::new();
    for file in own.into_iter().chain(shared).chain(extra) {
        for case in read(&file) {
            match cases.iter_mut().find(|c| c.name == case.name) {
                Some(old) => *old = case,
                None => cases.push(case),
            }
        }
    }
    cases
}

fn read(file: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(file)
        .unwrap_or_else(|e| panic!("cannot read cases from {}: {e}", file.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

fn json_files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|x| x == "json"))
        .collect();
    files.sort();
    files
}
