//! One container: how it is asked for, what it says, how it ends.

use super::lab::{free_port, podman_sh, root, said};
use super::process::Namespace;
use super::volume::Block;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A conversion without KVM on a busy machine.
pub const LONG: Duration = Duration::from_secs(900);
/// Anything without one.
pub const SHORT: Duration = Duration::from_secs(300);

/// Text of the log at the moment when the appliance runs and nothing is written yet.
pub const INSPECTING: &str = "Inspecting the source";

/// Where the termination message is, in the work volume.
const TERMINATION: &str = "termination-message";

/// What a pod is started with.
#[derive(Debug, Clone)]
#[must_use = "a pod runs only when it is started"]
pub struct Request {
    options: Vec<String>,
    command: Vec<String>,
    work: PathBuf,
    kvm: bool,
    writable_root: bool,
}

impl Request {
    /// A pod with this work volume.
    pub fn new(work: &Path) -> Self {
        Self::bare(work)
            .mount(work, "/var/tmp")
            .env("V2V_terminationLog", &format!("/var/tmp/{TERMINATION}"))
    }

    /// A pod without a work volume: what it writes is in the container, and its termination message where the
    /// kubelet looks by default. `work` is the lab's.
    pub fn with_writable_root(work: &Path) -> Self {
        let mut request = Self { writable_root: true, ..Self::bare(work) };
        request.options.push("--read-only=false".to_owned());
        request.mount(&work.join(TERMINATION), "/dev/termination-log")
    }

    fn bare(work: &Path) -> Self {
        let (options, command) = (Vec::new(), Vec::new());
        Self { options, command, work: work.to_owned(), kvm: false, writable_root: false }
    }

    /// A variable.
    pub fn env(self, name: &str, value: &str) -> Self {
        self.option("-e", format!("{name}={value}"))
    }

    /// Several variables.
    pub fn envs(self, variables: &[(&str, &str)]) -> Self {
        variables.iter().fold(self, |request, (name, value)| request.env(name, value))
    }

    /// A folder or file of the host.
    pub fn mount(self, host: &Path, inside: &str) -> Self {
        self.option("-v", format!("{}:{inside}", host.display()))
    }

    /// The same, not to be written.
    pub fn mount_read_only(self, host: &Path, inside: &str) -> Self {
        self.option("-v", format!("{}:{inside}:ro", host.display()))
    }

    /// Volume number `number` is this block device.
    pub fn block(self, number: usize, block: &Block) -> Self {
        self.option("--device", format!("{}:/dev/block{number}", block.node.display()))
    }

    /// Volume number `number` is this folder.
    pub fn folder(self, number: usize, dir: &Path) -> Self {
        self.mount(dir, &format!("/mnt/disks/disk{number}"))
    }

    /// Any option of `podman run`.
    pub fn option(mut self, name: &str, value: impl Into<String>) -> Self {
        self.options.extend([name.to_owned(), value.into()]);
        self
    }

    /// Arguments for the entrypoint; several calls add up.
    pub fn command(mut self, words: &[&str]) -> Self {
        self.command.extend(words.iter().map(|w| (*w).to_owned()));
        self
    }

    /// With `/dev/kvm`.
    pub fn kvm(mut self) -> Self {
        self.kvm = true;
        self
    }

    /// Starts it; its output goes to files.
    pub fn start(self) -> Pod {
        let logs = tempfile::tempdir().unwrap();
        let file = |name: &str| Stdio::from(File::create(logs.path().join(name)).unwrap());
        let (out, err) = (file("out"), file("err"));
        self.start_into(logs, out, err)
    }

    /// Starts it with its output going elsewhere.
    pub fn start_with_output(self, out: Stdio) -> Pod {
        let logs = tempfile::tempdir().unwrap();
        let err = File::create(logs.path().join("err")).unwrap().into();
        self.start_into(logs, out, err)
    }

