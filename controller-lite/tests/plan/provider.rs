//! What is said of Providers.

use crate::lab::{Controller, Room};
use serde_json::{Value, json};
use std::fs;
use v2v_pod_tests::e2e::vcenter::{PASSWORD, USER, VCenter};

const VERSION: &str = "conversion.v2v-pod.dev/v1alpha1";

fn ready(provider: &Value) -> (Option<&str>, &str, &str) {
    let ready = &provider["status"]["conditions"][0];
    let word = |key: &str| ready[key].as_str().unwrap_or_default();
    (ready["status"].as_str(), word("reason"), word("message"))
}

/// Waits until the condition has this reason.
#[track_caller]
fn until(room: &Room, name: &str, reason: &str) -> Value {
    room.until("provider", name, |provider| ready(provider).1 == reason)
}

/// Anything about the Provider makes the controller look again at once.
fn look_again(room: &Room, name: &str, time: &str) {
    let mark = format!("look={time}");
    room.kubectl(&["annotate", "--overwrite", "provider", name, &mark]).ok();
}

#[test]
fn of_files_the_volume_is_there_or_not() {
    let room = Room::new();
    let _controller = Controller::start(room.server, &room.namespace, &[]);
    let provider = until(&room, "files", "NotFound");
    assert_eq!(ready(&provider).0, Some("False"));
    assert!(ready(&provider).2.contains("there is no PersistentVolumeClaim images"));
    room.apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "images" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
    }));
    look_again(&room, "files", "1");
    assert_eq!(ready(&until(&room, "files", "NotBound")).0, Some("Unknown"));
    room.set_status("pvc", "images", &json!({ "phase": "Bound" }));
    look_again(&room, "files", "2");
    let provider = until(&room, "files", "Bound");
    assert_eq!(ready(&provider).0, Some("True"));
    assert_eq!(provider["status"]["observedGeneration"], 1);
    room.kubectl(&["wait", "--for=condition=Ready", "provider/files", "--timeout=1s"]).ok();
}

#[test]
fn of_a_vcenter_the_login_is_right_or_not() {
    let room = Room::new();
    let vcenter = VCenter::start(PASSWORD);
    let ca = fs::read_to_string(vcenter.ca()).unwrap();
    let secret = |password: &str| {
        room.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "vcenter" },
            "stringData": { "accessKeyId": USER, "secretKey": password, "cacert": ca },
        }));
    };
    room.apply(&json!({
        "apiVersion": VERSION, "kind": "Provider", "metadata": { "name": "vc" },
        "spec": {
            "type": "vsphere", "url": format!("https://localhost:{}/sdk", vcenter.port),
            "secretRef": { "name": "vcenter" }, "trust": { "mode": "ca" },
        },
    }));
    let _controller = Controller::start(room.server, &room.namespace, &[]);
    let provider = until(&room, "vc", "Config");
    assert!(ready(&provider).2.contains("there is no Secret vcenter"), "{provider:#}");

    secret("not the password");
    look_again(&room, "vc", "1");
    let provider = until(&room, "vc", "Auth");
    assert_eq!(ready(&provider).0, Some("False"));
    assert!(!provider.to_string().contains("not the password"));
    // Looked at again and again, it is not tried again: that would lock the user out.
    for time in ["2", "3"] {
        look_again(&room, "vc", time);
        std::thread::sleep(std::time::Duration::from_millis(700));
    }
    assert_eq!(vcenter.stats()["logins_failed"], 1);

    secret(PASSWORD);
    look_again(&room, "vc", "4");
    let provider = until(&room, "vc", "Answered");
    assert_eq!(ready(&provider).0, Some("True"));
    assert!(provider["status"]["vms"].as_u64() > Some(0), "{provider:#}");
    let columns = room.kubectl(&["get", "provider", "vc", "-o", "wide"]).ok();
    assert!(columns.contains("True") && columns.contains(" VMs"), "{columns}");
}

#[test]
fn of_a_xen_host_the_secret_has_what_a_pod_needs() {
    let room = Room::new();
    room.apply(&json!({
        "apiVersion": VERSION, "kind": "Provider", "metadata": { "name": "xen1" },
        "spec": {
            "type": "xen", "url": "xen+ssh://root@xen1.example.com/", "secretRef": { "name": "xen1" },
        },
    }));
    let secret = |data: Value| {
        room.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "xen1" }, "stringData": data,
        }));
    };
    secret(json!({ "secretKey": "x" }));
    let _controller = Controller::start(room.server, &room.namespace, &[]);
    let provider = until(&room, "xen1", "Config");
    assert!(ready(&provider).2.contains("no known_hosts"), "{provider:#}");
    secret(json!({ "secretKey": "x", "known_hosts": "xen1 ssh-ed25519 AAAA" }));
    look_again(&room, "xen1", "1");
    assert_eq!(ready(&until(&room, "xen1", "Configured")).0, Some("True"));
}
