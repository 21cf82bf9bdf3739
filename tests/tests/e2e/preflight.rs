//! What is found before virt-v2v starts.

use super::{DATA_BYTES, NO_APPLIANCE, ROOMY, hyperv};
use serde_json::Value;
use std::fs;
use std::path::Path;
use v2v_pod_tests::e2e::lab::{lab, turn};
use v2v_pod_tests::e2e::pod::{LONG, Pod, Request, SHORT};
use v2v_pod_tests::e2e::volume::{Block, MIB, Scratch, leftovers};

/// Runs `preflight --json`; the exit code and the findings as (check, verdict, message).
pub fn preflight(request: Request) -> (Pod, i32, Vec<(String, String, String)>) {
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

pub fn too_small(work: &Path, source: &Path, block: &Block) -> Request {
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
