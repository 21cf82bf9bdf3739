//! The controller is killed after each of its writes, and two controllers are at work at once.

use crate::gate::{Gate, Then, When};
use crate::lab::{Answers, Controller, PATIENCE, Room, address, ended, one_disk};
use crate::story::{PENDING, cluster, owners};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often it is killed at one kind of write: enough for each state of the Plan in which it is done.
const DEATHS: usize = 4;

/// Starts it again and again, until this is so.
fn through_deaths(room: &Room, gate: &Gate, mut is_done: impl FnMut() -> bool) {
    let begin = Instant::now();
    // Under the same name it need not wait for its own lease.
    let start = || gate.controller(room, &["--identity", "me"]);
    let mut controller = start();
    while !is_done() {
        assert!(begin.elapsed() < 2 * PATIENCE, "{:#}", room.get("plan", "wave"));
        if controller.ended().is_some() {
            controller = start();
        }
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// Every write is done, and the controller dies before it knows of it.
#[test]
fn it_may_be_killed_after_every_write() {
    let room = Room::new();
    let deaths = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let of = deaths.clone();
    let gate = Gate::new(&room, move |when, write| {
        let mut deaths = of.lock().unwrap();
        let so_far = deaths.entry(write.to_owned()).or_default();
        if when == When::Before || *so_far == DEATHS {
            return Then::Go;
        }
        *so_far += 1;
        Then::Kill
    });
    room.plan("wave", &[("web", 1)], &json!({ "runStrategy": "Always" }));
    let (ip, mut pods, mut answers) = (address(), Vec::new(), None);
    through_deaths(&room, &gate, || {
        cluster(&room, ip, &mut answers, &mut pods);
        room.get("plan", "wave")["status"]["phase"] == "Succeeded"
    });
    assert_eq!(pods.len(), 1, "one pod, once: {pods:?}");
    assert_eq!(room.reasons(), ["ConversionStarted", "Converted"]);
    let vm = room.get("virtualmachine", "web");
    assert_eq!(vm["metadata"]["annotations"][PENDING], Value::Null, "handed over");
    assert_eq!(vm["spec"]["runStrategy"], "Always");
    assert_eq!(owners(&room.get("pvc", "wave-web-disk-0")), ["DataVolume", "VirtualMachine"]);
    let status = &room.get("plan", "wave")["status"]["vms"][0];
    assert_eq!(status["attempts"], 1, "{status:#}");

    room.kubectl(&["delete", "plan", "wave", "--wait=false"]).ok();
    through_deaths(&room, &gate, || room.get("plan", "wave").is_null());
    assert!(room.get("virtualmachine", "web").is_object());
    assert!(room.get("pvc", "wave-web-disk-0").is_object());
    assert!(room.list("pods").is_empty());
    assert_eq!(room.reasons(), ["ConversionStarted", "Converted", "PlanDeleted"]);
    let deaths = deaths.lock().unwrap();
    for write in [
        "PATCH plans wave",
        "PATCH plans/status wave",
        "POST pods wave-web-measure",
        "POST datavolumes wave-web-disk-0",
        "POST pods wave-web",
        "POST virtualmachines web",
        "PATCH datavolumes wave-web-disk-0",
        "PATCH persistentvolumeclaims wave-web-disk-0",
        "PATCH virtualmachines web",
        "DELETE pods wave-web-measure",
        "DELETE pods wave-web",
        "POST events ConversionStarted",
        "POST events Converted",
        "POST events PlanDeleted",
    ] {
        assert!(deaths.contains_key(write), "it died after {write}: {deaths:#?}");
    }
}

/// Holds the first write of this name until it is let go.
struct Hold {
    held: Receiver<()>,
    go: Sender<()>,
}

impl Hold {
    fn new(room: &Room, wanted: &'static str) -> (Self, Gate) {
        let (says, held) = channel();
        let (go, waits) = channel();
        let once = Mutex::new(Some((says, waits)));
        let gate = Gate::new(room, move |when, write| {
            if when == When::Before && write == wanted {
                let mine: Option<(Sender<()>, Receiver<()>)> = once.lock().unwrap().take();
                if let Some((says, waits)) = mine {
                    says.send(()).unwrap();
                    let _ = waits.recv();
                }
            }
            Then::Go
        });
        (Self { held, go }, gate)
    }

    fn wait(&self) {
        self.held.recv_timeout(PATIENCE).unwrap();
    }
}

fn until_ended(controller: &mut Controller) -> Option<i32> {
    let begin = Instant::now();
    loop {
        if let Some(status) = controller.ended() {
            return status.code();
        }
        assert!(begin.elapsed() < PATIENCE, "{}", controller.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One controller is so slow that another one has its lease while its write is on the way.
#[test]
fn who_has_lost_the_lease_makes_nothing_twice() {
    let room = Room::new();
    let (hold, gate) = Hold::new(&room, "POST pods wave-web");
    room.plan("wave", &[("web", 1)], &json!({}));
    let mut first = gate.controller(&room, &["--identity", "first"]);
    room.measured("wave", "web", &[1 << 20]);
    room.provision("wave-web-disk-0");
    hold.wait();
    let steal = r#"{"spec":{"holderIdentity":"second"}}"#;
    room.kubectl(&["patch", "lease", "controller-lite", "--type=merge", "-p", steal]).ok();
    let _second = Controller::start(room.server, &room.namespace, &["--identity", "second"]);
    let made = room.until("pod", "wave-web", Value::is_object);
    hold.go.send(()).unwrap();
    // It gives up by itself, and does not take the lease along.
    assert_ne!(until_ended(&mut first), Some(0), "{}", first.log());
    assert_eq!(room.get("lease", "controller-lite")["spec"]["holderIdentity"], "second");
    let ip = address();
    room.runs("wave-web", ip);
    let result = Answers::at(ip, 8080, one_disk);
    result.until_asked("POST /shutdown");
    room.set_status("pod", "wave-web", &ended("Succeeded", 0, ""));
    room.until_vm("wave", "web", "Succeeded");
    assert_eq!(room.get("pod", "wave-web")["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(room.reasons(), ["ConversionStarted", "Converted"]);
}

/// A Plan is taken away and made anew while a status of the old one is on the way.
#[test]
fn a_plan_that_is_made_anew_begins_anew() {
    let room = Room::new();
    let (hold, gate) = Hold::new(&room, "PATCH plans/status wave");
    room.plan("wave", &[("web", 1)], &json!({ "limits": { "vms": 9 } }));
    let _controller = gate.controller(&room, &[]);
    hold.wait();
    let free = r#"{"metadata":{"finalizers":null}}"#;
    room.kubectl(&["patch", "plan", "wave", "--type=merge", "-p", free]).ok();
    room.kubectl(&["delete", "plan", "wave"]).ok();
    room.plan("wave", &[("other", 1)], &json!({}));
    let old = gate.writes();
    hold.go.send(()).unwrap();
    room.measured("wave", "other", &[1 << 20]);
    room.until("datavolume", "wave-other-disk-0", Value::is_object);
    assert!(old.iter().all(|write| !write.contains("plans/status")), "{old:?}");
    let statuses = gate.writes().into_iter().filter(|w| w.ends_with("PATCH plans/status wave"));
    let first = statuses.map(|w| w[..3].to_owned()).next();
    assert_eq!(first.as_deref(), Some("409"), "what was for the old Plan is refused");
}
