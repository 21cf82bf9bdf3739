//! What a pod's secret has for SSH, by the names of its files.

use std::path::{Path, PathBuf};

/// Names of the host keys' file.
pub const KNOWN_HOSTS: [&str; 2] = ["known_hosts", "knownhosts"];
/// Names of the private key's file; the first is that of Kubernetes' own kind of secret.
pub const IDENTITY: [&str; 5] =
    ["ssh-privatekey", "sshprivatekey", "id_ed25519", "id_ecdsa", "id_rsa"];

/// Files of the secret; an empty one counts as absent, since a secret made from a form has it even when nothing was
/// filled in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// The password.
    pub password: Option<PathBuf>,
    /// The private key.
    pub identity: Option<PathBuf>,
    /// The host keys.
    pub known_hosts: Option<PathBuf>,
    /// The user, for a URL that names none.
    pub user: Option<String>,
}

impl Secrets {
    /// Looks beside the files of the contract.
    pub fn find(access_key: &Path, secret_key: &Path) -> Self {
        let first = |names: &[&str]| {
            names.iter().map(|n| secret_key.with_file_name(n)).find(|p| is_filled(p))
        };
        Self {
            password: Some(secret_key.to_owned()).filter(|p| is_filled(p)),
            identity: first(&IDENTITY),
            known_hosts: first(&KNOWN_HOSTS),
            user: std::fs::read_to_string(access_key).ok().map(|u| u.trim().to_owned()),
        }
    }
}

/// A file that cannot be read counts as filled: what is wrong with it is told later.
fn is_filled(path: &Path) -> bool {
    path.exists() && !std::fs::read(path).is_ok_and(|bytes| bytes.trim_ascii().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_name_and_empty_ones_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert_eq!(Secrets::find(&at("accessKeyId"), &at("secretKey")), Secrets::default());
        for (name, text) in [
            ("accessKeyId", "root\n"),
            ("secretKey", "\n"),
            ("ssh-privatekey", ""),
            ("id_rsa", "key"),
            ("knownhosts", "x"),
        ] {
            std::fs::write(at(name), text).unwrap();
        }
        let expected = Secrets {
            password: None,
            identity: Some(at("id_rsa")),
            known_hosts: Some(at("knownhosts")),
            user: Some("root".to_owned()),
        };
        assert_eq!(Secrets::find(&at("accessKeyId"), &at("secretKey")), expected);
    }
}