    fn start_into(self, logs: tempfile::TempDir, out: Stdio, err: Stdio) -> Pod {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("v2v-e2e-{}-{number}", std::process::id());
        let ports = Ports { metrics: free_port(), live: free_port(), result: free_port() };
        let mut words = vec!["v2v_podman_run".to_owned(), "--name".to_owned(), name.clone()];
        for (variable, port) in [
            ("V2V_metricsPort", ports.metrics),
            ("V2V_livePort", ports.live),
            ("V2V_resultPort", ports.result),
        ] {
            words.extend(["-e".to_owned(), format!("{variable}={port}")]);
        }
        words.extend(self.options);
        if !self.command.is_empty() {
            words.push("--".to_owned());
            words.extend(self.command);
        }
        let mut command = podman_sh(&words);
        command.env("V2V_KVM", if self.kvm { "1" } else { "" });
        // Of an earlier pod with the same work volume.
        let _ = fs::remove_file(self.work.join(TERMINATION));
        if self.writable_root {
            let message = self.work.join(TERMINATION);
            File::create(&message).unwrap();
            fs::set_permissions(&message, fs::Permissions::from_mode(0o666)).unwrap();
        }
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap();
        Pod {
            name,
            ports,
            work: self.work,
            child,
            status: None,
            logs,
            text: String::new(),
            read: 0,
        }
    }
}

/// The ports of a pod on the host's network.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Ports {
    pub metrics: u16,
    pub live: u16,
    pub result: u16,
}

/// A container; removed when dropped.
#[derive(Debug)]
pub struct Pod {
    name: String,
    /// Its ports.
    pub ports: Ports,
    work: PathBuf,
    child: Child,
    status: Option<ExitStatus>,
    logs: tempfile::TempDir,
    text: String,
    read: u64,
}

impl Pod {
    /// The log so far.
    pub fn log(&mut self) -> &str {
        let Ok(mut file) = File::open(self.logs.path().join("out")) else { return &self.text };
        let mut new = Vec::new();
        file.seek(SeekFrom::Start(self.read)).unwrap();
        file.read_to_end(&mut new).unwrap();
        // Half a character at the end waits for its other half.
        let whole = new.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        self.read += whole as u64;
        self.text.push_str(&String::from_utf8_lossy(&new[..whole]));
        &self.text
    }

    /// The log's lines, which all have to be JSON.
    pub fn lines(&mut self) -> Vec<Value> {
        let log = self.log().to_owned();
        let parse = |line: &str| serde_json::from_str(line);
        let broken: Vec<&str> = log.lines().filter(|l| parse(l).is_err()).collect();
        self.check(broken.is_empty(), format_args!("every log line is JSON, but not {broken:?}"));
        log.lines().map(|line| parse(line).unwrap()).collect()
    }

    /// What came on stderr, podman's own messages included.
    pub fn errors(&self) -> String {
        fs::read_to_string(self.logs.path().join("err")).unwrap_or_default()
    }

    /// The termination message, as the JSON that it has to be.
    #[track_caller]
    pub fn termination(&mut self) -> Value {
        let path = self.work.join(TERMINATION);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let message = serde_json::from_str(&text).unwrap_or(Value::Null);
        let one_line = text.ends_with('\n') && text.lines().count() == 1 && text.len() <= 4096;
        self.check(
            one_line && message["outcome"].is_string(),
            format_args!("the termination message is one line of JSON, not {text:?}"),
        );
        message
    }

