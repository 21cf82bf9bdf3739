//! Under Forklift: a VM of vSphere in the very pod that its controller makes, driven as it drives it.
//! The vCenter is the simulator, VDDK is our stand-in, and ports are the lab's, since pods here share the
//! host's network; all else is as in a cluster.

use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::Command;
use v2v_pod_tests::e2e::forklift;
use v2v_pod_tests::e2e::lab::{lab, root, turn};
use v2v_pod_tests::e2e::pod::{INSPECTING, LONG, Pod, SHORT};
use v2v_pod_tests::e2e::vcenter::{DISTRIB, PASSWORD, Place, STORE, described};
use v2v_pod_tests::e2e::volume::{MIB, files_with, must, same_bytes};
use v2v_pod_tests::e2e::watch::Watch;

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
fn a_guest_of_a_vcenter_as_forklift_drives_it() {
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
    let variables = [
        ("V2V_vmName", "web"),
        ("V2V_NewName", "web-1"),
        ("V2V_libvirtURL", url.as_str()),
        ("V2V_fingerprint", place.vcenter.thumbprint.as_str()),
        ("V2V_RootDisk", "/dev/sda"),
        ("V2V_preserveStaticIPs", "true"),
    ];
    let secrets = place.scratch.path("secrets");
    let mut pod = forklift::vsphere_pod(&place.work(), &secrets, &place.opt, &variables)
        .block(0, &block)
        .folder(1, &place.scratch.path("disk1"))
        .mount_read_only(&place.vcenter.store(), STORE)
        .start();
    let (namespace, first) = (pod.namespace(), pod.first_process());
    pod.until_log("\"phase\":\"preflight\"", SHORT);
    let watch = Watch::start(pod.ports, namespace, PASSWORD);
    pod.until_log(INSPECTING, LONG);
    nothing_is_exposed(&mut pod, &place, first);
    let driven = forklift::drive(&mut pod, LONG);

    pod.check(driven.exit_code == 0, format_args!("the migration succeeds: {driven:?}"));
    let order = ["GET /vm", "GET /inspection", "GET /warnings", "POST /shutdown"];
    pod.check(driven.requests == order, format_args!("the result was taken: {driven:?}"));
    let result = (driven.boot_disk, driven.system.as_deref());
    pod.check(result == (Some(0), Some("debian12")), format_args!("the result: {driven:?}"));
    pod.check(driven.progress.keys().eq(&[1, 2]), format_args!("two tasks: {driven:?}"));
    for (disk, percents) in &driven.progress {
        let whole = percents.is_sorted() && percents.last() == Some(&100.0);
        pod.check(whole, format_args!("disk {disk} comes to 100 %: {percents:?}"));
    }
    let moves = driven.progress[&1].iter().any(|percent| (0.5..99.5).contains(percent));
    pod.check(moves, format_args!("the copy of the large disk is seen: {driven:?}"));

    let seen = watch.end();
    pod.check(seen.leaks.is_empty(), format_args!("nothing leaks: {:?}", seen.leaks));
    pod.check(
        seen.result_open_in.as_deref() == Some("serve"),
        format_args!("8080 is closed until the result is complete: {:?}", seen.result_open_in),
    );
    for tool in ["virt-v2v", "nbdkit", "virt-v2v-inspec"] {
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

/// While it converts, the password is in no file of the pod but that of the Secret (and the stand-in's
/// settings), and nobody will find it in a core.
fn nothing_is_exposed(pod: &mut Pod, place: &Place, first: i32) {
    let inside = Path::new("/proc").join(first.to_string()).join("root");
    let places = [inside.join("var/tmp"), inside.join("tmp"), place.opt.clone()];
    let exposed: Vec<_> = places.iter().flat_map(|p| files_with(p, PASSWORD)).collect();
    let expected: Vec<_> = exposed.iter().filter(|p| !p.ends_with("stub.json")).collect();
    pod.check(expected.is_empty(), format_args!("the password is in no file, but in {expected:?}"));
    let limits = fs::read_to_string(format!("/proc/{first}/limits")).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap_or_default();
    let no_core = core.split_whitespace().nth(4).is_some_and(|l| l == "0" || l == "1");
    pod.check(no_core, format_args!("no core is written: {core}"));
}
