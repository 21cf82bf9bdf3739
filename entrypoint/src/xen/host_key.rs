//! Which host key is the right one: what was given as a rule, and the keys that a host presents. Pure.

use super::url::XenUrl;
use crate::failure::{Class, Failure};
use crate::trust::Fingerprint;
use crate::vsphere::access::TrustMode;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// How to get the right ones.
pub const HOW: &str = "put the host's line of known_hosts into the secret (known_hosts; --known-hosts), or give the fingerprint that `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` shows on the host (V2V_fingerprint, --thumbprint)";

/// The rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// The keys in this file.
    KnownHosts(PathBuf),
    /// The key with this fingerprint; with a file, only if it is in there as well.
    Pin(Fingerprint, Option<PathBuf>),
    /// Whatever key it presents.
    Insecure,
}

impl Rule {
    /// From what was given.
    pub fn of(
        mode: TrustMode,
        unverified: bool,
        pin: Option<Fingerprint>,
        known_hosts: Option<&Path>,
    ) -> Result<Self, Failure> {
        let lacking = |what: &str| {
            Err(Failure::new(Class::Trust, format!("the Xen host cannot be verified: {what}"))
                .advise(HOW))
        };
        let file = known_hosts.map(Path::to_owned);
        let mode = if mode == TrustMode::Auto && unverified { TrustMode::Insecure } else { mode };
        match (mode, pin, file) {
            (TrustMode::Insecure, _, _) => Ok(Self::Insecure),
            (TrustMode::Auto | TrustMode::Thumbprint, Some(Fingerprint::Sha1(_)), _) => {
                let message =
                    "the fingerprint is one of SHA-1, but those of host keys are of SHA-256";
                Err(Failure::new(Class::Config, message).advise(HOW))
            }
            (TrustMode::Auto, Some(pin), file) => Ok(Self::Pin(pin, file)),
            (TrustMode::Thumbprint, Some(pin), _) => Ok(Self::Pin(pin, None)),
            (TrustMode::Auto | TrustMode::Ca, _, Some(file)) => Ok(Self::KnownHosts(file)),
            (TrustMode::Auto, None, None) => {
                lacking("neither a known_hosts file nor a fingerprint was given")
            }
            (TrustMode::Ca, _, None) => {
                lacking("trust is set to ca, for SSH a known_hosts file, and there is none")
            }
            (TrustMode::Thumbprint, None, _) => {
                lacking("trust is set to thumbprint, and there is none")
            }
        }
    }

    /// For events and results.
    pub fn name(&self) -> &'static str {
        match self {
            Self::KnownHosts(_) => "known-hosts",
            Self::Pin(..) => "thumbprint",
            Self::Insecure => "insecure",
        }
    }
}

/// A public key of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    kind: String,
    text: String,
    blob: Vec<u8>,
}

impl HostKey {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        // A marker (@revoked, @cert-authority) means something else than "this is the key".
        words.next().filter(|names| !names.starts_with(['#', '@']))?;
        let (kind, text) = (words.next()?, words.next()?);
        let known = kind.chars().all(|c| c.is_ascii_alphanumeric() || "-.@".contains(c));
        let blob = openssl::base64::decode_block(text).ok()?;
        // The kind is in the key once more.
        let length = u32::from_be_bytes(*blob.first_chunk()?);
        let inner = blob.get(4..4_usize.checked_add(usize::try_from(length).ok()?)?)?;
        (known && inner == kind.as_bytes()).then(|| Self {
            kind: kind.to_owned(),
            text: text.to_owned(),
            blob,
        })
    }

    /// As OpenSSH shows it.
    pub fn fingerprint(&self) -> String {
        let digest = openssl::base64::encode_block(&openssl::sha::sha256(&self.blob));
        format!("SHA256:{}", digest.trim_end_matches('='))
    }
}

/// The keys in the output of ssh-keyscan or `ssh-keygen -F`; what else there is, is left out.
pub fn keys(text: &str) -> Vec<HostKey> {
    let mut keys: Vec<HostKey> = Vec::new();
    for key in text.lines().filter_map(HostKey::parse) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// `SHA256:… (ssh-ed25519), …`
pub fn shown(keys: &[HostKey]) -> String {
    let each = keys.iter().map(|k| format!("{} ({})", k.fingerprint(), k.kind));
    each.collect::<Vec<_>>().join(", ")
}

/// A `known_hosts` file of these keys for this host.
pub fn known_hosts(url: &XenUrl, keys: &[HostKey]) -> String {
    let mut file = String::new();
    for key in keys {
        let _ = writeln!(file, "{} {} {}", url.known_name(), key.kind, key.text);
    }
    file
}

/// Those of the presented keys that are right by the fingerprint, and in the file, when there is one.
pub fn pinned(
    url: &XenUrl,
    presented: Vec<HostKey>,
    pin: Fingerprint,
    in_file: Option<&[HostKey]>,
) -> Result<Vec<HostKey>, Failure> {
    let name = url.known_name();
    let all = shown(&presented);
    let right: Vec<HostKey> = presented.into_iter().filter(|k| pin.matches(&k.blob)).collect();
    if right.is_empty() {
        let digest = match pin {
            Fingerprint::Sha256(bytes) => openssl::base64::encode_block(&bytes),
            Fingerprint::Sha1(bytes) => openssl::base64::encode_block(&bytes),
        };
        let expected = digest.trim_end_matches('=');
        let message = format!(
            "no host key of {name} has the fingerprint SHA256:{expected}; it presents {all}"
        );
        return Err(Failure::new(Class::Trust, message).advise(HOW));
    }
    let known: Vec<HostKey> =
        right.into_iter().filter(|k| in_file.is_none_or(|f| f.contains(k))).collect();
    if known.is_empty() {
        let message = format!(
            "the host key of {name} has the right fingerprint, but is not in the given known_hosts"
        );
        return Err(Failure::new(Class::Trust, message).advise("give one of both alone"));
    }
    Ok(known)
}

#[cfg(test)]
#[path = "host_key_tests.rs"]
mod tests;
