//! The preflight of a Xen source: host key, login, domain and disks, by the tools that virt-v2v uses and in the way in
//! which it uses them. What it sets up for them stays in the toolbox for the run.

use super::config::{self, Login};
use super::domain;
use super::host_key::{self, HOW, HostKey, Rule};
use super::said;
use super::url::XenUrl;
use crate::failure::{Class, Failure};
use crate::preflight::{self, Report};
use crate::secret;
use crate::tool_run;
use crate::toolbox::Toolbox;
use crate::trust::Fingerprint;
use crate::vsphere::access::TrustMode;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// ssh gives up on a silent host after 20 s.
const LIMIT: Duration = Duration::from_secs(120);
/// A pod's network may take a moment to come up.
const WAITS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];
const SIZE: &str = r#"nbdinfo --size "$uri""#;

/// What the user gave.
#[derive(Debug, Clone)]
pub struct Given {
    /// `xen+ssh://…`
    pub url: String,
    /// For a URL without a user.
    pub user: Option<String>,
    /// Name of the VM.
    pub vm: String,
    /// The setting.
    pub mode: TrustMode,
    /// Fingerprint of the host key.
    pub pin: Option<Fingerprint>,
    /// File with host keys.
    pub known_hosts: Option<PathBuf>,
    /// File with a private key.
    pub identity: Option<PathBuf>,
    /// File with the password.
    pub password: Option<PathBuf>,
    /// Algorithms of old hosts are allowed.
    pub legacy: bool,
}

/// A guest that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// For virt-v2v.
    pub url: String,
    /// `known-hosts`, `thumbprint` or `insecure`.
    pub trust: &'static str,
    /// For virt-v2v, when it is needed.
    pub password: Option<PathBuf>,
    /// Sizes of the disks in bytes, in their order.
    pub sizes: Vec<u64>,
    /// Belongs into the result.
    pub warnings: Vec<String>,
}

/// Checks it all, as far as it gets; problems go into the report.
pub async fn check(
    given: &Given,
    toolbox: &mut Toolbox,
    run_dir: &Path,
    report: &mut Report,
) -> Option<Guest> {
    let login = check_login(given, toolbox, report).await;
    let url = XenUrl::parse(&given.url, given.user.as_deref())
        .map_err(|failure| report.problem("source", failure))
        .ok()?;
    let rule = Rule::of(given.mode, url.unverified, given.pin, given.known_hosts.as_deref());
    let rule = rule.map_err(|failure| report.problem("trust", failure)).ok()?;
    let host = Host { url: &url, legacy: given.legacy, toolbox, dir: run_dir };
    let known = known_hosts(&rule, &host).await;
    let (known_hosts, warnings) = known.map_err(|failure| report.problem("trust", failure)).ok()?;
    login?;
    let login = Login {
        known_hosts: &known_hosts,
        identity: given.identity.as_deref(),
        password: given.password.as_deref(),
        legacy: given.legacy,
    };
    if let Err(failure) = login.install(&config::folder(run_dir), toolbox) {
        report.problem("source", failure);
        return None;
    }
    let xml = patiently(async || read_domain(toolbox, &url, &given.vm).await).await;
    let xml = match xml {
        Ok(xml) => xml,
        Err(failure) => {
            let check = if failure.class == Class::Trust { "trust" } else { "source" };
            report.problem(check, failure);
            return None;
        }
    };
    say(&rule, &url, &warnings, report);
    let paths = match domain::disks(&xml, &given.vm) {
        Ok(paths) => paths,
        Err(failures) => {
            for failure in failures {
                report.problem("source", failure);
            }
            return None;
        }
    };
    let mut sizes = Vec::new();
    for path in &paths {
        let size = patiently(async || measure(given, toolbox, &url, path).await).await;
        sizes.push(size.map_err(|failure| report.problem("source", failure)).ok());
    }
    let sizes = sizes.into_iter().collect::<Option<Vec<u64>>>()?;
    report.ok("source", format!("{} disk(s) of {} on {}", sizes.len(), given.vm, url.known_name()));
    let password = given.password.clone();
    Some(Guest { url: url.url, trust: rule.name(), password, sizes, warnings })
}

/// Whether there is something to log in with, and it can be used.
async fn check_login(given: &Given, toolbox: &Toolbox, report: &mut Report) -> Option<()> {
    let before = report.problems().count();
    if let Some(file) = &given.password {
        preflight::check_secret(report, file, "password");
    }
    if let Some(file) = &given.identity {
        match check_key(toolbox, file).await {
            Ok(()) => report.ok("secrets", format!("{} is a private key", file.display())),
            Err(failure) => report.problem("secrets", failure),
        }
    }
    if given.password.is_none() && given.identity.is_none() {
        let message = "there is neither a password nor a private key for the Xen host";
        report.problem(
            "secrets",
            Failure::new(Class::Config, message).advise(
                "put the password (secretKey; --password-file) or the key (ssh-privatekey; --identity) into the secret",
            ),
        );
    }
    (report.problems().count() == before).then_some(())
}

