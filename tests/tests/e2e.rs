//! The built image, end to end: real guests, real volumes, an unprivileged pod. See `v2v_pod_tests::e2e`.
//!
//! ```text
//! cargo build --release && cargo test -p v2v-pod-tests --test e2e            everything, as root
//! cargo test -p v2v-pod-tests --test e2e preflight                           one of them
//! ```
//!
//! Without KVM a conversion takes one to two minutes, and in pod mode the inspector as long again.
//! So one run carries many assertions, and at most two pods run at once.

// Test code: a broken assumption has to stop the run, with the place where it broke.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use v2v_pod_tests::e2e::lab::{lab, root, turn};
use v2v_pod_tests::e2e::pod::{INSPECTING, LONG, Pod, Request, SHORT};
use v2v_pod_tests::e2e::volume::{
    Block, MIB, Scratch, files_with, leftovers, listing, must, same_bytes,
};
use v2v_pod_tests::e2e::watch::{Viewer, Watch};
use v2v_pod_tests::http;

/// The virtual sizes of the lab's disks.
const BOOT_BYTES: u64 = 1536 * MIB;
const DATA_BYTES: u64 = 64 * MIB;
/// A block volume may be larger than its disk, and usually is.
const ROOMY: u64 = BOOT_BYTES + 64 * MIB;

/// `V2V_gracePeriod` by default, and the end of the container.
const GRACE: Duration = Duration::from_secs(25);

/// A QEMU that fails at once: the appliance, which preflight starts when it has found a problem, then
/// costs a second instead of half a minute.
const NO_APPLIANCE: (&str, &str) = ("LIBGUESTFS_HV", "/bin/false");

/// A pod that converts these disks, seen at `/source`, into `e2e-guest`.
fn hyperv(work: &Path, source: &Path, disks: &str) -> Request {
    Request::new(work).mount_read_only(source, "/source").envs(&[
        ("V2V_source", "hyperv"),
        ("V2V_vmName", "My VM"),
        ("V2V_NewName", "e2e-guest"),
        ("V2V_diskPath", disks),
    ])
}

fn boots(block: &Block) {
    let boot = root().join("tests/lab/boot.sh");
    must(Command::new(boot).arg(&block.node).args(["--timeout", "600"]));
}

fn link(work: &Path, name: &str) -> String {
    let target = fs::read_link(work.join("v2v").join(name)).unwrap_or_default();
    target.to_string_lossy().into_owned()
}

/// Nothing of the pod is there any more: no process, and no temporary file in the work volume.
#[track_caller]
fn nothing_is_left(pod: &mut Pod, work: &Path, namespace: &v2v_pod_tests::e2e::process::Namespace) {
    // The kernel kills what is left in the container after its first process has ended, not before.
    let begin = Instant::now();
    while !namespace.tools().is_empty() && begin.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (files, tools) = (leftovers(work), namespace.tools());
    pod.check(files.is_empty(), format_args!("no leftover in the work volume, but {files:?}"));
    pod.check(tools.is_empty(), format_args!("no process left, but {tools:?}"));
}

// --- A whole migration: stopped, killed twice, and then done --------------------------------------

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

fn check_seen(pod: &mut Pod, seen: &v2v_pod_tests::e2e::watch::Seen) {
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

// --- Many disks, and the VM that we describe ourselves --------------------------------------------

/// The smallest disk that differs from all others wherever it is looked at.
fn distinct_disk(number: usize) -> Vec<u8> {
    const BYTES: usize = 4 << 20;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number as u64 + 1);
    let mut next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..BYTES / 8).flat_map(|_| next()).collect()
}

