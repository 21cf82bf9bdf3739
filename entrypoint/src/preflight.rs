//! Finds everything that would make a run fail, before hours of copying, and says what to do.
//!
//! Each check adds findings; none stops at the first problem. The same checks run for
//! `v2v-pod preflight` and at the start of every conversion. Only starting the appliance is left
//! out there unless something else is wrong or it is asked for: virt-v2v starts the appliance
//! itself before it writes anything, and starting it twice costs as much as the budget allows.

use crate::failure::{Class, Failure};
use crate::kvm;
use crate::secret;
use crate::tool_run;
use crate::toolbox::{Accelerator, Toolbox};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use v2v_args::Features;

/// virt-v2v refuses to start with less.
const TEMP_BYTES: u64 = 1 << 30;
/// Emulated, on a busy node, the appliance takes a minute or two.
const APPLIANCE_LIMIT: Duration = Duration::from_secs(600);
const APPLIANCE_OK: &str = "===== TEST FINISHED OK =====";

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It will work, but an operator should know.
    Note,
    /// The run would fail.
    Problem,
}

/// One result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: `volumes`, `tools`, …
    pub check: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    #[serde(skip)]
    class: Option<Class>,
}

/// All results.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order of the checks.
    pub findings: Vec<Finding>,
}

impl Report {
    /// As it should be.
    pub fn ok(&mut self, check: &'static str, message: impl Into<String>) {
        self.add(check, Verdict::Ok, message.into(), None, None);
    }

    /// It will work, but.
    pub fn note(
        &mut self,
        check: &'static str,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(check, Verdict::Note, message.into(), Some(advice.into()), None);
    }

    /// The run would fail like this.
    pub fn problem(&mut self, check: &'static str, failure: Failure) {
        self.add(
            check,
            Verdict::Problem,
            failure.message,
            Some(failure.advice),
            Some(failure.class),
        );
    }

    fn add(
        &mut self,
        check: &'static str,
        verdict: Verdict,
        message: String,
        advice: Option<String>,
        class: Option<Class>,
    ) {
        self.findings.push(Finding { check, verdict, message, advice, class });
    }

    /// Those that would make the run fail.
    pub fn problems(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|f| f.verdict == Verdict::Problem)
    }

    /// All problems as one failure; the first one gives the class.
    pub fn failure(&self) -> Option<Failure> {
        let class = self.problems().find_map(|f| f.class)?;
        let join = |parts: Vec<&str>| parts.join("; ");
        let mut advice: Vec<&str> = Vec::new();
        for text in self.problems().filter_map(|f| f.advice.as_deref()) {
            if !advice.contains(&text) {
                advice.push(text);
            }
        }
        let message = join(self.problems().map(|f| f.message.as_str()).collect());
        Some(Failure::new(class, message).advise(join(advice)))
    }

    /// For people: one line a finding, the advice below it.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for f in &self.findings {
            let mark = match f.verdict {
                Verdict::Ok => "ok     ",
                Verdict::Note => "NOTE   ",
                Verdict::Problem => "PROBLEM",
            };
            let _ = writeln!(text, "{mark} {:<10} {}", f.check, f.message);
            if let Some(advice) = &f.advice {
                let _ = writeln!(text, "        {:<10} -> {advice}", "");
            }
        }
        text
    }

    /// Logs what an operator should know.
    pub fn log(&self) {
        for f in &self.findings {
            let advice = f.advice.as_deref().unwrap_or_default();
            match f.verdict {
                Verdict::Ok => tracing::debug!(check = f.check, "{}", f.message),
                Verdict::Note => tracing::warn!(check = f.check, advice, "{}", f.message),
                Verdict::Problem => tracing::error!(check = f.check, advice, "{}", f.message),
            }
        }
    }
}

/// A tool that the run needs, and what it must be able to do.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// Name of the program.
    pub tool: &'static str,
    /// A fact that it must state, if it states any.
    pub fact: Option<&'static str>,
}

/// Looks for the tools and asks each what it can do. Features come in the order of the needs.
pub async fn check_tools(report: &mut Report, toolbox: &Toolbox, needs: &[Need]) -> Vec<Features> {
    let mut all = Vec::new();
    for need in needs {
        let features = check_tool(report, toolbox, *need).await;
        all.push(features);
    }
    all
}

async fn check_tool(report: &mut Report, toolbox: &Toolbox, need: Need) -> Features {
    let Some(path) = toolbox.find(need.tool) else {
        report.problem("tools", tool_run::missing(need.tool));
        return Features::default();
    };
    if !need.tool.starts_with("virt-v2v") {
        report.ok("tools", path.display().to_string());
        return Features::default();
    }
    let features = toolbox.features(need.tool).await;
    if !features.answered() {
        let advice = "progress and errors are then read from its text; use virt-v2v 2.0 or newer";
        report.note("tools", format!("{} does not answer --machine-readable", need.tool), advice);
    } else if let Some(fact) = need.fact.filter(|f| !features.has(f)) {
        let message = format!("{} cannot do {fact}", need.tool);
        report.problem("tools", Failure::new(Class::Tool, message));
    } else {
        report.ok("tools", format!("{} answers --machine-readable", path.display()));
    }
    features
}

