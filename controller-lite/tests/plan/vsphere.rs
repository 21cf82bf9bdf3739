//! VMs of vSphere, from the vCenter's inventory to VM objects. The vCenter is the simulator, VDDK is
//! our stand-in; the controller, the API server and the pods' images are the real ones.

use crate::kubelet::{Kubelet, Place, list};
use crate::lab::{Controller, Room};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use v2v_pod_tests::e2e::lab::{lab, root, said, turn};
use v2v_pod_tests::e2e::pod::SHORT;
use v2v_pod_tests::e2e::vcenter::{
    DISTRIB, PASSWORD, STORE, USER, VCenter, described, esx, vddk_tree,
};
use v2v_pod_tests::e2e::volume::{MIB, Scratch, must, same_bytes};

/// The lab's guest in the vCenter.
const UUID: &str = "42000000-1111-2222-3333-444455556666";
const MAC: &str = "00:50:56:aa:bb:01";

fn controller(room: &Room) -> Controller {
    let image = std::env::var("V2V_IMAGE").unwrap_or("localhost/v2v-pod:latest".to_owned());
    Controller::start(room.server, &room.namespace, &["--image", &image])
}

fn secret(room: &Room, name: &str, user: &str, password: &str, more: &Value) {
    // With the line feed that editors leave.
    let mut data = json!({ "accessKeyId": user, "secretKey": format!("{password}\n") });
    data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    room.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": data,
    }));
}

/// A Provider for the vCenter, and a Plan that takes its VM `web` with one block and one filesystem
/// volume.
fn from_vcenter(room: &Room, vcenter: &VCenter, provider: &Value, plan: &Value) {
    let ca = fs::read_to_string(vcenter.ca()).unwrap();
    secret(room, "vcenter", USER, PASSWORD, &json!({ "cacert": ca }));
    let mut spec = json!({
        "type": "vsphere", "url": format!("https://localhost:{}/sdk", vcenter.port),
        "secretRef": { "name": "vcenter" }, "trust": { "mode": "ca" },
    });
    spec.as_object_mut().unwrap().extend(provider.as_object().unwrap().clone());
    room.apply(&json!({
        "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Provider",
        "metadata": { "name": "vcenter" }, "spec": spec,
    }));
    let lan = json!({ "multus": { "networkName": "default/vlan10" } });
    let mut spec = json!({
        "providerRef": { "name": "vcenter" },
        "vms": [{ "name": "web" }],
        "storageMap": {
            "default": { "storageClass": "slow", "volumeMode": "Filesystem" },
            "entries": [
                { "disk": { "vm": "web", "index": 0 }, "storageClass": "fast", "volumeMode": "Block" },
                { "datastore": "ds 1", "storageClass": "archive" },
            ],
        },
        "networkMap": { "entries": [{ "source": "VM Network", "network": lan }] },
    });
    spec.as_object_mut().unwrap().extend(plan.as_object().unwrap().clone());
    room.apply(&json!({
        "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Plan",
        "metadata": { "name": "wave" }, "spec": spec,
    }));
}

/// As CDI: both volumes, as the inventory, the storage map and the datastore want them.
fn provision(room: &Room, kubelet: &mut Kubelet<'_>) {
    let storage = |size: &str, class: &str, mode: &str| {
        json!({
            "resources": { "requests": { "storage": size } },
            "storageClassName": class, "volumeMode": mode,
        })
    };
    let asked = room.provision("wave-web-disk-0")["spec"]["storage"].clone();
    assert_eq!(asked, storage("1536Mi", "fast", "Block"));
    let asked = room.provision("wave-web-disk-1")["spec"]["storage"].clone();
    assert_eq!(asked, storage("64Mi", "archive", "Filesystem"));
    let scratch = kubelet.scratch;
    kubelet.claim("wave-web-disk-0", Place::Block(scratch.block("disk0", 1536 * MIB)));
    kubelet.claim("wave-web-disk-1", Place::Folder(scratch.folder("disk1")));
}

fn env<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    let env = list(&pod["spec"]["containers"][0]["env"]);
    env.iter().find(|e| e["name"] == name)?["value"].as_str()
}