/// By ssh-keygen: it must give the public part without a passphrase.
async fn check_key(toolbox: &Toolbox, file: &Path) -> Result<(), Failure> {
    let shown = file.display();
    let wrong = |what: &str| {
        Failure::new(Class::Config, format!("{shown} (private key): {what}")).advise(
            "give a private key in OpenSSH's or PEM format that has no passphrase (ssh-keygen -p -N '' -f KEY takes it off)",
        )
    };
    let key = std::fs::read(file).map_err(|e| wrong(&e.to_string()))?;
    // ssh-keygen refuses a key that others may read, which a secret's file is.
    let copy = tempfile::NamedTempFile::new().and_then(|mut copy| {
        use std::io::Write;
        copy.write_all(key.trim_ascii_end())?;
        copy.write_all(b"\n")?;
        Ok(copy)
    });
    let copy = copy.map_err(|e| Failure::new(Class::NoSpace, format!("no temporary file: {e}")))?;
    let name = copy.path().to_string_lossy().into_owned();
    let arguments = ["-y", "-P", "", "-f", &name];
    let asked = toolbox.ask("ssh-keygen", &arguments, LIMIT).await;
    match asked.ok_or_else(|| tool_run::missing("ssh-keygen"))? {
        (status, _) if status.success() => Ok(()),
        (_, text) if text.contains("passphrase") => Err(wrong("it has a passphrase")),
        (_, text) => {
            let last = text.lines().last().unwrap_or_default().replace(&name, "it");
            Err(wrong(&format!("it is no key that ssh can use ({last})")))
        }
    }
}

/// Text of the `known_hosts` file for the tools, and what to warn of.
async fn known_hosts(rule: &Rule, host: &Host<'_>) -> Result<(String, Vec<String>), Failure> {
    let Host { url, toolbox, .. } = *host;
    match rule {
        Rule::KnownHosts(file) => Ok((read_known_hosts(file)?, Vec::new())),
        Rule::Pin(pin, file) => {
            let in_file = match file {
                Some(file) => Some(keys_in(file, url, toolbox).await?),
                None => None,
            };
            let presented = patiently(async || host.presented().await).await?;
            let right = host_key::pinned(url, presented, *pin, in_file.as_deref())?;
            Ok((host_key::known_hosts(url, &right), Vec::new()))
        }
        Rule::Insecure => {
            let presented = patiently(async || host.presented().await).await?;
            let warning = format!(
                "the host key of {} was not verified, since that was asked for; it presents {}",
                url.known_name(),
                host_key::shown(&presented)
            );
            Ok((host_key::known_hosts(url, &presented), vec![warning]))
        }
    }
}

fn read_known_hosts(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|e| {
        let message = format!("{} (known_hosts): {e}", file.display());
        Failure::new(Class::Config, message).advise(HOW)
    })
}

/// ssh-keygen finds hashed names and patterns as well.
async fn keys_in(file: &Path, url: &XenUrl, toolbox: &Toolbox) -> Result<Vec<HostKey>, Failure> {
    read_known_hosts(file)?;
    let file = file.to_string_lossy();
    let asked = toolbox.ask("ssh-keygen", &["-F", &url.known_name(), "-f", &file], LIMIT).await;
    let (_, text) = asked.ok_or_else(|| tool_run::missing("ssh-keygen"))?;
    Ok(host_key::keys(&text))
}

/// A host that is asked for its keys.
struct Host<'a> {
    url: &'a XenUrl,
    legacy: bool,
    toolbox: &'a Toolbox,
    dir: &'a Path,
}

impl Host<'_> {
    /// The keys that it presents, at least one.
    async fn presented(&self) -> Result<Vec<HostKey>, Failure> {
        let text = if self.legacy { self.told_ssh().await? } else { self.scanned().await? };
        let keys = host_key::keys(&text);
        if !keys.is_empty() {
            return Ok(keys);
        }
        let why = text.lines().find(|l| !l.starts_with('#')).unwrap_or_default();
        if let Some(failure) = said::no_algorithm(why, self.url) {
            return Err(failure);
        }
        let why = if why.is_empty() { "it refuses connections, or is silent" } else { why };
        let message = format!("no SSH server answers at {}: {why}", self.url.known_name());
        Err(Failure::new(Class::Network, message).may_pass())
    }

    async fn scanned(&self) -> Result<String, Failure> {
        let port = self.url.port.to_string();
        let arguments = ["-T", "15", "-p", &port, "--", &self.url.host];
        let asked = self.toolbox.ask("ssh-keyscan", &arguments, LIMIT).await;
        asked.map(|(_, text)| text).ok_or_else(|| tool_run::missing("ssh-keyscan"))
    }

    /// ssh-keyscan cannot be told algorithms. ssh can, and notes the key of a host before it logs in, which it does not get
    /// to do here.
    async fn told_ssh(&self) -> Result<String, Failure> {
        let file = self.dir.join("presented");
        match std::fs::remove_file(&file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                let message = format!("cannot remove {}: {e}", file.display());
                return Err(Failure::new(Class::Config, message));
            }
            _ => {}
        }
        let note = format!("UserKnownHostsFile \"{}\"", file.display());
        let options = [
            "StrictHostKeyChecking accept-new",
            "GlobalKnownHostsFile /dev/null",
            "HashKnownHosts no",
            "PreferredAuthentications none",
            "BatchMode yes",
            "ConnectTimeout 15",
            "LogLevel ERROR",
            &note,
        ];
        let mut arguments = vec!["-F", "/dev/null"];
        arguments.extend(options.iter().chain(&config::LEGACY).flat_map(|o| ["-o", o]));
        let port = self.url.port.to_string();
        arguments.extend(["-p", &port, "-l", &self.url.user, "--", &self.url.host, "true"]);
        let asked = self.toolbox.ask("ssh", &arguments, LIMIT).await;
        let (_, text) = asked.ok_or_else(|| tool_run::missing("ssh"))?;
        Ok(std::fs::read_to_string(&file).unwrap_or(text))
    }
}

