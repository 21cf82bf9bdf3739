//! `benches/transports.py`, with disks so small that its figures mean nothing: it must report every row and leave nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;
use v2v_pod_tests::e2e::lab::{lab, root, said, turn};
use v2v_pod_tests::e2e::vcenter::{PASSWORD, VCenter, vddk_tree};

const COMPETITORS: [&str; 4] = ["https-nbdcopy", "https-v2v-pod", "vddk-nbdcopy", "vddk-v2v-pod"];

/// The script, with work and results in a folder of its own.
fn script(scratch: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.arg(root().join("benches/transports.py")).args(words);
    command.arg("--work").arg(scratch.join("work")).arg("--results").arg(scratch.join("results"));
    command.args(["--settle", "0", "--rounds", "1"]).env_remove("VDDK_LIBDIR");
    command
}

fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("v2v-bench.").tempdir_in("/var/tmp").unwrap()
}

/// The one result of that kind.
fn result(scratch: &Path, kind: &str) -> String {
    let files: Vec<PathBuf> = fs::read_dir(scratch.join("results"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == kind))
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    fs::read_to_string(&files[0]).unwrap()
}

/// Table, JSON and plot have every row with every competitor; gives the JSON.
fn complete(output: &Output, scratch: &Path, rows: &[&str]) -> Value {
    let said = said(output);
    assert!(output.status.success(), "{said}");
    let (json, text, svg) =
        (result(scratch, "json"), result(scratch, "txt"), result(scratch, "svg"));
    let report: Value = serde_json::from_str(&json).unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    for row in rows {
        for competitor in COMPETITORS {
            let (transport, copier) = competitor.split_once('-').unwrap();
            for table in [&stdout, &*text] {
                let words = [*row, transport, copier];
                let lines = table.lines().filter(|l| l.split_whitespace().take(3).eq(words));
                assert_eq!(lines.count(), 1, "{row} {competitor} in:\n{table}");
            }
            for list in ["table", "samples"] {
                let list = report[list].as_array().unwrap();
                let entries = list.iter().filter(|l| l["row"] == *row && l["copier"] == competitor);
                assert_eq!(entries.count(), 1, "{row} {competitor} in:\n{json}");
            }
            assert!(svg.contains(&format!(">{competitor}</text>")), "{competitor} in:\n{svg}");
        }
        assert!(svg.contains(&format!(">{row}</text>")), "{row} in:\n{svg}");
    }
    let count = rows.len() * COMPETITORS.len();
    assert_eq!(report["table"].as_array().unwrap().len(), count, "{json}");
    // A bar for each line of the table, one for each competitor in the legend, and the background.
    assert_eq!(svg.matches("<rect").count(), count + COMPETITORS.len() + 1, "{svg}");
    for line in report["table"].as_array().unwrap() {
        assert!(line["seconds"]["min"].as_f64().unwrap() > 0.0, "{line}");
        let ours = line["copier"].as_str().unwrap().ends_with("v2v-pod");
        assert_eq!(line["x_nbdcopy"]["median"].is_number(), ours, "{line}");
    }
    for tool in ["nbdkit", "nbdcopy", "v2v-pod", "VDDK", "kernel", "cores"] {
        assert!(report["machine"][tool].is_string(), "{tool} in:\n{json}");
        assert!(text.contains(&format!("{tool}:")), "{tool} in:\n{text}");
    }
    report
}

/// What a run of that process may have left.
fn left(pid: u32) -> Vec<String> {
    let list = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let all = [
        list("ip", &["netns", "list"]),
        list("ip", &["-br", "link"]),
        list("podman", &["ps", "--all", "--format", "{{.Names}}"]),
        list("ps", &["-eo", "args"]),
    ];
    let marks = [format!("v2vbench-{pid}"), format!("vb{pid}s"), format!("vb{pid}c")];
    all.concat()
        .lines()
        .filter(|line| marks.iter().any(|mark| line.contains(mark)))
        .map(str::to_owned)
        .collect()
}