#[test]
fn twelve_disks_in_mixed_modes_with_our_own_vm() {
    let (lab, _turn) = (lab(), turn());
    let scratch = Scratch::new();
    let (work, source) = (scratch.folder("work"), scratch.folder("source"));
    let mut request = Request::new(&work);
    let mut paths = vec!["/boot/boot.img".to_owned()];
    for number in 1..12 {
        fs::write(source.join(format!("data{number}.img")), distinct_disk(number)).unwrap();
        paths.push(format!("/source/data{number}.img"));
    }
    // Text order would be 0, 1, 10, 11, 2 … both for the volumes and for sda, sdb … sdk, sdl.
    let blocks: Vec<Block> = (0..12)
        .step_by(2)
        .map(|n| scratch.block(&format!("block{n}"), if n == 0 { ROOMY } else { 8 * MIB }))
        .collect();
    for (number, block) in (0..12).step_by(2).zip(&blocks) {
        request = request.block(number, block);
    }
    for number in (1..12).step_by(2) {
        request = request.folder(number, &scratch.folder(&format!("disk{number}")));
    }
    let claims: Vec<String> = (0..12).map(|n| format!("claim-of-disk-{n}")).collect();
    let mut pod = request
        .mount_read_only(&lab.guest, "/boot")
        .mount_read_only(&source, "/source")
        .envs(&[
            ("V2V_source", "hyperv"),
            ("V2V_vmName", "twelve"),
            ("V2V_diskPath", &paths.join(",")),
            ("V2V_output", "local"),
            ("V2V_claimNames", &serde_json::to_string(&claims).unwrap()),
            ("LOCAL_MIGRATION", "true"),
        ])
        .start();
    pod.first_process();
    let result = pod.ports.result;
    pod.until("the result is served", LONG, |_| http::is_open(result));
    check_our_vm(&mut pod, &claims);
    let answer = http::request(result, "GET", "/shutdown");
    pod.check(answer.status == Some(204), format_args!("/shutdown is answered: {answer:?}"));
    pod.ends_with(0, SHORT);

    for number in 1..12 {
        let wanted = distinct_disk(number);
        let found = if number % 2 == 0 {
            blocks[number / 2].read(wanted.len() as u64)
        } else {
            fs::read(scratch.path(&format!("disk{number}/disk.img"))).unwrap()
        };
        let is_of = (1..12).find(|n| found == distinct_disk(*n));
        pod.check(
            is_of == Some(number),
            format_args!("volume {number} has disk {number}, not {is_of:?} (None: no disk at all)"),
        );
    }
    boots(&blocks[0]);
}

fn check_our_vm(pod: &mut Pod, claims: &[String]) {
    let vm = http::request(pod.ports.result, "GET", "/vm");
    let yaml: Value = serde_saphyr::from_str(&vm.body).unwrap_or_default();
    let spec = &yaml["spec"]["template"]["spec"];
    let list = |list: &Value, pointer: &str| -> Vec<String> {
        let items = list.as_array().into_iter().flatten();
        items.filter_map(|i| i.pointer(pointer)?.as_str().map(str::to_owned)).collect()
    };
    let found = list(&spec["volumes"], "/persistentVolumeClaim/claimName");
    pod.check(found == claims, format_args!("the claims are {claims:?}, not {found:?}"));
    let (volumes, disks) =
        (list(&spec["volumes"], "/name"), list(&spec["domain"]["devices"]["disks"], "/name"));
    pod.check(
        volumes == disks && disks.len() == claims.len(),
        format_args!("each disk has its volume: {volumes:?} {disks:?}"),
    );
    pod.check(
        yaml["apiVersion"] == "kubevirt.io/v1"
            && yaml["kind"] == "VirtualMachine"
            && yaml["metadata"]["name"] == "twelve"
            && !vm.body.contains("generated by virt-v2v"),
        format_args!("/vm is a VirtualMachine of our own: {vm:?}"),
    );
}

// --- Guests and targets that cannot be converted --------------------------------------------------

#[test]
fn a_guest_without_boot_loader_leaves_the_volumes_untouched() {
    let (lab, _turn) = (lab(), turn());
    let scratch = Scratch::new();
    let (work, disk1) = (scratch.folder("work"), scratch.folder("disk1"));
    let mut block = scratch.block("block0", ROOMY);
    block.mark();
    let image = disk1.join("disk.img");
    fs::write(&image, distinct_disk(0)).unwrap();
    std::os::unix::fs::chown(&image, Some(107), Some(107)).unwrap();
    let mut pod = hyperv(&work, &lab.bootless, "/source/boot.img,/source/data.img")
        .block(0, &block)
        .folder(1, &disk1)
        .start();
    let namespace = pod.namespace();
    pod.fails_with(27, "no-boot-loader", LONG);
    pod.check(block.is_untouched(), "the block volume has its old content");
    let same = fs::read(&image).unwrap() == distinct_disk(0);
    pod.check(same, "the image on the filesystem volume has its old content");
    nothing_is_left(&mut pod, &work, &namespace);
    let last = pod.lines().pop().unwrap_or_default();
    pod.check(last["message"] == "failed", format_args!("the log ends with the failure: {last}"));
}

