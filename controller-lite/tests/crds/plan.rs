//! The rules of `Plan`.

use super::{api, judge, object};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const LABEL_HINT: &str = "targetName is a name in Kubernetes";
const REQUIRED_HINT: &str =
    "targetName is required, because the VM's name is not a name in Kubernetes";
const ONE_OF_HINT: &str = "a VM is said by exactly one of name, uuid and moref";
const PATH_HINT: &str = "a path is within the source volume";

fn plan() -> Value {
    json!({
        "providerRef": {"name": "vc"},
        "vms": [{"name": "web"}, {"moref": "vm-21", "targetName": "db"}],
        "storageMap": {"default": {"storageClass": "fast", "accessMode": "ReadWriteMany", "volumeMode": "Block"},
                       "entries": [{"datastore": "ds 1", "storageClass": "slow"}]},
        "networkMap": {"default": {"pod": {}},
                       "entries": [{"source": "VM Network", "network": {"multus": {"networkName": "vlan10"}}}]},
    })
}

#[tokio::test]
async fn a_vm_is_said_once_and_has_a_name() {
    judge(
        "Plan",
        &plan(),
        &[
            (&[], None),
            (&[("/vms/0", json!({"uuid": "4216A2B0-1234-5678-9abc-def012345678", "targetName": "web"}))], None),
            (&[("/vms/0", json!({"name": "Wéb server (old)", "targetName": "web"}))], None),
            (&[("/vms/0", json!({"targetName": "web"}))], Some(ONE_OF_HINT)),
            (&[("/vms/0", json!({"name": "web", "moref": "vm-1"}))], Some(ONE_OF_HINT)),
            (&[("/vms/0", json!({"name": "web", "moref": "vm-1", "uuid": "4216a2b0-1234-5678-9abc-def012345678"}))], Some(ONE_OF_HINT)),
            (&[("/vms/0", json!({"uuid": "4216a2b0", "targetName": "web"}))], Some("uuid is a BIOS UUID")),
            (&[("/vms/0", json!({"moref": "vm 1", "targetName": "web"}))], Some("moref is a reference of vSphere")),
            (&[("/vms/0", json!({"moref": "vm-1"}))], Some(REQUIRED_HINT)),
            (&[("/vms/0", json!({"name": "Web"}))], Some(REQUIRED_HINT)),
            (&[("/vms/0", json!({"name": "w".repeat(64)}))], Some(REQUIRED_HINT)),
            (&[("/vms/0", json!({"name": "web", "targetName": "web.example"}))], Some(LABEL_HINT)),
            (&[("/vms/0", json!({"name": "web", "targetName": "1web"}))], Some(LABEL_HINT)),
            (&[("/vms/0", json!({"name": "web", "targetName": "web-"}))], Some(LABEL_HINT)),
            (&[("/vms/0", json!({"name": "", "targetName": "web"}))], Some("spec.vms[0].name")),
            (&[("/vms/0", json!({"name": "db"}))], Some("two VMs of the Plan would have the same name")),
            (&[("/vms", json!([]))], Some("should have at least 1 items")),
            (&[("/vms", json!(null))], Some("spec.vms: Required value")),
            (&[("/providerRef", json!(null))], Some("spec.providerRef: Required value")),
        ],
    )
    .await;
}

#[tokio::test]
async fn paths_stay_in_the_volume() {
    judge(
        "Plan",
        &plan(),
        &[
            (&[("/vms/0/paths", json!(["web/disk one.vmdk", "web/..disk2"]))], None),
            (&[("/vms/0/paths", json!(["/etc/shadow"]))], Some(PATH_HINT)),
            (&[("/vms/0/paths", json!(["web/../../x"]))], Some(PATH_HINT)),
            (&[("/vms/0/paths", json!([".."]))], Some(PATH_HINT)),
            (&[("/vms/0/paths", json!(["a,b"]))], Some("spec.vms[0].paths[0]")),
            (&[("/vms/0/paths", json!(["a\nb"]))], Some("spec.vms[0].paths[0]")),
            (&[("/vms/0/paths", json!([""]))], Some("spec.vms[0].paths[0]")),
            (&[("/vms/0/paths", json!([]))], Some("should have at least 1 items")),
            (&[("/vms/1/paths", json!(["web.ova"]))], Some("paths go with name")),
        ],
    )
    .await;
}

