use super::super::origin;
use super::*;
use crate::objects::source::VSphere;
use serde_json::{Value, json};

fn vsphere() -> Source {
    Source::VSphere(VSphere {
        url: "vpx://admin@vc/DC/c1/esx1".into(),
        name: "Web $(HOME) 01".into(),
        uuid: Some("4216a2b0-0000-4000-8000-000000000001".into()),
        trust: "ca".into(),
        transport: "auto".into(),
        ..VSphere::default()
    })
}

fn build(change: impl FnOnce(&mut Conversion<'_>)) -> Value {
    let (origin, source, facts) = (origin(), vsphere(), Facts::default());
    let disks = [
        Disk { claim: "c0".into(), mode: Mode::Block },
        Disk { claim: "c1".into(), mode: Mode::Filesystem },
    ];
    let mut conversion = Conversion {
        origin: &origin,
        attempt: 2,
        image: "v2v-pod:test",
        source: &source,
        secret: Some("vcenter"),
        disks: &disks,
        journal: None,
        vddk_image: None,
        kvm: false,
        resources: None,
        facts: &facts,
    };
    change(&mut conversion);
    json!(conversion.pod())
}

fn env<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    env.iter().find(|e| e["name"] == name)?["value"].as_str()
}

#[test]
fn volumes_are_where_the_contract_has_them() {
    let pod = build(|_| ());
    let main = &pod["spec"]["containers"][0];
    assert_eq!(main["volumeDevices"], json!([{ "name": "disk0", "devicePath": "/dev/block0" }]));
    let mounts: Vec<(&str, &str)> = main["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| (m["name"].as_str().unwrap(), m["mountPath"].as_str().unwrap()))
        .collect();
    let expected = [
        ("work", "/var/tmp"),
        ("tmp", "/tmp"),
        ("opt", "/opt"),
        ("secret", "/etc/secret"),
        ("disk1", "/mnt/disks/disk1"),
    ];
    assert_eq!(mounts, expected);
    assert_eq!(env(&pod, "V2V_claimNames"), Some(r#"["c0","c1"]"#));
    assert_eq!(env(&pod, "V2V_NewName"), Some("web01"));
}

#[test]
fn a_name_is_not_substituted_by_kubernetes() {
    assert_eq!(env(&build(|_| ()), "V2V_vmName"), Some("Web $$(HOME) 01"));
}

#[test]
fn the_pod_may_do_nothing() {
    let pod = build(|c| c.vddk_image = Some("vddk:8"));
    let spec = &pod["spec"];
    assert_eq!(spec["securityContext"]["runAsUser"], 107);
    assert_eq!(spec["securityContext"]["seccompProfile"], json!({ "type": "RuntimeDefault" }));
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["restartPolicy"], "Never");
    for container in [&spec["containers"][0], &spec["initContainers"][0]] {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }));
    }
    assert_eq!(spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
    // Nothing of the secret is in the environment.
    assert!(!pod.to_string().contains("secretKeyRef") && !pod.to_string().contains("envFrom"));
}

#[test]
fn the_sidecar_shares_opt() {
    let pod = build(|c| c.vddk_image = Some("vddk:8"));
    let sidecar = &pod["spec"]["initContainers"][0];
    assert_eq!(sidecar["image"], "vddk:8");
    assert_eq!(sidecar["volumeMounts"], json!([{ "name": "opt", "mountPath": "/opt" }]));
    assert_eq!(build(|_| ())["spec"].get("initContainers"), None);
}

#[test]
fn kvm_is_a_request_and_a_limit() {
    let resources = |pod: &Value| pod["spec"]["containers"][0]["resources"].clone();
    let with = resources(&build(|c| c.kvm = true));
    assert_eq!((&with["limits"][KVM], &with["requests"][KVM]), (&json!("1"), &json!("1")));
    let without = resources(&build(|_| ()));
    assert_eq!(without["limits"], json!({ "cpu": "4", "memory": "8Gi" }));
}

#[test]
fn the_attempt_is_on_the_pod() {
    let pod = build(|_| ());
    assert_eq!(pod["metadata"]["labels"][LABEL_ATTEMPT], "2");
    assert_eq!(pod["metadata"]["name"], "wave1-web01");
}

#[test]
fn a_copy_that_comes_first_has_its_journals_on_a_volume() {
    let pod = build(|c| c.journal = Some("wave1-web01-journal"));
    assert_eq!(env(&pod, "V2V_copyFirst"), Some("true"));
    let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
    let mount = mounts.iter().find(|m| m["name"] == "journal").unwrap();
    assert_eq!(env(&pod, "V2V_journalDir"), mount["mountPath"].as_str());
    assert_eq!(mount["readOnly"], false);
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let claim = json!({ "claimName": "wave1-web01-journal" });
    assert!(volumes.iter().any(|v| v["persistentVolumeClaim"] == claim));
    assert_eq!(env(&build(|_| ()), "V2V_copyFirst"), None);
}

#[test]
fn files_are_read_from_a_claim_that_is_not_written() {
    let path = crate::objects::source::FilePath::parse("web.ova").unwrap();
    let source = Source::Ova { claim: "ovas".into(), path, name: "web".into() };
    let pod = build(|c| {
        c.source = Box::leak(Box::new(source));
        c.secret = None;
    });
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let claim = json!({ "claimName": "ovas", "readOnly": true });
    assert!(volumes.iter().any(|v| v["persistentVolumeClaim"] == claim));
    assert!(!volumes.iter().any(|v| v.get("secret").is_some()));
    assert_eq!(env(&pod, "V2V_diskPath"), Some("/source/web.ova"));
}
