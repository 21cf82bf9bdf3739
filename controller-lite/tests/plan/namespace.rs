//! A namespace is deleted while a Plan works in it. No namespace controller runs beside the API
//! server: the test does its work, in the order that is worst for the controller.

use crate::lab::{Controller, Room, address};
use serde_json::{Value, json};

/// As the namespace controller does it: all objects of a kind are deleted, in one request each.
fn delete_all(room: &Room, kinds: &[&str]) {
    for kind in kinds {
        room.kubectl(&["delete", kind, "--all", "--wait=false", "--now"]).ok();
    }
}

/// As the controller of claims.
fn unprotect(room: &Room) {
    for claim in room.list("pvc") {
        let name = claim["metadata"]["name"].as_str().unwrap();
        let patch = r#"{"metadata":{"finalizers":null}}"#;
        room.kubectl(&["patch", "pvc", name, "--type=merge", "-p", patch]);
    }
}

fn goes(rights_first: bool) {
    let room = Room::new();
    let home = room.server.namespace();
    let _controller = Controller::start_from(&home, room.server, &room.namespace, &[]);
    room.plan("wave", &[("web", 1)], &json!({}));
    room.measured("wave", "web", &[1 << 20]);
    room.provision("wave-web-disk-0");
    room.until("pod", "wave-web", Value::is_object);
    room.runs("wave-web", address());
    room.until_vm("wave", "web", "Converting");

    room.server.kubectl(&["delete", "namespace", &room.namespace, "--wait=false"]).ok();
    let rights = ["rolebindings"];
    if rights_first {
        delete_all(&room, &rights);
    }
    // Its objects go one after the other; the controller sees that, and can make nothing anew.
    delete_all(&room, &["pods", "datavolumes", "pvc", "secrets", "providers"]);
    unprotect(&room);
    room.kubectl(&["annotate", "plan", "wave", "look=again"]).ok();
    room.until("plan", "wave", |plan| plan["metadata"]["annotations"]["look"] == "again");
    delete_all(&room, &["plans"]);
    room.until_gone("plan", "wave");
    delete_all(&room, &rights);
    for kind in ["pods", "datavolumes", "pvc", "virtualmachines", "plans"] {
        assert_eq!(room.list(kind), [] as [Value; 0], "{kind}");
    }
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": room.namespace },
        "spec": { "finalizers": [] },
    });
    let path = format!("/api/v1/namespaces/{}/finalize", room.namespace);
    let args = ["replace", "--raw", &path, "-f", "-"];
    room.server.kubectl_with(&args, &namespace.to_string()).ok();
    let gone = room.server.kubectl(&["get", "namespace", &room.namespace]).refused();
    assert!(gone.contains("not found"), "{gone}");
}

#[test]
fn a_plan_does_not_keep_its_namespace() {
    goes(false);
}

#[test]
fn nor_when_the_controllers_rights_go_first() {
    goes(true);
}