#[test]
fn a_volume_that_gets_full_while_copying_is_no_space() {
    let (lab, _turn) = (lab(), turn());
    let scratch = Scratch::new();
    let work = scratch.folder("work");
    let volume = scratch.file_system("disk0", BOOT_BYTES + 256 * MIB);
    let mut pod = hyperv(&work, &lab.guest, "/source/boot.img").folder(0, &volume.dir).start();
    let namespace = pod.namespace();
    pod.until_log(INSPECTING, LONG);
    // Less than the guest's data, which is some 300 MiB.
    volume.fill(100 * MIB);
    pod.fails_with(25, "no-space", LONG);
    let copied = pod.log().contains("Copying disk 1/1");
    pod.check(copied, "it is the copy that failed");
    nothing_is_left(&mut pod, &work, &namespace);
}

#[test]
fn disks_that_are_first_seen_by_virt_v2v_stop_it_before_it_writes() {
    let (lab, _turn) = (lab(), turn());
    let scratch = Scratch::new();
    let (work, domain) = (scratch.folder("work"), scratch.folder("domain"));
    let disk = |file: &str, target: &str| {
        format!(
            "<disk type='file' device='disk'><driver name='qemu' type='raw'/>\
             <source file='/source/{file}'/><target dev='{target}' bus='virtio'/></disk>"
        )
    };
    let xml = format!(
        "<domain type='kvm'><name>seen-late</name><memory unit='KiB'>1048576</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64'>hvm</type></os><devices>{}{}</devices></domain>",
        disk("boot.img", "vda"),
        disk("data.img", "vdb")
    );
    fs::write(domain.join("guest.xml"), xml).unwrap();
    let mut block = scratch.block("block0", 1024 * MIB);
    block.mark();
    let mut pod = Request::new(&work)
        .mount_read_only(&lab.guest, "/source")
        .mount_read_only(&domain, "/domain")
        .block(0, &block)
        .command(&["convert", "-i", "libvirtxml", "/domain/guest.xml"])
        .command(&["--to", "/dev/block0", "--out", "/var/tmp/out", "--verbose"])
        .start();
    let namespace = pod.namespace();
    pod.ends_with(20, LONG);
    for text in ["the source has 2 disk(s), but there are 1 volume(s)", "1610612736", "1073741824"]
    {
        let said = pod.log().contains(text);
        pod.check(said, format_args!("the log says {text:?}"));
    }
    let log = pod.log();
    let in_time = log.contains("\"phase\":\"convert\"") && !log.contains("Copying disk");
    pod.check(in_time, "it was stopped while converting, before the copy");
    pod.check(block.is_untouched(), "the volume has its old content");
    nothing_is_left(&mut pod, &work, &namespace);
}

#[test]
fn a_killed_virt_v2v_is_a_failure_and_takes_its_helpers_along() {
    let (lab, _turn) = (lab(), turn());
    let scratch = Scratch::new();
    let work = scratch.folder("work");
    let mut block = scratch.block("block0", ROOMY);
    block.mark();
    let mut pod = hyperv(&work, &lab.guest, "/source/boot.img").block(0, &block).start();
    let namespace = pod.namespace();
    pod.until_log(INSPECTING, LONG);
    let processes = namespace.processes();
    for helper in ["nbdkit", "qemu-system-x86"] {
        let runs = processes.iter().any(|p| p.name == helper);
        pod.check(runs, format_args!("{helper} runs now"));
    }
    // libguestfs forks: the first one is virt-v2v itself.
    let virt_v2v = processes.iter().filter(|p| p.name == "virt-v2v").map(|p| p.pid).min();
    kill(Pid::from_raw(virt_v2v.expect("virt-v2v runs now")), Signal::SIGKILL).unwrap();
    pod.fails_with(36, "memory", GRACE);
    nothing_is_left(&mut pod, &work, &namespace);
    pod.check(block.is_untouched(), "the volume has its old content");
}

