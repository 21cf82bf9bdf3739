//! The private folder at the head of the tools' PATH: links that make ssh and nbdkit ours, and what they read. ssh and
//! libssh read the same kind of file, but not in the same way, so each has its own.

use super::front::{ASKPASS, SSH, SshSettings};
use crate::failure::{Class, Failure};
use crate::nbdkit_front::{self, Edits, SshEdits};
use crate::shim;
use crate::toolbox::Toolbox;
use std::io;
use std::path::{Path, PathBuf};

/// What the tools may use.
#[derive(Debug, Clone)]
pub struct Login<'a> {
    /// Text of a `known_hosts` file.
    pub known_hosts: &'a str,
    /// File with a private key.
    pub identity: Option<&'a Path>,
    /// File with the password.
    pub password: Option<&'a Path>,
    /// Algorithms of old hosts are allowed.
    pub legacy: bool,
}

/// What an sshd of 2007 has (OpenSSH 4.3), and today's clients offer only when told to.
pub const LEGACY: [&str; 4] = [
    "HostKeyAlgorithms +ssh-rsa",
    "PubkeyAcceptedAlgorithms +ssh-rsa",
    // libssh has left this one out, too.
    "MACs +hmac-sha1",
    "KexAlgorithms +diffie-hellman-group-exchange-sha1,diffie-hellman-group14-sha1,diffie-hellman-group1-sha1",
];

impl Login<'_> {
    /// Sets it all up; whoever starts ssh or nbdkit through the toolbox then uses it.
    pub fn install(&self, folder: &Path, toolbox: &mut Toolbox) -> Result<(), Failure> {
        let shown = folder.to_string_lossy();
        if shown.contains(['%', '"', '\\', '\n']) || folder.to_str().is_none() {
            let message = format!("ssh cannot be given files in {shown}");
            return Err(Failure::new(Class::Config, message).advise("set TMPDIR to a plain path"));
        }
        self.write(folder, toolbox)
            .map_err(|e| Failure::new(Class::NoSpace, format!("cannot set up ssh in {shown}: {e}")))
    }

    fn write(&self, folder: &Path, toolbox: &mut Toolbox) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let (known_hosts, identity) = (folder.join("known_hosts"), folder.join("identity"));
        shim::write_private(&known_hosts, self.known_hosts.as_bytes())?;
        // A secret's files are readable for the group, and ssh refuses such a key.
        let identity = match self.identity {
            Some(path) => {
                let mut key = std::fs::read(path)?;
                // A form may have lost it, and OpenSSH's parser insists.
                if !key.ends_with(b"\n") {
                    key.push(b'\n');
                }
                shim::write_private(&identity, &key)?;
                Some(identity)
            }
            None => None,
        };
        let (ssh, libssh) = (folder.join("ssh_config"), folder.join("libssh_config"));
        let password = self.password.is_some();
        let legacy =
            if self.legacy { LEGACY.map(|l| format!("  {l}\n")).concat() } else { String::new() };
        let text = openssh(&known_hosts, identity.as_deref(), password) + &legacy;
        shim::write_private(&ssh, text.as_bytes())?;
        let text = for_libssh(identity.is_some()) + &legacy;
        shim::write_private(&libssh, text.as_bytes())?;
        let settings =
            SshSettings { config: ssh, password_file: self.password.map(Path::to_owned) };
        settings.write(folder)?;
        shim::link(folder, SSH)?;
        shim::link(folder, ASKPASS)?;
        toolbox.lead_path(folder);
        let edits = SshEdits { config: libssh, known_hosts, identity };
        Edits { ssh: Some(edits), ..Edits::default() }.install(folder, toolbox)
    }
}