/// An argument list or environment with these words, if one was seen until it is over.
fn seen_in_processes(words: &str, over: &AtomicBool) -> Option<String> {
    while !over.load(Ordering::Relaxed) {
        for process in fs::read_dir("/proc").unwrap().flatten() {
            for file in ["cmdline", "environ"] {
                let bytes = fs::read(process.path().join(file)).unwrap_or_default();
                let text = String::from_utf8_lossy(&bytes);
                if text.contains(words) {
                    return Some(text.into_owned());
                }
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    None
}

#[test]
fn the_simulated_vcenter_gives_every_row() {
    let (_lab, _turn) = (lab(), turn());
    let scratch = scratch();
    let words = ["--size", "16M", "--rtt", "0,5", "--disks", "1,2"];
    let child = script(scratch.path(), &words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    let rows = ["rtt0-disks1", "rtt0-disks2", "rtt5-disks1", "rtt5-disks2"];
    let report = complete(&output, scratch.path(), &rows);
    let trips = &report["settings"]["round_trips"];
    assert!(trips["0 ms"]["least_ms"].as_f64().unwrap() < 5.0, "{trips}");
    assert!(trips["5 ms"]["least_ms"].as_f64().unwrap() >= 5.0, "{trips}");
    assert_eq!(report["settings"]["stand_in"], true);
    assert_eq!(left(pid), [""; 0]);
}

#[test]
fn a_vcenter_that_is_there_is_measured_by_its_url() {
    let (_lab, _turn) = (lab(), turn());
    let scratch = scratch();
    let vcenter = VCenter::start_as(PASSWORD, |config| {
        config["vms"][0]["disks"] = json!([{"path": "[ds 1] other/disk.vmdk"}]);
    });
    // Half data, half hole.
    let disk: Vec<u8> =
        (0..1_u32 << 19).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let served = vcenter.store().join("other/disk-flat.vmdk");
    fs::write(&served, &disk).unwrap();
    fs::File::options().write(true).open(&served).unwrap().set_len(1 << 20).unwrap();
    let mut settings = vcenter.stub_settings(PASSWORD);
    settings["datastores"] = json!({"ds 1": "store"});
    let vddk = vddk_tree(scratch.path(), &settings);
    fs::create_dir_all(vddk.join("store/other")).unwrap();
    fs::copy(&served, vddk.join("store/other/disk-flat.vmdk")).unwrap();
    let password = scratch.path().join("password");
    fs::write(&password, format!("{PASSWORD}\n")).unwrap();

    let url = vcenter.url("localhost", "");
    let run = |trust: &[&str]| {
        script(scratch.path(), &["--url", &url, "--vm", "web", "--disk", "1"])
            .args(trust)
            .arg("--password-file")
            .arg(&password)
            .arg("--vddk-libdir")
            .arg(&vddk)
            .output()
            .unwrap()
    };
    let stranger = run(&[]);
    assert!(!stranger.status.success());
    assert!(said(&stranger).contains("give --cacert"), "{}", said(&stranger));

    let over = AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        let watch = scope.spawn(|| seen_in_processes(PASSWORD, &over));
        let output = run(&["--cacert", &vcenter.ca().to_string_lossy()]);
        over.store(true, Ordering::Relaxed);
        assert_eq!(watch.join().unwrap(), None);
        output
    });
    let report = complete(&output, scratch.path(), &["real-disks1"]);
    assert_eq!(report["table"][0]["size"], 1 << 20);
    for kind in ["json", "txt", "svg"] {
        assert!(!result(scratch.path(), kind).contains(PASSWORD));
    }
    assert!(!said(&output).contains(PASSWORD));

    fs::remove_dir_all(scratch.path().join("results")).unwrap();
    fs::write(&password, "wrong").unwrap();
    let refused = run(&["--thumbprint", &vcenter.thumbprint]);
    assert!(!refused.status.success());
    assert!(
        said(&refused).contains("dumpxml") || said(&refused).contains("virsh"),
        "{}",
        said(&refused)
    );
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    let (_lab, _turn) = (lab(), turn());
    let scratch = scratch();
    // Copies that take seconds each.
    let words = ["--size", "32M", "--rtt", "60", "--disks", "1", "--copiers", "nbdcopy"];
    let mut child = script(scratch.path(), &words)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The head of the table: the next thing is a copy.
    assert!(lines.any(|line| line.unwrap().starts_with("row ")));
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_ne!(left(child.id()), [""; 0]);
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(left(child.id()), [""; 0]);
}

#[test]
fn what_is_missing_is_said() {
    let scratch = scratch();
    let cases: [(&[&str], &str); 4] = [
        (
            &["--vddk-libdir", "/none"],
            "a real VDDK (--vddk-libdir, VDDK_LIBDIR) needs a real vCenter",
        ),
        (&["--url", "vpx://u@h/DC/esx"], "--url needs --vm and --password-file"),
        (
            &["--url", "vpx://u@h/DC/esx", "--vm", "a", "--password-file", "/none"],
            "give --vddk-libdir",
        ),
        (
            &["--stub", "/none/libvixDiskLib.so"],
            "there is no /none/libvixDiskLib.so; run cargo build",
        ),
    ];
    for (words, wanted) in cases {
        let output = script(scratch.path(), words).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", said(&output));
        assert!(said(&output).contains(wanted), "{words:?}: {}", said(&output));
    }
}