// --- In place -------------------------------------------------------------------------------------

fn in_place(work: &Path, block: &Block) -> Request {
    Request::new(work).block(0, block).envs(&[
        ("V2V_inPlace", "1"),
        ("V2V_source", "ec2"),
        ("V2V_vmName", "x"),
        ("LOCAL_MIGRATION", "false"),
    ])
}

#[test]
fn in_place_works_on_an_overlay_and_commits_it() {
    let (lab, _turn) = (lab(), turn());
    let scratch = Scratch::new();
    let work = scratch.folder("work");
    let source = lab.guest.join("boot.img");
    let block = scratch.block_from("block0", &source, ROOMY);
    let mut pod = in_place(&work, &block).start();
    let namespace = pod.namespace();
    pod.until_log(INSPECTING, LONG);
    let (overlay, target) = (work.join("v2v/x-sda.qcow2"), link(&work, "x-sda"));
    pod.check(overlay.exists(), "there is an overlay while converting");
    pod.check(target == "/var/tmp/v2v/x-sda.qcow2", format_args!("the link leads to {target}"));
    pod.ends_with(0, LONG);
    nothing_is_left(&mut pod, &work, &namespace);
    let target = link(&work, "x-sda");
    pod.check(target == "/dev/block0", format_args!("the link leads to the volume, not {target}"));
    let changed = !same_bytes(&block.node, &source, BOOT_BYTES);
    pod.check(changed, "the conversion has changed the volume");
    boots(&block);
}

#[test]
fn in_place_failing_leaves_the_volume_as_it_was() {
    let (lab, _turn) = (lab(), turn());
    let scratch = Scratch::new();
    let work = scratch.folder("work");
    let source = lab.bootless.join("boot.img");
    let block = scratch.block_from("block0", &source, ROOMY);
    let mut pod = in_place(&work, &block).start();
    let namespace = pod.namespace();
    pod.fails_with(27, "no-boot-loader", LONG);
    let same = same_bytes(&block.node, &source, BOOT_BYTES);
    pod.check(same, "the volume has not changed by a byte");
    nothing_is_left(&mut pod, &work, &namespace);
    let target = link(&work, "x-sda");
    pod.check(target == "/dev/block0", format_args!("the link leads to the volume, not {target}"));
}

// --- Preflight ------------------------------------------------------------------------------------

/// Runs `preflight --json`; the exit code and the findings as (check, verdict, message).
fn preflight(request: Request) -> (Pod, i32, Vec<(String, String, String)>) {
    let mut pod = request.command(&["preflight", "--json"]).start();
    let code = pod.exit_code(LONG);
    let report: Value = serde_json::from_str(pod.log()).unwrap_or_default();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let findings = report["findings"].as_array().cloned().unwrap_or_default();
    pod.check(!findings.is_empty(), "the report is JSON with findings");
    let findings = findings
        .iter()
        .map(|f| (text(f, "check"), text(f, "verdict"), text(f, "message")))
        .collect();
    (pod, code, findings)
}

#[test]
fn preflight_finds_each_mistake_with_volumes() {
    let (lab, _turn) = (lab(), turn());
    let scratch = Scratch::new();
    let work = scratch.folder("work");
    let (boot, data) = (scratch.block("boot", ROOMY), scratch.block("data", DATA_BYTES));
    let (one, two) = ("/source/boot.img", "/source/boot.img,/source/data.img");
    let source = |disks: &str| hyperv(&work, &lab.guest, disks).envs(&[NO_APPLIANCE]);
    let cases = [
        ("a hole", source(two).block(0, &boot).block(2, &data), "number 1 is missing"),
        (
            "fewer volumes",
            source(two).block(0, &boot),
            "the source has 2 disk(s), but there are 1 volume(s): /dev/block0",
        ),
        (
            "more volumes",
            source(one).block(0, &boot).block(1, &data),
            "the source has 1 disk(s), but there are 2 volume(s): /dev/block0 /dev/block1",
        ),
        ("no volume", source(one), "no volume found"),
        (
            "one number twice",
            source(one).block(0, &boot).folder(0, &work),
            "volume number 0 is there twice: /dev/block0 and /mnt/disks/disk0/disk.img",
        ),
    ];
    for (what, request, message) in cases {
        let (mut pod, code, findings) = preflight(request);
        let found =
            findings.iter().any(|(_, verdict, m)| verdict == "problem" && m.contains(message));
        pod.check(found, format_args!("{what} is found: {findings:?}"));
        pod.check(code == 20, format_args!("{what}: the exit code is 20, not {code}"));
    }
}

