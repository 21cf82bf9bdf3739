//! A guest on a vCenter, in pod mode: VDDK, the ways of trust, and what goes wrong; `forklift` has the whole way. The vCenter is the simulator,
//! VDDK is our stand-in; libvirt, virt-v2v, nbdkit and its vddk plugin are the real ones, in the built image.

use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};
use v2v_pod_tests::e2e::lab::{lab, turn};
use v2v_pod_tests::e2e::pod::{Request, SHORT};
use v2v_pod_tests::e2e::vcenter::{PASSWORD, Place, STORE, USER, described, in_image};
use v2v_pod_tests::e2e::volume::{MIB, must, same_bytes};

/// nbdkit's retry filter alone takes longer.
const AT_ONCE: Duration = Duration::from_secs(50);

#[test]
fn a_wrong_thumbprint_stops_the_run_before_anything_is_sent() {
    let (_lab, _turn) = (lab(), turn());
    let place = Place::new(&json!({}));
    let other = "31:14:EB:9E:F1:78:68:10:A5:78:D1:A7:DF:BB:54:B7:1B:91:9F:30";
    let url = place.vcenter.url("localhost", "?cacert=/opt/ca-bundle.crt");
    let mut pod = place.failing(&url).env("V2V_fingerprint", other).start();
    let message = pod.fails_with(22, "trust", SHORT);
    for part in [other, &place.vcenter.thumbprint, "localhost"] {
        pod.check(message.contains(part), format_args!("the message names {part}: {message}"));
    }
    let started = pod.log().contains("Setting up the source");
    pod.check(!started, "virt-v2v did not start");
    place.untouched(&mut pod);

    // Without anything to trust by: the lab's CA is not among the system's.
    let mut pod = place.failing(&url).start();
    let message = pod.fails_with(22, "trust", SHORT);
    pod.check(message.contains("v2v lab CA"), format_args!("the issuer is named: {message}"));
    let mut pod =
        place.failing(&place.vcenter.url("localhost", "")).env("V2V_fingerprint", "AB:CD").start();
    pod.ends_with(64, SHORT);
}

#[test]
fn a_thumbprint_secures_https_too() {
    let (_lab, _turn) = (lab(), turn());
    let place = Place::new(&json!({}));
    // libvirt gets as far as to say that there is no such VM: it trusts the pinned certificate.
    let url = place.vcenter.url("localhost", "?cacert=/opt/ca-bundle.crt");
    let mut pod = place
        .failing(&url)
        .envs(&[
            ("V2V_fingerprint", &place.vcenter.thumbprint),
            ("V2V_transport", "https"),
            ("V2V_vmName", "no-such-vm"),
        ])
        .start();
    pod.fails_with(24, "not-found", SHORT);
    let about = described(&mut pod);
    pod.check(
        about["transport"] == "https" && about["trust"] == "thumbprint",
        format_args!("{about}"),
    );
    place.untouched(&mut pod);

    // Where there is no link to change, a mount does it: root with /opt not to be written, as on a host.
    let mut pod = Request::new(&place.work())
        .mount_read_only(&place.scratch.path("secrets"), "/etc/secret")
        .option("--user", "0:0")
        .option("--cap-add", "SYS_ADMIN,DAC_OVERRIDE")
        .command(&[
            "convert",
            "-i",
            "libvirt",
            "-ic",
            &place.vcenter.url("localhost", ""),
            "no-such-vm",
        ])
        .command(&["--thumbprint", &place.vcenter.thumbprint, "-ip", "/etc/secret/secretKey"])
        .command(&["--to", "/var/tmp", "--log-format", "json"])
        .start();
    pod.ends_with(24, SHORT);

    // The link decides, for libvirt, curl and nbdkit alike.
    let store = place.vcenter.certificate();
    let (good, other) =
        (store.display().to_string(), place.vcenter.ca().with_file_name("other.pem"));
    let make = "openssl req -x509 -newkey rsa:2048 -nodes -keyout /dev/null -subj /CN=localhost -addext subjectAltName=DNS:localhost -days 3 -out";
    must(Command::new("bash").arg("-c").arg(format!("{make} {}", other.display())));
    let port = place.vcenter.port;
    let tools = [
        format!("virsh -c 'vpx://u@localhost:{port}/DC/Cluster/esx1.example.com' list </dev/null"),
        format!("curl -sS https://localhost:{port}/folder/"),
        format!("nbdkit -U - curl https://localhost:{port}/ --run 'nbdinfo $uri'"),
    ];
    let opt = format!("{}:/opt", place.scratch.folder("empty").display());
    for (pem, trusted) in [(good.as_str(), true), (&other.display().to_string(), false)] {
        for tool in &tools {
            let pem = format!("{pem}:/pem");
            let script = format!("ln -sfn /pem /opt/ca-bundle.crt && {tool}");
            let (_, said) = in_image(&["-v", &pem, "-v", &opt], &script);
            let lower = said.to_lowercase();
            let refused = ["ssl peer certificate", "ssl certificate problem"]
                .iter()
                .any(|w| lower.contains(w));
            assert_eq!(refused, !trusted, "{tool}: {said}");
        }
    }
}

