//! A guest on a vCenter, in pod mode: over VDDK, the ways of trust, and what goes wrong. The vCenter is the simulator,
//! VDDK is our stand-in; libvirt, virt-v2v, nbdkit and its vddk plugin are the real ones, in the built image.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use v2v_pod_tests::e2e::lab::{lab, root, turn};
use v2v_pod_tests::e2e::pod::{INSPECTING, LONG, Request, SHORT};
use v2v_pod_tests::e2e::vcenter::{DISTRIB, PASSWORD, Place, STORE, USER, described, in_image};
use v2v_pod_tests::e2e::volume::{MIB, files_with, must, same_bytes};
use v2v_pod_tests::e2e::watch::Watch;

/// nbdkit's retry filter alone takes longer.
const AT_ONCE: Duration = Duration::from_secs(50);

/// The sidecar's own image fills the volume, as an init container does.
fn fill_by_sidecar(place: &Place, image: &str) -> String {
    let opt = format!("{}:/opt", place.opt.display());
    let run =
        ["podman", "run", "--rm", "--runtime", "runc", "--network", "host", "--pull", "never"];
    let limits =
        ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--cap-drop", "ALL"];
    let words = [&run[..], &limits, &["--read-only", "-v", &opt, image]].concat();
    must(Command::new(words[0]).args(&words[1..]))
}

#[test]
fn a_guest_comes_over_vddk_with_a_ca_alone() {
    let (_lab, _turn) = (lab(), turn());
    // Sessions end now and then, and connections break: nbdkit connects anew.
    let place = Place::new(&json!({
        "faults": [{"function": "ReadAsync", "code": 14011, "after": 400, "count": 2}],
    }));
    place.give_ca();
    let image = "localhost/v2v-pod-vddk:e2e";
    let build = root().join("images/build-vddk.sh");
    must(Command::new(build).arg(place.opt.join(DISTRIB)).env("IMAGE", image));
    fs::remove_dir_all(place.opt.join(DISTRIB)).unwrap();
    let said = fill_by_sidecar(&place, image);
    assert!(said.contains("VDDK 8.0.3 installed"), "{said}");
    assert!(fill_by_sidecar(&place, image).contains("nothing to do"));

    let block = place.scratch.block("block0", 1600 * MIB);
    let url = place.vcenter.url("localhost", "?cacert=/opt/ca-bundle.crt");
    let mut pod = place.pod(&url).block(0, &block).folder(1, &place.scratch.path("disk1")).start();
    let (namespace, first) = (pod.namespace(), pod.first_process());
    pod.until_log("\"phase\":\"preflight\"", SHORT);
    let watch = Watch::start(pod.ports, namespace, PASSWORD);
    pod.until_log(INSPECTING, LONG);
    let inside = Path::new("/proc").join(first.to_string()).join("root");
    let places = [place.work(), inside.join("tmp"), place.opt.clone()];
    let exposed: Vec<_> = places.iter().flat_map(|p| files_with(p, PASSWORD)).collect();
    let expected: Vec<_> = exposed.iter().filter(|p| !p.ends_with("stub.json")).collect();
    pod.check(expected.is_empty(), format_args!("the password is in no file, but in {expected:?}"));
    let limits = fs::read_to_string(format!("/proc/{first}/limits")).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap_or_default();
    let no_core = core.split_whitespace().nth(4).is_some_and(|l| l == "0" || l == "1");
    pod.check(no_core, format_args!("no core is written: {core}"));
    pod.ends_with(0, LONG);

    let seen = watch.end();
    pod.check(seen.leaks.is_empty(), format_args!("nothing leaks: {:?}", seen.leaks));
    for tool in ["virt-v2v", "nbdkit"] {
        pod.check(seen.tools.contains(tool), format_args!("{tool} was seen: {:?}", seen.tools));
    }
    let about = described(&mut pod);
    pod.check(about["transport"] == "vddk" && about["trust"] == "ca", format_args!("{about}"));
    let end = pod.termination();
    let good = end["outcome"] == "succeeded" && end["transport"] == "vddk" && end["trust"] == "ca";
    pod.check(good, format_args!("the termination message tells transport and trust: {end}"));
    let shown = pod.log().contains(PASSWORD) || pod.errors().contains(PASSWORD);
    pod.check(!shown, "the password is not in the log");
    for text in ["vddk-thumbprint=", "HOST_TCP_CONN_LOST"] {
        let has = pod.log().contains(text);
        pod.check(has, format_args!("the log has {text}"));
    }
    let copy = place.scratch.path("disk1/disk.img");
    pod.check(
        same_bytes(&lab().guest.join("data.img"), &copy, 64 * MIB),
        "the data disk is the same",
    );
    let label =
        must(Command::new("blkid").args(["-p", "-o", "value", "-s", "PTTYPE"]).arg(&block.node));
    assert_eq!(label, "dos", "the boot disk has the guest's partition table");
}

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
