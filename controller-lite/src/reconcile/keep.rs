//! Which volumes of a Plan that is deleted are, or may be, somebody else's. Pure.

use crate::objects::ANNOTATION_HANDED_OVER;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::core::ObjectMeta;
use serde_json::Value;

/// Whether a VM got it once, or anybody owns it but the Plan and these `DataVolumes` of the Plan.
pub fn is_taken(meta: &ObjectMeta, plan_uid: &str, data_volumes: &[String]) -> bool {
    let marked = meta.annotations.as_ref().is_some_and(|a| a.contains_key(ANNOTATION_HANDED_OVER));
    let ours = |o: &OwnerReference| o.uid == plan_uid || data_volumes.contains(&o.uid);
    marked || !meta.owner_references.iter().flatten().all(ours)
}

/// Whether a pod has the claim, or will: one that has not ended. CDI's importer is none of
/// somebody: it goes with its `DataVolume`.
pub fn pod_has(pod: &Pod, claim: &str) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    let importer = pod.labels().get("cdi.kubevirt.io").is_some_and(|role| role == "importer");
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let mut claims = volumes.filter_map(|v| v.persistent_volume_claim.as_ref());
    !matches!(phase, Some("Succeeded" | "Failed"))
        && !importer
        && claims.any(|c| c.claim_name == claim)
}

/// Whether a VM names the claim, even one that does not run.
pub fn machine_has(machine: &DynamicObject, claim: &str) -> bool {
    let volumes = machine.data["spec"]["template"]["spec"]["volumes"].as_array();
    let named = |volume: &Value| {
        volume["persistentVolumeClaim"]["claimName"] == claim
            || volume["dataVolume"]["name"] == claim
    };
    volumes.is_some_and(|all| all.iter().any(named))
}

/// The owners without the Plan; `None` when it is not among them. With it as the only owner the
/// volume would go with the Plan.
pub fn without_plan(meta: &ObjectMeta, plan_uid: &str) -> Option<Vec<OwnerReference>> {
    let all = meta.owner_references.as_deref().unwrap_or_default();
    let others: Vec<_> = all.iter().filter(|o| o.uid != plan_uid).cloned().collect();
    (others.len() != all.len()).then_some(others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn owner(kind: &str, uid: &str) -> Value {
        json!({ "apiVersion": "v1", "kind": kind, "name": "x", "uid": uid })
    }

    fn meta(annotations: &Value, owners: &[Value]) -> ObjectMeta {
        let meta = json!({ "annotations": annotations, "ownerReferences": owners });
        serde_json::from_value(meta).unwrap()
    }

    #[test]
    fn what_a_vm_got_or_somebody_owns_is_taken() {
        let taken = |meta: &ObjectMeta| is_taken(meta, "p", &["d".to_owned()]);
        assert!(!taken(&ObjectMeta::default()));
        assert!(!taken(&meta(&json!({}), &[owner("Plan", "p"), owner("DataVolume", "d")])));
        // Orphaned: the VM that got it is gone.
        assert!(taken(&meta(&json!({ ANNOTATION_HANDED_OVER: "v" }), &[])));
        for other in [owner("VirtualMachine", "v"), owner("Plan", "q"), owner("DataVolume", "e")] {
            assert!(taken(&meta(&json!({}), &[owner("Plan", "p"), other])));
        }
    }

    #[test]
    fn pods_and_vms_that_name_the_claim_have_it() {
        let pod = |phase: &str, labels: Value| -> Pod {
            let volumes = json!([{ "name": "d", "persistentVolumeClaim": { "claimName": "c" } }]);
            serde_json::from_value(json!({
                "metadata": { "labels": labels }, "status": { "phase": phase },
                "spec": { "containers": [], "volumes": volumes },
            }))
            .unwrap()
        };
        for phase in ["Pending", "Running", "Unknown"] {
            assert!(pod_has(&pod(phase, json!({})), "c"), "{phase}");
        }
        assert!(!pod_has(&pod("Running", json!({})), "b"));
        assert!(!pod_has(&pod("Succeeded", json!({})), "c"));
        assert!(!pod_has(&pod("Running", json!({ "cdi.kubevirt.io": "importer" })), "c"));
        for volume in [
            json!({ "persistentVolumeClaim": { "claimName": "c" } }),
            json!({ "dataVolume": { "name": "c" } }),
        ] {
            let spec = json!({ "template": { "spec": { "volumes": [volume] } } });
            let vm = json!({ "metadata": {}, "spec": spec });
            let vm: DynamicObject = serde_json::from_value(vm).unwrap();
            assert!(machine_has(&vm, "c") && !machine_has(&vm, "b"));
        }
    }

    #[test]
    fn what_stays_does_not_go_with_the_plan() {
        let both = meta(&json!({}), &[owner("Plan", "p"), owner("Other", "o")]);
        assert_eq!(without_plan(&both, "p").unwrap()[0].uid, "o");
        assert_eq!(without_plan(&both, "q"), None);
        assert_eq!(without_plan(&ObjectMeta::default(), "p"), None);
    }
}
