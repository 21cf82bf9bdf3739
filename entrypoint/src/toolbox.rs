//! The tools: where they are, the environment they get, and what they say they can do.

use crate::rundir::RunDir;
use crate::supervise::{Spec, ask};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use v2v_args::{Features, HelpAnswer};

/// Where tools are when PATH is not set.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// virt-v2v-in-place lives here on some distributions.
const EXTRA_PATH: &str = "/usr/libexec";
/// A question to a tool takes some 50 ms; a tool that needs this long is broken.
const QUESTION_LIMIT: Duration = Duration::from_secs(60);

/// Variables that tools may inherit. All others stay with us: Forklift puts the whole secret, the
/// password included, into the pod's environment.
const INHERITED: [&str; 8] =
    ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "VIRT_TOOLS_DATA_DIR", "SSL_CERT_FILE", "TERM"];
const INHERITED_PREFIXES: [&str; 2] = ["LIBGUESTFS_", "SUPERMIN_"];

/// Whether the appliance can use KVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// A virtual machine was started with it.
    Kvm,
    /// Emulation.
    Tcg,
}

/// Paths and environment for the tools of one run.
#[derive(Debug, Clone)]
pub struct Toolbox {
    path: OsString,
    env: BTreeMap<OsString, OsString>,
    certificates: Option<Overlay>,
}

/// A folder that a tool sees in the place of another.
#[derive(Debug, Clone)]
pub struct Overlay {
    /// What it sees.
    pub folder: PathBuf,
    /// In the place of this.
    pub over: PathBuf,
}

impl Toolbox {
    /// `env` is our own environment; temporary files go into the run's folder.
    pub fn new(env: &BTreeMap<String, String>, run: &RunDir, base_tmp: &Path) -> Self {
        let mut path = OsString::from(env.get("PATH").map_or(DEFAULT_PATH, String::as_str));
        path.push(":");
        path.push(EXTRA_PATH);
        let mut child: BTreeMap<OsString, OsString> = env
            .iter()
            .filter(|(k, _)| {
                INHERITED.contains(&k.as_str())
                    || INHERITED_PREFIXES.iter().any(|p| k.starts_with(p))
            })
            .map(|(k, v)| (k.into(), v.into()))
            .collect();
        let tmp = run.tmp().into_os_string();
        // Without HOME libvirt and qemu would write into `/`.
        child.entry("HOME".into()).or_insert_with(|| tmp.clone());
        child.entry("LIBGUESTFS_BACKEND".into()).or_insert_with(|| "direct".into());
        // An appliance that is built is kept between runs; it is the same for all of them.
        child.entry("LIBGUESTFS_CACHEDIR".into()).or_insert_with(|| base_tmp.into());
        for name in ["TMPDIR", "VIRT_V2V_TMPDIR", "XDG_RUNTIME_DIR"] {
            child.insert(name.into(), tmp.clone());
        }
        child.insert("PATH".into(), path.clone());
        Self { path, env: child, certificates: None }
    }

    /// Puts a folder before all others that tools are looked for in.
    pub fn prepend_path(&mut self, folder: &Path) {
        let mut path = folder.as_os_str().to_owned();
        path.push(":");
        path.push(&self.path);
        self.env.insert("PATH".into(), path.clone());
        self.path = path;
    }

    /// Puts a folder before all others, unless it is there already.
    pub fn lead_path(&mut self, folder: &Path) {
        if std::env::split_paths(&self.path).all(|dir| dir != folder) {
            self.prepend_path(folder);
        }
    }

    /// The tools see this folder of certificates in the place of the system's.
    pub fn mount_certificates(&mut self, folder: PathBuf, over: PathBuf) {
        self.certificates = Some(Overlay { folder, over });
    }

    /// What they see in the place of the system's certificates.
    pub fn certificates(&self) -> Option<&Overlay> {
        self.certificates.as_ref()
    }

