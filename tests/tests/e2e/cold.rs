//! A whole migration: stopped, killed twice, and then done.

use super::{DATA_BYTES, GRACE, ROOMY, boots, hyperv, link, nothing_is_left};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use v2v_pod_tests::e2e::lab::{lab, turn};
use v2v_pod_tests::e2e::pod::{INSPECTING, LONG, Pod, SHORT};
use v2v_pod_tests::e2e::volume::{Block, Scratch, files_with, leftovers, listing};
use v2v_pod_tests::e2e::watch::{Seen, Viewer, Watch};
use v2v_pod_tests::http;

const SECRET: &str = "hunter2-Zq7xK-must-not-be-seen";

/// The volumes of one migration, which all its pods share.
struct Migration {
    scratch: Scratch,
    block: Block,
}

impl Migration {
    fn new() -> Self {
        let scratch = Scratch::new();
        let secrets = scratch.folder("secrets");
        fs::write(secrets.join("secretKey"), format!("{SECRET}\n")).unwrap();
        fs::write(secrets.join("accessKeyId"), "administrator\n").unwrap();
        for name in ["work", "disk1"] {
            scratch.folder(name);
        }
        let block = scratch.block("block0", ROOMY);
        Self { scratch, block }
    }

    fn start(&self) -> Pod {
        let work = self.scratch.path("work");
        hyperv(&work, &lab().guest, "/source/boot.img,/source/data.img")
            .block(0, &self.block)
            .folder(1, &self.scratch.path("disk1"))
            .mount_read_only(&self.scratch.path("secrets"), "/etc/secret")
            // As Forklift's `envFrom` with the prefix V2V_ does.
            .env("V2V_secretKey", SECRET)
            .start()
    }
}

#[test]
fn pod_mode_converts_onto_block_and_file() {
    let (_lab, _turn) = (lab(), turn());
    let migration = Migration::new();
    stopped_by_sigterm(&migration);
    killed_when_the_log_says(&migration, INSPECTING);
    killed_when_the_log_says(&migration, "Copying disk 1/2");
    migrated(&migration);
    boots(&migration.block);
}

fn stopped_by_sigterm(migration: &Migration) {
    let work = migration.scratch.path("work");
    let mut pod = migration.start();
    let namespace = pod.namespace();
    pod.until_log(INSPECTING, LONG);
    let begin = Instant::now();
    pod.signal(Signal::SIGTERM);
    pod.fails_with(143, "terminated", 2 * GRACE);
    let took = begin.elapsed();
    pod.check(took < GRACE, format_args!("the pod ends within {GRACE:?}, not after {took:?}"));
    nothing_is_left(&mut pod, &work, &namespace);
}

/// As when a node loses power: whatever the run left is the next one's to deal with.
fn killed_when_the_log_says(migration: &Migration, text: &str) {
    let work = migration.scratch.path("work");
    let mut pod = migration.start();
    pod.first_process();
    pod.until_log(text, LONG);
    pod.signal(Signal::SIGKILL);
    pod.ends_with(137, SHORT);
    let left = leftovers(&work);
    pod.check(!left.is_empty(), "SIGKILL leaves a temporary folder, or later checks prove nothing");
}

fn migrated(migration: &Migration) {
    let work = migration.scratch.path("work");
    // A link of another run with the same name: virt-v2v would write the boot disk through it.
    let first_link = work.join("v2v/e2e-guest-sda");
    fs::remove_file(&first_link).unwrap();
    symlink("/mnt/disks/disk1/disk.img", &first_link).unwrap();

    let mut pod = migration.start();
    let namespace = pod.namespace();
    let first_process = pod.first_process();
    pod.until_log("\"phase\":\"preflight\"", SHORT);
    let (ports, viewer) = (pod.ports, Viewer::connect(pod.ports));
    let watch = Watch::start(ports, namespace.clone(), SECRET);
    let page = http::request(ports.live, "GET", "/");
    pod.check(
        page.status == Some(200) && page.body.contains("<html"),
        format_args!("the live page is there: {page:?}"),
    );
    pod.until_log(INSPECTING, LONG);
    let tmp = Path::new("/proc").join(first_process.to_string()).join("root/tmp");
    let exposed = [files_with(&work, SECRET), files_with(&tmp, SECRET)].concat();
    pod.check(exposed.is_empty(), format_args!("the secret is in no file, but in {exposed:?}"));
    pod.until("the result is served", LONG, |_| watch.has_seen_the_result());

    let (tools, in_tmp) = (namespace.tools(), listing(&tmp));
    pod.check(tools.is_empty(), format_args!("no tool runs while serving, but {tools:?}"));
    pod.check(in_tmp.is_empty(), format_args!("/tmp is empty, but has {in_tmp:?}"));
    check_answers(&mut pod);
    let answer = http::request(ports.result, "POST", "/shutdown");
    pod.check(answer.status == Some(204), format_args!("/shutdown is answered: {answer:?}"));
    pod.ends_with(0, SHORT);

    let (seen, frames) = (watch.end(), viewer.frames());
    nothing_is_left(&mut pod, &work, &namespace);
    check_links(&mut pod, &work);
    check_log(&mut pod);
    check_seen(&mut pod, &seen);
    check_stream(&mut pod, &frames);
    let exposed = files_with(&work, SECRET);
    pod.check(exposed.is_empty(), format_args!("the secret is in no file, but in {exposed:?}"));
    check_data_disk(&mut pod, &migration.scratch.path("disk1/disk.img"));
}