/// For the program `ssh`: complete, so that no other file has a say.
fn openssh(known_hosts: &Path, identity: Option<&Path>, password: bool) -> String {
    let yes = |really: bool| if really { "yes" } else { "no" };
    let quoted = |p: &Path| format!("\"{}\"", p.display());
    let identity_file = identity.map_or("none".to_owned(), quoted);
    let methods: Vec<&str> = identity
        .map(|_| "publickey")
        .into_iter()
        .chain(password.then_some("password"))
        .chain(password.then_some("keyboard-interactive"))
        .collect();
    format!(
        "Host *
  StrictHostKeyChecking yes
  UserKnownHostsFile {known_hosts}
  GlobalKnownHostsFile /dev/null
  UpdateHostKeys no
  VerifyHostKeyDNS no
  IdentityFile {identity_file}
  IdentitiesOnly yes
  IdentityAgent none
  PubkeyAuthentication {key}
  PasswordAuthentication {password}
  KbdInteractiveAuthentication {password}
  GSSAPIAuthentication no
  HostbasedAuthentication no
  PreferredAuthentications {methods}
  NumberOfPasswordPrompts 1
  BatchMode {batch}
  ForwardAgent no
  ForwardX11 no
  ControlMaster no
  ControlPath none
  ConnectTimeout 20
  ServerAliveInterval 15
  ServerAliveCountMax 4
  LogLevel ERROR
",
        known_hosts = quoted(known_hosts),
        key = yes(identity.is_some()),
        batch = yes(!password),
        password = yes(password),
        methods = methods.join(","),
    )
}

/// For nbdkit's plugin, which gets the other files by name. libssh's list of host keys of the machine cannot be turned
/// off by a parameter.
fn for_libssh(key: bool) -> String {
    let key = if key { "yes" } else { "no" };
    format!(
        "Host *
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  PubkeyAuthentication {key}
  GSSAPIAuthentication no
  ConnectTimeout 20
"
    )
}

/// Where the folder is.
pub fn folder(run_dir: &Path) -> PathBuf {
    run_dir.join(nbdkit_front::FOLDER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rundir::RunDir;
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn everything_is_private_and_nothing_holds_the_password() {
        let base = tempfile::tempdir().unwrap();
        let run = RunDir::create(base.path()).unwrap();
        let mut toolbox = Toolbox::new(&BTreeMap::new(), &run, base.path());
        let (key, password) = (base.path().join("key"), base.path().join("secretKey"));
        std::fs::write(&key, "-----BEGIN KEY-----").unwrap();
        std::fs::write(&password, "hunter2\n").unwrap();
        let login = Login {
            known_hosts: "h k b\n",
            identity: Some(&key),
            password: Some(&password),
            legacy: true,
        };
        let folder = folder(run.path());
        login.install(&folder, &mut toolbox).unwrap();
        login.install(&folder, &mut toolbox).unwrap();
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_symlink() {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(!text.contains("hunter2"), "{}", path.display());
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        for tool in ["ssh", "ssh-askpass", "nbdkit"] {
            assert_eq!(toolbox.find(tool), Some(folder.join(tool)));
        }
        assert!(std::fs::read_to_string(folder.join("identity")).unwrap().ends_with("KEY-----\n"));
        let config = std::fs::read_to_string(folder.join("ssh_config")).unwrap();
        assert!(
            config.contains("PreferredAuthentications publickey,password,keyboard-interactive")
        );
        assert!(config.contains("  HostKeyAlgorithms +ssh-rsa\n"));
        assert!(config.contains("BatchMode no") && config.contains("StrictHostKeyChecking yes"));
    }

    #[test]
    fn without_a_password_nobody_is_asked() {
        let config = openssh(Path::new("/k h"), Some(Path::new("/id")), false);
        assert!(config.contains("UserKnownHostsFile \"/k h\"\n"));
        assert!(config.contains("PreferredAuthentications publickey\n"));
        assert!(config.contains("BatchMode yes") && config.contains("PasswordAuthentication no"));
        let config = openssh(Path::new("/k"), None, true);
        assert!(config.contains("IdentityFile none") && config.contains("PubkeyAuthentication no"));
    }
}
