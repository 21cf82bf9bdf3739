//! One whole conversion, of disk images.

use crate::kubelet::{Kubelet, Place, list};
use crate::lab::{Controller, Room};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use v2v_pod_tests::e2e::lab::{lab, root, turn};
use v2v_pod_tests::e2e::volume::{Scratch, must};

#[test]
fn a_guest_becomes_a_vm() {
    let (lab, _turn) = (lab(), turn());
    let (room, scratch) = (Room::new(), Scratch::new());
    let image = std::env::var("V2V_IMAGE").unwrap_or("localhost/v2v-pod:latest".to_owned());
    let _controller = Controller::start(room.server, &room.namespace, &["--image", &image]);
    let mut kubelet = Kubelet::new(&scratch);
    kubelet.claim("images", Place::ReadOnly(lab.guest.clone()));
    room.apply(&json!({
        "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Plan",
        "metadata": { "name": "wave" },
        "spec": {
            "providerRef": { "name": "files" },
            "vms": [{ "name": "web", "paths": ["boot.img", "data.img"] }],
            "storageMap": { "entries": [
                { "disk": { "index": 0 }, "volumeMode": "Block" },
                { "disk": { "index": 1 }, "volumeMode": "Filesystem" },
            ] },
            "runStrategy": "Always",
        },
    }));

    let pod = room.until("pod", "wave-web-measure", Value::is_object);
    assert_eq!(pod["spec"]["containers"][0]["image"], image);
    kubelet.run(&room, "wave-web-measure");

    let asked = room.provision("wave-web-disk-0")["spec"]["storage"]["resources"].clone();
    assert_eq!(asked["requests"]["storage"], "1536Mi");
    room.provision("wave-web-disk-1");
    kubelet.claim("wave-web-disk-0", Place::Block(scratch.block("disk0", 1536 << 20)));
    kubelet.claim("wave-web-disk-1", Place::Folder(scratch.folder("disk1")));
    kubelet.convert(&room, "wave", "web");

    let vm = room.get("virtualmachine", "web");
    assert_eq!(vm["spec"]["runStrategy"], "Always");
    assert_eq!(vm["metadata"]["labels"]["libguestfs.org/osinfo"], "debian12");
    let disks = &vm["spec"]["template"]["spec"]["domain"]["devices"]["disks"];
    assert_eq!((list(disks).len(), &disks[0]["bootOrder"]), (2, &json!(1)), "{vm:#}");
    let wanted = fs::read_to_string(lab.guest.join("data.sha256")).unwrap();
    let data = must(Command::new("sha256sum").arg(scratch.path("disk1/disk.img")));
    assert_eq!(data.split(' ').next(), wanted.split(' ').next());
    let Place::Block(boot) = &kubelet.claims["wave-web-disk-0"] else { panic!("a device") };
    must(Command::new(root().join("tests/lab/boot.sh")).arg(&boot.node).args(["--timeout", "600"]));
}
