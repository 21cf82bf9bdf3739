//! Others write to the same objects, between a look of the controller and its write.

use crate::gate::{Gate, Then, When};
use crate::lab::{Answers, Controller, Room, address, ended, one_disk};
use crate::story::owners;
use serde_json::{Value, json};
use std::sync::Mutex;

/// What somebody does with `kubectl`.
type Edit = Box<dyn Fn(&Room) + Send>;

/// Does each of these once, just before the write.
fn gate_with(room: &Room, edits: Vec<(&'static str, Edit)>) -> Gate {
    let there = Room { server: room.server, namespace: room.namespace.clone() };
    let edits = Mutex::new(edits);
    Gate::new(room, move |when, write| {
        let mut edits = edits.lock().unwrap();
        let at = edits.iter().position(|(of, _)| when == When::Before && *of == write);
        if let Some(at) = at {
            edits.remove(at).1(&there);
        }
        Then::Go
    })
}

fn annotate(kind: &'static str, name: &'static str) -> Edit {
    Box::new(move |room: &Room| {
        room.kubectl(&["annotate", kind, name, "example.com/team=blue"]).ok();
    })
}

#[test]
fn what_others_write_in_between_is_kept() {
    let room = Room::new();
    let gate = gate_with(
        &room,
        vec![
            ("PATCH plans wave", annotate("plan", "wave")),
            (
                "PATCH plans/status wave",
                Box::new(|room: &Room| {
                    let more = r#"{"spec":{"limits":{"vms":7}}}"#;
                    room.kubectl(&["patch", "plan", "wave", "--type=merge", "-p", more]).ok();
                }),
            ),
            ("PATCH datavolumes wave-web-disk-0", annotate("datavolume", "wave-web-disk-0")),
            ("PATCH persistentvolumeclaims wave-web-disk-0", annotate("pvc", "wave-web-disk-0")),
            (
                "PATCH virtualmachines web",
                Box::new(|room: &Room| {
                    let more =
                        r#"{"spec":{"template":{"spec":{"domain":{"memory":{"guest":"4Gi"}}}}}}"#;
                    room.kubectl(&["patch", "vm", "web", "--type=merge", "-p", more]).ok();
                }),
            ),
        ],
    );
    let controller = gate.controller(&room, &[]);
    room.plan("wave", &[("web", 1)], &json!({ "runStrategy": "Always" }));
    room.measured("wave", "web", &[1 << 20]);
    room.provision("wave-web-disk-0");
    room.until("pod", "wave-web", Value::is_object);
    let ip = address();
    room.runs("wave-web", ip);
    let result = Answers::at(ip, 8080, one_disk);
    result.until_asked("POST /shutdown");
    room.set_status("pod", "wave-web", &ended("Succeeded", 0, ""));
    room.until_vm("wave", "web", "Succeeded");

    for (kind, name) in
        [("plan", "wave"), ("datavolume", "wave-web-disk-0"), ("pvc", "wave-web-disk-0")]
    {
        let annotations = room.get(kind, name)["metadata"]["annotations"].clone();
        assert_eq!(annotations["example.com/team"], "blue", "{kind}");
    }
    assert_eq!(room.get("plan", "wave")["spec"]["limits"]["vms"], 7);
    let vm = room.get("vm", "web");
    assert_eq!(vm["spec"]["template"]["spec"]["domain"]["memory"]["guest"], "4Gi");
    assert_eq!(vm["spec"]["runStrategy"], "Always");
    assert_eq!(owners(&room.get("pvc", "wave-web-disk-0")), ["DataVolume", "VirtualMachine"]);
    let refused = controller.log().matches("the object has been modified").count();
    assert!(refused >= 3, "volumes and VM were refused once: {refused}");
    assert_eq!(room.reasons(), ["ConversionStarted", "Converted"]);
}

/// The controller dies when it has handed the VM over, and does not know that it has.
#[test]
fn a_vm_that_its_user_changes_at_once_stays_as_it_is() {
    let room = Room::new();
    let there = Room { server: room.server, namespace: room.namespace.clone() };
    let gate = Gate::new(&room, move |when, write| {
        if when == When::Before || write != "PATCH virtualmachines web" {
            return Then::Go;
        }
        let change = r#"{"metadata":{"labels":null},"spec":{"runStrategy":"Manual"}}"#;
        there.kubectl(&["patch", "vm", "web", "--type=merge", "-p", change]).ok();
        there.kubectl(&["annotate", "pvc", "wave-web-disk-0", "mine=1"]).ok();
        Then::Kill
    });
    room.plan("wave", &[("web", 1)], &json!({ "runStrategy": "Always" }));
    let mut controller = gate.controller(&room, &["--identity", "me"]);
    room.measured("wave", "web", &[1 << 20]);
    room.provision("wave-web-disk-0");
    room.until("pod", "wave-web", Value::is_object);
    let ip = address();
    room.runs("wave-web", ip);
    let result = Answers::at(ip, 8080, one_disk);
    result.until_asked("POST /shutdown");
    room.set_status("pod", "wave-web", &ended("Succeeded", 0, ""));
    let vm = room.until("vm", "web", |vm| vm["spec"]["runStrategy"] == "Manual");
    while controller.ended().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let claim = room.get("pvc", "wave-web-disk-0");
    let _controller = Controller::start(room.server, &room.namespace, &["--identity", "me"]);
    room.until("plan", "wave", |plan| plan["status"]["endTime"].is_string());
    for (kind, name, before) in [("vm", "web", vm), ("pvc", "wave-web-disk-0", claim)] {
        assert_eq!(room.get(kind, name), before, "{kind}");
    }
}

/// Somebody else takes a name after the controller has seen that it is free.
#[test]
fn a_name_that_is_taken_in_between_is_not_ours() {
    let room = Room::new();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "wave-a" },
        "spec": { "containers": [{ "name": "x", "image": "x" }] },
    });
    let volume = json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume",
        "metadata": { "name": "wave-b-disk-0" },
        "spec": { "source": { "blank": {} }, "storage": { "resources": { "requests": { "storage": "1Gi" } } } },
    });
    let vm = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": { "name": "c" },
        "spec": { "runStrategy": "Halted", "template": { "spec": { "domain": { "devices": {} } } } },
    });
    let make = |object: &Value| -> Edit {
        let object = object.clone();
        Box::new(move |room: &Room| room.apply(&object))
    };
    let gate = gate_with(
        &room,
        vec![
            ("POST pods wave-a", make(&pod)),
            ("POST datavolumes wave-b-disk-0", make(&volume)),
            ("POST virtualmachines c", make(&vm)),
        ],
    );
    let _controller = gate.controller(&room, &[]);
    room.plan("wave", &[("a", 1), ("b", 1), ("c", 1)], &json!({}));
    for vm in ["a", "b", "c"] {
        room.measured("wave", vm, &[1 << 20]);
    }
    for volume in ["wave-a-disk-0", "wave-c-disk-0"] {
        room.provision(volume);
    }
    let failed = room.until_vm("wave", "a", "Failed");
    assert!(failed["message"].as_str().unwrap().contains("a pod wave-a is there already"));
    let says = |vm: &'static str, words: &'static str| {
        move |plan: &Value| {
            let vms = plan["status"]["vms"].as_array().cloned().unwrap_or_default();
            let found = vms.into_iter().find(|v| v["name"] == vm).unwrap_or_default();
            found["message"].as_str().is_some_and(|message| message.contains(words))
        }
    };
    room.until("plan", "wave", says("b", "wave-b-disk-0 is there already"));
    let ip = address();
    room.until("pod", "wave-c", Value::is_object);
    room.runs("wave-c", ip);
    let result = Answers::at(ip, 8080, one_disk);
    room.until("plan", "wave", says("c", "a VirtualMachine of this name is there already"));
    assert!(result.asked().iter().all(|a| a != "POST /shutdown"), "the result is kept");
    for (kind, theirs) in [("pod", &pod), ("datavolume", &volume), ("vm", &vm)] {
        let found = room.get(kind, theirs["metadata"]["name"].as_str().unwrap());
        let meta = &found["metadata"];
        assert!(meta["labels"].is_null() && meta["ownerReferences"].is_null(), "{found:#}");
    }
    // When it is free again, the work goes on: with the result that is there.
    room.kubectl(&["delete", "vm", "c"]).ok();
    room.kubectl(&["annotate", "plan", "wave", "look=again"]).ok();
    result.until_asked("POST /shutdown");
    room.set_status("pod", "wave-c", &ended("Succeeded", 0, ""));
    room.until_vm("wave", "c", "Succeeded");
}
