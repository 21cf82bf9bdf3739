//! All cases: each is run once per test process, two at a time, whichever test asks first; and the report.

use crate::cases::{self, Case, FileSpec};
use crate::chroot::{self, Binaries};
use crate::compare::{Diff, Run, compare};
use crate::differences;
use crate::loopdev::Pool;
use crate::records::{OBSERVED, RECORD, STDERR, STDOUT};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Cases that run at the same time.
const PARALLEL: usize = 2;
/// More than a case may take inside (`chroot::build` sets that limit): only for when the harness itself hangs.
const GIVE_UP: Duration = Duration::from_secs(90);
/// Lines of the pod's output in a report.
const TAIL: usize = 25;

/// Result of one run of one case.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Case, and the variant if it has several.
    pub name: String,
    /// What was wrong.
    pub diffs: Vec<Diff>,
    /// Deliberate differences that applied.
    pub reasons: Vec<&'static str>,
    /// End of the pod's output.
    pub tail: String,
}

type Outcomes = Arc<OnceLock<Vec<Outcome>>>;

/// The cases and the binaries, and what is known so far.
#[derive(Debug)]
pub struct Suite {
    cases: Vec<Case>,
    binaries: Binaries,
    pool: Pool,
    outcomes: Mutex<BTreeMap<String, Outcomes>>,
    running: Mutex<usize>,
    freed: Condvar,
}

impl Suite {
    /// Loads the cases that `V2V_CASE` lets through, and finds the pod.
    pub fn new(standin: &Path) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "the conformance tests need root: they enter mount, PID and network namespaces and make device nodes. \
             Run `sudo -E cargo test -p v2v-pod-tests`, or in a container with --privileged."
        );
        let wanted = std::env::var("V2V_CASE").unwrap_or_default();
        let mut cases = cases::load();
        cases.retain(|c| c.in_scope() && c.name.contains(&wanted));
        Self {
            cases,
            binaries: Binaries::new(pod_binary(standin), standin.to_owned()),
            pool: Pool::default(),
            outcomes: Mutex::default(),
            running: Mutex::default(),
            freed: Condvar::new(),
        }
    }

    /// Number of cases to run.
    pub fn len(&self) -> usize {
        self.cases.len()
    }

    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.cases.is_empty()
    }

    /// Names of the groups.
    pub fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = self.cases.iter().map(Case::group).collect();
        groups.dedup();
        groups
    }

    /// Runs the cases of a group (all without one), and panics with a report if any fails.
    pub fn check(&self, group: Option<&str>) {
        let cases: Vec<&Case> =
            self.cases.iter().filter(|c| group.is_none_or(|g| c.group() == g)).collect();
        let next = Mutex::new(cases.iter());
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL {
                scope.spawn(|| {
                    loop {
                        let case = next.lock().unwrap().next();
                        match case {
                            Some(case) => drop(self.outcome(case)),
                            None => break,
                        }
                    }
                });
            }
        });
        let outcomes: Vec<Vec<Outcome>> = cases.iter().map(|c| self.outcome(c)).collect();
        let report = report(group.unwrap_or("all"), &outcomes, &self.binaries.pod);
        assert!(outcomes.iter().flatten().all(|o| o.diffs.is_empty()), "{report}");
        println!("{report}");
    }

    fn outcome(&self, case: &Case) -> Vec<Outcome> {
        let cell = Arc::clone(self.outcomes.lock().unwrap().entry(case.name.clone()).or_default());
        cell.get_or_init(|| {
            let _slot = self.slot();
            run_variants(case, &self.binaries, &self.pool)
        })
        .clone()
    }

    fn slot(&self) -> Slot<'_> {
        let mut running = self.running.lock().unwrap();
        while *running >= PARALLEL {
            running = self.freed.wait(running).unwrap();
        }
        *running += 1;
        Slot(self)
    }
}

struct Slot<'a>(&'a Suite);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap() -= 1;
        self.0.freed.notify_one();
    }
}

/// `V2V_POD_BIN`, else the newer of the debug and the release build.
pub fn pod_binary(standin: &Path) -> PathBuf {
    if let Some(path) = std::env::var_os("V2V_POD_BIN") {
        return PathBuf::from(path);
    }
    // target/debug/v2v-standin -> target
    let target = standin.parent().and_then(Path::parent).expect("a target folder");
    let built = ["debug", "release"].map(|profile| target.join(profile).join("v2v-pod"));
    let newest = built.iter().filter_map(|p| Some((p.metadata().ok()?.modified().ok()?, p))).max();
    let (_, path) = newest.unwrap_or_else(|| {
        panic!("no v2v-pod in {built:?}: run `cargo build` first, or set V2V_POD_BIN")
    });
    path.clone()
}

