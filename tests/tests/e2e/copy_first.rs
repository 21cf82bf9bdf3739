//! Disks that are copied first: a pod that dies in the copy is followed by one that goes on with it, with the same volumes
//! and journals and nothing else. One whole conversion; over VDDK only the copy. What goes wrong at other places is in
//! `tests/copy_first.rs`.

use super::{BOOT_BYTES, DATA_BYTES, ROOMY, boots, nothing_is_left};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use v2v_pod_tests::e2e::lab::{lab, turn};
use v2v_pod_tests::e2e::pod::{LONG, Pod, Request, SHORT};
use v2v_pod_tests::e2e::vcenter::{PASSWORD, Place, VCenter, described};
use v2v_pod_tests::e2e::volume::{Block, MIB, listing, same_bytes};
use v2v_pod_tests::http;

const JOURNALS: &str = "/journal";
const KILLED: i32 = 137;
const TERMINATED: i32 = 143;

/// A pod with an empty work volume: only disks and journals outlive the one before.
fn pod(place: &Place, url: &str, block: &Block) -> Request {
    fs::remove_dir_all(place.work()).unwrap();
    place.scratch.folder("work");
    place
        .pod(url)
        .mount(&place.scratch.path("journal"), JOURNALS)
        .block(0, block)
        .folder(1, &place.scratch.path("disk1"))
        .envs(&[("V2V_copyFirst", "true"), ("V2V_journalDir", JOURNALS)])
        // With the hashes of the one before, nothing is read twice for it.
        .env("V2V_verifyCopy", "true")
}

/// What the log says of the disks' ends: bytes that were there, and bytes that were read.
fn copied(pod: &mut Pod) -> Vec<(u64, u64)> {
    let mut lines = pod.lines();
    lines.retain(|l| l["message"] == "copied and durable");
    lines.sort_by_key(|l| l["disk"].as_u64());
    let of = |l: &Value, field: &str| l[field].as_u64().unwrap_or_default();
    let read = |l: &Value| of(l, "copied_bytes") + of(l, "zero_bytes");
    lines.iter().map(|l| (of(l, "resumed_bytes"), read(l))).collect()
}

/// Waits until so much of the boot disk is durable, sees how the progress is shown, and kills the pod.
fn dies_while_copying(pod: &mut Pod, journal: &Path) {
    let durable = |path: &Path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let range = |l: &str| {
            let mut words = l.split(' ').map(str::parse::<u64>);
            Some((words.next()?.ok()?, words.next()?.ok()?))
        };
        text.lines().filter_map(range).map(|(start, end)| end - start).sum::<u64>()
    };
    pod.until("a part is durable", LONG, |_| durable(journal) >= 200 * MIB);
    let live = pod.ports.live;
    pod.until("/state shows the copy", SHORT, |_| {
        let state = http::request(live, "GET", "/state").body;
        let state: Value = serde_json::from_str(&state).unwrap_or_default();
        let done = state["disks"][0]["done_bytes"].as_u64().unwrap_or_default();
        state["phase"] == "copy" && done >= 200 * MIB
    });
    let metrics = http::request(pod.ports.metrics, "GET", "/metrics").body;
    let shown = metrics.lines().filter(|l| l.starts_with("v2v_disk_transfers{")).count();
    pod.check(shown == 2, format_args!("both disks are in the metrics: {metrics}"));
    pod.signal(Signal::SIGKILL);
    pod.ends_with(KILLED, SHORT);
}

