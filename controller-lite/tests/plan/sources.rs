//! Providers whose VMs only a pod can see: an OVA, converted to its end, and a Xen host.

use crate::kubelet::{Kubelet, Place, list};
use crate::lab::{Controller, Room};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use v2v_pod_tests::e2e::lab::{lab, turn};
use v2v_pod_tests::e2e::volume::Scratch;
use v2v_pod_tests::e2e::xen;
use v2v_pod_tests::ova::{OvfDisk, ovf, stream_optimized, tar};

fn image() -> String {
    std::env::var("V2V_IMAGE").unwrap_or("localhost/v2v-pod:latest".to_owned())
}

fn provider(room: &Room, spec: &Value) {
    room.apply(&json!({
        "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Provider",
        "metadata": { "name": "source" }, "spec": spec,
    }));
}

fn plan(room: &Room, vm: &Value, more: &Value) {
    let mut spec = json!({ "providerRef": { "name": "source" }, "vms": [vm] });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    room.apply(&json!({
        "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Plan",
        "metadata": { "name": "wave" }, "spec": spec,
    }));
}

fn env(pod: &Value) -> Vec<(&str, &str)> {
    let variables = list(&pod["spec"]["containers"][0]["env"]).iter();
    variables.map(|v| (v["name"].as_str().unwrap(), v["value"].as_str().unwrap())).collect()
}

fn asked(room: &Room, claim: &str) -> String {
    let made = room.provision(claim);
    made["spec"]["storage"]["resources"]["requests"]["storage"].as_str().unwrap().to_owned()
}

/// `web.ova` with the lab's guest, on two networks; one of its NICs has no address.
fn make_ova(guest: &Path, into: &Path) {
    let files = into.join("files");
    fs::create_dir(&files).unwrap();
    let mut disks = Vec::new();
    for (raw, vmdk) in [("boot.img", "boot.vmdk"), ("data.img", "data.vmdk")] {
        stream_optimized(&guest.join(raw), &files.join(vmdk));
        disks.push(OvfDisk::new(vmdk, fs::metadata(guest.join(raw)).unwrap().len()));
    }
    let nic = "<Item><rasd:Connection>DMZ</rasd:Connection><rasd:InstanceID>5</rasd:InstanceID>\
         <rasd:ResourceSubType>E1000</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>";
    let text = ovf("web", &disks);
    let first_disk = "<Item><rasd:AddressOnParent>0<";
    assert!(text.contains(first_disk));
    let text = text.replacen(first_disk, &format!("{nic}{first_disk}"), 1);
    fs::write(files.join("web.ovf"), text).unwrap();
    tar(&files, "ustar", &into.join("web.ova"), &["web.ovf", "boot.vmdk", "data.vmdk"]);
}

#[test]
fn an_ova_becomes_a_vm_on_its_networks() {
    let (lab, _turn) = (lab(), turn());
    let (room, scratch) = (Room::new(), Scratch::new());
    let folder = scratch.folder("ovas");
    make_ova(&lab.guest, &folder);
    let _controller = Controller::start(room.server, &room.namespace, &["--image", &image()]);
    let mut kubelet = Kubelet::new(&scratch);
    kubelet.claim("ovas", Place::ReadOnly(folder));
    provider(&room, &json!({ "type": "ova", "sourceVolume": { "claimName": "ovas" } }));
    let lan = json!({ "source": "VM Network", "network": { "pod": {} } });
    let dmz = json!({ "source": "DMZ", "network": { "multus": { "networkName": "net/dmz" } } });
    let vm = json!({ "name": "web", "paths": ["web.ova"] });
    let spec = |networks: Value| {
        json!({
            "networkMap": { "entries": networks },
            "storageMap": { "entries": [{ "disk": { "index": 0 }, "volumeMode": "Block" }] },
        })
    };
    plan(&room, &vm, &spec(json!([lan])));

    let pod = room.until("pod", "wave-web-measure", Value::is_object);
    let source =
        [("V2V_source", "ova"), ("V2V_vmName", "web"), ("V2V_diskPath", "/source/web.ova")];
    assert_eq!(env(&pod), source);
    let said = kubelet.run(&room, "wave-web-measure");
    assert_eq!(said["disks"][1], json!({ "bytes": 64 << 20, "name": "data.vmdk" }));
    // A network that is not mapped is told before anything is made, and the Plan can be corrected.
    let refused = room.until("plan", "wave", |p| p["status"]["vms"][0]["class"] == "config");
    let message = refused["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("web: the network \"DMZ\" of the VM is not mapped"), "{message}");
    assert!(room.list("datavolumes").is_empty());
    plan(&room, &vm, &spec(json!([lan, dmz])));

    assert_eq!(asked(&room, "wave-web-disk-0"), "1536Mi");
    assert_eq!(asked(&room, "wave-web-disk-1"), "64Mi");
    let pod = room.until("pod", "wave-web", Value::is_object);
    assert!(source.iter().all(|setting| env(&pod).contains(setting)), "{:?}", env(&pod));
    let facts = pod["metadata"]["annotations"]["conversion.v2v-pod.dev/source"].as_str().unwrap();
    let nics =
        json!([{ "mac": "00:50:56:aa:bb:0a", "network": "VM Network" }, { "network": "DMZ" }]);
    assert_eq!(serde_json::from_str::<Value>(facts).unwrap()["nics"], nics);
    room.until_gone("pod", "wave-web-measure");
    assert_eq!(room.get("plan", "wave")["status"]["vms"][0]["nics"], nics);

    kubelet.claim("wave-web-disk-0", Place::Block(scratch.block("disk0", 1536 << 20)));
    kubelet.claim("wave-web-disk-1", Place::Folder(scratch.folder("disk1")));
    kubelet.convert(&room, "wave", "web");
    let vm = room.get("virtualmachine", "web");
    let guest = &vm["spec"]["template"]["spec"];
    let networks = json!([
        { "name": "net-0", "pod": {} }, { "name": "net-1", "multus": { "networkName": "net/dmz" } },
    ]);
    assert_eq!(guest["networks"], networks, "{vm:#}");
    let nics = list(&guest["domain"]["devices"]["interfaces"]);
    assert_eq!(
        (&nics[0]["macAddress"], &nics[1]["macAddress"]),
        (&json!("00:50:56:aa:bb:0a"), &Value::Null)
    );
    assert!(fs::metadata(scratch.path("disk1/disk.img")).unwrap().len() == 64 << 20);
}

