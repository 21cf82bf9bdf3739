//! Tests of [`super`].

use super::*;
use crate::inventory::a_vm;
use serde_json::{Value, json};

const PIN: &str = "AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD";

fn plan() -> Plan {
    serde_json::from_value(json!({
        "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Plan", "metadata": {"name": "p", "namespace": "lab"},
        "spec": {"providerRef": {"name": "vc"}, "vms": [{"name": "web/1", "targetName": "web"}], "transport": "https"},
    }))
    .unwrap()
}

fn provider(more: &Value) -> Provider {
    let mut spec = json!({"type": "vsphere", "url": "https://vc.example.com/sdk", "secretRef": {"name": "vc"}});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Provider", "metadata": {"name": "vc", "namespace": "lab"},
        "spec": spec,
    }))
    .unwrap()
}

fn secret(data: &[(&str, &str)]) -> Secret {
    let mut secret = Secret::default();
    secret.metadata.name = Some("vc".to_owned());
    let bytes = |text: &str| k8s_openapi::ByteString(text.as_bytes().to_vec());
    secret.data = Some(data.iter().map(|(k, v)| ((*k).to_owned(), bytes(v))).collect());
    secret
}

fn found(vm: SourceVm, provider: &Provider) -> Result<Guest, Failure> {
    let inventory = Inventory {
        product: String::new(),
        kind: inv::ServerKind::VCenter,
        vms: vec![vm],
        unreadable: Vec::new(),
    };
    let server = "https://vc.example.com".parse().unwrap();
    let fetched = Fetched { inventory, server, user: "me@vsphere.local".to_owned() };
    let plan = plan();
    guest(&fetched, &plan, provider, &plan.spec.vms[0])
}

#[test]
fn a_vm_becomes_what_the_pod_wants() {
    let mut vm = a_vm();
    vm.nics = vec![
        inv::SourceNic {
            mac: Some("00:50:56:aa:bb:01".to_owned()),
            network: Some("LAN".to_owned()),
        },
        inv::SourceNic { mac: None, network: None },
    ];
    let guest =
        found(vm, &provider(&json!({"trust": {"mode": "thumbprint", "thumbprint": PIN}}))).unwrap();
    let Source::VSphere(source) = &guest.source else { panic!("{:?}", guest.source) };
    assert_eq!(source.url, "vpx://me%40vsphere.local@vc.example.com/DC/C/h1");
    assert_eq!((source.name.as_str(), source.moref.as_deref()), ("web/1", Some("vm-21")));
    assert_eq!((source.trust.as_str(), source.transport.as_str()), ("thumbprint", "https"));
    assert_eq!(source.thumbprint.as_deref(), Some(PIN));
    assert_eq!(guest.disks, [GuestDisk { bytes: 1 << 20, datastore: Some("ds 1".to_owned()) }]);
    assert_eq!((guest.facts.nics.len(), guest.host.as_deref()), (1, Some("h1")));
}

#[test]
fn what_cannot_be_converted_is_said_before_anything_is_made() {
    let plain = provider(&json!({}));
    let running = SourceVm { power: Power::On, ..a_vm() };
    assert_eq!(found(running, &plain).unwrap_err().class, "source-busy");
    let snapshots = SourceVm { snapshots: true, ..a_vm() };
    assert!(found(snapshots.clone(), &plain).unwrap_err().message.contains("snapshots"));
    let mut independent = snapshots;
    independent.disks[0].independent = true;
    assert!(found(independent, &plain).is_ok());
    let mut unseen = a_vm();
    unseen.disks[0].seen = false;
    assert!(found(unseen, &plain).unwrap_err().message.contains("does not see"));
    let other = SourceVm { name: "other".to_owned(), ..a_vm() };
    assert_eq!(found(other, &plain).unwrap_err().class, "not-found");
}

