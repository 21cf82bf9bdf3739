//! `v2v-pod bench transports` at the lab's vCenter. Its figures mean nothing here: the disks are tiny.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use v2v_pod_tests::e2e::lab::{lab, turn};
use v2v_pod_tests::e2e::pod::{Pod, Request, SHORT};
use v2v_pod_tests::e2e::vcenter::{PASSWORD, Place, STORE, VCenter, vddk_tree};
use v2v_pod_tests::e2e::volume::{leftovers, must};

const COMPETITORS: [(&str, &str); 4] =
    [("https", "nbdcopy"), ("https", "v2v-pod"), ("vddk", "nbdcopy"), ("vddk", "v2v-pod")];

/// A vCenter whose VM has two small disks, half data.
fn place() -> Place {
    let vcenter = VCenter::start_as(PASSWORD, |config| {
        config["vms"][0]["disks"] =
            json!([{"path": "[ds 1] other/disk.vmdk"}, {"path": "[ds 1] older/disk.vmdk"}]);
    });
    for (seed, name) in [(1, "other"), (2, "older")] {
        let data: Vec<u8> = (0..1_u32 << 19)
            .map(|n| n.wrapping_mul(2_654_435_761).wrapping_add(seed).to_be_bytes()[0])
            .collect();
        let flat = vcenter.store().join(name).join("disk-flat.vmdk");
        fs::write(&flat, data).unwrap();
        fs::File::options().write(true).open(&flat).unwrap().set_len(1 << 20).unwrap();
    }
    let place = Place::with(vcenter);
    vddk_tree(&place.opt, &place.vcenter.stub_settings(PASSWORD));
    must(std::process::Command::new("chown").args(["-R", "107:107"]).arg(&place.opt));
    fs::copy(place.vcenter.ca(), place.scratch.path("secrets/ca.pem")).unwrap();
    place
}

/// Without `--libdir`: VDDK is where it is looked for.
fn bench(place: &Place, words: &[&str]) -> Request {
    let url = place.vcenter.url("localhost", "");
    Request::new(&place.work())
        .mount_read_only(&place.scratch.path("secrets"), "/etc/secret")
        .mount(&place.opt, "/opt")
        .mount_read_only(&place.vcenter.store(), STORE)
        .command(&["bench", "transports", "--url", &url, "--vm", "web"])
        .command(words)
}

const LOGIN: [&str; 2] = ["--password-file", "/etc/secret/secretKey"];
const TRUST: [&str; 2] = ["--cacert", "/etc/secret/ca.pem"];

/// Every row with every competitor, in both lists.
fn complete(pod: &mut Pod, report: &Value, disks: &[u64], rounds: u64) {
    for (transport, copier) in COMPETITORS {
        for count in disks {
            let is = |e: &&Value| {
                e["transport"] == transport && e["copier"] == copier && e["disks"] == *count
            };
            let entries =
                |list: &str| report[list].as_array().into_iter().flatten().filter(is).count();
            let (table, samples) = (entries("table"), entries("samples") as u64);
            pod.check(
                table == 1 && samples == rounds,
                format_args!("{count} {transport} {copier}: {table} line(s), {samples} sample(s)"),
            );
        }
    }
    for line in report["table"].as_array().into_iter().flatten() {
        let ours = line["copier"] == "v2v-pod" || line["transport"] == "vddk";
        let ratio = line["x_nbdcopy"].is_object() || line["x_https"].is_object();
        pod.check(ours == ratio, format_args!("ratios beside the others: {line}"));
    }
    for sample in report["samples"].as_array().into_iter().flatten() {
        let bytes = sample["disks"].as_u64().unwrap_or_default() << 20;
        let right = sample["bytes"] == bytes && sample["seconds"].as_f64() > Some(0.0);
        pod.check(right, format_args!("bytes and seconds: {sample}"));
    }
    for name in ["v2v-pod", "nbdkit", "nbdcopy", "virsh", "VDDK", "kernel", "cores"] {
        let told = report["versions"][name].as_str().is_some_and(|v| !v.is_empty());
        pod.check(told, format_args!("the version of {name}: {report}"));
    }
    for name in ["https server", "vddk server", "nbdcopy copies", "v2v-pod copies"] {
        let told = report["commands"][name].as_str().is_some_and(|v| v.len() > 20);
        pod.check(told, format_args!("the command line {name}: {report}"));
    }
    let trip = report["settings"]["round_trip_ms"]["least"].as_f64();
    pod.check(trip > Some(0.0), format_args!("the round trip: {report}"));
}