/// The Secret that is at `/etc/secret`.
fn secret_of(pod: &Value) -> &Value {
    let mounts = list(&pod["spec"]["containers"][0]["volumeMounts"]);
    let mount = mounts.iter().find(|m| m["mountPath"] == "/etc/secret").unwrap();
    let volumes = list(&pod["spec"]["volumes"]);
    &volumes.iter().find(|v| v["name"] == mount["name"]).unwrap()["secret"]["secretName"]
}

/// The sidecar's image with the stand-in; removed when dropped.
struct Sidecar(String);

impl Sidecar {
    fn build(scratch: &Scratch, settings: &Value) -> Self {
        let image = format!("localhost/v2v-pod-vddk:plan-{}", std::process::id());
        let tree = vddk_tree(&scratch.path("."), settings);
        assert!(tree.ends_with(DISTRIB));
        let build = root().join("images/build-vddk.sh");
        must(Command::new(build).arg(tree).env("IMAGE", &image));
        Self(image)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let output = Command::new("podman").args(["rmi", "--force", &self.0]).output();
        if let Some(output) = output.ok().filter(|o| !o.status.success()) {
            eprintln!("image {} was not removed: {}", self.0, said(&output));
        }
    }
}

#[test]
fn a_guest_of_a_vcenter_becomes_a_vm_over_vddk() {
    let (lab, _turn) = (lab(), turn());
    let (room, scratch) = (Room::new(), Scratch::new());
    let vcenter = VCenter::start(PASSWORD);
    let sidecar = Sidecar::build(&scratch, &vcenter.stub_settings(PASSWORD));
    let controller = controller(&room);
    from_vcenter(
        &room,
        &vcenter,
        &json!({ "vddkImage": sidecar.0 }),
        &json!({ "transport": "vddk", "runStrategy": "Always" }),
    );
    let mut kubelet = Kubelet::new(&scratch);
    kubelet.secret(&room, "vcenter");
    // Where the stand-in reads the disks.
    kubelet.beside.push((vcenter.store(), STORE));
    provision(&room, &mut kubelet);

    let object = room.until("pod", "wave-web", Value::is_object);
    let sidecars = list(&object["spec"]["initContainers"]);
    assert_eq!((sidecars.len(), &sidecars[0]["image"]), (1, &json!(sidecar.0)));
    assert_eq!(secret_of(&object), "vcenter");
    let url = vcenter.url("localhost", "");
    for (name, value) in [
        ("V2V_libvirtURL", url.as_str()),
        ("V2V_trust", "ca"),
        ("V2V_transport", "vddk"),
        ("V2V_vmUUID", UUID),
    ] {
        assert_eq!(env(&object, name), Some(value), "{name}");
    }
    let mut pod = kubelet.convert(&room, "wave", "web");

    let about = described(&mut pod);
    pod.check(about["transport"] == "vddk" && about["trust"] == "ca", format_args!("{about}"));
    let object = room.get("pod", "wave-web");
    let end = &object["status"]["containerStatuses"][0]["state"]["terminated"]["message"];
    let end: Value = serde_json::from_str(end.as_str().unwrap()).unwrap();
    assert_eq!(end["transport"], "vddk", "{end}");
    let vm = room.get("virtualmachine", "web");
    assert_eq!(vm["spec"]["runStrategy"], "Always");
    let guest = &vm["spec"]["template"]["spec"];
    assert_eq!(guest["domain"]["firmware"]["uuid"], UUID, "{vm:#}");
    assert_eq!(guest["domain"]["devices"]["interfaces"][0]["macAddress"], MAC);
    assert_eq!(guest["networks"][0]["multus"]["networkName"], "default/vlan10");
    assert_eq!(guest["domain"]["devices"]["disks"][0]["bootOrder"], 1);
    let claims: Vec<&Value> = list(&guest["volumes"])
        .iter()
        .map(|volume| &volume["persistentVolumeClaim"]["claimName"])
        .collect();
    assert_eq!(claims, ["wave-web-disk-0", "wave-web-disk-1"]);
    for claim in ["wave-web-disk-0", "wave-web-disk-1"] {
        let owners = room.get("pvc", claim)["metadata"]["ownerReferences"].clone();
        assert!(list(&owners).iter().any(|o| o["uid"] == vm["metadata"]["uid"]), "{owners}");
    }
    let copy = scratch.path("disk1/disk.img");
    pod.check(
        same_bytes(&lab.guest.join("data.img"), &copy, 64 * MIB),
        "the data disk is the same",
    );
    let Place::Block(boot) = &kubelet.claims["wave-web-disk-0"] else { panic!("a device") };
    let label = must(Command::new("blkid").args(["-po", "value", "-s", "PTTYPE"]).arg(&boot.node));
    assert_eq!(label, "dos", "the boot disk has the guest's partition table");
    // Nowhere but in the Secret.
    let all = ["plans", "providers", "pods", "pvc", "virtualmachines", "events.events.k8s.io"];
    let said = all.map(|kind| json!(room.list(kind)).to_string()).join("\n");
    for (place, text) in
        [("objects", said), ("controller", controller.log()), ("pod", pod.log().to_owned())]
    {
        assert!(!text.contains(PASSWORD), "the password is in what is said by: {place}");
    }
}