#[test]
fn a_vm_of_a_xen_host_is_found_by_a_pod() {
    let (_lab, _turn) = (lab(), turn());
    let (room, place) = (Room::new(), xen::Place::new());
    let _controller = Controller::start(room.server, &room.namespace, &["--image", &image()]);
    let mut kubelet = Kubelet::new(&place.scratch);
    kubelet.secrets.insert("xen".to_owned(), place.scratch.path("secrets"));
    // There is no hypervisor: the lab's libvirtd is to use its test driver.
    kubelet.more.push(("V2V_libvirtURL", "/?name=test:///etc/libvirt/domains.xml"));
    let url = format!("xen+ssh://root@127.0.0.1:{}", place.host.port);
    provider(&room, &json!({ "type": "xen", "url": url, "secretRef": { "name": "xen" } }));
    let networks =
        json!([{ "source": "xenbr0", "network": { "multus": { "networkName": "lan" } } }]);
    let known = fs::read_to_string(place.host.file("known_hosts")).unwrap();
    place.take("known_hosts");
    plan(&room, &json!({ "name": "web" }), &json!({ "networkMap": { "entries": networks } }));

    // What is wrong at the source has the class that the pod gives it.
    let said = kubelet.run(&room, "wave-web-measure");
    assert_eq!(said["class"], "trust", "{said}");
    let told = room.until("plan", "wave", |p| p["status"]["vms"][0]["class"] == "trust");
    let message = told["status"]["message"].as_str().unwrap();
    assert!(message.contains(said["message"].as_str().unwrap()), "{message}");
    assert!(room.list("datavolumes").is_empty() && told["status"]["startTime"].is_null());
    // Deleting the pod has the controller look again at once.
    place.give("known_hosts", &known);
    room.kubectl(&["delete", "pod", "wave-web-measure", "--now"]).ok();
    room.until("pod", "wave-web-measure", |pod| {
        pod.is_object() && pod["status"]["phase"] != "Failed"
    });
    let said = kubelet.run(&room, "wave-web-measure");
    assert_eq!(said["disks"][0]["name"], "/var/lib/libvirt/images/boot.img");

    assert_eq!(asked(&room, "wave-web-disk-0"), "1536Mi");
    assert_eq!(asked(&room, "wave-web-disk-1"), "64Mi");
    let pod = room.until("pod", "wave-web", Value::is_object);
    for setting in [
        ("V2V_source", "xen"),
        ("V2V_vmName", "web"),
        ("V2V_libvirtURL", url.as_str()),
        ("V2V_trust", "auto"),
        ("V2V_claimNames", r#"["wave-web-disk-0","wave-web-disk-1"]"#),
    ] {
        assert!(env(&pod).contains(&setting), "{setting:?} in {:?}", env(&pod));
    }
    let mounts = list(&pod["spec"]["containers"][0]["volumeMounts"]);
    let secret = mounts.iter().find(|m| m["mountPath"] == "/etc/secret").unwrap();
    let volumes = list(&pod["spec"]["volumes"]);
    let volume = volumes.iter().find(|v| v["name"] == secret["name"]).unwrap();
    assert_eq!(
        (&volume["secret"]["secretName"], &secret["readOnly"]),
        (&json!("xen"), &json!(true))
    );
    let facts = pod["metadata"]["annotations"]["conversion.v2v-pod.dev/source"].as_str().unwrap();
    let known = json!({
        "uuid": "6a0a7a2e-0000-4000-8000-000000000000",
        "nics": [{ "mac": "00:16:3e:aa:bb:01", "network": "xenbr0" }],
    });
    assert_eq!(serde_json::from_str::<Value>(facts).unwrap(), known);
}

#[test]
fn few_vms_are_looked_at_at_the_same_time() {
    let room = Room::new();
    let _controller = Controller::start(room.server, &room.namespace, &[]);
    let vms: Vec<(String, usize)> = (0..7).map(|n| (format!("v{n}"), 1)).collect();
    let vms: Vec<(&str, usize)> = vms.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    room.plan("wave", &vms, &json!({ "limits": { "vms": 100 } }));
    let waits = room.until_vm("wave", "v6", "Preflight");
    assert_eq!(waits["message"], "waits until other VMs of the Plan were looked at");
    let pods = || {
        let mut names: Vec<String> = room
            .list("pods")
            .iter()
            .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    let measure = |n: usize| format!("wave-v{n}-measure");
    assert_eq!(pods(), [0, 1, 2, 3].map(measure));
    room.measured("wave", "v1", &[1 << 20]);
    room.until("pod", "wave-v4-measure", Value::is_object);
    assert!(room.get("pod", "wave-v5-measure").is_null());
}
