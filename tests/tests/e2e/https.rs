//! A guest on a vCenter or an ESXi host over HTTPS, with free software only: the whole way, and what goes wrong on it.
//! The server is the simulator; libvirt, virt-v2v, curl and nbdkit are the real ones, in the built image.

use super::NO_APPLIANCE;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use v2v_pod_tests::e2e::lab::{lab, turn};
use v2v_pod_tests::e2e::pod::{LONG, Request, SHORT};
use v2v_pod_tests::e2e::vcenter::{PASSWORD, Place, VCenter, described, esx};
use v2v_pod_tests::e2e::volume::{MIB, must, same_bytes};

const LINK: &str = "?cacert=/opt/ca-bundle.crt";

/// Names as people give them: every one that libvirt, virt-v2v and curl write differently.
const DATACENTER: &str = "Köln a/b 1%+";
const CLUSTER: &str = "Cluster (1) é/%";
const DATASTORE: &str = "ds 1+é%20";
const VM: &str = "web 100% a/b+ü";
/// The guest's, and that of another VM with its name.
const GUEST: &str = "42000000-1111-2222-3333-444455556666";
const OTHER: &str = "42000000-1111-2222-3333-444455556667";

/// A part of a `vpx://` URL's path: the name as vCenter has it, percent-encoded.
fn part(name: &str) -> String {
    let vcenters = name.replace('%', "%25").replace('/', "%2f");
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    vcenters.bytes().fold(String::new(), |mut text, b| {
        if plain(b) {
            text.push(b.into());
        } else {
            write!(text, "%{b:02X}").unwrap();
        }
        text
    })
}

/// The reference that a message names before this UUID, as in `vm-21 (UUID)`.
fn reference_of(message: &str, uuid: &str) -> Option<String> {
    let (before, _) = message.split_once(&format!(" ({uuid})"))?;
    before.split_whitespace().last().map(str::to_owned)
}

#[test]
fn a_guest_with_odd_names_comes_over_https_with_a_thumbprint_through_cut_connections_and_sessions()
{
    let (_lab, _turn) = (lab(), turn());
    let place = Place::with(VCenter::start_as(PASSWORD, |config| {
        config["datacenter"] = json!(DATACENTER);
        config["cluster"] = json!(CLUSTER);
        config["datastores"][0]["name"] = json!(DATASTORE);
        let disk = |path: &str| json!({"path": format!("[{DATASTORE}] {path}")});
        config["vms"][0]["name"] = json!(VM);
        config["vms"][0]["disks"] = json!([disk("web/boot.vmdk"), disk("web/data.vmdk")]);
        let mut other = config["vms"][0].clone();
        other["uuid"] = json!(OTHER);
        // Two VMs have one name only in different folders.
        other["folder"] = json!(["old"]);
        other["disks"] = json!([disk("other/disk.vmdk")]);
        config["vms"].as_array_mut().unwrap().push(other);
        // Nothing of this before the copy begins.
        config["faults"] = json!({"drop": 0.05, "refuse": 0.05, "after_bytes": 200 * MIB});
        config["session_life_s"] = json!(30);
    }));
    let path = format!("/{}/{}/", part(DATACENTER), part(CLUSTER));
    let url = place.vcenter.url("localhost", LINK).replace("/DC/Cluster/", &path);
    let thumbprint = place.vcenter.thumbprint.to_lowercase().replace(':', "");
    let known = [("V2V_fingerprint", thumbprint.as_str()), ("V2V_vmName", VM)];

    let mut pod = place.failing(&url).envs(&known).env(NO_APPLIANCE.0, NO_APPLIANCE.1).start();
    let message = pod.fails_with(24, "not-found", SHORT);
    place.untouched(&mut pod);
    let reference = reference_of(&message, GUEST);
    pod.check(reference.is_some() && message.contains(OTHER), format_args!("{message}"));

    let before = place.vcenter.stats();
    let block = place.scratch.block("block0", 1600 * MIB);
    let mut pod = place
        .pod(&url)
        .envs(&known)
        .env("V2V_NewName", "web")
        .env("V2V_vmMoref", &reference.unwrap())
        .env("V2V_cookieRenew", "10")
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
    // Without new sessions it would not have ended: the copy begins when the first ones are over.
    let stats = place.vcenter.stats();
    let count = |name: &str| stats[name].as_u64().unwrap_or_default();
    let made = count("sessions_made") - before["sessions_made"].as_u64().unwrap_or_default();
    pod.check(
        count("dropped") + count("refused") > 0 && made > 6,
        format_args!("there were faults, and {made} new sessions: {stats}"),
    );
}

