//! The supervision of the built binary, with a shell script in place of virt-v2v: what it does is
//! then exact to the line and to the millisecond. The real tools are in `e2e`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use v2v_pod_tests::suite;

const PATIENCE: Duration = Duration::from_secs(60);
/// What the scripts print when they fail, and the exit code of its class.
const ERROR: &str = "virt-v2v: error: no bootloader detected";
const NO_BOOT_LOADER: i32 = 27;
const TERMINATED: i32 = 143;

/// A folder with a source, a target, stand-ins and temporary files.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    /// `virt_v2v` is what the stand-in does when it is to convert.
    fn new(virt_v2v: &str) -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        for folder in ["bin", "tmp", "out"] {
            fs::create_dir(bench.path(folder)).unwrap();
        }
        fs::write(bench.path("guest.img"), vec![0; 1 << 20]).unwrap();
        let ask = "case \"$*\" in --machine-readable) echo virt-v2v; echo output:local; exit 0;; --help) exit 0;; esac";
        bench.script("virt-v2v", &format!("{ask}\ncd {}\n{virt_v2v}", bench.dir.path().display()));
        bench.script("virt-v2v-inspector", ask);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn script(&self, name: &str, body: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/bash\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, program: &Path, before: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(before)
            .args(["convert", "-i", "disk", "--verbose", "--log-format", "json", "--grace", "2"])
            .arg(self.path("guest.img"))
            .arg("--to")
            .arg(self.path("out"))
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
            .env("TMPDIR", self.path("tmp"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        command
    }

    fn start(&self) -> Child {
        self.command(&pod_binary(), &[]).spawn().unwrap()
    }

    /// Waits until the stand-in has made a file of that name.
    fn wait_for(&self, name: &str) {
        until(&format!("{name} is there"), || self.path(name).exists());
    }

    fn left_in_tmp(&self) -> Vec<String> {
        fs::read_dir(self.path("tmp"))
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|n| n.starts_with("v2v-pod."))
            .collect()
    }
}

fn pod_binary() -> PathBuf {
    suite::pod_binary(Path::new(env!("CARGO_BIN_EXE_v2v-standin")))
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    let mut status = None;
    until("the pod ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|s| !s.contains(") Z "))
}

fn log_of(child: &mut Child) -> String {
    let mut log = String::new();
    child.stdout.take().unwrap().read_to_string(&mut log).unwrap();
    log
}

#[test]
fn no_line_of_twenty_thousand_is_lost_and_the_last_is_the_reason() {
    let bench = Bench::new(&format!(
        "for i in {{1..20000}}; do echo \"line $i\"; done; echo '{ERROR}' >&2; exit 1"
    ));
    let mut child = bench.start();
    let log = log_of(&mut child);
    assert_eq!(wait(&mut child).code(), Some(NO_BOOT_LOADER));
    assert_eq!(log.lines().filter(|l| l.contains("\"message\":\"line ")).count(), 20_000);
    let lines: Vec<&str> = log.lines().collect();
    let last = lines.iter().rposition(|l| l.contains("\"message\":\"line 20000\"")).unwrap();
    assert!(lines[last + 1].contains(ERROR), "{}", lines[last + 1]);
    assert!(lines.last().unwrap().contains("no-boot-loader"), "{}", lines.last().unwrap());
    assert_eq!(bench.left_in_tmp(), [""; 0]);
}

#[test]
fn a_reader_that_sleeps_or_is_gone_changes_nothing() {
    let much = format!(
        "yes 'a line of some length that fills the pipe soon' | head -n 200000; echo '{ERROR}' >&2; exit 1"
    );
    let bench = Bench::new(&much);
    let mut asleep = bench.start();
    assert_eq!(wait(&mut asleep).code(), Some(NO_BOOT_LOADER), "nobody reads");
    let mut gone = bench.start();
    drop(gone.stdout.take());
    assert_eq!(wait(&mut gone).code(), Some(NO_BOOT_LOADER), "the pipe is closed");
}

#[test]
fn a_line_without_end_costs_little_memory() {
    let bench = Bench::new(&format!(
        "head -c 300000000 /dev/zero | tr '\\0' x; echo; grep VmHWM /proc/$PPID/status > hwm; echo '{ERROR}' >&2; exit 1"
    ));
    let mut child = bench.start();
    let mut bytes = 0;
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    loop {
        let n = reader.fill_buf().unwrap().len();
        if n == 0 {
            break;
        }
        bytes += n;
        reader.consume(n);
    }
    assert_eq!(wait(&mut child).code(), Some(NO_BOOT_LOADER));
    assert!(bytes > 300_000_000, "only {bytes} bytes of the line came out");
    let hwm = fs::read_to_string(bench.path("hwm")).unwrap();
    let kib: u64 = hwm.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 32 << 10, "peak RSS {kib} KiB");
}

