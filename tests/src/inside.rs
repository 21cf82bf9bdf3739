//! The process that runs one case inside private namespaces: mounts, loopback, the pod as PID 1, the requests to
//! it, and the look around afterwards. It is a process of its own because entering a mount namespace and a chroot
//! is for a single-threaded process, and so that ending it ends everything it started: the pod dies with it
//! (parent-death signal), everything else with the pod (it is PID 1), and the mounts with the last process.

use crate::http;
use crate::records::{
    CA_LINK, Drive, HARNESS, MetricsSeen, OBSERVED, Observed, POD, STDERR, STDOUT, TERMINATION,
    TOOL, WORKDIR,
};
use crate::standins::links;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a scrape must go on showing the expected lines before a step counts as passed. Steps that must not
/// change anything would pass at once otherwise, before the pod has read the text.
const SETTLE: Duration = Duration::from_millis(300);
/// How long the metrics may take to follow the text.
const FOLLOW: Duration = Duration::from_secs(10);
/// How long the pod may take to end after `POST /shutdown`: "promptly".
const SHUTDOWN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

type Result<T> = std::result::Result<T, String>;

/// Runs the case described in `file`, and leaves what it saw under the root's harness folder.
pub fn drive(file: &str) -> Result<()> {
    let text = fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
    let drive: Drive = serde_json::from_str(&text).map_err(|e| format!("{file}: {e}"))?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| format!("prctl: {e}"))?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .map_err(|e| format!("unshare(mount, net): {e}; needs root with CAP_SYS_ADMIN"))?;
    loopback_up().map_err(|e| format!("loopback: {e}"))?;
    mounts(&drive)?;
    nix::unistd::chroot(&drive.root).map_err(|e| format!("chroot: {e}"))?;
    nix::unistd::chdir("/").map_err(|e| format!("chdir: {e}"))?;

    let mut seen = Observed::default();
    let mut pod = Pod::start(&drive)?;
    if !drive.steps.is_empty() {
        pod.steps(&drive, &mut seen);
    }
    if !drive.http.is_empty() {
        pod.requests(&drive, &mut seen);
    }
    let limit = if drive.http.is_empty() { pod.deadline } else { Instant::now() + SHUTDOWN };
    let status = pod.wait(limit.min(pod.deadline));
    seen.timed_out = status.is_none();
    let status = status.map_or_else(|| pod.kill(), Ok)?;
    seen.exit = status.code();
    seen.signal = status.signal();
    look_around(&drive, &mut seen);
    let text = serde_json::to_string(&seen).map_err(|e| e.to_string())?;
    fs::write(OBSERVED, text).map_err(|e| format!("{OBSERVED}: {e}"))
}

/// PID 1 of the new PID namespace: mounts its `/proc` and becomes the pod.
pub fn enter(program: &[String]) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| format!("prctl: {e}"))?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>)
        .map_err(|e| format!("mount /proc: {e}"))?;
    let error = Command::new(&program[0]).args(&program[1..]).exec();
    Err(format!("{}: {error}", program[0]))
}

struct Pod {
    child: Child,
    deadline: Instant,
}

impl Pod {
    fn start(drive: &Drive) -> Result<Self> {
        // From here on this process may start no thread, and the first child is PID 1 over there.
        unshare(CloneFlags::CLONE_NEWPID).map_err(|e| format!("unshare(pid): {e}"))?;
        let out = |path: &str| File::create(path).map_err(|e| format!("{path}: {e}"));
        let child = Command::new(TOOL)
            .args(["enter", POD])
            .args(&drive.flags)
            .env_clear()
            .envs(&drive.env)
            .stdin(Stdio::null())
            .stdout(out(STDOUT)?)
            .stderr(out(STDERR)?)
            .spawn()
            .map_err(|e| format!("start of the pod: {e}"))?;
        Ok(Self { child, deadline: Instant::now() + Duration::from_secs(drive.timeout_s) })
    }

    fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn wait(&mut self, limit: Instant) -> Option<ExitStatus> {
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if Instant::now() >= limit {
                return None;
            }
            std::thread::sleep(POLL);
        }
    }

    fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill().map_err(|e| format!("kill: {e}"))?;
        self.child.wait().map_err(|e| format!("wait: {e}"))
    }

    /// Waits until `ready`; false when the pod ended first or time is up.
    fn until(&mut self, ready: impl Fn() -> bool) -> bool {
        loop {
            if ready() {
                return true;
            }
            if self.ended() || Instant::now() >= self.deadline {
                return ready();
            }
            std::thread::sleep(POLL);
        }
    }

    fn requests(&mut self, drive: &Drive, seen: &mut Observed) {
        if !self.until(|| http::is_open(8080)) {
            seen.trouble.push("the pod never listened on 8080".to_owned());
            return;
        }
        for (method, path) in &drive.http {
            seen.http.push(http::request(8080, method, path));
        }
    }

    fn steps(&mut self, drive: &Drive, seen: &mut Observed) {
        for (i, step) in drive.steps.iter().enumerate() {
            let marker = PathBuf::from(format!("{HARNESS}/step.{i}"));
            if !self.until(|| marker.exists()) {
                seen.trouble
                    .push(format!("step {i} never came: virt-v2v did not run or has ended"));
                return;
            }
            let start = Instant::now();
            let metrics = loop {
                let metrics = scrape();
                let done = if metrics.lines == step.metrics && metrics.error.is_none() {
                    start.elapsed() >= SETTLE
                } else {
                    start.elapsed() >= FOLLOW
                };
                if done {
                    break metrics;
                }
                std::thread::sleep(POLL);
            };
            seen.steps.push(metrics);
            if let Err(e) = fs::write(format!("{HARNESS}/go.{i}"), "") {
                seen.trouble.push(format!("go-ahead {i}: {e}"));
            }
        }
    }
}

