//! v2v-pod under the name `nbdkit`: adds to virt-v2v's calls of nbdkit what virt-v2v has no option for, and becomes the
//! real nbdkit (the next in PATH). The link and the file with the [`Edits`] beside it are made only when there is
//! something to add.

mod args;

pub use args::edit;

use crate::shim;
use crate::toolbox::Toolbox;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name we are called by.
pub const NAME: &str = "nbdkit";
/// Folder of the link, in the run's.
pub const FOLDER: &str = "front";
/// Beside the link.
const FILE: &str = "nbdkit.json";

/// What is added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edits {
    /// For the `ssh` plugin.
    pub ssh: Option<SshEdits>,
    /// For the `curl` plugin: how often the cookie is fetched anew. virt-v2v says every 25 minutes, which is too late
    /// for a server whose sessions are shorter.
    pub cookie_renew: Option<Duration>,
}

/// Parameters of the `ssh` plugin, each for a call that does not have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshEdits {
    /// `config=`
    pub config: PathBuf,
    /// `known-hosts=`
    pub known_hosts: PathBuf,
    /// `identity=`
    pub identity: Option<PathBuf>,
}

impl Edits {
    /// Whether there is nothing to add.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Puts the link into `folder`, and the folder at the head of the tools' PATH; nothing when there is nothing to add.
    /// What an earlier set there has and this one has not, stays.
    pub fn install(&self, folder: &Path, toolbox: &mut Toolbox) -> io::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        shim::link(folder, NAME)?;
        let file = folder.join(FILE);
        let earlier = if file.exists() { Self::read(folder)? } else { Self::default() };
        let all = Self {
            ssh: self.ssh.clone().or(earlier.ssh),
            cookie_renew: self.cookie_renew.or(earlier.cookie_renew),
        };
        shim::write_private(&file, &serde_json::to_vec(&all)?)?;
        toolbox.lead_path(folder);
        Ok(())
    }

    fn read(folder: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(folder.join(FILE))?)?)
    }
}

/// Becomes the real nbdkit with edited arguments; the exit code if that fails.
pub fn run(arguments: Vec<OsString>) -> u8 {
    let why = match shim::folder(NAME) {
        None => "this link is not in PATH".to_owned(),
        Some(folder) => match Edits::read(&folder) {
            // Without them a server could go unverified.
            Err(e) => format!("{}: {e}", folder.join(FILE).display()),
            Ok(edits) => shim::become_real(NAME, &edit(arguments, &edits), &[]),
        },
    };
    eprintln!("nbdkit: error: v2v-pod under the name nbdkit: {why}");
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rundir::RunDir;
    use std::collections::BTreeMap;

    #[test]
    fn a_link_is_made_only_when_there_is_something_to_add() {
        let base = tempfile::tempdir().unwrap();
        let run = RunDir::create(base.path()).unwrap();
        let mut toolbox = Toolbox::new(&BTreeMap::new(), &run, base.path());
        let folder = run.path().join("front");
        let before = toolbox.var("PATH").cloned();
        Edits::default().install(&folder, &mut toolbox).unwrap();
        assert!(!folder.exists() && toolbox.var("PATH").cloned() == before);
        let edits = Edits { cookie_renew: Some(Duration::from_secs(600)), ..Edits::default() };
        edits.install(&folder, &mut toolbox).unwrap();
        edits.install(&folder, &mut toolbox).unwrap();
        assert_eq!(Edits::read(&folder).unwrap(), edits);
        let ssh = SshEdits { config: "/c".into(), known_hosts: "/k".into(), identity: None };
        let more = Edits { ssh: Some(ssh), ..Edits::default() };
        more.install(&folder, &mut toolbox).unwrap();
        assert_eq!(Edits::read(&folder).unwrap(), Edits { ssh: more.ssh, ..edits });
        assert!(folder.join("nbdkit").is_symlink());
        let path = toolbox.var("PATH").unwrap().to_string_lossy().into_owned();
        assert_eq!(path.matches("front").count(), 1, "{path}");
        assert!(path.starts_with(&*folder.to_string_lossy()), "{path}");
    }
}
