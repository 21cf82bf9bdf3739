//! Every object that the builders make, in many forms, judged by the API server with unknown fields refused.

use crate::lab::Room;
use controller_lite::objects::event::{Told, event};
use controller_lite::objects::outcome::Outcome;
use controller_lite::objects::pod::{Conversion, Disk};
use controller_lite::objects::size::Overhead;
use controller_lite::objects::source::{FilePath, Source, VSphere};
use controller_lite::objects::vm::{Facts, Machine, Network, NetworkMap};
use controller_lite::objects::volume::{Mode, Placement, Volume};
use controller_lite::objects::{Origin, journal};
use controller_lite::reconcile::measure;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

fn origin(namespace: &str) -> Origin {
    Origin {
        plan: "wave.1".into(),
        plan_namespace: namespace.into(),
        plan_uid: "5f0c9c36-0000-4000-8000-000000000001".into(),
        namespace: namespace.into(),
        vm: "w".repeat(63),
    }
}

fn judge(room: &Room, object: &Value) {
    let args = [
        "-n",
        &room.namespace,
        "create",
        "--dry-run=server",
        "--validate=strict",
        "-o",
        "json",
        "-f",
        "-",
    ];
    room.server.kubectl_with(&args, &object.to_string()).ok();
}

#[test]
fn volumes() {
    let room = Room::new();
    let origin = origin(&room.namespace);
    for mode in [None, Some(Mode::Block), Some(Mode::Filesystem)] {
        for (class, access) in [(None, None), (Some("fast"), Some("ReadWriteMany"))] {
            let placement = Placement {
                class: class.map(str::to_owned),
                access: access.map(str::to_owned),
                mode,
            };
            let volume =
                Volume { origin: &origin, index: 255, disk_bytes: 12_345, placement: &placement };
            judge(
                &room,
                &json!(volume.claim(Overhead::DEFAULT)).with("v1", "PersistentVolumeClaim"),
            );
            judge(&room, &volume.data_volume());
            let journal = journal::claim(&origin, class);
            judge(&room, &json!(journal).with("v1", "PersistentVolumeClaim"));
        }
    }
}

/// k8s-openapi writes no type into its objects.
trait WithType {
    fn with(self, version: &str, kind: &str) -> Value;
}

impl WithType for Value {
    fn with(mut self, version: &str, kind: &str) -> Value {
        self["apiVersion"] = json!(version);
        self["kind"] = json!(kind);
        self
    }
}

#[test]
fn pods_even_under_the_restricted_standard() {
    let room = Room::new();
    let label = "pod-security.kubernetes.io/enforce=restricted";
    room.server.kubectl(&["label", "namespace", &room.namespace, label]).ok();
    let origin = origin(&room.namespace);
    let path = || FilePath::parse("a/b.img").unwrap();
    let vm = VSphere {
        url: "vpx://a%40b@vc/DC/c/h".into(),
        name: "x".into(),
        uuid: Some("u".into()),
        moref: Some("vm-1".into()),
        trust: "ca".into(),
        thumbprint: Some("AA".into()),
        transport: "auto".into(),
    };
    let sources = [
        Source::VSphere(vm),
        Source::Ova { claim: "ovas".into(), path: path(), name: "x".into() },
        Source::Disk { claim: "images".into(), paths: vec![path(), path()], name: "$(x)".into() },
        Source::Xen {
            url: "xen+ssh://h".into(),
            name: "x".into(),
            trust: "auto".into(),
            thumbprint: None,
            legacy: true,
        },
    ];
    let disks: Vec<Disk> = (0..30)
        .map(|n| Disk {
            claim: origin.claim_name(n),
            mode: if n % 2 == 0 { Mode::Block } else { Mode::Filesystem },
        })
        .collect();
    let (facts, limits) = (
        Facts::default(),
        serde_json::from_value(json!({ "limits": { "memory": "1Gi" } })).unwrap(),
    );
    for source in &sources {
        for (kvm, vddk_image, secret, resources, journal) in [
            (true, Some("vddk:8"), Some("s"), None, None),
            (false, None, None, Some(&limits), Some("j")),
        ] {
            let conversion = Conversion {
                origin: &origin,
                attempt: 1,
                image: "v2v-pod:1",
                source,
                secret,
                disks: &disks,
                journal,
                vddk_image,
                kvm,
                resources,
                facts: &facts,
            };
            judge(&room, &json!(conversion.pod()).with("v1", "Pod"));
            judge(&room, &json!(measure::pod(&conversion)).with("v1", "Pod"));
        }
    }
}

#[test]
fn machines_and_events() {
    let room = Room::new();
    let origin = origin(&room.namespace);
    let multus = Network::Multus("net/vlan10".into());
    for network in [Network::Pod, multus, Network::Ignored] {
        for run_strategy in ["Halted", "Always", "RerunOnFailure", "Manual"] {
            let machine = Machine {
                origin: &origin,
                claims: &[origin.claim_name(0), origin.claim_name(1)],
                networks: &NetworkMap { entries: vec![], default: Some(network.clone()) },
                facts: &Facts {
                    uuid: Some("4216a2b0-0000-4000-8000-000000000001".into()),
                    nics: vec![],
                },
                outcome: &Outcome::default(),
                run_strategy,
            };
            judge(&room, &machine.build(&crate::lab::two_disks("/vm").unwrap()).unwrap());
        }
    }
    let told = Told { reason: "Converted", note: "x".repeat(5000), warning: true, attempt: 1 };
    let object = json!(event(&origin, &told, Timestamp::now(), &"i".repeat(300)));
    judge(&room, &object.with("events.k8s.io/v1", "Event"));
}