#[test]
fn what_will_not_pass_ends_the_run_at_once() {
    let (_lab, _turn) = (lab(), turn());
    let place = Place::new(&json!({"running_vm": true}));
    place.give_ca();
    let url = place.vcenter.url("localhost", "?cacert=/opt/ca-bundle.crt");
    let mut pod = place.failing(&url).start();
    pod.until_log("Setting up the source", SHORT);
    let begin = Instant::now();
    let message = pod.fails_with(31, "source-busy", SHORT);
    pod.check(begin.elapsed() < AT_ONCE, format_args!("it took {:?}", begin.elapsed()));
    pod.check(
        message.contains("[ds 1] web/boot.vmdk"),
        format_args!("the disk is named: {message}"),
    );
    place.untouched(&mut pod);

    fs::write(place.scratch.path("secrets/secretKey"), format!("{PASSWORD}\r\n")).unwrap();
    let mut pod = place.failing(&url).start();
    let message = pod.fails_with(64, "config", SHORT);
    pod.check(message.contains("carriage return"), format_args!("{message}"));
    // Only VDDK refuses this one: the simulator knows the right password.
    let strict = Place::new(&json!({"password": "another"}));
    let url = strict.vcenter.url("localhost", "?no_verify=1");
    let mut pod = strict.failing(&url).start();
    pod.until_log("Setting up the source", SHORT);
    let begin = Instant::now();
    pod.fails_with(21, "auth", SHORT);
    pod.check(begin.elapsed() < AT_ONCE, format_args!("it took {:?}", begin.elapsed()));
    let about = described(&mut pod);
    pod.check(about["trust"] == "insecure", format_args!("{about}"));
    let warned = pod.log().contains("ServerNotVerified");
    pod.check(warned, "insecure is a warning");
}

#[test]
fn vddk_that_cannot_be_used_is_told_and_https_taken_only_if_allowed() {
    let (_lab, _turn) = (lab(), turn());
    let place = Place::new(&json!({"crash": "InitEx"}));
    place.give_ca();
    let url = place.vcenter.url("localhost", "?cacert=/opt/ca-bundle.crt");
    let mut pod =
        place.failing(&url).env("V2V_transport", "vddk").env("LIBGUESTFS_HV", "/bin/false").start();
    let message = pod.fails_with(32, "vddk", SHORT);
    pod.check(message.contains("crashed in VixDiskLib_InitEx"), format_args!("{message}"));

    let mut pod = place.failing(&url).env("V2V_vmName", "no-such-vm").start();
    pod.fails_with(24, "not-found", SHORT);
    let about = described(&mut pod);
    pod.check(about["transport"] == "https", format_args!("{about}"));
    let lines = pod.lines();
    let warned = lines.iter().any(|l| {
        l["reason"] == "VddkNotUsed" && l["message"].as_str().is_some_and(|m| m.contains("crashed"))
    });
    pod.check(warned, "the result has a warning that names the reason");

    let mut pod = place.failing(&url).env("V2V_transport", "vdkk").start();
    pod.ends_with(64, SHORT);
}

