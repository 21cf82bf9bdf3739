//! Expected against seen.

use crate::argv::{self, Command};
use crate::cases::{Case, HttpExpect};
use crate::invariants;
use crate::libvirt;
use crate::records::{CA_LINK, Call, HttpSeen, MetricsSeen, Observed, Record, WORKDIR};
use crate::xml;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

/// Variables whose presence in a tool's environment changes what it does.
const WATCHED: &[&str] = &["VIRTIO_WIN", "LIBGUESTFS_APPEND"];

/// One thing that is not as it should be.
#[derive(Debug, Clone)]
pub struct Diff {
    /// What.
    pub what: String,
    /// As recorded, after the deliberate differences.
    pub expected: String,
    /// As seen.
    pub seen: String,
}

/// Everything of one run.
#[derive(Debug)]
pub struct Run {
    /// What the process inside saw.
    pub observed: Observed,
    /// What the stand-ins wrote.
    pub records: Vec<Record>,
    /// Standard output and standard error of the pod.
    pub output: String,
}

impl Run {
    /// Calls of tools that did something (not the ones that only asked).
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.all_calls().filter(|c| !c.query)
    }

    /// All calls, those that only asked too.
    pub fn all_calls(&self) -> impl Iterator<Item = &Call> {
        self.records.iter().filter_map(|r| if let Record::Call(c) = r { Some(&**c) } else { None })
    }
}

/// What was found so far.
#[derive(Debug, Default)]
pub struct Diffs(Vec<Diff>);

impl Diffs {
    /// Adds one.
    pub fn text(&mut self, what: impl Into<String>, expected: String, seen: String) {
        self.0.push(Diff { what: what.into(), expected, seen });
    }

    fn equal<T: PartialEq + Debug>(&mut self, what: impl Into<String>, expected: &T, seen: &T) {
        if expected != seen {
            self.text(what, format!("{expected:?}"), format!("{seen:?}"));
        }
    }
}

/// Compares a run with its case. The case has had its deliberate differences applied.
pub fn compare(case: &Case, run: &Run) -> Vec<Diff> {
    let mut diffs = Diffs::default();
    let seen = &run.observed;
    for trouble in &seen.trouble {
        diffs.text("run", "no trouble".into(), trouble.clone());
    }
    exit(case, seen, &mut diffs);
    if case.scope == "pod" {
        commands(case, run, &mut diffs);
    }
    if let Some(links) = &case.expect_links {
        disk_links(links, seen, &mut diffs);
        overlays(case, links, run, &mut diffs);
    }
    if case.scope == "pod" && (case.expect_ca_link.is_some() || case.expect_exit == Some(0)) {
        diffs.equal(CA_LINK, &case.expect_ca_link, &seen.ca_link);
    }
    if let Some(env) = &case.expect_tool_env {
        tool_env(env, run, &mut diffs);
    }
    for (path, expected) in &case.expect_files {
        file(path, expected.as_deref(), seen.files.get(path).map(String::as_str), &mut diffs);
    }
    for answer in &seen.http {
        match case.expect_http.get(&answer.request) {
            Some(expected) => http(expected, answer, &mut diffs),
            None => diffs.text(&answer.request, "an expectation".into(), "none in the case".into()),
        }
    }
    for (step, metrics) in case.steps.iter().zip(&seen.steps) {
        let what = format!("metrics after {:?}", step.stdin);
        self::metrics(&what, &step.metrics, case, metrics, &mut diffs);
    }
    if let Some(connect) = &case.expect_libvirt_connect {
        let calls: Vec<&Call> =
            run.calls().filter(|c| argv::is_libvirt_call(&Command::new(&c.argv))).collect();
        for problem in libvirt::problems(&calls, connect, case.expect_libvirt_lookup.as_deref()) {
            diffs.text("virsh", "dumpxml with the credentials in an auth file".into(), problem);
        }
    }
    invariants::ports(run, &mut diffs);
    invariants::secrets(case, run, &mut diffs);
    diffs.0
}

/// Zero must be zero, anything else anything else: the reference knows only 1, we have a code per class.
fn exit(case: &Case, seen: &Observed, diffs: &mut Diffs) {
    let expected = match case.expect_exit {
        Some(0) => "0",
        Some(_) => "a code other than 0",
        None => return,
    };
    let good = !seen.timed_out
        && match case.expect_exit {
            Some(0) => seen.exit == Some(0),
            _ => seen.exit.is_some_and(|code| code != 0),
        };
    if !good {
        let how = match (seen.timed_out, seen.exit, seen.signal) {
            (true, ..) => "still running at the time limit, killed".to_owned(),
            (_, Some(code), _) => code.to_string(),
            (_, None, signal) => format!("ended by signal {signal:?}"),
        };
        diffs.text("exit", expected.to_owned(), how);
    }
}

fn commands(case: &Case, run: &Run, diffs: &mut Diffs) {
    let counts = |c: &Command| !argv::is_customisation(c) && !argv::is_libvirt_call(c);
    let recorded: Vec<Command> =
        case.expect_argv.iter().map(|a| Command::new(a)).filter(counts).collect();
    let mut ours: Vec<(Command, Vec<String>)> = run
        .calls()
        .map(|call| (Command::new(&call.argv), raw_links(call)))
        .filter(|(command, _)| counts(command))
        .collect();
    for ((ours, raw), recorded) in ours.iter_mut().zip(&recorded) {
        argv::drop_explicit_raw(ours, recorded, raw);
    }
    let ours: Vec<Command> = ours.into_iter().map(|(command, _)| command).collect();
    if recorded == ours {
        return;
    }
    let names = |commands: &[Command]| {
        commands.iter().map(|c| c.tool.clone()).collect::<Vec<_>>().join(", ")
    };
    if names(&recorded) != names(&ours) {
        diffs.text("commands run", names(&recorded), names(&ours));
    }
    for (i, (recorded, ours)) in recorded.iter().zip(&ours).enumerate() {
        if recorded != ours && recorded.tool == ours.tool {
            let (recorded, seen) = argv::difference(recorded, ours);
            diffs.text(format!("command {}, {}", i + 1, ours.tool), recorded, seen);
        }
    }
}