#[test]
fn a_guest_comes_from_an_esxi_host_that_is_not_verified() {
    let (_lab, _turn) = (lab(), turn());
    // libvirt would read the backslash as the beginning of an escape.
    let password = format!(r"Corp\nas7 {PASSWORD}");
    let place = Place::with(VCenter::start_as(&password, esx));
    fs::write(place.scratch.path("secrets/secretKey"), &password).unwrap();
    let url = format!("esx://root@localhost:{}/?no_verify=1", place.vcenter.port);
    let block = place.scratch.block("block0", 1600 * MIB);
    let mut pod = place.pod(&url).block(0, &block).folder(1, &place.scratch.path("disk1")).start();
    pod.ends_with(0, LONG);
    let about = described(&mut pod);
    pod.check(
        about["transport"] == "https" && about["trust"] == "insecure",
        format_args!("{about}"),
    );
    let told = pod.log().contains("ServerNotVerified");
    pod.check(told, "it is told that nothing was verified");
    let copy = place.scratch.path("disk1/disk.img");
    let same = same_bytes(&lab().guest.join("data.img"), &copy, 64 * MIB);
    pod.check(same, "the data disk is the same");
}

/// VMs that cannot be converted, each with a reason of its own.
fn troublesome(config: &mut Value) {
    let web = config["vms"][0].clone();
    let vm = |name: &str, uuid: &str, power: &str, folder: &str| {
        let mut vm = web.clone();
        vm["name"] = json!(name);
        vm["uuid"] = json!(uuid);
        vm["power"] = json!(power);
        let disk = |n: u8| json!({"path": format!("[ds 1] {folder}/disk{n}.vmdk")});
        vm["disks"] = json!([disk(1), disk(2)]);
        vm
    };
    let id = |n: u8| format!("42000000-1111-2222-3333-4444555566{n:02}");
    let mut older = vm("with snapshots", &id(68), "off", "older");
    older["snapshots"] = json!([{"name": "before the update"}]);
    let mut single = vm("one disk", &id(74), "off", "single");
    single["disks"].as_array_mut().unwrap().truncate(1);
    let mut twin = vm("twin", &id(71), "on", "twin2");
    twin["folder"] = json!(["old"]);
    config["vms"].as_array_mut().unwrap().extend([
        vm("running", &id(67), "on", "other"),
        older,
        vm("twin", &id(70), "off", "twin1"),
        twin,
        vm("copy of a", &id(73), "off", "copy1"),
        vm("copy of b", &id(73), "off", "copy2"),
        single,
    ]);
}

#[test]
fn what_the_server_refuses_has_its_class_and_writes_nothing() {
    let (_lab, _turn) = (lab(), turn());
    let place = Place::with(VCenter::start_as(PASSWORD, troublesome));
    place.give_ca();
    let url = place.vcenter.url("localhost", LINK);
    let failing =
        |vm: &str| place.failing(&url).env("V2V_vmName", vm).env(NO_APPLIANCE.0, NO_APPLIANCE.1);
    let elsewhere = url.replace("/DC/", "/Elsewhere/");
    let mut pod = place.failing(&elsewhere).env(NO_APPLIANCE.0, NO_APPLIANCE.1).start();
    let message = pod.fails_with(24, "not-found", SHORT);
    pod.check(message.contains("datacenter"), format_args!("{message}"));
    place.untouched(&mut pod);
    let wrong = [
        ("no such vm", 24, "not-found", "\"web\""),
        ("Running", 24, "not-found", "there is \"running\""),
        ("running", 31, "source-busy", "is running"),
        // Only virt-v2v finds this out.
        ("with snapshots", 31, "source-busy", "snapshots"),
        ("copy of a", 24, "not-found", "\"copy of b\""),
        ("one disk", 20, "volume", "1 disk"),
        ("twin", 24, "not-found", "2 VMs have the name"),
    ];
    let mut told = String::new();
    for (vm, code, class, text) in wrong {
        let mut pod = failing(vm).start();
        told = pod.fails_with(code, class, SHORT);
        pod.check(told.contains(text), format_args!("{vm}: {told}"));
        place.untouched(&mut pod);
    }
    // Of the two twins the second runs, so that is the one that was chosen.
    let uuid = "42000000-1111-2222-3333-444455556671";
    let second = reference_of(&told, uuid).unwrap();
    for chosen in [("V2V_vmMoref", second.as_str()), ("V2V_vmUUID", uuid)] {
        let mut pod = failing("twin").envs(&[chosen]).start();
        pod.fails_with(31, "source-busy", SHORT);
        place.untouched(&mut pod);
    }
    let mut pod = failing("web").env("V2V_vmMoref", "vm-1").start();
    let message = pod.fails_with(24, "not-found", SHORT);
    pod.check(message.contains("is not vm-1"), format_args!("{message}"));
    place.untouched(&mut pod);

    fs::write(place.scratch.path("secrets/secretKey"), "wrong\n").unwrap();
    let mut pod = failing("web").start();
    pod.fails_with(21, "auth", SHORT);
    place.untouched(&mut pod);
    let logins = place.vcenter.stats()["logins_failed"].as_u64();
    pod.check(
        logins == Some(1),
        format_args!("one try, since more may lock the user out: {logins:?}"),
    );
}

#[test]
fn a_guest_comes_from_an_esxi_host_with_convert() {
    let (_lab, _turn) = (lab(), turn());
    let place = Place::with(VCenter::start_as(PASSWORD, esx));
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
