//! A guest on a vCenter or an ESXi host over HTTPS, with free software only: the whole way, and what goes wrong on it.
//! The server is the simulator; libvirt, virt-v2v, curl and nbdkit are the real ones, in the built image.

use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::Command;
use v2v_pod_tests::e2e::lab::{lab, turn};
use v2v_pod_tests::e2e::pod::{LONG, Request, SHORT};
use v2v_pod_tests::e2e::vcenter::{PASSWORD, Place, VCenter, described};
use v2v_pod_tests::e2e::volume::{MIB, must, same_bytes};

const LINK: &str = "?cacert=/opt/ca-bundle.crt";

#[test]
fn a_guest_comes_over_https_with_a_thumbprint_alone() {
    let (_lab, _turn) = (lab(), turn());
    let place = Place::with(VCenter::start(PASSWORD));
    let block = place.scratch.block("block0", 1600 * MIB);
    let mut pod = place
        .pod(&place.vcenter.url("localhost", LINK))
        .env("V2V_fingerprint", &place.vcenter.thumbprint.to_lowercase().replace(':', ""))
        .block(0, &block)
        .folder(1, &place.scratch.path("disk1"))
        .start();
    pod.ends_with(0, LONG);
    let about = described(&mut pod);
    pod.check(
        about["transport"] == "https" && about["trust"] == "thumbprint",
        format_args!("{about}"),
    );
    let end = pod.termination();
    pod.check(end["transport"] == "https", format_args!("the termination message: {end}"));
    let copy = place.scratch.path("disk1/disk.img");
    let same = same_bytes(&lab().guest.join("data.img"), &copy, 64 * MIB);
    pod.check(same, "the data disk is the same");
    let shown = pod.log().contains(PASSWORD) || pod.errors().contains(PASSWORD);
    pod.check(!shown, "the password is not in the log");
}

#[test]
fn what_the_server_refuses_has_its_class_and_writes_nothing() {
    let (_lab, _turn) = (lab(), turn());
    let place = Place::with(VCenter::start_as(PASSWORD, |config| {
        let mut running = config["vms"][0].clone();
        running["name"] = json!("running");
        running["uuid"] = json!("42000000-1111-2222-3333-444455556667");
        running["power"] = json!("on");
        running["disks"] = json!([{"path": "[ds 1] other/disk.vmdk"}]);
        let mut older = running.clone();
        older["name"] = json!("with snapshots");
        older["uuid"] = json!("42000000-1111-2222-3333-444455556668");
        older["power"] = json!("off");
        older["disks"] = json!([{"path": "[ds 1] older/disk.vmdk"}]);
        older["snapshots"] = json!([{"name": "before the update"}]);
        config["vms"].as_array_mut().unwrap().extend([running, older]);
    }));
    place.give_ca();
    let url = place.vcenter.url("localhost", LINK);
    let wrong = [
        (url.replace("/DC/", "/Elsewhere/"), "web", 24, "not-found"),
        (url.clone(), "no such vm", 24, "not-found"),
        (url.clone(), "running", 31, "source-busy"),
        (url.clone(), "with snapshots", 31, "source-busy"),
    ];
    for (url, vm, code, class) in wrong {
        let mut pod = place.failing(&url).env("V2V_vmName", vm).start();
        pod.fails_with(code, class, SHORT);
        place.untouched(&mut pod);
    }
    // The UUID finds the VM whatever its name is; another reference is refused before a disk is read.
    let uuid = ("V2V_vmUUID", "42000000-1111-2222-3333-444455556667");
    let mut pod = place.failing(&url).envs(&[uuid, ("V2V_vmName", "no such vm")]).start();
    pod.fails_with(31, "source-busy", SHORT);
    let mut pod = place.failing(&url).env("V2V_vmMoref", "vm-1").start();
    let message = pod.fails_with(24, "not-found", SHORT);
    pod.check(message.contains("instead of vm-1"), format_args!("{message}"));
    place.untouched(&mut pod);

    fs::write(place.scratch.path("secrets/secretKey"), "wrong\n").unwrap();
    let mut pod = place.failing(&url).start();
    pod.fails_with(21, "auth", SHORT);
    place.untouched(&mut pod);
}

#[test]
fn a_guest_comes_from_an_esxi_host_with_convert() {
    let (_lab, _turn) = (lab(), turn());
    let place = Place::with(VCenter::start_as(PASSWORD, |config| {
        let config = config.as_object_mut().unwrap();
        config.insert("mode".to_owned(), json!("esx"));
        config.insert("user".to_owned(), json!("root"));
        for key in ["datacenter", "cluster", "host"] {
            config.remove(key);
        }
    }));
    let (work, out) = (place.work(), place.scratch.folder("out"));
    let url = format!("esx://root@localhost:{}", place.vcenter.port);
    fs::copy(place.vcenter.ca(), place.scratch.path("secrets/cacert")).unwrap();
    let convert = |trust: &[&str], vm: &str| {
        Request::new(&work)
            .mount_read_only(&place.scratch.path("secrets"), "/etc/secret")
            .mount(&place.opt, "/opt")
            .mount(&out, "/out")
            .command(&["convert", "--log-format", "json", "-i", "libvirt", "-ic", &url, vm])
            .command(&["-ip", "/etc/secret/secretKey", "--name", "web"])
            .command(trust)
            .command(&["--to", "/out/boot.img", "/out/data.img"])
    };
    // The metadata would go into the current folder, which is /, after all the work.
    let mut pod = convert(&["--cacert", "/etc/secret/cacert"], "web").start();
    pod.ends_with(64, SHORT);
    let convert = |trust: &[&str], vm: &str| convert(trust, vm).command(&["--out", "/out"]).start();
    // The CA is not among the system's, so nothing is sent.
    let mut pod = convert(&[], "web");
    pod.ends_with(22, SHORT);
    // The ESXi host's own thumbprint, but SHA-256.
    let sha256 = sha256(&place.vcenter.certificate());
    let mut pod = convert(&["--thumbprint", &sha256], "no-such-vm");
    pod.ends_with(24, SHORT);
    let mut pod = convert(&["--cacert", "/etc/secret/cacert"], "web");
    pod.ends_with(0, LONG);
    let same = same_bytes(&lab().guest.join("data.img"), &out.join("data.img"), 64 * MIB);
    pod.check(same, "the data disk is the same");
    let yaml = fs::read_to_string(out.join("web.yaml")).unwrap_or_default();
    pod.check(yaml.contains("00:50:56:aa:bb:01"), format_args!("the NIC's MAC is kept: {yaml}"));
}

fn sha256(certificate: &Path) -> String {
    let args = ["x509", "-noout", "-fingerprint", "-sha256", "-in"];
    must(Command::new("openssl").args(args).arg(certificate))
}