#[test]
fn a_host_with_a_secret_of_its_own_is_asked_itself() {
    let host = json!({"name": "h1", "url": "esx://10.0.0.1", "secretRef": {"name": "h1"}});
    let mut pinned = host.clone();
    pinned["thumbprint"] = json!(PIN);
    let credentials = secret(&[("accessKeyId", "root"), ("secretKey", "hunter2")]);
    for (host, mode, trust) in [
        (&host, "auto", "ca"),
        (&host, "insecure", "insecure"),
        (&pinned, "auto", "thumbprint"),
        (&pinned, "insecure", "insecure"),
    ] {
        let provider = provider(&json!({"hosts": [host], "trust": {"mode": mode}}));
        let mut guest = found(a_vm(), &provider).unwrap();
        let host = &provider.spec.hosts.as_ref().unwrap()[0];
        by_host(&mut guest, &provider, host, &credentials).unwrap();
        assert_eq!(guest.secret.as_deref(), Some("h1"));
        let Source::VSphere(vm) = &guest.source else { panic!("{:?}", guest.source) };
        assert_eq!((vm.url.as_str(), vm.trust.as_str()), ("esx://root@10.0.0.1", trust));
        assert_eq!((vm.moref.as_ref(), vm.thumbprint.is_some()), (None, host.thumbprint.is_some()));
        assert!(by_host(&mut guest, &provider, host, &secret(&[("accessKeyId", "root")])).is_err());
    }
}

#[test]
fn the_secret_and_the_trust() {
    let full = [("accessKeyId", "me\n"), ("secretKey", "hunter2\n"), ("cacert", "pem")];
    let pem = Some(b"pem".to_vec());
    let pin = PIN.parse().unwrap();
    for (trust, expected) in [
        (json!({}), Trust::Ca { pem: pem.clone(), pin: None }),
        (json!({"mode": "ca", "thumbprint": PIN}), Trust::Ca { pem: pem.clone(), pin: None }),
        (json!({"thumbprint": PIN}), Trust::Ca { pem, pin: Some(pin) }),
        (json!({"mode": "thumbprint", "thumbprint": PIN}), Trust::Thumbprint(pin)),
        (json!({"mode": "insecure"}), Trust::Insecure),
    ] {
        let source = source(&provider(&json!({"trust": trust})), &secret(&full)).unwrap();
        assert_eq!((source.user.as_str(), source.trust), ("me", expected), "{trust}");
        assert!(!format!("{:?}", source.password).contains("hunter2"));
    }
    for missing in [&full[..1], &full[1..], &[("accessKeyId", "me"), ("secretKey", "\n")]] {
        let failure = source(&provider(&json!({})), &secret(missing)).unwrap_err();
        assert_eq!(failure.class, "config");
        assert!(!failure.to_string().contains("hunter2"));
    }
}

#[test]
fn what_was_made_anew_is_another_one() {
    let (mut provider, mut secret) = (provider(&json!({})), secret(&[]));
    let mut versions = vec![version(&provider, &secret)];
    for change in 0..4 {
        match change {
            0 => provider.metadata.uid = Some("a".to_owned()),
            1 => provider.metadata.generation = Some(2),
            2 => secret.metadata.uid = Some("b".to_owned()),
            _ => secret.metadata.resource_version = Some("7".to_owned()),
        }
        let version = version(&provider, &secret);
        assert!(!versions.contains(&version), "{change}");
        versions.push(version);
    }
}

#[test]
fn a_refused_password_is_not_tried_again_at_once() {
    let kept = |class: &str, age_s: u64| Kept {
        version: "1/2".to_owned(),
        at: Instant::now().checked_sub(Duration::from_secs(age_s)).unwrap(),
        result: Err(Failure::lasting(class, "", "")),
    };
    assert!(kept("auth", 120).holds("1/2") && !kept("auth", 120).holds("1/3"));
    assert!(kept("network", 30).holds("1/2") && !kept("network", 120).holds("1/2"));
}
