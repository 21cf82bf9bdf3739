//! Disks that are copied first: the journal outlives the pods.

use crate::lab::{Answers, Controller, Room, address, ended, one_disk};
use serde_json::{Value, json};

const JOURNAL: &str = "wave-web-journal";

fn journal_of(pod: &Value) -> Option<&str> {
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let volume = volumes.iter().find(|v| v["name"] == "journal")?;
    volume["persistentVolumeClaim"]["claimName"].as_str()
}

fn variable<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    env.iter().find(|e| e["name"] == name)?["value"].as_str()
}

/// As the controller of claims, which lets one go that is deleted and that no pod has.
fn unprotected(room: &Room, name: &str) {
    let leaving = |claim: &Value| claim["metadata"]["deletionTimestamp"].is_string();
    room.until("pvc", name, leaving);
    let patch = r#"{"metadata":{"finalizers":null}}"#;
    room.kubectl(&["patch", "pvc", name, "--type=merge", "-p", patch]).ok();
    room.until_gone("pvc", name);
}

#[test]
fn a_later_try_has_the_journals_of_the_first() {
    let room = Room::new();
    let _controller = Controller::start(room.server, &room.namespace, &["--retry-delay", "1"]);
    let map = json!({ "default": { "storageClass": "fast", "volumeMode": "Block" } });
    room.plan("wave", &[("web", 1)], &json!({ "strategy": "copyFirst", "storageMap": map }));
    room.measured("wave", "web", &[1 << 20]);
    room.provision("wave-web-disk-0");
    let journal = room.until("pvc", JOURNAL, Value::is_object);
    assert_eq!(journal["spec"]["volumeMode"], "Filesystem");
    assert_eq!(journal["spec"]["storageClassName"], "fast");
    let is_try = |n: &'static str| {
        move |pod: &Value| pod["metadata"]["labels"]["conversion.v2v-pod.dev/attempt"] == n
    };
    let first = room.until("pod", "wave-web", is_try("1"));
    assert_eq!(journal_of(&first), Some(JOURNAL));
    assert_eq!(variable(&first, "V2V_copyFirst"), Some("true"));
    let ip = address();
    room.runs("wave-web", ip);
    let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": "disk pressure" });
    room.set_status("pod", "wave-web", &evicted);
    let second = room.until("pod", "wave-web", is_try("2"));
    assert_eq!(journal_of(&second), Some(JOURNAL));
    let uid = |object: &Value| object["metadata"]["uid"].clone();
    assert_eq!(uid(&room.get("pvc", JOURNAL)), uid(&journal), "the same one");

    let result = Answers::at(ip, 8080, one_disk);
    room.runs("wave-web", ip);
    result.until_asked("POST /shutdown");
    room.set_status("pod", "wave-web", &ended("Succeeded", 0, ""));
    room.until_vm("wave", "web", "Succeeded");
    unprotected(&room, JOURNAL);
    assert!(room.get("pvc", "wave-web-disk-0")["metadata"]["deletionTimestamp"].is_null());
}

#[test]
fn somebody_elses_journal_is_left_alone_and_a_plan_takes_its_own_along() {
    let room = Room::new();
    let _controller = Controller::start(room.server, &room.namespace, &[]);
    let theirs = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "wave-b-journal" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
    });
    room.apply(&theirs);
    room.plan("wave", &[("a", 1), ("b", 1)], &json!({ "strategy": "copyFirst" }));
    for vm in ["a", "b"] {
        room.measured("wave", vm, &[1 << 20]);
    }
    let failed = room.until_vm("wave", "b", "Failed");
    let message = failed["message"].as_str().unwrap();
    assert!(message.starts_with("a volume wave-b-journal is there already"), "{message}");
    room.until("pvc", "wave-a-journal", Value::is_object);
    room.kubectl(&["delete", "plan", "wave", "--wait=false"]).ok();
    unprotected(&room, "wave-a-journal");
    room.until_gone("plan", "wave");
    assert!(room.get("pvc", "wave-b-journal").is_object());
}