fn check_answers(pod: &mut Pod) {
    let vm = http::request(pod.ports.result, "GET", "/vm");
    let yaml: Value = serde_saphyr::from_str(&vm.body).unwrap_or_default();
    pod.check(
        vm.status == Some(200)
            && yaml["kind"] == "VirtualMachine"
            && yaml["metadata"]["name"] == "e2e-guest",
        format_args!("/vm is the VirtualMachine: {vm:?}"),
    );
    let inspection = http::request(pod.ports.result, "GET", "/inspection");
    let names_linux = roxmltree::Document::parse(&inspection.body).is_ok_and(|document| {
        let system = document.descendants().find(|n| n.has_tag_name("operatingsystem"));
        system.is_some_and(|s| {
            s.children().any(|n| n.has_tag_name("name") && n.text() == Some("linux"))
        })
    });
    pod.check(
        inspection.status == Some(200) && names_linux,
        format_args!("/inspection names the operating system: {inspection:?}"),
    );
    let warnings = http::request(pod.ports.result, "GET", "/warnings");
    let is_list = || serde_json::from_str::<Vec<Value>>(&warnings.body).is_ok();
    pod.check(
        warnings.status == Some(204) || (warnings.status == Some(200) && is_list()),
        format_args!("/warnings is empty or a JSON list: {warnings:?}"),
    );
}

fn check_links(pod: &mut Pod, work: &Path) {
    for (name, target) in
        [("e2e-guest-sda", "/dev/block0"), ("e2e-guest-sdb", "/mnt/disks/disk1/disk.img")]
    {
        let found = link(work, name);
        pod.check(found == target, format_args!("{name} leads to {target}, not {found:?}"));
    }
    let message = pod.termination();
    pod.check(
        message["outcome"] == "succeeded",
        format_args!("the termination message: {message}"),
    );
}

fn check_log(pod: &mut Pod) {
    let lines = pod.lines();
    let last = lines.last().cloned().unwrap_or_default();
    pod.check(last["message"] == "finished", format_args!("the log ends with finished: {last}"));
    let phases: Vec<&str> = lines
        .iter()
        .filter(|l| l["message"] == "phase")
        .filter_map(|l| l["phase"].as_str())
        .collect();
    let all = ["preflight", "prepare", "convert", "copy", "inspect", "serve"];
    pod.check(phases == all, format_args!("the log has the phases {all:?}, not {phases:?}"));
    let shown = pod.log().contains(SECRET) || pod.errors().contains(SECRET);
    pod.check(!shown, "the secret is not in the log");
    let removed = pod.log().contains("removed what a dead run left");
    pod.check(removed, "the log says that leftovers of the killed runs were removed");
}

fn check_seen(pod: &mut Pod, seen: &Seen) {
    pod.check(seen.leaks.is_empty(), format_args!("nothing leaks: {:?}", seen.leaks));
    // Without these the check above would prove nothing. Names are cut at 15 characters.
    for tool in ["virt-v2v", "nbdkit", "qemu-system-x86", "virt-v2v-inspec"] {
        let found = seen.tools.contains(tool);
        pod.check(found, format_args!("{tool} was seen among {:?}", seen.tools));
    }
    for phase in ["convert", "copy", "inspect", "serve"] {
        let found = seen.phases.iter().any(|p| p == phase);
        pod.check(found, format_args!("/state shows {phase}: {:?}", seen.phases));
    }
    let open_in = seen.result_open_in.as_deref();
    pod.check(
        open_in == Some("serve"),
        format_args!("the result's port opens in phase serve, not {open_in:?}"),
    );
    pod.check(seen.scrapes > 10, format_args!("metrics were scraped: {} times", seen.scrapes));
    for disk in ["1", "2"] {
        let percents = seen.percents.get(disk).cloned().unwrap_or_default();
        let numbers: Vec<f64> = percents.iter().filter_map(|p| p.parse().ok()).collect();
        pod.check(
            numbers.is_sorted() && numbers.last() == Some(&100.0),
            format_args!("Forklift sees disk {disk} come to 100 %: {percents:?}"),
        );
    }
    pod.check(seen.percents.len() == 2, format_args!("two disks: {:?}", seen.percents));
}

fn check_stream(pod: &mut Pod, frames: &[Value]) {
    let last = frames.last().cloned().unwrap_or_default();
    pod.check(
        last["phase"] == "done" && last["exit_code"] == 0,
        format_args!("the last event is the end: {last}"),
    );
    let converting = frames.iter().filter(|f| f["phase"] == "convert").count();
    pod.check(converting > 3, format_args!("events arrive while converting: {converting}"));
}

fn check_data_disk(pod: &mut Pod, image: &Path) {
    let wanted = fs::read_to_string(lab().guest.join("data.sha256")).unwrap();
    let wanted = wanted.split_whitespace().next().unwrap();
    let script = format!("head -c {DATA_BYTES} '{}' | sha256sum", image.display());
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let found = String::from_utf8_lossy(&output.stdout);
    pod.check(found.starts_with(wanted), format_args!("the data disk is {wanted}, not {found}"));
    let length = fs::metadata(image).unwrap().len();
    pod.check(length == DATA_BYTES, format_args!("disk.img has {DATA_BYTES} bytes, not {length}"));
}