#[test]
fn preflight_reports_several_problems_at_once() {
    let (_lab, _turn) = (lab(), turn());
    let scratch = Scratch::new();
    let work = scratch.folder("work");
    let blocks = [scratch.block("a", MIB), scratch.block("b", MIB)];
    let vsphere = [
        ("V2V_source", "vSphere"),
        ("V2V_libvirtURL", "esx://root@esx.invalid/"),
        ("V2V_vmName", "x"),
        NO_APPLIANCE,
    ];
    let (mut pod, code, findings) =
        preflight(Request::new(&work).envs(&vsphere).block(0, &blocks[0]));
    let secret_is_missed = |f: &[(String, String, String)]| {
        f.iter().any(|(c, v, m)| c == "secrets" && v == "problem" && m.contains("secretKey"))
    };
    pod.check(secret_is_missed(&findings), format_args!("the secret is missed: {findings:?}"));
    pod.check(code == 64, format_args!("without a secret the exit code is 64, not {code}"));

    // A hole, no secret, and no room: /tmp has 64 MiB.
    let request = Request::new(&work)
        .envs(&vsphere)
        .env("TMPDIR", "/tmp")
        .block(0, &blocks[0])
        .block(2, &blocks[1]);
    let (mut pod, code, findings) = preflight(request);
    let problem = |check: &str, text: &str| {
        findings.iter().any(|(c, v, m)| c == check && v == "problem" && m.contains(text))
    };
    let all = [
        problem("volumes", "number 1 is missing"),
        problem("temporary", "/tmp has"),
        secret_is_missed(&findings),
        problem("appliance", "does not start"),
    ];
    pod.check(all == [true; 4], format_args!("all four problems are found: {findings:?}"));
    pod.check(code == 20, format_args!("the first problem decides: 20, not {code}"));
    let kvm = findings.iter().any(|(c, v, m)| c == "kvm" && v == "note" && m.contains("/dev/kvm"));
    pod.check(kvm, format_args!("a pod without /dev/kvm is told so: {findings:?}"));
}

#[test]
fn preflight_says_whether_kvm_works_and_starts_the_appliance() {
    let (lab, _turn) = (lab(), turn());
    assert!(Path::new("/dev/kvm").exists(), "this test needs a /dev/kvm, working or not");
    let scratch = Scratch::new();
    let work = scratch.folder("work");
    let block = scratch.block("block0", ROOMY);
    let request = hyperv(&work, &lab.guest, "/source/boot.img").block(0, &block).kvm();
    let (mut pod, code, findings) = preflight(request);
    let kvm: Vec<_> = findings.iter().filter(|(check, _, _)| check == "kvm").collect();
    let named = match kvm[..] {
        [(_, verdict, message)] if verdict == "ok" => message.contains("was started with KVM"),
        [(_, verdict, message)] => {
            let reasons =
                ["does not work: ", "does not answer", "cannot be opened: ", "neither vmx nor svm"];
            verdict == "note"
                && message.ends_with("emulated (TCG)")
                && reasons.iter().any(|r| message.contains(r))
        }
        _ => false,
    };
    pod.check(named, format_args!("one finding says whether KVM works, and why not: {kvm:?}"));
    let starts = findings
        .iter()
        .any(|(c, v, m)| c == "appliance" && v == "ok" && m.contains("the appliance starts"));
    pod.check(starts, format_args!("the appliance starts on what was found: {findings:?}"));
    pod.check(code == 0, format_args!("there is no problem, so the exit code is 0, not {code}"));
    let left = leftovers(&work);
    pod.check(left.is_empty(), format_args!("no leftover in the work volume, but {left:?}"));
}

