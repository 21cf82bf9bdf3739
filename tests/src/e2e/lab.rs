//! What all tests share: the built image, the guests, turns at the machine, and free ports.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};

/// How many pods run at once: a conversion without KVM keeps a core busy.
const TURNS: usize = 2;

/// Guests of `tests/lab/guest.sh`; kept between runs.
#[derive(Debug)]
pub struct Lab {
    /// Folder with a guest that converts: `boot.img`, `data.img`, `data.sha256`.
    pub guest: PathBuf,
    /// The same without a boot loader, which virt-v2v refuses.
    pub bootless: PathBuf,
}

/// The lab, made by the first test that asks. Fails the test when the machine cannot run it.
pub fn lab() -> &'static Lab {
    static LAB: OnceLock<Result<Lab, String>> = OnceLock::new();
    match LAB.get_or_init(make) {
        Ok(lab) => lab,
        Err(why) => panic!("the end-to-end lab cannot be set up: {why}"),
    }
}

fn make() -> Result<Lab, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("root is needed (loop devices, podman), e.g. sudo -E cargo test".to_owned());
    }
    let tools = ["bash", "podman", "buildah", "losetup", "mkfs.ext4", "debootstrap", "cmp"];
    let missing: Vec<&str> = tools
        .into_iter()
        .chain(["qemu-system-x86_64"])
        .filter(|tool| !is_installed(tool))
        .collect();
    if !missing.is_empty() {
        let missing = missing.join(" ");
        return Err(format!("not installed: {missing}; run scripts/install-deps.sh all"));
    }
    // As images/build.sh takes it.
    let release = || root().join("target/release/v2v-pod");
    let binary = std::env::var_os("BINARY").map_or_else(release, PathBuf::from);
    if !binary.is_file() {
        return Err(format!("{} is missing; run cargo build --release", binary.display()));
    }
    run(&root().join("images/build.sh"), &[])?;
    let cache = std::env::var("V2V_LAB_CACHE").unwrap_or("/var/cache/v2v-pod-lab".to_owned());
    let guest = |variant: &str| {
        let dir = Path::new(&cache).join(format!("guest-{variant}"));
        let shown = dir.to_string_lossy().into_owned();
        run(&root().join("tests/lab/guest.sh"), &[&shown, "--variant", variant]).map(|()| dir)
    };
    Ok(Lab { guest: guest("debian")?, bootless: guest("nobootloader")? })
}

fn is_installed(tool: &str) -> bool {
    let script = format!("PATH=$PATH:/usr/sbin:/sbin command -v {tool}");
    Command::new("sh").args(["-c", &script]).output().is_ok_and(|o| o.status.success())
}

/// The top of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn run(program: &Path, args: &[&str]) -> Result<(), String> {
    let shown = program.display();
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|e| format!("{shown}: {e}; run scripts/install-deps.sh all"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{shown} {} failed; run scripts/install-deps.sh all\n{}",
        args.join(" "),
        said(&output)
    ))
}

/// What a program printed, for messages.
pub fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// `bash -c` with the functions of `tests/lab/podman.sh`; the first word of `words` is one of them.
pub fn podman_sh(words: &[String]) -> Command {
    let mut command = Command::new("bash");
    command
        .args(["-c", "set -euo pipefail; source tests/lab/podman.sh; \"$@\"", "podman.sh"])
        .args(words)
        .current_dir(root());
    command
}

/// Runs one of the functions of `tests/lab/podman.sh`; returns what it printed.
pub fn lab_function(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
    let output = podman_sh(&words).output().unwrap();
    assert!(output.status.success(), "{}: {}", words.join(" "), said(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// The right to run a pod; given back when dropped, however the test ends.
#[derive(Debug)]
pub struct Turn(());

/// Waits until another pod may run.
pub fn turn() -> Turn {
    let running = RUNNING.lock().unwrap();
    let mut running = ENDED.wait_while(running, |n| *n >= TURNS).unwrap();
    *running += 1;
    Turn(())
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Ok(mut running) = RUNNING.lock() {
            *running -= 1;
        }
        ENDED.notify_one();
    }
}

/// A port that nothing listens on. Pods share the host's network, so each has ports of its own, below
/// those that the kernel gives to outgoing connections.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 18000 + u16::try_from(std::process::id() % 60).unwrap() * 200;
    for _ in 0..200 {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 200;
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {first} on");
}