/// A `pod` case is run once; a `monitor` case twice, without and with virt-v2v's JSON messages.
fn run_variants(case: &Case, binaries: &Binaries, pool: &Pool) -> Vec<Outcome> {
    let mut case = case.clone();
    let reasons = differences::adjust(&mut case);
    let variants: &[(&str, bool)] = if case.scope == "monitor" {
        complete_monitor_case(&mut case);
        &[(" (text only)", false), (" (with JSON messages)", true)]
    } else {
        &[("", true)]
    };
    let unknown = case.unknown_fields();
    variants
        .iter()
        .map(|(suffix, json)| {
            let name = format!("{}{suffix}", case.name);
            if !unknown.is_empty() {
                let what = "fields of the case".to_owned();
                let (expected, seen) = ("known to the harness".to_owned(), unknown.join(", "));
                let diffs = vec![Diff { what, expected, seen }];
                return Outcome { name, diffs, reasons: Vec::new(), tail: String::new() };
            }
            let run = run(&case, binaries, pool, *json);
            let diffs = compare(&case, &run);
            let mut lines: Vec<&str> = run.output.lines().collect();
            lines.drain(..lines.len().saturating_sub(TAIL));
            let tail = format!("{}\ntermination: {}", lines.join("\n"), run.observed.termination);
            Outcome { name, diffs, reasons: reasons.clone(), tail }
        })
        .collect()
}

/// A monitor case records only what goes through the monitor; the pod around it is a plain vSphere one, with as
/// many volumes as the output speaks of.
fn complete_monitor_case(case: &mut Case) {
    let text: String = case.steps.iter().map(|s| s.stdin.as_str()).collect();
    let totals = text.split("Copying disk ").skip(1).filter_map(|rest| {
        let (_, total) = rest.split_once('/')?;
        let digits: String = total.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<usize>().ok()
    });
    let disks = totals.max().unwrap_or(1);
    case.disks = (0..disks).map(|i| format!("/dev/block{i}")).collect();
    let env = [
        ("V2V_source", "vSphere"),
        ("V2V_libvirtURL", "vpx://u@vcenter.example.com/DC/host?no_verify=1"),
        ("V2V_vmName", "guest"),
        ("LOCAL_MIGRATION", "false"),
    ];
    for (name, value) in env {
        case.env.entry(name.into()).or_insert_with(|| value.into());
    }
    for (path, content) in [("/etc/secret/accessKeyId", "u"), ("/etc/secret/secretKey", "s3cret")] {
        case.files.entry(path.into()).or_insert_with(|| FileSpec::Text(content.into()));
    }
}

fn run(case: &Case, binaries: &Binaries, pool: &Pool, json: bool) -> Run {
    let mut root = chroot::build(case, binaries, pool, json);
    // For a look by hand: V2V_KEEP=1 leaves each run's root behind (without its mounts) and names it.
    if std::env::var_os("V2V_KEEP").is_some() {
        root.dir.disable_cleanup(true);
        println!("{}: {}", case.name, root.dir.path().display());
    }
    let log = root.outside("/.harness/drive.log");
    let mut child = Command::new(&binaries.standin)
        .args(["drive".as_ref(), root.drive.as_os_str()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .expect("the stand-in binary");
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > GIVE_UP {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    pool.put(std::mem::take(&mut root.devices));
    let read = |path: &str| {
        let bytes = std::fs::read(root.outside(path)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let observed = serde_json::from_str(&read(OBSERVED)).unwrap_or_else(|_| {
        let mut observed = crate::records::Observed::default();
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        observed.trouble.push(format!("the harness could not run the case: {log}"));
        observed
    });
    let records = read(RECORD).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    Run { observed, records, output: read(STDOUT) + &read(STDERR) }
}

fn report(group: &str, outcomes: &[Vec<Outcome>], pod: &Path) -> String {
    let failed = outcomes.iter().filter(|o| o.iter().any(|o| !o.diffs.is_empty())).count();
    let mut text = format!(
        "conformance, {group}: {} cases, {} passed, {failed} failed ({})\n",
        outcomes.len(),
        outcomes.len() - failed,
        pod.display()
    );
    for outcome in outcomes.iter().flatten().filter(|o| !o.diffs.is_empty()) {
        let _ = writeln!(text, "\n--- {}", outcome.name);
        for reason in &outcome.reasons {
            let _ = writeln!(text, "  (differs from the recording on purpose: {reason})");
        }
        for diff in &outcome.diffs {
            let _ = writeln!(text, "  {}", diff.what);
            let _ = writeln!(text, "    expected: {}", indent(&diff.expected));
            let _ = writeln!(text, "    seen:     {}", indent(&diff.seen));
        }
        let _ = writeln!(text, "  end of the pod's output:\n      {}", indent(&outcome.tail));
    }
    text
}

fn indent(text: &str) -> String {
    text.trim_end().replace('\n', "\n      ")
}