#[test]
fn sigterm_lets_the_tool_clean_up_and_leaves_nothing() {
    let bench = Bench::new(
        "trap 'echo > cleaned; exit 1' TERM; echo > started; while :; do sleep 0.05; done",
    );
    let mut child = bench.start();
    bench.wait_for("started");
    signal(&child, "TERM");
    assert_eq!(wait(&mut child).code(), Some(TERMINATED));
    assert!(bench.path("cleaned").exists() && bench.left_in_tmp().is_empty());
}

#[test]
fn a_deaf_tool_is_killed_after_the_grace_period_with_its_children() {
    let bench = Bench::new(
        "trap '' TERM INT; sleep 987651 & echo $! > child; echo > started; while :; do sleep 0.05; done",
    );
    let mut child = bench.start();
    bench.wait_for("started");
    let began = Instant::now();
    signal(&child, "INT");
    assert_eq!(wait(&mut child).code(), Some(130));
    assert!(began.elapsed() >= Duration::from_secs(2), "the grace period was not waited for");
    assert!(!is_alive(&fs::read_to_string(bench.path("child")).unwrap()));
    assert_eq!(bench.left_in_tmp(), [""; 0]);
}

#[test]
fn sigkill_takes_the_tool_along_and_the_next_start_cleans_up() {
    let bench = Bench::new(&format!(
        "if [ -e started ]; then echo '{ERROR}' >&2; exit 1; fi; echo $$ > pid; echo > started; while :; do sleep 0.05; done"
    ));
    let mut child = bench.start();
    bench.wait_for("started");
    signal(&child, "KILL");
    wait(&mut child);
    let tool = fs::read_to_string(bench.path("pid")).unwrap();
    until("the tool is gone", || !is_alive(&tool));
    assert_eq!(bench.left_in_tmp().len(), 1, "a killed run cannot clean up");
    let mut next = bench.start();
    assert_eq!(wait(&mut next).code(), Some(NO_BOOT_LOADER));
    assert_eq!(bench.left_in_tmp(), [""; 0]);
}

#[test]
fn orphans_are_reaped_as_process_one() {
    // Each orphan ends after its parent: only process 1 can reap it.
    let bench = Bench::new(&format!(
        "for i in 1 2 3 4 5; do (setsid sleep 0.2 &) ; done; sleep 1; grep -l ') Z ' /proc/[0-9]*/stat > zombies; echo '{ERROR}' >&2; exit 1"
    ));
    let pod = pod_binary();
    let before = ["--pid", "--fork", "--mount-proc", pod.to_str().unwrap()];
    let mut child = bench.command(Path::new("/usr/bin/unshare"), &before).spawn().unwrap();
    let log = log_of(&mut child);
    assert_eq!(wait(&mut child).code(), Some(NO_BOOT_LOADER), "{log}");
    assert_eq!(fs::read_to_string(bench.path("zombies")).unwrap(), "", "orphans were not reaped");
}

/// Found by measuring: the tools had inherited the init's signal mask, so nbdkit never heard that it
/// should end, and virt-v2v only ended by SIGKILL.
#[test]
fn signals_reach_the_tool_below_process_one() {
    let bench = Bench::new(
        "trap 'echo > cleaned; exit 1' TERM; echo > started; while :; do sleep 0.05; done",
    );
    let pod = pod_binary();
    let before = ["--pid", "--fork", "--mount-proc", pod.to_str().unwrap()];
    let mut child = bench.command(Path::new("/usr/bin/unshare"), &before).spawn().unwrap();
    bench.wait_for("started");
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let init = fs::read_to_string(children).unwrap();
    let status = Command::new("kill").args(["-s", "TERM", init.trim()]).status().unwrap();
    assert!(status.success());
    assert_eq!(wait(&mut child).code(), Some(TERMINATED));
    assert!(bench.path("cleaned").exists(), "the tool was not told to stop");
}

#[test]
fn a_target_in_use_is_refused() {
    let bench = Bench::new("echo > started; while :; do sleep 0.05; done");
    let mut first = bench.start();
    bench.wait_for("started");
    let mut second = bench.start();
    let log = log_of(&mut second);
    assert_eq!(wait(&mut second).code(), Some(20), "{log}");
    assert!(log.contains("is being written by another v2v-pod"), "{log}");
    signal(&first, "TERM");
    assert_eq!(wait(&mut first).code(), Some(TERMINATED));
}

#[test]
fn a_source_is_never_its_own_target() {
    let bench = Bench::new("exit 1");
    let source = bench.path("guest.img");
    fs::remove_dir(bench.path("out")).unwrap();
    std::os::unix::fs::symlink(&source, bench.path("out")).unwrap();
    let mut child = bench.start();
    let log = log_of(&mut child);
    assert_eq!(wait(&mut child).code(), Some(64), "{log}");
    assert!(log.contains("is the source itself"), "{log}");
    assert_eq!(fs::metadata(&source).unwrap().len(), 1 << 20);
}