#[tokio::test]
async fn maps_are_unambiguous() {
    let one_of = "must validate one and only one schema (oneOf)";
    judge(
        "Plan",
        &plan(),
        &[
            (&[("/storageMap", json!(null)), ("/networkMap", json!(null))], None),
            (&[("/storageMap/entries/0", json!({"disk": {"vm": "web", "index": 1}, "volumeMode": "Filesystem"}))], None),
            (&[("/storageMap/entries/0", json!({"storageClass": "x"}))], Some("exactly one of datastore and disk")),
            (&[("/storageMap/entries/0/disk", json!({"index": 0}))], Some("exactly one of datastore and disk")),
            (&[("/storageMap/entries/0/disk", json!({"vm": "web"}))], Some("disk.index: Required value")),
            (&[("/storageMap/entries/0", json!({"disk": {"index": -1}}))], Some("disk.index")),
            (&[("/storageMap/default/accessMode", json!("ReadOnlyMany"))], Some("Unsupported value: \"ReadOnlyMany\"")),
            (&[("/storageMap/default/volumeMode", json!("block"))], Some("Unsupported value: \"block\"")),
            (&[("/networkMap/default", json!({"ignored": {}}))], None),
            (&[("/networkMap/default", json!({"multus": {"networkName": "infra/vlan.10"}}))], None),
            (&[("/networkMap/default", json!({}))], Some(one_of)),
            (&[("/networkMap/default", json!({"pod": {}, "ignored": {}}))], Some(one_of)),
            (&[("/networkMap/default", json!({"multus": {}}))], Some("multus.networkName: Required value")),
            (&[("/networkMap/default", json!({"multus": {"networkName": "a/b/c"}}))], Some("multus.networkName")),
            (&[("/networkMap/entries/0/network", json!(null))], Some("entries[0].network: Required value")),
            (
                &[("/networkMap/entries", json!([{"source": "a", "network": {"pod": {}}}, {"source": "a", "network": {"ignored": {}}}]))],
                Some("Duplicate value"),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_rest_is_within_bounds() {
    judge(
        "Plan",
        &plan(),
        &[
            (
                &[
                    ("/transport", json!("vddk")),
                    ("/strategy", json!("cold")),
                    ("/runStrategy", json!("Always")),
                ],
                None,
            ),
            (&[("/limits", json!({"vms": 200, "perHost": 1})), ("/retries", json!(0))], None),
            (&[("/resources", json!({"limits": {"memory": "4Gi", "cpu": 2}}))], None),
            (&[("/resources", json!({"requests": {"memory": "1.5e9", "cpu": "500m"}}))], None),
            (&[("/targetNamespace", json!("vms-1"))], None),
            (
                &[("/targetNamespace", json!("VMs"))],
                Some("targetNamespace is not a name of a namespace"),
            ),
            (&[("/transport", json!("nfc"))], Some("Unsupported value: \"nfc\"")),
            (&[("/strategy", json!("warm"))], Some("Unsupported value: \"warm\"")),
            (&[("/runStrategy", json!("halted"))], Some("Unsupported value: \"halted\"")),
            (&[("/limits", json!({"vms": 0}))], Some("spec.limits.vms")),
            (&[("/limits", json!({"perHost": 0}))], Some("spec.limits.perHost")),
            (&[("/retries", json!(21))], Some("spec.retries")),
            (&[("/retries", json!(-1))], Some("spec.retries")),
            (
                &[("/resources", json!({"limits": {"memory": "much"}}))],
                Some("spec.resources.limits"),
            ),
        ],
    )
    .await;
    let plans = api("Plan", "default").await;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let error = plans.create(&dry, &object("Plan", &"p".repeat(64), &plan())).await.unwrap_err();
    assert!(error.to_string().contains("the name of a Plan has at most 63 characters"), "{error}");
    plans.create(&dry, &object("Plan", &"p".repeat(63), &plan())).await.unwrap();
}

#[tokio::test]
async fn a_plan_may_be_corrected_until_it_has_begun() {
    let plans = api("Plan", &super::ApiServer::shared().namespace()).await;
    let made = plans.create(&PostParams::default(), &object("Plan", "p", &plan())).await.unwrap();
    let spec = &made.data["spec"];
    assert_eq!(spec["limits"], json!({"vms": 4, "perHost": 2}));
    assert_eq!((&spec["retries"], &spec["runStrategy"]), (&json!(3), &json!("Halted")));
    assert_eq!((&spec["transport"], &spec["strategy"]), (&json!("auto"), &json!("cold")));

    // What the user may write is not the status, and the other way round.
    let params = PatchParams::default();
    let status = |value: Value| Patch::Merge(json!({"status": value}));
    plans.patch("p", &params, &status(json!({"startTime": "2026-12-01T00:00:00Z"}))).await.unwrap();
    let error =
        plans.patch_status("p", &params, &status(json!({"phase": "Done"}))).await.unwrap_err();
    assert!(error.to_string().contains("Unsupported value: \"Done\""), "{error}");
    plans.patch_status("p", &params, &status(json!({"phase": "Pending"}))).await.unwrap();

    let changes = [
        ("providerRef", json!({"name": "other"}), json!({"name": "vc"})),
        ("targetNamespace", json!("elsewhere"), json!(null)),
        ("vms", json!([{"name": "web"}]), plan()["vms"].clone()),
        (
            "storageMap",
            json!({"default": {"storageClass": "other"}}),
            json!({"default": {"storageClass": "fast"}}),
        ),
        ("networkMap", json!({"default": null}), json!({"default": {"pod": {}}})),
        ("transport", json!("https"), json!("auto")),
    ];
    let patch = |field: &str, value: &Value| Patch::Merge(json!({"spec": {field: value}}));
    for (field, other, first) in &changes {
        plans.patch("p", &params, &patch(field, other)).await.unwrap();
        plans.patch("p", &params, &patch(field, first)).await.unwrap();
    }
    let begun = status(json!({"phase": "Running", "startTime": "2026-12-01T00:00:00Z"}));
    plans.patch_status("p", &params, &begun).await.unwrap();
    for (field, other, _) in &changes {
        let error = plans.patch("p", &params, &patch(field, other)).await.unwrap_err().to_string();
        assert!(
            error.contains(&format!("{field} cannot be changed: the Plan has begun")),
            "{field}: {error}"
        );
    }
    for (field, other) in
        [("limits", json!({"vms": 1})), ("retries", json!(5)), ("runStrategy", json!("Always"))]
    {
        plans.patch("p", &params, &patch(field, &other)).await.unwrap();
    }
}

/// Rules have a budget, which depends on how much there is to look at.
#[tokio::test]
async fn a_plan_may_be_as_large_as_the_schema_lets_it() {
    let plans = api("Plan", &super::ApiServer::shared().namespace()).await;
    let name = |kind: &str, n: usize| format!("{kind}{n:0>60}");
    let vms: Vec<Value> = (0..200)
        .map(|n| json!({"name": name("v", n), "targetName": name("t", n), "paths": vec!["p".repeat(512); 64]}))
        .collect();
    let entries = |f: &dyn Fn(usize) -> Value| (0..500).map(f).collect::<Vec<_>>();
    let networks = entries(
        &|n| json!({"source": name("n", n), "network": {"multus": {"networkName": name("m", n)}}}),
    );
    let mut spec = plan();
    spec["storageMap"]["entries"] =
        json!(entries(&|n| json!({"datastore": name("d", n), "storageClass": name("c", n)})));
    spec["networkMap"]["entries"] = json!(networks);
    // What an object of etcd can hold is less than all maxima together.
    spec["vms"] = json!(
        vms.iter()
            .map(|vm| json!({"name": vm["name"], "targetName": vm["targetName"]}))
            .collect::<Vec<_>>()
    );
    plans.create(&PostParams::default(), &object("Plan", "wide", &spec)).await.unwrap();
    spec["vms"] = json!(vms[..10]);
    plans.create(&PostParams::default(), &object("Plan", "deep", &spec)).await.unwrap();
    let params = PatchParams::default();
    for name in ["wide", "deep"] {
        let begun = Patch::Merge(json!({"status": {"startTime": "2026-12-01T00:00:00Z"}}));
        plans.patch_status(name, &params, &begun).await.unwrap();
        plans.patch(name, &params, &Patch::Merge(json!({"spec": {"retries": 1}}))).await.unwrap();
    }
    let mut more = vms;
    more.push(json!({"name": "one-more"}));
    spec["vms"] = json!(more.iter().map(|vm| json!({"name": vm["name"]})).collect::<Vec<_>>());
    let error =
        plans.create(&PostParams::default(), &object("Plan", "wider", &spec)).await.unwrap_err();
    assert!(error.to_string().contains("must have at most 200 items"), "{error}");
}