#[test]
fn a_volume_too_small_is_found_before_anything_is_written() {
    let (lab, _turn) = (lab(), turn());
    let scratch = Scratch::new();
    let work = scratch.folder("work");
    let mut block = scratch.block("block0", 1024 * MIB);
    block.mark();
    let mut pod = too_small(&work, &lab.guest, &block).start();
    let message = pod.fails_with(20, "volume", SHORT);
    for number in ["1610612736", "1073741824", "/dev/block0"] {
        pod.check(message.contains(number), format_args!("the message names {number}: {message}"));
    }
    pod.check(block.is_untouched(), "the volume has its old content");
    let started = pod.log().contains("\"phase\":\"convert\"");
    pod.check(!started, "virt-v2v was not started");
}

fn too_small(work: &Path, source: &Path, block: &Block) -> Request {
    hyperv(work, source, "/source/boot.img").block(0, block).envs(&[NO_APPLIANCE])
}

#[test]
fn a_bad_setting_is_named_in_the_termination_message() {
    let (_lab, _turn) = (lab(), turn());
    let scratch = Scratch::new();
    let work = scratch.folder("work");
    // As the kubelet does: a file on the host, bound into the container.
    let file = scratch.path("termination-log");
    fs::write(&file, "").unwrap();
    std::os::unix::fs::chown(&file, Some(107), Some(107)).unwrap();
    let mut pod = hyperv(&work, &work, "/source/boot.img")
        .envs(&[("V2V_source", "vmware"), ("V2V_terminationLog", "")])
        .mount(&file, "/dev/termination-log")
        .start();
    pod.ends_with(64, SHORT);
    let said = fs::read_to_string(&file).unwrap();
    let json: Value = serde_json::from_str(&said).unwrap_or_default();
    let text = "V2V_source is \"vmware\"";
    let named = json["message"].as_str().is_some_and(|m| m.starts_with(text));
    pod.check(
        named && json["class"] == "config" && json["exit_code"] == 64,
        format_args!("/dev/termination-log names the setting, class and code: {said:?}"),
    );
    let errors = pod.errors();
    pod.check(errors.contains(text), "stderr names it as well");

    let request = hyperv(&work, &work, "/source/boot.img").env("V2V_output", "qcow2");
    let mut pod = request.start();
    let message = pod.fails_with(64, "config", SHORT);
    let named = message.contains("V2V_output") && message.contains("qcow2");
    pod.check(named, format_args!("the message names the setting: {message}"));
}

// --- Readers of the log ---------------------------------------------------------------------------

/// Longer than the wait for a reader at the end (5 s), shorter than a hang.
const WITHOUT_READER: Duration = Duration::from_secs(60);

#[test]
fn a_log_that_nobody_reads_changes_nothing() {
    let (lab, _turn) = (lab(), turn());
    let scratch = Scratch::new();
    let work = scratch.folder("work");
    let block = scratch.block("block0", 1024 * MIB);
    let request = || too_small(&work, &lab.guest, &block);

    let mut unread = request().start_with_output(Stdio::piped());
    unread.fails_with(20, "volume", WITHOUT_READER);

    // Behind podman there is always a reader that takes something. So the same once more with a pipe
    // that is full before v2v-pod starts.
    let script = "exec 3> >(exec sleep 600); head -c 65536 /dev/zero >&3; exec v2v-pod >&3";
    let mut full = request().option("--entrypoint", "/bin/bash").command(&["-c", script]).start();
    full.fails_with(20, "volume", WITHOUT_READER);

    // And with one whose reader is gone.
    let script = "exec 3> >(exec true); sleep 1; exec v2v-pod >&3";
    let mut gone = request().option("--entrypoint", "/bin/bash").command(&["-c", script]).start();
    gone.fails_with(20, "volume", WITHOUT_READER);
    let left = leftovers(&work);
    gone.check(left.is_empty(), format_args!("no leftover in the work volume, but {left:?}"));
}
