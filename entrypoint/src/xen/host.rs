//! A Xen host that is asked for its keys, and the rule held against them.

use super::check::{LIMIT, patiently};
use super::config;
use super::host_key::{self, HOW, HostKey, Rule};
use super::said;
use super::url::XenUrl;
use crate::failure::{Class, Failure};
use crate::tool_run;
use crate::toolbox::Toolbox;
use std::path::Path;

/// The host, and what to ask it with.
pub struct Host<'a> {
    /// Where it is.
    pub url: &'a XenUrl,
    /// Algorithms of old hosts are allowed.
    pub legacy: bool,
    /// Programs.
    pub toolbox: &'a Toolbox,
    /// Takes a file.
    pub dir: &'a Path,
}

impl Host<'_> {
    /// Text of the `known_hosts` file for the tools, and what to warn of.
    pub async fn known_hosts(&self, rule: &Rule) -> Result<(String, Vec<String>), Failure> {
        match rule {
            Rule::KnownHosts(file) => Ok((read_known_hosts(file)?, Vec::new())),
            Rule::Pin(pin, file) => {
                let in_file = match file {
                    Some(file) => Some(self.keys_in(file).await?),
                    None => None,
                };
                let presented = patiently(async || self.presented().await).await?;
                let right = host_key::pinned(self.url, presented, *pin, in_file.as_deref())?;
                Ok((host_key::known_hosts(self.url, &right), Vec::new()))
            }
            Rule::Insecure => {
                let presented = patiently(async || self.presented().await).await?;
                let warning = format!(
                    "the host key of {} was not verified, since that was asked for; it presents {}",
                    self.url.known_name(),
                    host_key::shown(&presented)
                );
                Ok((host_key::known_hosts(self.url, &presented), vec![warning]))
            }
        }
    }

    /// ssh-keygen finds hashed names and patterns as well.
    async fn keys_in(&self, file: &Path) -> Result<Vec<HostKey>, Failure> {
        read_known_hosts(file)?;
        let (file, name) = (file.to_string_lossy(), self.url.known_name());
        let asked = self.toolbox.ask("ssh-keygen", &["-F", &name, "-f", &file], LIMIT).await;
        let (_, text) = asked.ok_or_else(|| tool_run::missing("ssh-keygen"))?;
        Ok(host_key::keys(&text))
    }

    /// The keys that it presents, at least one.
    async fn presented(&self) -> Result<Vec<HostKey>, Failure> {
        let scanned = if self.legacy { Vec::new() } else { self.scanned().await? };
        if !scanned.is_empty() {
            return Ok(scanned);
        }
        let text = self.told_ssh().await?;
        let keys = host_key::keys(&text);
        if !keys.is_empty() {
            return Ok(keys);
        }
        if let Some(failure) = said::no_algorithm(&text, self.url) {
            return Err(failure);
        }
        let why = text.lines().last().unwrap_or("it is silent").trim();
        let message = format!("no SSH server answers at {}: {why}", self.url.known_name());
        Err(Failure::new(Class::Network, message).may_pass().advise(said::REACH))
    }

    async fn scanned(&self) -> Result<Vec<HostKey>, Failure> {
        let port = self.url.port.to_string();
        let arguments = ["-T", "15", "-p", &port, "--", &self.url.host];
        let asked = self.toolbox.ask("ssh-keyscan", &arguments, LIMIT).await;
        let (_, text) = asked.ok_or_else(|| tool_run::missing("ssh-keyscan"))?;
        Ok(host_key::keys(&text))
    }

    /// ssh-keyscan cannot be told algorithms, and does not say why it found none. ssh can, does, and notes the key of a host before it logs in, which it does not get
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
            "LogLevel INFO",
            &note,
        ];
        let mut arguments = vec!["-F", "/dev/null"];
        let legacy: &[&str] = if self.legacy { &config::LEGACY } else { &[] };
        arguments.extend(options.iter().chain(legacy).flat_map(|o| ["-o", o]));
        let port = self.url.port.to_string();
        arguments.extend(["-p", &port, "-l", &self.url.user, "--", &self.url.host, "true"]);
        let asked = self.toolbox.ask("ssh", &arguments, LIMIT).await;
        let (_, text) = asked.ok_or_else(|| tool_run::missing("ssh"))?;
        Ok(std::fs::read_to_string(&file).unwrap_or(text))
    }
}

fn read_known_hosts(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|e| {
        let message = format!("{} (known_hosts): {e}", file.display());
        Failure::new(Class::Config, message).advise(HOW)
    })
}
