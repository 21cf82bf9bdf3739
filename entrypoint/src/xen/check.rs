//! The preflight of a Xen source: host key, login, domain and disks, by the tools that virt-v2v uses and in the way in
//! which it uses them. What it sets up for them stays in the toolbox for the run.

use super::config::{self, Login};
use super::domain;
use super::host::Host;
use super::host_key::{HOW, Rule};
use super::said;
use super::url::XenUrl;
use crate::failure::{Class, Failure};
use crate::preflight::{self, Report};
use crate::secret;
use crate::sources::answer::Nic;
use crate::tool_run;
use crate::toolbox::Toolbox;
use crate::trust::Fingerprint;
use crate::vsphere::access::TrustMode;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// ssh gives up on a silent host after 20 s.
pub(super) const LIMIT: Duration = Duration::from_secs(120);
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
    /// As the host calls it.
    pub name: String,
    /// Its UUID.
    pub uuid: Option<String>,
    /// The disks' files on the host, in their order.
    pub paths: Vec<String>,
    /// Their sizes in bytes.
    pub sizes: Vec<u64>,
    /// What it is connected to.
    pub nics: Vec<Nic>,
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
    let login = check_login(given, toolbox, run_dir, report).await;
    let url = XenUrl::parse(&given.url, given.user.as_deref())
        .map_err(|failure| report.problem("source", failure))
        .ok()?;
    let rule = Rule::of(given.mode, url.unverified, given.pin, given.known_hosts.as_deref());
    let rule = rule.map_err(|failure| report.problem("trust", failure)).ok()?;
    let host = Host { url: &url, legacy: given.legacy, toolbox, dir: run_dir };
    let known = host.known_hosts(&rule).await;
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
    let domain::Domain { name, uuid, paths, nics } = match domain::read(&xml, &given.vm) {
        Ok(domain) => domain,
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
    Some(Guest {
        url: url.url,
        trust: rule.name(),
        password,
        name,
        uuid,
        paths,
        sizes,
        nics,
        warnings,
    })
}

/// Whether there is something to log in with, and it can be used.
async fn check_login(
    given: &Given,
    toolbox: &Toolbox,
    run_dir: &Path,
    report: &mut Report,
) -> Option<()> {
    let before = report.problems().count();
    if let Some(file) = &given.password {
        preflight::check_secret(report, file, "password");
    }
    if let Some(file) = &given.identity {
        match check_key(toolbox, file, run_dir).await {
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
async fn check_key(toolbox: &Toolbox, file: &Path, run_dir: &Path) -> Result<(), Failure> {
    let shown = file.display();
    let wrong = |what: &str| {
        Failure::new(Class::Config, format!("{shown} (private key): {what}")).advise(
            "give a private key in OpenSSH's or PEM format that has no passphrase (ssh-keygen -p -N '' -f KEY takes it off)",
        )
    };
    let key = std::fs::read(file).map_err(|e| wrong(&e.to_string()))?;
    // ssh-keygen refuses a key that others may read, which a secret's file is.
    let copy = tempfile::NamedTempFile::new_in(run_dir).and_then(|mut copy| {
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
pub(super) async fn patiently<T>(
    mut once: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
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