/// Links that pointed straight at a volume when the tool was called.
fn raw_links(call: &Call) -> Vec<String> {
    let raw = call.links.iter().filter(|(_, target)| !has_extension(target, "qcow2"));
    raw.map(|(name, _)| format!("{WORKDIR}/{name}")).collect()
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|x| x == extension)
}

fn in_workdir(links: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    links.iter().map(|(name, to)| (format!("{WORKDIR}/{name}"), to.clone())).collect()
}

fn disk_links(expected: &BTreeMap<String, String>, seen: &Observed, diffs: &mut Diffs) {
    diffs.equal("links after the run", expected, &in_workdir(&seen.links));
    let left: Vec<_> = seen.workdir.iter().filter(|name| has_extension(name, "qcow2")).collect();
    if !left.is_empty() {
        diffs.text("overlays after the run", "none".into(), format!("{left:?}"));
    }
}

/// While the guest is changed in place, each link leads to its overlay, if overlays were made.
fn overlays(case: &Case, links: &BTreeMap<String, String>, run: &Run, diffs: &mut Diffs) {
    let made = case.expect_argv.iter().any(|a| a.iter().take(2).eq(["qemu-img", "create"]));
    for call in run.calls() {
        let tool = Command::new(&call.argv).tool;
        if tool != "virt-v2v-in-place" {
            continue;
        }
        let overlay = |link: &String| format!("{link}.qcow2");
        let expected: BTreeMap<String, String> = links
            .iter()
            .map(|(link, volume)| (link.clone(), if made { overlay(link) } else { volume.clone() }))
            .collect();
        diffs.equal("links while virt-v2v-in-place runs", &expected, &in_workdir(&call.links));
    }
}

/// The watched variables in the environment of every converting tool. White space around a value does not count:
/// the reference appends to `LIBGUESTFS_APPEND` with a leading space even when it was empty.
fn tool_env(expected: &BTreeMap<String, String>, run: &Run, diffs: &mut Diffs) {
    let tools = run.calls().filter(|c| Command::new(&c.argv).tool.starts_with("virt-v2v"));
    for call in tools {
        let names = WATCHED.iter().map(|w| (*w).to_owned()).chain(expected.keys().cloned());
        for name in names.collect::<std::collections::BTreeSet<_>>() {
            let value =
                |env: &BTreeMap<String, String>| env.get(&name).map(|v| v.trim().to_owned());
            let what = format!("{name} in the environment of {}", call.argv[0]);
            diffs.equal(what, &value(expected), &value(&call.env));
        }
    }
}

fn file(path: &str, expected: Option<&str>, seen: Option<&str>, diffs: &mut Diffs) {
    let same = match (expected, seen) {
        (Some(a), Some(b)) if has_extension(path, "xml") => match xml::same(a, b) {
            Ok(same) => same,
            Err(error) => {
                diffs.text(path, "XML".into(), error);
                false
            }
        },
        (a, b) => a == b,
    };
    if !same {
        let show = |text: Option<&str>| text.map_or("no such file".to_owned(), str::to_owned);
        diffs.text(path, show(expected), show(seen));
    }
}

fn http(expected: &HttpExpect, seen: &HttpSeen, diffs: &mut Diffs) {
    let what = |part: &str| format!("{} {part}", seen.request);
    if let Some(status) = expected.status.as_u64() {
        let got = seen.status.map(u64::from);
        if got != Some(status) {
            let got = format!("{got:?} {}", seen.error.as_deref().unwrap_or_default());
            diffs.text(what("status"), status.to_string(), got);
        }
        diffs.equal(what("content type"), &expected.content_type, &seen.content_type);
        if let Some(body) = &expected.body {
            diffs.equal(what("body"), body, &seen.body);
        }
        return;
    }
    // `204-or-connection-closed`: the reference often exits before the answer is out.
    let closed = seen.error.as_ref().is_some_and(|e| !e.starts_with("connect"));
    if seen.status != Some(204) && !closed {
        diffs.text(what("status"), expected.status.to_string(), format!("{seen:?}"));
    }
}

/// The lines must be exactly the recorded ones. Of the content type only the media type and the format version
/// are compared: `charset` and `escaping` are what the reference's library adds in answer to an `Accept` header.
fn metrics(what: &str, expected: &Vec<String>, case: &Case, seen: &MetricsSeen, diffs: &mut Diffs) {
    diffs.equal(what, expected, &seen.lines);
    if let Some(error) = &seen.error {
        diffs.text(format!("{what}: :2112/metrics"), "200".into(), error.clone());
    }
    if !seen.lines.is_empty() && !case.help_lines.is_empty() {
        diffs.equal(format!("{what}: comment lines"), &case.help_lines, &seen.help);
    }
    if case.content_type.is_some() && seen.error.is_none() {
        let kind = seen.content_type.clone().unwrap_or_default();
        if !(kind.starts_with("text/plain") && kind.contains("version=0.0.4")) {
            diffs.text(what, "text/plain; version=0.0.4".into(), kind);
        }
    }
}