#[test]
fn the_probe_works_in_the_image() {
    let (_lab, _turn) = (lab(), turn());
    let place = Place::new(&json!({}));
    let opt = format!("{}:/opt:ro", place.opt.display());
    let store = format!("{}:{STORE}:ro", place.vcenter.store().display());
    let secrets = format!("{}:/etc/secret:ro", place.scratch.path("secrets").display());
    let port = place.vcenter.port;
    let script = format!(
        "v2v-pod vddk probe --json --connect --server localhost:{port} --user '{USER}' --password-file /etc/secret/secretKey \
         --vm vm-21 --disk '[ds 1] web/data.vmdk' --thumbprint \"$(v2v-pod thumbprint localhost:{port} --json | sed -n 's/.*\"sha1\": *\"\\([^\"]*\\)\".*/\\1/p')\""
    );
    let (ok, said) = in_image(&["-v", &opt, "-v", &store, "-v", &secrets], &script);
    assert!(ok, "{said}");
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(report["connected"]["size"], 64 * MIB);
    assert_eq!(report["transport_modes"], json!(["file", "nbdssl", "nbd"]));
}

/// Plays virt-v2v with the real nbdkit and its vddk plugin, so that the fault meets the copy alone.
const COPY_ONLY: &str = r#"#!/bin/bash
case "$*" in --machine-readable) echo virt-v2v; echo output:local; exit 0;; --help) exit 0;; esac
while [ $# -gt 1 ]; do case $1 in -os) os=$2;; -on) name=$2;; esac; shift; done
dir=$(mktemp -d "$TMPDIR/v2v.XXXXXX")
trap 'kill $(cat "$dir"/*.pid) 2>/dev/null' EXIT
truncate -s 64M "$os/$name-sda"
nbdkit -P "$dir/in.pid" -f -v -U "$dir/in0" -r --filter=blocksize --filter=retry vddk libdir=/opt/vmware-vix-disklib-distrib \
    server=localhost user=administrator@vsphere.local password=+/etc/secret/secretKey vm=moref=vm-21 thumbprint="$(cat /etc/secret/fp)" \
    'file=[ds 1] web/data.vmdk' transports=file:nbdssl:nbd maxdata=2M retries=1 retry-delay=1 &
nbdkit -P "$dir/out.pid" -U "$dir/out0" file "$os/$name-sda"
until [ -S "$dir/in0" ] && [ -S "$dir/out0" ]; do sleep 0.05; done
echo '[   1.0] Copying disk 1/1'
nbdcopy "nbd+unix:///?socket=$dir/in0" "nbd+unix:///?socket=$dir/out0" --requests=64 --flush --progress || exit 1
echo '<domain type="kvm"><name>guest</name><memory>1048576</memory><vcpu>1</vcpu><os><type>hvm</type></os><devices><disk type="file" device="disk"><driver name="qemu" type="raw"/><source file="'$os/$name-sda'"/><target dev="vda" bus="virtio"/></disk></devices></domain>' >"$os/$name.xml"
echo '[   2.0] Finishing off'
"#;

#[test]
fn a_host_without_nfc_memory_gets_smaller_requests() {
    let (_lab, _turn) = (lab(), turn());
    let place = Place::new(&json!({
        "faults": [{"function": "ReadAsync", "code": 2, "min_bytes": 200_000}],
    }));
    let bin = place.scratch.folder("bin");
    fs::write(bin.join("virt-v2v"), COPY_ONLY).unwrap();
    must(Command::new("chmod").arg("755").arg(bin.join("virt-v2v")));
    fs::write(place.scratch.path("secrets/fp"), &place.vcenter.thumbprint).unwrap();
    let out = place.scratch.folder("out");
    let mut pod = Request::new(&place.work())
        .mount_read_only(&place.scratch.path("secrets"), "/etc/secret")
        .mount_read_only(&place.opt, "/opt")
        .mount_read_only(&place.vcenter.store(), STORE)
        .mount_read_only(&bin, "/lab/bin")
        .mount(&out, "/out")
        .env("PATH", "/lab/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .command(&["convert", "--log-format", "json", "--verbose", "-i", "disk", "--format", "raw"])
        .command(&["--name", "guest", "/datastore/web/data-flat.vmdk", "--to", "/out"])
        .start();
    pod.ends_with(0, SHORT);
    let lines = pod.log().lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    let sizes: Vec<u64> = lines.filter_map(|l| l["request_bytes"].as_u64()).collect();
    pod.check(sizes.first() == Some(&(256 << 10)), format_args!("smaller requests: {sizes:?}"));
    pod.check(sizes.last() == Some(&(128 << 10)), format_args!("and smaller ones: {sizes:?}"));
    let same = same_bytes(&lab().guest.join("data.img"), &out.join("guest-sda"), 64 * MIB);
    pod.check(same, "the disk is the same");
}