async fn read_domain(toolbox: &Toolbox, url: &XenUrl, vm: &str) -> Result<String, Failure> {
    let mut arguments = vec!["-c", &url.url, "dumpxml"];
    arguments.extend(vm.starts_with('-').then_some("--domain"));
    arguments.push(vm);
    let program = toolbox.find("virsh").ok_or_else(|| tool_run::missing("virsh"))?;
    let Some((status, text)) = toolbox.ask("virsh", &arguments, LIMIT).await else {
        let message = format!(
            "{} got no answer from {} within {} s",
            program.display(),
            url.known_name(),
            LIMIT.as_secs()
        );
        return Err(Failure::new(Class::Network, message).may_pass());
    };
    if !status.success() {
        let failure = said::by_virsh(&text, url, vm);
        let other = failure.class == Class::Network && !failure.message.contains("ssh: ");
        return Err(if other { negotiate(toolbox, url).await.unwrap_or(failure) } else { failure });
    }
    // Warnings may stand before the document.
    let start = text.find('<').unwrap_or(0);
    Ok(text[start..].to_owned())
}

/// Whether ssh found no algorithm. It says so only when it also repeats the host's banner, which libvirt must not get: it
/// keeps no more than the first kilobyte of what ssh says.
async fn negotiate(toolbox: &Toolbox, url: &XenUrl) -> Option<Failure> {
    let port = url.port.to_string();
    let arguments =
        ["-o", "LogLevel=INFO", "-T", "-p", &port, "-l", &url.user, "--", &url.host, "true"];
    let (_, text) = toolbox.ask("ssh", &arguments, LIMIT).await?;
    said::no_algorithm(&text, url)
}

/// Opens a disk as virt-v2v will.
async fn measure(
    given: &Given,
    toolbox: &Toolbox,
    url: &XenUrl,
    path: &str,
) -> Result<u64, Failure> {
    let parameter = |key: &str, value: &str| format!("{key}={value}");
    let mut arguments = vec![
        "--exit-with-parent".to_owned(),
        "--readonly".to_owned(),
        "-U".to_owned(),
        "-".to_owned(),
        "--run".to_owned(),
        SIZE.to_owned(),
        "ssh".to_owned(),
        parameter("host", &url.host),
        parameter("port", &url.port.to_string()),
        parameter("user", &url.user),
        parameter("path", path),
    ];
    if let Some(file) = &given.password {
        // Tools differ in what else they would take for the password.
        secret::read(file, "password")?;
        arguments.push(format!("password=+{}", file.display()));
    }
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let asked = toolbox.ask("nbdkit", &words, LIMIT).await;
    let (status, text) = asked.ok_or_else(|| {
        let message = format!("nbdkit got no answer from {}", url.known_name());
        Failure::new(Class::Network, message).may_pass()
    })?;
    let size = text.lines().rev().find_map(|l| l.trim().parse::<u64>().ok());
    match size.filter(|_| status.success()) {
        Some(0) => {
            let message = format!(
                "the disk {path} on {} is empty, or a block device, whose size SFTP cannot tell",
                url.known_name()
            );
            Err(Failure::new(Class::UnsupportedGuest, message)
                .advise("copy a device into a file on the host first; see virt-v2v-input-xen(1)"))
        }
        Some(size) => Ok(size),
        None => Err(said::by_nbdkit(&text, url, path)),
    }
}

/// What is only unreachable is tried again: for a short time, since a person may be waiting.
async fn patiently<T>(mut once: impl AsyncFnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    for wait in WAITS {
        match once().await {
            Err(failure) if failure.class == Class::Network => {
                tracing::info!("{failure}; trying again in {} s", wait.as_secs());
            }
            result => return result,
        }
        tokio::time::sleep(wait).await;
    }
    once().await
}

fn say(rule: &Rule, url: &XenUrl, warnings: &[String], report: &mut Report) {
    let name = url.known_name();
    match rule {
        Rule::Insecure => report.note("trust", warnings.join("; "), HOW),
        Rule::KnownHosts(file) => {
            report.ok("trust", format!("{name} verified by {}", file.display()));
        }
        Rule::Pin(..) => report.ok("trust", format!("{name} verified by its fingerprint")),
    }
}
