//! Failures, retries, limits, and objects of others.

use crate::lab::{Controller, Room, address, ended, ended_now};
use serde_json::{Value, json};

fn failed(class: &str, code: i32, passing: bool) -> Value {
    let message = json!({ "outcome": "failed", "class": class, "exit_code": code,
        "message": "what happened", "advice": "what to do", "passing": passing });
    ended("Failed", code, &message.to_string())
}

#[test]
fn what_may_pass_is_tried_again_on_the_same_volumes() {
    let room = Room::new();
    let _controller = Controller::start(room.server, &room.namespace, &["--retry-delay", "1"]);
    room.plan("wave", &[("web", 1)], &json!({ "retries": 2 }));
    room.measured("wave", "web", &[1 << 20]);
    room.provision("wave-web-disk-0");
    let volume = room.get("pvc", "wave-web-disk-0")["metadata"]["uid"].clone();
    let is_try = |n: &'static str| {
        move |pod: &Value| pod["metadata"]["labels"]["conversion.v2v-pod.dev/attempt"] == n
    };
    let claims = |pod: &Value| {
        pod["spec"]["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|v| v["persistentVolumeClaim"]["claimName"].as_str().map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let first = room.until("pod", "wave-web", is_try("1"));
    room.runs("wave-web", address());
    room.set_status("pod", "wave-web", &failed("network", 23, true));
    let second = room.until("pod", "wave-web", is_try("2"));
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
    assert_eq!(claims(&first), claims(&second));
    // Evicted: nobody wrote a message.
    room.set_status(
        "pod",
        "wave-web",
        &json!({ "phase": "Failed", "reason": "Evicted", "message": "disk pressure" }),
    );
    room.until("pod", "wave-web", is_try("3"));
    room.set_status("pod", "wave-web", &failed("auth", 21, false));
    let status = room.until_vm("wave", "web", "Failed");
    assert_eq!((&status["class"], &status["attempts"]), (&json!("auth"), &json!(3)));
    assert_eq!(status["message"], "what happened; what to do");
    let plan = room.until("plan", "wave", |p| p["status"]["phase"] == "Failed");
    assert_eq!(plan["status"]["failed"], 1);
    let reasons = room.reasons();
    let count = |reason: &str| reasons.iter().filter(|r| *r == reason).count();
    assert_eq!((count("ConversionStarted"), count("ConversionFailed"), count("Failed")), (3, 2, 1));
    // Its pod stays for its log, its volume for nobody: both go with the Plan.
    assert_eq!(room.get("pvc", "wave-web-disk-0")["metadata"]["uid"], volume);
    room.kubectl(&["delete", "plan", "wave", "--wait=false"]).ok();
    room.until_gone("plan", "wave");
    for (kind, name) in [("pod", "wave-web"), ("datavolume", "wave-web-disk-0")] {
        assert!(room.get(kind, name).is_null(), "{kind} {name}");
    }
}

#[test]
fn a_wrong_path_is_said_before_anything_is_made() {
    let room = Room::new();
    let _controller = Controller::start(room.server, &room.namespace, &[]);
    room.plan("wave", &[("web", 1)], &json!({}));
    room.until("pod", "wave-web-measure", Value::is_object);
    let said = r#"{"class":"not-found","message":"no /source/web/0.img","advice":"look"}"#;
    room.set_status("pod", "wave-web-measure", &ended_now("Failed", 24, said));
    let plan = room.until("plan", "wave", |p| p["status"]["vms"][0]["class"] == "not-found");
    let message = plan["status"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("web: no /source/web/0.img; correct spec.vms[].paths"),
        "{message}"
    );
    assert!(room.list("datavolumes").is_empty());
    let ready = &plan["status"]["conditions"][0];
    assert_eq!(
        (&ready["type"], &ready["status"], &ready["reason"]),
        (&json!("Ready"), &json!("False"), &json!("NotFound"))
    );
    assert_eq!(plan["status"]["startTime"], Value::Null, "the Plan can still be corrected");
}

#[test]
fn limits_are_kept_and_others_objects_left_alone() {
    let room = Room::new();
    // Somebody's volume under the name of ours.
    room.apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "wave-c-disk-0" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
    }));
    let _controller = Controller::start(room.server, &room.namespace, &[]);
    room.plan("wave", &[("a", 1), ("b", 1), ("c", 1)], &json!({ "limits": { "vms": 1 } }));
    for vm in ["a", "b", "c"] {
        room.measured("wave", vm, &[1 << 20]);
    }
    room.provision("wave-a-disk-0");
    room.until("pod", "wave-a", Value::is_object);
    room.until_vm("wave", "a", "Converting");
    let waits = room.until_vm("wave", "b", "Pending");
    assert!(waits["message"].as_str().unwrap().contains("spec.limits"));
    assert!(
        room.get("pod", "wave-b").is_null() && room.get("datavolume", "wave-b-disk-0").is_null()
    );
    room.set_status("pod", "wave-a", &failed("auth", 21, false));
    room.provision("wave-b-disk-0");
    room.until("pod", "wave-b", Value::is_object);
    room.set_status("pod", "wave-b", &failed("auth", 21, false));
    let foreign = room.until_vm("wave", "c", "Failed");
    assert_eq!(foreign["class"], "config");
    room.kubectl(&["delete", "plan", "wave", "--wait=false"]).ok();
    room.until_gone("plan", "wave");
    let theirs = room.get("pvc", "wave-c-disk-0");
    assert_eq!(theirs["metadata"]["labels"], Value::Null);
}

#[test]
fn another_namespace_has_to_agree() {
    let room = Room::new();
    let other = room.server.namespace();
    room.server.kubeconfig_of_controller(&[&room.namespace, &other]);
    let _controller = Controller::start(room.server, &room.namespace, &[]);
    room.plan("wave", &[("web", 1)], &json!({ "targetNamespace": other }));
    let refused = room.until("plan", "wave", |p| p["status"]["vms"][0]["class"] == "config");
    assert!(refused["status"]["message"].as_str().unwrap().contains("takes no Plans"));
    let accepts = format!("conversion.v2v-pod.dev/accept-plans-from={}", room.namespace);
    room.server.kubectl(&["annotate", "namespace", &other, &accepts]).ok();
    // Anything about the Plan makes the controller look again at once.
    room.kubectl(&["annotate", "plan", "wave", "look=again"]).ok();
    let there = Room { server: room.server, namespace: other };
    // Nor do the claims there belong to whoever makes Providers here.
    room.until("plan", "wave", |p| {
        p["status"]["message"].as_str().is_some_and(|m| m.contains("sourceVolume images"))
    });
    assert!(there.get("pod", "wave-web-measure").is_null());
    room.kubectl(&["delete", "plan", "wave", "--wait=false"]).ok();
    room.until_gone("plan", "wave");
    assert!(there.get("pod", "wave-web-measure").is_null());
}
