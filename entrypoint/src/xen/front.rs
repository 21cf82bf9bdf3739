//! v2v-pod under the name `ssh`: adds our configuration to libvirt's call and becomes the real ssh. And under the name
//! `ssh-askpass`: the program that ssh asks for the password, which thus is never on a command line or in an environment.
//!
//! libvirt hands on a few variables only, PATH among them: by it the link finds the folder with its settings.

use crate::secret;
use crate::shim;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Names we are called by.
pub const SSH: &str = "ssh";
/// The other one.
pub const ASKPASS: &str = "ssh-askpass";
const FILE: &str = "ssh.json";

/// Beside the links.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshSettings {
    /// `-F`
    pub config: PathBuf,
    /// Whose first line is the password.
    pub password_file: Option<PathBuf>,
}

impl SshSettings {
    /// Writes them for the links in this folder.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        shim::write_private(&folder.join(FILE), &serde_json::to_vec(self)?)
    }

    fn read(folder: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(folder.join(FILE))?)?)
    }

    /// The arguments and variables of the real ssh. Its first `-F` is ours; for each option the first value counts, and
    /// those of the command line come before the file, so what libvirt says by `-o` would win: it says nothing of what
    /// we set.
    fn call(
        &self,
        folder: &Path,
        arguments: Vec<OsString>,
    ) -> (Vec<OsString>, Vec<(&str, OsString)>) {
        let mut all = vec!["-F".into(), self.config.clone().into_os_string()];
        all.extend(arguments);
        let variables = match self.password_file {
            Some(_) => vec![
                ("SSH_ASKPASS", folder.join(ASKPASS).into_os_string()),
                ("SSH_ASKPASS_REQUIRE", "force".into()),
            ],
            None => Vec::new(),
        };
        (all, variables)
    }
}

/// Becomes the real ssh; the exit code if that fails.
pub fn run_ssh(arguments: Vec<OsString>) -> u8 {
    let why = match shim::folder(SSH) {
        None => "this link is not in PATH".to_owned(),
        Some(folder) => match SshSettings::read(&folder) {
            // Without them the host could go unverified.
            Err(e) => format!("{}: {e}", folder.join(FILE).display()),
            Ok(settings) => {
                let (arguments, variables) = settings.call(&folder, arguments);
                shim::become_real(SSH, &arguments, &variables)
            }
        },
    };
    eprintln!("ssh: v2v-pod under the name ssh: {why}");
    // What ssh itself exits with.
    255
}

/// Answers ssh's question; the exit code.
pub fn run_askpass(program: Option<&OsString>, question: Option<&OsString>) -> u8 {
    match answer(program, question).and_then(|password| {
        io::stdout().write_all(format!("{password}\n").as_bytes()).map_err(|e| e.to_string())
    }) {
        Ok(()) => 0,
        Err(why) => {
            eprintln!("ssh-askpass: {why}");
            1
        }
    }
}

/// ssh names this program by its whole path.
fn answer(program: Option<&OsString>, question: Option<&OsString>) -> Result<String, String> {
    let question = question.map(|q| q.to_string_lossy().into_owned()).unwrap_or_default();
    if !is_for_password(&question) {
        return Err(format!("no answer to this question: {}", question.trim()));
    }
    let folder = program.and_then(|p| Path::new(p).parent()).unwrap_or(Path::new("."));
    let settings =
        SshSettings::read(folder).map_err(|e| format!("{}: {e}", folder.join(FILE).display()))?;
    let file = settings.password_file.ok_or("there is no password")?;
    secret::read(&file, "password").map_err(|f| f.to_string())
}

/// Passphrases of keys, codes of a second factor and the like are no business of the password.
fn is_for_password(question: &str) -> bool {
    let lower = question.to_lowercase();
    lower.contains("password") && !lower.contains("new password")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_is_called_with_our_file_first() {
        let settings = SshSettings {
            config: "/f/ssh_config".into(),
            password_file: Some("/etc/secret/secretKey".into()),
        };
        let libvirts = ["-p", "22", "-T", "-e", "none", "--", "xen", "sh -c 'x'"].map(Into::into);
        let (arguments, variables) = settings.call(Path::new("/f"), libvirts.to_vec());
        assert_eq!(arguments[..2], ["-F", "/f/ssh_config"]);
        assert_eq!(arguments[2..], libvirts);
        assert_eq!(variables[0], ("SSH_ASKPASS", "/f/ssh-askpass".into()));
        let keys_only = SshSettings { password_file: None, ..settings };
        assert!(keys_only.call(Path::new("/f"), Vec::new()).1.is_empty());
    }

    #[test]
    fn only_passwords_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secretKey");
        std::fs::write(&file, "pass word\n").unwrap();
        let settings = SshSettings { config: "/c".into(), password_file: Some(file) };
        settings.write(dir.path()).unwrap();
        let program = OsString::from(dir.path().join(ASKPASS));
        let ask = |question: &str| answer(Some(&program), Some(&question.into()));
        assert_eq!(ask("root@xen's password: ").unwrap(), "pass word");
        assert_eq!(ask("(root@xen) Password: ").unwrap(), "pass word");
        for other in [
            "Are you sure you want to continue connecting (yes/no/[fingerprint])? ",
            "Enter passphrase for key '/x': ",
            "Verification code: ",
            "New password: ",
            "",
        ] {
            assert!(ask(other).is_err(), "{other}");
        }
        let elsewhere = OsString::from("/nonexistent/ssh-askpass");
        assert!(answer(Some(&elsewhere), Some(&"password: ".into())).is_err());
    }
}