fn scrape() -> MetricsSeen {
    let answer = http::request(2112, "GET", "/metrics");
    let lines = |prefix: &str| -> Vec<String> {
        let mut lines: Vec<_> =
            answer.body.lines().filter(|l| l.starts_with(prefix)).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let mut help = lines("# HELP v2v_disk_transfers ");
    help.extend(lines("# TYPE v2v_disk_transfers "));
    let error = match answer.status {
        Some(200) => None,
        Some(other) => Some(format!("status {other}")),
        None => answer.error.clone(),
    };
    let lines = lines("v2v_disk_transfers");
    MetricsSeen { lines, help, content_type: answer.content_type, error }
}

fn look_around(drive: &Drive, seen: &mut Observed) {
    seen.links = links();
    if let Ok(entries) = fs::read_dir(WORKDIR) {
        seen.workdir =
            entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    }
    seen.ca_link = fs::read_link(CA_LINK).ok().map(|t| t.to_string_lossy().into_owned());
    for path in &drive.files {
        if let Ok(bytes) = fs::read(path) {
            seen.files.insert(path.clone(), String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    let termination = fs::read(TERMINATION).unwrap_or_default();
    seen.termination = String::from_utf8_lossy(&termination).into_owned();
}

fn mounts(drive: &Drive) -> Result<()> {
    let step = |what: String| move |e: nix::Error| format!("{what}: {e}");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(step("make / private".into()))?;
    let dev = drive.root.join("dev");
    // A file system of its own: the temporary folder may be mounted `nodev`.
    mount(Some("dev"), &dev, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .map_err(step("mount /dev".into()))?;
    let node = |path: &Path, kind: SFlag, number: u64| {
        mknod(path, kind, Mode::from_bits_truncate(0o666), number)
            .map_err(step(format!("mknod {}", path.display())))
    };
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        node(&dev.join(name), SFlag::S_IFCHR, makedev(1, minor))?;
    }
    let io = |e: std::io::Error| format!("/dev: {e}");
    std::os::unix::fs::symlink("/proc/self/fd", dev.join("fd")).map_err(io)?;
    fs::create_dir(dev.join("shm")).map_err(io)?;
    File::create(dev.join("termination-log")).map_err(io)?;
    for (path, number) in &drive.blocks {
        let path = drive.root.join(path.trim_start_matches('/'));
        match number {
            Some(number) => node(&path, SFlag::S_IFBLK, *number)?,
            None => {
                File::create(path)
                    .and_then(|f| f.set_len(crate::chroot::DISK_BYTES))
                    .map_err(io)?;
            }
        }
    }
    for (host, inside) in &drive.binds {
        let target = drive.root.join(inside.trim_start_matches('/'));
        mount(Some(host), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(step(format!("bind {} on {inside}", host.display())))?;
    }
    Ok(())
}

/// `ip link set lo up`, said in netlink: an `RTM_NEWLINK` for interface 1 (always `lo` in a new network
/// namespace) with the up flag. The kernel adds 127.0.0.1 by itself.
fn loopback_up() -> Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const NLMSG_ERROR: u16 = 2;
    const REQUEST_AND_ACK: u16 = 1 | 4;
    const IFF_UP: u32 = 1;
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )
    .map_err(|e| e.to_string())?;
    let mut message = Vec::with_capacity(32);
    message.extend(32_u32.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(REQUEST_AND_ACK.to_ne_bytes());
    message.extend([0; 8]); // sequence number, sender
    message.extend([0; 4]); // address family, padding, device type
    message.extend(1_i32.to_ne_bytes()); // interface
    message.extend(IFF_UP.to_ne_bytes()); // flags
    message.extend(IFF_UP.to_ne_bytes()); // which of them to change
    sendto(fd.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())
        .map_err(|e| e.to_string())?;
    let mut answer = [0; 256];
    let length = recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty()).map_err(|e| e.to_string())?;
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    if length < 20 || kind != NLMSG_ERROR || code != 0 {
        return Err(format!("answer {kind}, code {code}"));
    }
    Ok(())
}
