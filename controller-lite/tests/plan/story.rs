//! From a Plan to a VM, with CDI, and what is left when the Plan is deleted.

use crate::lab::{Answers, Controller, Room, address, ended, two_disks};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use v2v_pod_tests::e2e::apiserver::ApiServer;

pub const PENDING: &str = "conversion.v2v-pod.dev/pending-run-strategy";

fn state(path: &str) -> Option<String> {
    let state = json!({ "phase": "copy", "disks": [
        { "done_bytes": 1000, "rate_bytes_per_second": 10.5 }, { "done_bytes": 7 },
    ] });
    (path == "/state").then(|| state.to_string())
}

pub fn owners(object: &Value) -> Vec<&str> {
    let owners = object["metadata"]["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
    owners.iter().map(|o| o["kind"].as_str().unwrap()).collect()
}

#[test]
fn from_a_plan_to_a_vm() {
    let room = Room::new();
    let _controller = Controller::start(room.server, &room.namespace, &[]);
    room.plan(
        "wave",
        &[("web", 2)],
        &json!({
            "runStrategy": "Always",
            "storageMap": { "entries": [{
                "disk": { "index": 1 }, "volumeMode": "Block", "storageClass": "fast",
            }] },
        }),
    );
    room.until_vm("wave", "web", "Preflight");
    room.measured("wave", "web", &[1 << 30, 10_000_000]);

    let disk0 = room.provision("wave-web-disk-0");
    assert_eq!(disk0["spec"]["storage"]["resources"]["requests"]["storage"], "1024Mi");
    let disk1 = room.provision("wave-web-disk-1");
    assert_eq!(
        disk1["spec"]["storage"],
        json!({
            "resources": { "requests": { "storage": "10Mi" } },
            "storageClassName": "fast", "volumeMode": "Block",
        })
    );

    let pod = room.until("pod", "wave-web", Value::is_object);
    let main = &pod["spec"]["containers"][0];
    assert_eq!(main["volumeDevices"], json!([{ "name": "disk1", "devicePath": "/dev/block1" }]));
    assert_eq!(owners(&pod), ["Plan"]);
    room.until_gone("pod", "wave-web-measure");
    // The spec is fixed from now on.
    let change = r#"{"spec":{"vms":[{"name":"other","paths":["x"]}]}}"#;
    let refused = room.kubectl(&["patch", "plan", "wave", "--type=merge", "-p", change]).refused();
    assert!(refused.contains("the Plan has begun"), "{refused}");

    let ip = address();
    let _live = Answers::at(ip, 2113, state);
    room.runs("wave-web", ip);
    let copied = |plan: &Value| plan["status"]["vms"][0]["disks"][0]["copied"] == 1000;
    let plan = room.until("plan", "wave", copied);
    assert_eq!(plan["status"]["vms"][0]["disks"][0]["rate"], 10);
    assert_eq!(plan["status"]["phase"], "Running");

    let result = Answers::at(ip, 8080, two_disks);
    result.until_asked("POST /shutdown");
    // While the pod has the volumes, the VM does not run.
    let vm = room.get("virtualmachine", "web");
    assert_eq!(vm["spec"]["runStrategy"], "Halted");
    room.set_status("pod", "wave-web", &ended("Succeeded", 0, r#"{"outcome":"succeeded"}"#));

    let status = room.until_vm("wave", "web", "Succeeded");
    assert_eq!((&status["attempts"], &status["class"]), (&json!(1), &Value::Null));
    assert_eq!(status["disks"][1]["copied"], 10_000_000);
    let vm = room.get("virtualmachine", "web");
    assert_eq!(vm["spec"]["runStrategy"], "Always");
    assert_eq!(
        vm["spec"]["template"]["spec"]["volumes"][1],
        json!({ "name": "disk-1", "persistentVolumeClaim": { "claimName": "wave-web-disk-1" } })
    );
    let claim = room.get("pvc", "wave-web-disk-1");
    assert_eq!(owners(&claim), ["DataVolume", "VirtualMachine"]);
    assert_eq!(owners(&room.get("datavolume", "wave-web-disk-1")), ["VirtualMachine"]);
    assert_eq!(vm["metadata"]["annotations"][PENDING], Value::Null);
    let plan = room.until("plan", "wave", |p| p["status"]["phase"] == "Succeeded");
    assert_eq!(plan["status"]["succeeded"], 1);
    // What programs wait for, and what is in the disks.
    room.kubectl(&["wait", "--for=condition=Succeeded", "plan/wave", "--timeout=1s"]).ok();
    let waited = room.kubectl(&["wait", "--for=condition=Failed", "plan/wave", "--timeout=1s"]);
    assert!(!waited.success);
    let vm = &plan["status"]["vms"][0];
    assert_eq!(vm["guest"], json!({ "os": "linux", "product": "Debian 12", "osInfo": "debian12" }));
    assert_eq!(vm["warnings"], json!(["ServerNotVerified: it was not asked"]));
    assert_eq!(vm["warningCount"], 1);
    let conditions = vm["conditions"].as_array().unwrap();
    let of = |name: &str| conditions.iter().find(|c| c["type"] == name).unwrap();
    for (name, is) in
        [("Ready", "True"), ("Converted", "True"), ("Succeeded", "True"), ("Failed", "False")]
    {
        assert_eq!(of(name)["status"], is, "{name}");
    }
    assert_eq!(room.reasons(), ["ConversionStarted", "ConversionWarning", "Converted"]);

    room.kubectl(&["delete", "plan", "wave", "--wait=false"]).ok();
    room.until_gone("plan", "wave");
    assert!(room.get("virtualmachine", "web").is_object());
    assert!(room.get("pvc", "wave-web-disk-0").is_object());
    assert!(room.get("pod", "wave-web").is_null());
    assert!(room.reasons().contains(&"PlanDeleted".to_owned()));
    // The rights of deploy/ are enough.
    let refused = room.server.refused_to("v2v-pod-system", "controller-lite", &room.namespace);
    assert!(refused.is_empty(), "{refused:#?}");
}

/// On a cluster to which KubeVirt comes late, and CDI not at all.
#[test]
fn without_cdi_claims_are_made() {
    let server: &'static ApiServer = Box::leak(Box::new(ApiServer::bare()));
    let apply = |file| server.kubectl(&["apply", "--server-side", "-f", file]).ok();
    let established =
        || server.kubectl(&["wait", "--for=condition=Established", "crd", "--all"]).ok();
    apply("deploy/crds.yaml");
    established();
    let room = Room::on(server);
    let _controller = Controller::start(server, &room.namespace, &[]);
    room.plan(
        "wave",
        &[("web", 2)],
        &json!({
            "storageMap": { "entries": [{ "disk": { "index": 1 }, "volumeMode": "Block" }] },
        }),
    );
    let plan = room.until("plan", "wave", |p| p["status"]["vms"][0]["class"] == "config");
    assert!(plan["status"]["message"].as_str().unwrap().ends_with("install KubeVirt"));
    apply("tests/lab/crds/kubevirt-virtualmachine-crd.yaml");
    established();
    // A change of the Plan makes the controller look at once.
    room.kubectl(&["annotate", "plan", "wave", "look=again"]).ok();
    room.measured("wave", "web", &[9 << 20, 9 << 20]);
    let request = |name| {
        room.until("pvc", name, Value::is_object)["spec"]["resources"]["requests"]["storage"]
            .clone()
    };
    assert_eq!(request("wave-web-disk-0"), "10Mi", "with the overhead of a file system");
    assert_eq!(request("wave-web-disk-1"), "9Mi");
    let pod = room.until("pod", "wave-web", Value::is_object);
    let devices = &pod["spec"]["containers"][0]["volumeDevices"];
    assert_eq!(devices, &json!([{ "name": "disk1", "devicePath": "/dev/block1" }]));
    let ip = address();
    let result = Answers::at(ip, 8080, two_disks);
    room.runs("wave-web", ip);
    result.until_asked("POST /shutdown");
    room.set_status("pod", "wave-web", &ended("Succeeded", 0, ""));
    room.until_vm("wave", "web", "Succeeded");
    assert_eq!(owners(&room.get("pvc", "wave-web-disk-0")), ["VirtualMachine"]);
}

/// The controller is killed again and again, at other moments each time, while the cluster goes on.
#[test]
fn kill_nine_at_any_moment() {
    let room = Room::new();
    room.plan("wave", &[("web", 1)], &json!({ "runStrategy": "Halted" }));
    let ip = address();
    let (mut pods, mut answers) = (Vec::new(), None);
    let begin = Instant::now();
    for number in 0_u64.. {
        // Under the same name it need not wait for its own lease.
        let controller = Controller::start(room.server, &room.namespace, &["--identity", "me"]);
        std::thread::sleep(Duration::from_millis(150 + number * 137 % 900));
        controller.kill();
        let plan = room.get("plan", "wave");
        if plan["status"]["phase"] == "Succeeded" {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(240), "{plan:#}");
        cluster(&room, ip, &mut answers, &mut pods);
    }
    assert_eq!(pods.len(), 1, "one pod, once: {pods:?}");
    assert_eq!(room.reasons(), ["ConversionStarted", "Converted"]);
    let vm = room.get("virtualmachine", "web");
    assert_eq!(vm["metadata"]["annotations"][PENDING], Value::Null, "handed over");
    assert_eq!(owners(&room.get("pvc", "wave-web-disk-0")), ["DataVolume", "VirtualMachine"]);
}

/// What kubelet and CDI would do about what is there now.
pub fn cluster(
    room: &Room,
    ip: std::net::Ipv4Addr,
    answers: &mut Option<Answers>,
    pods: &mut Vec<String>,
) {
    let phase = |pod: &Value| pod["status"]["phase"].as_str().unwrap_or_default().to_owned();
    let measure = room.get("pod", "wave-web-measure");
    if measure.is_object() && phase(&measure) == "Pending" {
        room.measured("wave", "web", &[1 << 30]);
    }
    if room.get("datavolume", "wave-web-disk-0").is_object()
        && room.get("pvc", "wave-web-disk-0").is_null()
    {
        room.provision("wave-web-disk-0");
    }
    let pod = room.get("pod", "wave-web");
    let Some(uid) = pod["metadata"]["uid"].as_str() else { return };
    if !pods.iter().any(|known| known == uid) {
        pods.push(uid.to_owned());
    }
    match phase(&pod).as_str() {
        "Pending" => room.runs("wave-web", ip),
        "Running" => {
            let answers =
                answers.get_or_insert_with(|| Answers::at(ip, 8080, crate::lab::one_disk));
            if answers.asked().iter().any(|a| a == "POST /shutdown") {
                assert!(room.get("virtualmachine", "web").is_object(), "the result was taken");
                room.set_status("pod", "wave-web", &ended("Succeeded", 0, ""));
            }
        }
        _ => {}
    }
}