    /// The first process of the container, on the host; waits until it is there.
    #[track_caller]
    pub fn first_process(&mut self) -> i32 {
        let begin = Instant::now();
        while begin.elapsed() < SHORT && !self.has_ended() {
            let output = Command::new("podman")
                .args(["inspect", "--format", "{{.State.Pid}}", &self.name])
                .output()
                .unwrap();
            match String::from_utf8_lossy(&output.stdout).trim().parse() {
                Ok(pid) if pid > 0 => return pid,
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        self.fail("the container starts")
    }

    /// Its processes.
    #[track_caller]
    pub fn namespace(&mut self) -> Namespace {
        let pid = self.first_process();
        Namespace::of(pid)
            .unwrap_or_else(|| self.fail("the container lives long enough to be seen"))
    }

    /// Waits for a text in the log.
    #[track_caller]
    pub fn until_log(&mut self, text: &str, limit: Duration) {
        self.until(&format!("the log says {text:?}"), limit, |pod| pod.log().contains(text));
    }

    /// Waits for something while the pod runs; often enough to hit a phase of a second.
    #[track_caller]
    pub fn until(&mut self, what: &str, limit: Duration, is_so: impl Fn(&mut Self) -> bool) {
        let begin = Instant::now();
        while !is_so(self) {
            // Asked once more: it may have come true as the last thing before the end.
            if self.has_ended() && !is_so(self) {
                self.fail(&format!("the pod ended before {what}"));
            }
            if begin.elapsed() > limit {
                self.fail(&format!("not within {} s: {what}", limit.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it has.
    pub fn has_ended(&mut self) -> bool {
        self.status = self.status.or_else(|| self.child.try_wait().unwrap());
        self.status.is_some()
    }

    /// Sends a signal as a container runtime does: to the first process.
    pub fn signal(&mut self, signal: Signal) {
        let pid = self.first_process();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Waits for the end; the exit code, or 128 and the signal's number as runtimes report it.
    #[track_caller]
    pub fn exit_code(&mut self, limit: Duration) -> i32 {
        let begin = Instant::now();
        while !self.has_ended() {
            if begin.elapsed() > limit {
                self.fail(&format!("the pod has not ended within {} s", limit.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let status = self.status.unwrap();
        status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap()
    }

    /// Waits for the end, which has to be this one.
    #[track_caller]
    pub fn ends_with(&mut self, code: i32, limit: Duration) {
        let found = self.exit_code(limit);
        self.check(found == code, format_args!("the pod exits with {code}, not {found}"));
    }

    /// Waits for the end, which has to be a failure of this class with this code.
    #[track_caller]
    pub fn fails_with(&mut self, code: i32, class: &str, limit: Duration) -> String {
        self.ends_with(code, limit);
        let message = self.termination();
        self.check(
            message["class"] == class && message["exit_code"] == code,
            format_args!("the termination message says {class} and {code}: {message}"),
        );
        message["message"].as_str().unwrap_or_default().to_owned()
    }

    /// Fails with the end of the log unless `ok`.
    #[track_caller]
    pub fn check(&mut self, ok: bool, what: impl Display) {
        if !ok {
            self.fail(&what.to_string());
        }
    }

    #[track_caller]
    fn fail(&mut self, what: &str) -> ! {
        let log = self.log();
        let first = log.lines().count().saturating_sub(40);
        let tail: Vec<String> =
            log.lines().skip(first).map(|l| l.chars().take(400).collect()).collect();
        let (tail, errors) = (tail.join("\n"), self.errors());
        let kept = self.keep_log();
        panic!("expected: {what}\n--- end of the log, {kept}\n{tail}\n--- stderr\n{errors}")
    }

    /// Keeps the complete log for somebody who has to find out why; says where.
    fn keep_log(&self) -> String {
        let file = root().join(format!("target/e2e-logs/{}.log", self.name));
        let kept = fs::create_dir_all(file.parent().unwrap_or(&file))
            .and_then(|()| fs::copy(self.logs.path().join("out"), &file));
        kept.map_or_else(|e| format!("not kept: {e}"), |_| format!("kept in {}", file.display()))
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // A container that has ended is gone by itself, but podman may have died without it.
        let rm = ["rm", "--force", "--ignore", "--time", "0", &self.name];
        let removed = Command::new("podman").args(rm).output();
        // Dropped in a panic too: nothing here may panic again.
        if let Some(output) = removed.ok().filter(|o| !o.status.success()) {
            eprintln!("container {} was not removed: {}", self.name, said(&output));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
