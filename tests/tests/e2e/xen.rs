//! A guest on a Xen host, over SSH: the whole way with a password, and what goes wrong on it. sshd, libvirtd, ssh, virsh,
//! virt-v2v and nbdkit are the real ones; what libvirtd knows comes from its test driver, since there is no hypervisor.

use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use v2v_pod_tests::e2e::lab::{lab, turn};
use v2v_pod_tests::e2e::pod::{INSPECTING, LONG, Request, SHORT};
use v2v_pod_tests::e2e::vcenter::described;
use v2v_pod_tests::e2e::volume::{MIB, files_with, leftovers, must, same_bytes};
use v2v_pod_tests::e2e::watch::Watch;
use v2v_pod_tests::e2e::xen::{PASSWORD, Place};

#[test]
fn a_guest_comes_over_ssh_with_a_password() {
    let (_lab, _turn) = (lab(), turn());
    let place = Place::new();
    let work = place.scratch.path("work");
    let block = place.scratch.block("block0", 1600 * MIB);
    let mut pod = place.pod().block(0, &block).folder(1, &place.scratch.path("disk1")).start();
    let (namespace, first) = (pod.namespace(), pod.first_process());
    pod.until_log("\"phase\":\"preflight\"", SHORT);
    let watch = Watch::start(pod.ports, namespace, PASSWORD);
    pod.until_log(INSPECTING, LONG);
    let inside = Path::new("/proc").join(first.to_string()).join("root");
    let exposed: Vec<_> =
        [work.clone(), inside.join("tmp")].iter().flat_map(|p| files_with(p, PASSWORD)).collect();
    pod.check(exposed.is_empty(), format_args!("the password is in no file, but in {exposed:?}"));
    pod.ends_with(0, LONG);

    let seen = watch.end();
    pod.check(seen.leaks.is_empty(), format_args!("nothing leaks: {:?}", seen.leaks));
    for tool in ["virt-v2v", "nbdkit"] {
        pod.check(seen.tools.contains(tool), format_args!("{tool} was seen: {:?}", seen.tools));
    }
    let about = described(&mut pod);
    let as_meant = about["source"] == "xen" && about["transport"] == "ssh";
    pod.check(as_meant && about["trust"] == "known-hosts", format_args!("{about}"));
    let end = pod.termination();
    let good = end["outcome"] == "succeeded" && end["transport"] == "ssh";
    pod.check(good && end["trust"] == "known-hosts", format_args!("termination message: {end}"));
    let shown = pod.log().contains(PASSWORD) || pod.errors().contains(PASSWORD);
    pod.check(!shown, "the password is not in the log");
    let ours = pod.log().contains("ssh: config key=known-hosts, value=/var/tmp/v2v-pod.");
    pod.check(ours, "nbdkit was told the host keys");
    let copy = place.scratch.path("disk1/disk.img");
    let same = same_bytes(&lab().guest.join("data.img"), &copy, 64 * MIB);
    pod.check(same, "the data disk is the same");
    let yaml = fs::read_to_string(work.join("v2v/web.yaml")).unwrap_or_default();
    pod.check(yaml.contains("00:16:3e:aa:bb:01"), format_args!("the NIC's MAC is kept: {yaml}"));
    let files = leftovers(&work);
    pod.check(files.is_empty(), format_args!("no leftover in the work volume, but {files:?}"));
}

/// Runs the preflight of a pod in which all but the appliance is right; the messages about trust, source and secrets.
fn accepted(request: Request) -> String {
    let mut pod = request.command(&["preflight", "--json"]).start();
    pod.exit_code(LONG);
    let report: Value = serde_json::from_str(pod.log()).unwrap_or_default();
    let mut about = String::new();
    for finding in report["findings"].as_array().into_iter().flatten() {
        let check = finding["check"].as_str().unwrap_or_default();
        if ["trust", "source", "secrets"].contains(&check) {
            let good = finding["verdict"] != "problem";
            pod.check(good, format_args!("no problem with {check}: {finding}"));
            writeln!(about, "{check} {}: {}", finding["verdict"], finding["message"]).unwrap();
        }
    }
    pod.check(about.contains("2 disk(s) of web"), format_args!("the disks were opened: {about}"));
    about
}

