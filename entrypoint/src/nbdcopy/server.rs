//! `[ CMD ARGS… ]`: an NBD server that is started for one copy, by systemd's socket activation.

use crate::sys;
use datapath::nbd::NbdUri;
use datapath::nbd::uri::Address;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Sets the variable that must hold the server's own number, and becomes the server.
const ACTIVATE: &str = "LISTEN_PID=$$; export LISTEN_PID; exec \"$@\"";

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    folder: TempDir,
}

impl Server {
    /// Starts it. It inherits the socket as descriptor 3, and dies with us.
    #[allow(clippy::disallowed_methods)] // it is no tool of a conversion; nothing supervises it
    pub fn start(command: &[OsString]) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("v2v-pod-nbd").tempdir()?;
        let listener = UnixListener::bind(folder.path().join("sock"))?;
        let mut spawn = Command::new("/bin/sh");
        spawn
            .arg("-c")
            .arg(ACTIVATE)
            .arg("sh")
            .args(command)
            .env("LISTEN_FDS", "1")
            .env("LISTEN_FDNAMES", "unknown")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        sys::give_descriptor(&mut spawn, listener.as_raw_fd(), 3);
        let child = spawn.spawn()?;
        Ok(Self { child, folder })
    }

    /// Where it listens.
    pub fn uri(&self) -> NbdUri {
        let address = Address::Unix(self.folder.path().join("sock"));
        NbdUri { address, export: String::new(), tls: None }
    }

    /// Ends it. After a good copy it may need long to put its image in order, and must not be killed.
    pub async fn stop(mut self, copied: bool) -> io::Result<()> {
        if let Some(pid) = self.child.id().and_then(|p| i32::try_from(p).ok()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        if copied {
            return self.child.wait().await.map(drop);
        }
        if tokio::time::timeout(Duration::from_secs(5), self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }
}