    /// Sets a variable for the tools.
    pub fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.env.insert(name.into(), value.into());
    }

    /// Appends to a variable, after `separator` if it has a value already.
    pub fn append(&mut self, name: &str, separator: &str, value: &str) {
        let slot = self.env.entry(name.into()).or_default();
        if !slot.is_empty() {
            slot.push(separator);
        }
        slot.push(value);
    }

    /// Tells libguestfs what to run the appliance on.
    pub fn use_accelerator(&mut self, accelerator: Accelerator) {
        if accelerator == Accelerator::Tcg {
            self.append("LIBGUESTFS_BACKEND_SETTINGS", ":", "force_tcg");
        }
    }

    /// The value of a variable as the tools see it.
    pub fn var(&self, name: &str) -> Option<&OsString> {
        self.env.get(std::ffi::OsStr::new(name))
    }

    /// The whole environment.
    pub fn env(&self) -> Vec<(OsString, OsString)> {
        self.env.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Full path of a tool, `None` when it is not installed.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        std::env::split_paths(&self.path).map(|dir| dir.join(name)).find(|p| {
            p.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        })
    }

    /// Runs a tool that only answers; `None` when it is missing, hangs or cannot start.
    pub async fn ask(
        &self,
        tool: &str,
        args: &[&str],
        limit: Duration,
    ) -> Option<(std::process::ExitStatus, String)> {
        let program = self.find(tool)?;
        let env = self.env();
        let spec = Spec {
            program: &program,
            env: &env,
            dir: Path::new("/"),
            grace: Duration::from_secs(1),
            messages: false,
            certificates: self.certificates(),
        };
        ask(&spec, args, limit).await
    }

    /// Asks a tool what it can do. A tool that fails to answer has no features.
    pub async fn features(&self, tool: &str) -> Features {
        let facts = self.ask(tool, &["--machine-readable"], QUESTION_LIMIT).await;
        let help = self.ask(tool, &["--help"], QUESTION_LIMIT).await;
        let text = |answer: Option<(std::process::ExitStatus, String)>| {
            answer.filter(|(s, _)| s.success()).map(|(_, t)| t)
        };
        Features::parse(&text(facts).unwrap_or_default(), &text(help).unwrap_or_default())
    }
}

/// Whether to pass `--no-fstrim`: when the tool lists it. Only a tool that lists nothing at all is
/// judged by the distribution, as Forklift's pod does.
pub fn wants_no_fstrim(features: &Features, os_release: &str) -> bool {
    match features.help("--no-fstrim") {
        HelpAnswer::Listed => true,
        HelpAnswer::NotListed => false,
        HelpAnswer::NoAnswer => os_id(os_release) == Some("rhel"),
    }
}

fn os_id(os_release: &str) -> Option<&str> {
    os_release
        .lines()
        .find_map(|l| l.strip_prefix("ID="))
        .map(|v| v.trim().trim_matches(['"', '\'']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolbox(env: &[(&str, &str)]) -> (Toolbox, tempfile::TempDir) {
        let base = tempfile::tempdir().unwrap();
        let run = RunDir::create(base.path()).unwrap();
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        (Toolbox::new(&env, &run, base.path()), base)
    }

    #[test]
    fn secrets_in_our_environment_do_not_reach_the_tools() {
        let (t, _base) = toolbox(&[
            ("V2V_secretKey", "s3cret"),
            ("AWS_TOKEN", "s3cret"),
            ("LIBGUESTFS_MEMSIZE", "2048"),
        ]);
        assert!(t.env().iter().all(|(k, v)| k != "V2V_secretKey" && v != "s3cret"));
        assert_eq!(t.var("LIBGUESTFS_MEMSIZE").unwrap(), "2048");
        assert_eq!(t.var("LIBGUESTFS_BACKEND").unwrap(), "direct");
    }

    #[test]
    fn settings_of_the_user_are_kept_and_added_to() {
        let (mut t, _base) =
            toolbox(&[("LIBGUESTFS_BACKEND", "libvirt"), ("LIBGUESTFS_BACKEND_SETTINGS", "a=b")]);
        t.use_accelerator(Accelerator::Tcg);
        assert_eq!(t.var("LIBGUESTFS_BACKEND").unwrap(), "libvirt");
        assert_eq!(t.var("LIBGUESTFS_BACKEND_SETTINGS").unwrap(), "a=b:force_tcg");
    }

    #[test]
    fn tools_are_found_and_only_if_executable() {
        let (t, _base) = toolbox(&[("PATH", "/usr/bin:/bin")]);
        assert!(t.find("sh").is_some() && t.find("no-such-tool").is_none());
    }

    #[test]
    fn an_option_is_passed_when_listed_not_by_distribution() {
        let rhel = "NAME=x\nID=\"rhel\"\n";
        let listed = Features::parse("", "--root X\n--no-fstrim");
        let not_listed = Features::parse("", "--root X");
        let silent = Features::parse("", "");
        assert!(wants_no_fstrim(&listed, "ID=debian"));
        assert!(!wants_no_fstrim(&not_listed, rhel));
        assert!(wants_no_fstrim(&silent, rhel) && !wants_no_fstrim(&silent, "ID=centos"));
    }
}