#[test]
fn a_host_is_believed_by_its_key_its_fingerprint_or_when_that_is_asked_for() {
    let (_lab, _turn) = (lab(), turn());
    let place = Place::new();
    // With the key alone, in a file that the group may read, as a secret's is.
    place.take("secretKey");
    place.give("ssh-privatekey", &fs::read_to_string(place.host.file("id")).unwrap());
    let about = accepted(place.failing());
    assert!(about.contains("verified by /etc/secret/known_hosts"), "{about}");

    let pin = place.host.fingerprint("host_key.pub");
    accepted(place.failing().env("V2V_fingerprint", &pin));
    place.take("known_hosts");
    let about = accepted(place.failing().env("V2V_fingerprint", &pin));
    assert!(about.contains("verified by its fingerprint"), "{about}");
    let about = accepted(place.failing().env("V2V_trust", "insecure"));
    assert!(about.contains("trust \"note\"") && about.contains(&pin), "{about}");

    let mut pod = place.failing().start();
    let message = pod.fails_with(22, "trust", SHORT);
    pod.check(message.contains("neither a known_hosts file nor"), format_args!("{message}"));
    // The client's own key is none of the host's.
    let wrong = place.host.fingerprint("id.pub");
    let mut pod = place.failing().env("V2V_fingerprint", &wrong).start();
    let message = pod.fails_with(22, "trust", SHORT);
    for part in [&wrong, &pin] {
        pod.check(message.contains(part.as_str()), format_args!("{part} is named: {message}"));
    }
    let key = fs::read_to_string(place.host.file("id.pub")).unwrap();
    place.give("known_hosts", &format!("[127.0.0.1]:{} {key}", place.host.port));
    let mut pod = place.failing().start();
    let message = pod.fails_with(22, "trust", SHORT);
    let named = message.contains("is not the one in known_hosts") && message.contains(&pin);
    pod.check(named, format_args!("{message}"));
    place.give("known_hosts", &format!("another {key}"));
    let mut pod = place.failing().start();
    let message = pod.fails_with(22, "trust", SHORT);
    pod.check(message.contains("known_hosts has no key of"), format_args!("{message}"));
    place.untouched(&mut pod);
}

#[test]
fn what_the_host_does_not_give_has_its_class_and_writes_nothing() {
    let (_lab, _turn) = (lab(), turn());
    let place = Place::new();
    for (vm, code, class, part) in [
        ("no-such-vm", 24, "not-found", "no VM no-such-vm"),
        ("running", 31, "source-busy", "running or paused"),
        ("gone", 24, "not-found", "deleted.img is not on"),
        ("empty", 26, "unsupported-guest", "is empty, or a block device"),
        ("qcow2", 26, "unsupported-guest", "format qcow2"),
        ("lvm", 26, "unsupported-guest", "/dev/vg/web"),
    ] {
        let mut pod = place.failing().env("V2V_vmName", vm).start();
        let message = pod.fails_with(code, class, SHORT);
        pod.check(message.contains(part), format_args!("{vm}: {message}"));
        let started = pod.log().contains("Setting up the source");
        pod.check(!started, "virt-v2v did not start");
        place.untouched(&mut pod);
    }
    place.give("secretKey", "wrong\n");
    let mut pod = place.failing().start();
    let message = pod.fails_with(21, "auth", SHORT);
    pod.check(message.contains("does not let root log in"), format_args!("{message}"));
    place.untouched(&mut pod);
    // Port 1: nobody listens.
    let url = place.host.url().replace(&format!(":{}/", place.host.port), ":1/");
    let mut pod = place.failing().env("V2V_libvirtURL", &url).start();
    let message = pod.fails_with(23, "network", SHORT);
    pod.check(message.contains("Connection refused"), format_args!("{message}"));
    let url = place.host.url() + "&keyfile=/etc/secret/id";
    let mut pod = place.failing().env("V2V_libvirtURL", &url).start();
    pod.fails_with(64, "config", SHORT);
}

#[test]
fn convert_takes_key_and_host_key_from_flags() {
    let (_lab, _turn) = (lab(), turn());
    let place = Place::new();
    place.give("key", &fs::read_to_string(place.host.file("id")).unwrap());
    let url = place.host.url();
    let convert = |vm: &str, more: &[&str]| {
        Request::new(&place.scratch.path("work"))
            .mount_read_only(&place.scratch.path("secrets"), "/etc/secret")
            .mount(&place.scratch.path("disk0"), "/out")
            .env("LIBGUESTFS_HV", "/bin/false")
            .command(&["convert", "--log-format", "json", "-i", "libvirt", "-ic", &url, vm])
            .command(&["--to", "/out"])
            .command(more)
            .start()
    };
    let key = ["--identity", "/etc/secret/key", "--known-hosts", "/etc/secret/known_hosts"];
    convert("no-such-vm", &key).ends_with(24, SHORT);
    convert("web", &key[..2]).ends_with(22, SHORT);
    let wrong = place.host.fingerprint("id.pub");
    convert("web", &["--thumbprint", &wrong, key[0], key[1]]).ends_with(22, SHORT);
    let password = ["--password-file", "/etc/secret/secretKey", "--trust", "insecure"];
    let mut pod = convert("running", &password);
    pod.ends_with(31, SHORT);
    let left = fs::read_dir(place.scratch.path("disk0")).unwrap().count();
    pod.check(left == 0, format_args!("nothing is written, but {left} files"));
}