/// The vCenter is asked for the VM; the pod asks the VM's host alone, by the host's own Secret.
#[test]
fn the_host_of_a_vm_has_its_own_server_secret_and_certificate() {
    let (_lab, _turn) = (lab(), turn());
    let (room, scratch) = (Room::new(), Scratch::new());
    let (vcenter, host) = (VCenter::start(PASSWORD), VCenter::start_as("the host's own", esx));
    let _controller = controller(&room);
    secret(&room, "esx1", "root", "the host's own", &json!({}));
    let hosts = json!([{
        "name": "esx1.example.com", "url": format!("esx://localhost:{}", host.port),
        "secretRef": { "name": "esx1" }, "thumbprint": host.thumbprint,
    }]);
    from_vcenter(&room, &vcenter, &json!({ "hosts": hosts }), &json!({}));
    let mut kubelet = Kubelet::new(&scratch);
    kubelet.secret(&room, "esx1");
    provision(&room, &mut kubelet);

    let object = room.until("pod", "wave-web", Value::is_object);
    let url = format!("esx://root@localhost:{}", host.port);
    for (name, value) in [
        ("V2V_source", Some("vSphere")),
        ("V2V_libvirtURL", Some(url.as_str())),
        ("V2V_trust", Some("thumbprint")),
        ("V2V_fingerprint", Some(host.thumbprint.as_str())),
        ("V2V_vmName", Some("web")),
        ("V2V_vmUUID", Some(UUID)),
        // The host's reference of the VM is another one.
        ("V2V_vmMoref", None),
    ] {
        assert_eq!(env(&object, name), value, "{name}");
    }
    assert_eq!(secret_of(&object), "esx1");
    assert!(!object.to_string().contains("\"vcenter\""), "{object:#}");
    let judge = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
    let mut again = object.clone();
    again["metadata"] = json!({ "name": "again" });
    let args = [&["-n", room.namespace.as_str()], &judge[..]].concat();
    room.server.kubectl_with(&args, &again.to_string()).ok();
    assert_eq!(room.get("plan", "wave")["status"]["vms"][0]["host"], "esx1.example.com");

    let count = |server: &VCenter| server.stats()["sessions_made"].as_u64().unwrap();
    let before = count(&vcenter);
    let mut pod = kubelet.start(&object);
    // By then virt-v2v has the VM's description, so libvirt has logged in.
    pod.until_log("Opening the source", SHORT);
    let about = described(&mut pod);
    let as_meant = about["transport"] == "https" && about["trust"] == "thumbprint";
    pod.check(as_meant, format_args!("{about}"));
    let asked = (count(&host), host.stats()["logins_failed"].clone());
    pod.check(asked.0 > 0 && asked.1 == 0, format_args!("the host was asked: {asked:?}"));
    assert_eq!(count(&vcenter), before, "the pod does not ask the vCenter");
}