fn no_secret(pod: &mut Pod, folder: &Path) {
    let said = pod.log().contains(PASSWORD) || pod.errors().contains(PASSWORD);
    pod.check(!said, "the password was said");
    let left = leftovers(folder);
    pod.check(left.is_empty(), format_args!("no leftover, but {left:?}"));
}

#[test]
fn transports_of_a_vcenter_are_compared() {
    let (_lab, _turn) = (lab(), turn());
    let place = place();
    let work = place.work();

    // Into files, which are compared; both forms of the report.
    let scratch = ["--scratch", "/var/tmp", "--rounds", "2", "--report", "/var/tmp/report.json"];
    let mut pod = bench(&place, &LOGIN).command(&TRUST).command(&scratch).start();
    pod.ends_with(0, SHORT);
    let report: Value =
        serde_json::from_str(&fs::read_to_string(work.join("report.json")).unwrap()).unwrap();
    complete(&mut pod, &report, &[1, 2], 2);
    for (transport, copier) in COMPETITORS {
        let is = |l: &&str| l.split_whitespace().skip(1).take(2).eq([transport, copier]);
        let lines = pod.log().lines().filter(is).count();
        pod.check(lines == 2, format_args!("two lines of {transport} {copier} in the table"));
    }
    let trusted = report["settings"]["trust"] == "ca" && report["settings"]["target"] == "/var/tmp";
    pod.check(trusted, format_args!("the settings: {report}"));
    let copies: Vec<_> = fs::read_dir(&work)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("v2v-pod-bench"))
        .collect();
    pod.check(copies.is_empty(), format_args!("the copies are removed: {copies:?}"));
    no_secret(&mut pod, &work);

    // To nowhere, one disk by its name, another trust.
    let one = ["--disk", "[ds 1] older/disk.vmdk", "--rounds", "1", "--json", "--thumbprint"];
    let mut pod = bench(&place, &LOGIN).command(&one).command(&[&place.vcenter.thumbprint]).start();
    pod.ends_with(0, SHORT);
    let report: Value = serde_json::from_str(pod.log()).unwrap_or_default();
    complete(&mut pod, &report, &[1], 1);
    let settings = &report["settings"];
    let told = settings["trust"] == "thumbprint"
        && settings["target"] == "null:"
        && settings["disks"] == json!(["[ds 1] older/disk.vmdk"]);
    pod.check(told, format_args!("the settings: {report}"));
    no_secret(&mut pod, &work);
}

#[test]
fn what_keeps_transports_from_being_compared_is_said_first() {
    let (_lab, _turn) = (lab(), turn());
    let place = place();
    fs::write(place.scratch.path("secrets/wrong"), "wrong\n").unwrap();
    let refused = |words: &[&str], code: i32, text: &str| {
        let mut pod = bench(&place, words).start();
        pod.ends_with(code, SHORT);
        let said = pod.errors();
        pod.check(said.contains(text) && said.contains("try: "), format_args!("{text:?} is said"));
        no_secret(&mut pod, &place.work());
    };
    let https = ["--transports", "https"];
    let with = |more: &[&'static str]| [&LOGIN[..], &TRUST, &https, more].concat();
    refused(&[&LOGIN[..], &https].concat(), 22, "localhost");
    refused(&with(&["--disks", "3"]), 64, "--disks 3: the VM has 2");
    refused(&with(&["--disk", "7"]), 64, "1 [ds 1] other/disk.vmdk, 2 [ds 1] older/disk.vmdk");
    refused(&with(&["--scratch", "/none"]), 64, "--scratch /none");
    let wrong = ["--password-file", "/etc/secret/wrong"];
    refused(&[&wrong[..], &TRUST, &https].concat(), 21, "password");
    refused(&[&LOGIN[..], &TRUST, &["--libdir", "/none"]].concat(), 32, "/none");
}