#[test]
fn an_old_host_is_read_when_its_algorithms_are_allowed() {
    let (_lab, _turn) = (lab(), turn());
    let place = Place::old();
    let mut pod = place.failing().start();
    let message = pod.fails_with(64, "config", SHORT);
    pod.check(message.contains("diffie-hellman-group14-sha1"), format_args!("{message}"));
    place.untouched(&mut pod);
    accepted(place.failing().env("V2V_sshLegacy", "true"));
    place.take("known_hosts");
    let pin = place.host.fingerprint("host_key.pub");
    accepted(place.failing().envs(&[("V2V_sshLegacy", "true"), ("V2V_fingerprint", &pin)]));
}

/// Plays virt-v2v with the real nbdkit and its ssh plugin, called as virt-v2v 2.6 calls it, so that the fault meets the
/// copy alone.
const COPY_ONLY: &str = r#"#!/bin/bash
case "$*" in --machine-readable) echo virt-v2v; echo output:local; exit 0;; --help) exit 0;; esac
while [ $# -gt 1 ]; do case $1 in -os) os=$2;; -on) name=$2;; -ic) url=$2;; esac; shift; done
port=$(sed 's|.*127.0.0.1:\([0-9]*\)/.*|\1|' <<<"$url")
dir=$(mktemp -d "$TMPDIR/v2v.XXXXXX")
trap 'kill $(cat "$dir"/*.pid) 2>/dev/null' EXIT
truncate -s 64M "$os/$name-sda"
nbdkit -P "$dir/in.pid" -f -v -U "$dir/in0" -r --filter=cow --filter=retry ssh host=127.0.0.1 path=/var/lib/libvirt/images/data.img \
    port="$port" user=root retries=1 retry-delay=1 &
nbdkit -P "$dir/out.pid" -U "$dir/out0" file "$os/$name-sda"
until [ -S "$dir/in0" ] && [ -S "$dir/out0" ]; do sleep 0.05; done
echo '[   1.0] Copying disk 1/1'
nbdcopy "nbd+unix:///?socket=$dir/in0" "nbd+unix:///?socket=$dir/out0" --requests=64 --flush --progress || exit 1
"#;

#[test]
fn a_host_that_goes_away_in_a_copy_is_a_failure_of_the_network() {
    let (_lab, _turn) = (lab(), turn());
    let mut place = Place::new();
    place.give("key", &fs::read_to_string(place.host.file("id")).unwrap());
    let bin = place.scratch.folder("bin");
    fs::write(bin.join("virt-v2v"), COPY_ONLY).unwrap();
    must(Command::new("chmod").arg("755").arg(bin.join("virt-v2v")));
    let out = place.scratch.path("disk0");
    let mut pod = Request::new(&place.scratch.path("work"))
        .mount_read_only(&place.scratch.path("secrets"), "/etc/secret")
        .mount_read_only(&bin, "/lab/bin")
        .mount(&out, "/out")
        .env("PATH", "/lab/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .command(&["convert", "--log-format", "json", "--verbose", "-i", "libvirt"])
        .command(&["-ic", &place.host.url(), "data", "--to", "/out", "--rate", "4MiB/s"])
        .command(&["--identity", "/etc/secret/key", "--known-hosts", "/etc/secret/known_hosts"])
        .start();
    pod.until_log("\"copying\"", SHORT);
    let begin = Instant::now();
    let arrived = || fs::metadata(out.join("data-sda")).map_or(0, |m| m.blocks() * 512);
    while arrived() < 4 * MIB && begin.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(50));
    }
    place.host.stop();
    pod.ends_with(23, SHORT);
    let log = pod.log().to_owned();
    // nbdkit's own words depend on which of its threads notices first.
    let told = log.lines().any(|l| l.contains("\"level\":\"ERROR\"") && l.contains("over SSH"));
    pod.check(told, "the reason is what nbdkit said of the connection");
}
