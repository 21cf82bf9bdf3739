//! Servers that run as children, and end with their test.

use nix::unistd::Pid;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A tool's path; a missing one fails the test.
pub fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut found = std::env::split_paths(&path).chain(more).map(|dir| dir.join(name));
    found
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("needs {name}: run scripts/install-deps.sh lab"))
}

/// Runs a tool to its end.
pub fn run(name: &str, args: &[&str]) {
    let output = Command::new(tool(name)).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {args:?}: {text}");
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server in a child process.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    dir: TempDir,
}

impl Peer {
    fn start(mut command: Command, dir: TempDir, ready: impl Fn() -> bool) -> Self {
        let log = dir.path().join("log");
        let stderr = std::fs::File::create(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn();
        let mut peer = Self { child: child.unwrap(), dir };
        let start = Instant::now();
        while !ready() {
            let log = || std::fs::read_to_string(&log).unwrap_or_default();
            let ended = peer.child.try_wait().unwrap();
            assert!(ended.is_none(), "{command:?} ended: {}", log());
            assert!(start.elapsed() < Duration::from_secs(20), "{command:?}: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
        peer
    }

    /// nbdkit on a Unix socket.
    pub fn nbdkit(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let mut command = Command::new(tool("nbdkit"));
        command.args(["-f", "--exit-with-parent", "-U"]).arg(&socket).args(args);
        Self::start(command, dir, || UnixStream::connect(&socket).is_ok())
    }

    /// nbdkit on a port of 127.0.0.1.
    pub fn nbdkit_tcp(port: u16, args: &[&str]) -> Self {
        let mut command = Command::new(tool("nbdkit"));
        command.args(["-f", "--exit-with-parent", "-i", "127.0.0.1", "-p", &port.to_string()]);
        command.args(args);
        let ready = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        Self::start(command, tempfile::tempdir().unwrap(), ready)
    }

    /// qemu-nbd for several clients at once.
    pub fn qemu_nbd(image: &Path, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let mut command = Command::new(tool("qemu-nbd"));
        command.args(["-t", "-e", "8", "-k"]).arg(&socket).args(args).arg(image);
        Self::start(command, dir, || UnixStream::connect(&socket).is_ok())
    }

    pub fn socket(&self) -> String {
        self.dir.path().join("socket").display().to_string()
    }

    pub fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// nbd-server with an export `disk`. It is a daemon: without that it serves a single client.
#[derive(Debug)]
pub struct NbdServer {
    dir: TempDir,
    port: u16,
}

impl NbdServer {
    pub fn start(image: &Path) -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let (config, pid) = (dir.path().join("config"), dir.path().join("pid"));
        let (address, image) = ("listenaddr = 127.0.0.1", image.display());
        let text = format!("[generic]\nport = {port}\n{address}\n[disk]\nexportname = {image}\n");
        std::fs::write(&config, text).unwrap();
        let text = |path: &Path| path.display().to_string();
        run("nbd-server", &["-C", &text(&config), "-p", &text(&pid)]);
        let server = Self { dir, port };
        let start = Instant::now();
        while server.pid().is_none() || TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "nbd-server does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    pub fn uri(&self, export: &str) -> String {
        format!("nbd://127.0.0.1:{}/{export}", self.port)
    }

    fn pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.dir.path().join("pid")).ok()?;
        text.trim().parse().ok().map(Pid::from_raw)
    }
}

impl Drop for NbdServer {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
    }
}