/// Free space for overlays and temporary files, and room for socket names.
pub fn check_temp(report: &mut Report, base: &Path) {
    let shown = base.display();
    if !crate::rundir::RunDir::fits(base) {
        let message =
            format!("the path of the temporary folder {shown} is too long for sockets in it");
        report.problem(
            "temporary",
            Failure::new(Class::Config, message).advise("set TMPDIR to a shorter path"),
        );
    }
    match nix::sys::statvfs::statvfs(base) {
        Err(e) => {
            let message = format!("the temporary folder {shown} cannot be used: {e}");
            report.problem(
                "temporary",
                Failure::new(Class::Config, message).advise("set TMPDIR to a writable folder"),
            );
        }
        Ok(fs) => {
            let free = fs.blocks_available().saturating_mul(fs.fragment_size());
            if free < TEMP_BYTES {
                let message = format!(
                    "the temporary folder {shown} has {} MiB free, virt-v2v needs 1024 MiB at least",
                    free >> 20
                );
                report.problem("temporary", Failure::new(Class::NoSpace, message));
            } else {
                report.ok("temporary", format!("{shown} has {} MiB free", free >> 20));
            }
        }
    }
}

/// A file with a secret: there, readable, and one line.
pub fn check_secret(report: &mut Report, path: &Path, what: &str) {
    match secret::read(path, what) {
        Err(failure) => report.problem("secrets", failure),
        Ok(_) => report.ok("secrets", format!("{} is there", path.display())),
    }
}

/// What the appliance runs on. `dir` takes a temporary file.
pub async fn check_kvm(report: &mut Report, toolbox: &Toolbox, dir: &Path) -> Accelerator {
    let (accelerator, why) = kvm::probe(toolbox, dir).await;
    match accelerator {
        Accelerator::Kvm => report.ok("kvm", why),
        Accelerator::Tcg => {
            let advice = "the conversion works, but several times slower: give the pod /dev/kvm (devices.kubevirt.io/kvm: 1) on a node that has it";
            report.note("kvm", format!("{why}; the appliance is emulated (TCG)"), advice);
        }
    }
    accelerator
}

/// Whether an appliance is installed; with `start` also whether it boots.
pub async fn check_appliance(report: &mut Report, toolbox: &Toolbox, start: bool) {
    let advice = "use the v2v-pod image, or install supermin and the libguestfs appliance";
    match fixed_appliance(toolbox) {
        Some(dir) => report.ok("appliance", format!("fixed appliance in {}", dir.display())),
        None if toolbox.find("supermin").is_some() => {
            report.ok("appliance", "supermin builds it at the first use");
        }
        None => {
            report.note("appliance", "neither a fixed appliance nor supermin was found", advice);
        }
    }
    if start {
        start_appliance(report, toolbox).await;
    }
}

fn fixed_appliance(toolbox: &Toolbox) -> Option<PathBuf> {
    let dirs = toolbox.var("LIBGUESTFS_PATH")?;
    std::env::split_paths(dirs)
        .find(|d| ["kernel", "initrd", "root"].iter().all(|f| d.join(f).exists()))
}

async fn start_appliance(report: &mut Report, toolbox: &Toolbox) {
    const TOOL: &str = "libguestfs-test-tool";
    if toolbox.find(TOOL).is_none() {
        report.note(
            "appliance",
            format!("{TOOL} is not installed: the appliance was not started"),
            "install libguestfs-tools to have it tested",
        );
        return;
    }
    match toolbox.ask(TOOL, &[], APPLIANCE_LIMIT).await {
        Some((_, text)) if text.contains(APPLIANCE_OK) => {
            report.ok("appliance", "the appliance starts");
        }
        Some((_, text)) => {
            let message = format!("the appliance does not start: {}", last_error(&text));
            report.problem(
                "appliance",
                Failure::new(Class::Appliance, message)
                    .advise(format!("run {TOOL} here and read its output")),
            );
        }
        None => {
            let message =
                format!("the appliance does not start within {} s", APPLIANCE_LIMIT.as_secs());
            report.problem("appliance", Failure::new(Class::Appliance, message));
        }
    }
}

fn last_error(text: &str) -> &str {
    let is_error = |l: &&str| l.contains("error") || l.contains("failed") || l.contains("cannot");
    text.lines().rev().find(is_error).or_else(|| text.lines().last()).unwrap_or("it said nothing")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn all_problems_become_one_failure() {
        let mut report = Report::default();
        report.ok("a", "fine");
        report.problem("b", Failure::new(Class::Volume, "too small"));
        report.note("c", "slow", "be patient");
        report.problem("d", Failure::new(Class::Config, "no secret"));
        let failure = report.failure().unwrap();
        assert_eq!(
            (failure.class, failure.message.as_str()),
            (Class::Volume, "too small; no secret")
        );
        assert!(
            failure.advice.contains(Class::Config.advice())
                && failure.advice.contains(Class::Volume.advice())
        );
        assert_eq!(report.to_text().lines().filter(|l| l.starts_with("PROBLEM")).count(), 2);
        assert_eq!(Report::default().failure(), None);
    }

    #[test]
    fn secrets_are_checked_without_being_shown() {
        let dir = tempfile::tempdir().unwrap();
        let (good, empty, none) =
            (dir.path().join("good"), dir.path().join("empty"), dir.path().join("none"));
        fs::write(&good, "hunter2\n").unwrap();
        fs::write(&empty, "\nsecond").unwrap();
        let mut report = Report::default();
        for path in [&good, &empty, &none] {
            check_secret(&mut report, path, "password");
        }
        let verdicts: Vec<Verdict> = report.findings.iter().map(|f| f.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Problem, Verdict::Problem]);
        assert!(!report.to_text().contains("hunter2"));
    }

    #[test]
    fn too_little_space_and_a_missing_folder_are_problems() {
        let mut report = Report::default();
        check_temp(&mut report, Path::new("/nonexistent/folder"));
        check_temp(&mut report, Path::new("/proc"));
        assert_eq!(report.problems().count(), 2, "{}", report.to_text());
    }
}