#[test]
fn a_guest_that_was_half_copied_over_https_is_copied_on_and_converted() {
    let (_lab, _turn) = (lab(), turn());
    let place = Place::with(VCenter::start(PASSWORD));
    place.give_ca();
    let url = place.vcenter.url("localhost", "?cacert=/opt/ca-bundle.crt");
    let (block, journals) = (place.scratch.block("block0", ROOMY), place.scratch.folder("journal"));
    let mut one = pod(&place, &url, &block).env("V2V_rate", "150MiB/s").start();
    dies_while_copying(&mut one, &journals.join("web-disk0.journal"));
    drop(one);

    let bytes = |place: &Place| place.vcenter.stats()["disk_bytes"].as_u64().unwrap_or_default();
    let before = bytes(&place);
    let mut pod = pod(&place, &url, &block).env("LOCAL_MIGRATION", "true").start();
    let namespace = pod.namespace();
    pod.until_log("to run on KVM", LONG);
    let about = described(&mut pod);
    pod.check(about["transport"] == "https" && about["trust"] == "ca", format_args!("{about}"));
    let disks = copied(&mut pod);
    let whole = disks.len() == 2
        && disks[0].0 >= 200 * MIB
        && disks[0].0 + disks[0].1 == BOOT_BYTES
        && disks[1].0 + disks[1].1 == DATA_BYTES;
    pod.check(whole, format_args!("only the rest is copied, not {disks:?}"));
    let sent = bytes(&place) - before;
    // And the samples that were compared.
    let rest = BOOT_BYTES + DATA_BYTES - disks[0].0 - disks[1].0 + 16 * MIB;
    pod.check(sent <= rest, format_args!("{sent} bytes came from the server, not {rest}"));
    // What virt-v2v changes is in overlays, and the journals stay until they are committed.
    let same = same_bytes(&lab().guest.join("boot.img"), &block.node, BOOT_BYTES);
    pod.check(same, "the boot disk is the same until the commit");
    let kept = listing(&journals);
    pod.check(kept.iter().any(|n| n.contains("disk0.journal")), format_args!("{kept:?}"));

    let result = pod.ports.result;
    pod.until("the result is served", LONG, |_| http::is_open(result));
    let kept = listing(&journals);
    pod.check(kept.is_empty(), format_args!("the journals are gone: {kept:?}"));
    let vm = http::request(result, "GET", "/vm");
    let found: Value = serde_saphyr::from_str(&vm.body).unwrap_or_default();
    let devices = &found["spec"]["template"]["spec"]["domain"]["devices"];
    pod.check(
        devices["disks"].as_array().is_some_and(|d| d.len() == 2)
            && devices["interfaces"][0]["macAddress"] == "00:50:56:aa:bb:01",
        format_args!("/vm is the guest: {}", vm.body),
    );
    http::request(result, "POST", "/shutdown");
    pod.ends_with(0, LONG);
    nothing_is_left(&mut pod, &place.work(), &namespace);
    let data = place.scratch.path("disk1/disk.img");
    let same = same_bytes(&lab().guest.join("data.img"), &data, DATA_BYTES);
    pod.check(same, "the data disk is the same");
    let shown = pod.log().contains(PASSWORD) || pod.errors().contains(PASSWORD);
    pod.check(!shown, "the password is not in the log");
    let changed = !same_bytes(&lab().guest.join("boot.img"), &block.node, BOOT_BYTES);
    pod.check(changed, "the conversion has changed the volume");
    boots(&block);
}

#[test]
fn over_vddk_the_copy_goes_on_too() {
    let (_lab, _turn) = (lab(), turn());
    let place = Place::new(&json!({}));
    let url = place.vcenter.url("localhost", "?cacert=/opt/ca-bundle.crt");
    let (block, journals) = (place.scratch.block("block0", ROOMY), place.scratch.folder("journal"));
    let pod = || pod(&place, &url, &block).env("V2V_fingerprint", &place.vcenter.thumbprint);
    let mut one = pod().env("V2V_rate", "150MiB/s").start();
    dies_while_copying(&mut one, &journals.join("web-disk0.journal"));
    drop(one);
    let mut pod = pod().start();
    pod.until_log("\"phase\":\"convert\"", LONG);
    pod.signal(Signal::SIGTERM);
    pod.ends_with(TERMINATED, SHORT);
    let about = described(&mut pod);
    pod.check(about["transport"] == "vddk", format_args!("{about}"));
    let disks = copied(&mut pod);
    pod.check(
        disks.len() == 2 && disks[0].0 >= 200 * MIB && disks[0].0 + disks[0].1 == BOOT_BYTES,
        format_args!("only the rest is copied, not {disks:?}"),
    );
    for (source, volume, bytes) in [
        ("boot.img", block.node.clone(), BOOT_BYTES),
        ("data.img", place.scratch.path("disk1/disk.img"), DATA_BYTES),
    ] {
        let same = same_bytes(&lab().guest.join(source), &volume, bytes);
        pod.check(same, format_args!("{source} is the same"));
    }
    let kept = listing(&journals);
    pod.check(kept.len() == 4, format_args!("journals and hashes stay: {kept:?}"));
}
