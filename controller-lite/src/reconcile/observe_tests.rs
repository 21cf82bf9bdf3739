use super::*;
use crate::objects;
use crate::objects::size::Overhead;
use crate::objects::volume::{Placement, Volume as NewVolume};
use serde_json::{Value, json};

fn claim(origin: &Origin) -> PersistentVolumeClaim {
    let placement = Placement::default();
    let volume = NewVolume { origin, index: 0, disk_bytes: 1, placement: &placement };
    volume.claim(Overhead::DEFAULT)
}

fn dynamic(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

#[test]
fn volumes() {
    let origin = objects::origin();
    assert_eq!(volume_state(&origin, None, None, None), VolumeState::Missing);
    let ours = claim(&origin);
    assert_eq!(volume_state(&origin, Some(&ours), None, None), VolumeState::Usable);
    let mut theirs = ours.clone();
    theirs.metadata.labels = None;
    assert_eq!(
        volume_state(&origin, Some(&theirs), None, None),
        VolumeState::Foreign("wave1-web01-disk-0".into())
    );
    let data_volume = |phase: &str| {
        dynamic(
            json!({ "metadata": { "name": "wave1-web01-disk-0" }, "status": { "phase": phase } }),
        )
    };
    // CDI makes the claim, whatever labels it gives it.
    theirs.metadata.owner_references = Some(vec![serde_json::from_value(json!({
        "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume", "name": "wave1-web01-disk-0", "uid": "x",
    })).unwrap()]);
    let state = |phase| volume_state(&origin, Some(&theirs), Some(&data_volume(phase)), None);
    assert_eq!(state("Succeeded"), VolumeState::Usable);
    assert!(matches!(state("ImportInProgress"), VolumeState::Pending(_)));
    let mut owned = ours;
    owned.metadata.owner_references =
        Some(vec![serde_json::from_value(objects::vm::owner("web01", "y")).unwrap()]);
    let state =
        |claim: &PersistentVolumeClaim, machine| volume_state(&origin, Some(claim), None, machine);
    let taken = VolumeState::Taken("wave1-web01-disk-0".into());
    // Not marked yet: an earlier controller, or somebody else.
    assert_eq!(state(&owned, Some("y")), taken);
    owned.annotations_mut().insert(ANNOTATION_HANDED_OVER.into(), "y".into());
    assert_eq!(state(&owned, Some("y")), VolumeState::HandedOver);
    // The VM is gone, or is another one of its name.
    assert_eq!(state(&owned, None), taken);
    assert_eq!(state(&owned, Some("z")), taken);
    let mut leaving = owned.clone();
    leaving.metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    assert!(matches!(state(&leaving, Some("y")), VolumeState::Leaving(_)));
    // Orphaned: nobody owns it, but it was somebody's.
    owned.metadata.owner_references = None;
    assert_eq!(state(&owned, None), taken);
    let marks = json!({ ANNOTATION_HANDED_OVER: "y" });
    let marked =
        dynamic(json!({ "metadata": { "name": "wave1-web01-disk-0", "annotations": marks } }));
    assert_eq!(volume_state(&origin, None, Some(&marked), None), taken);
    assert_eq!(volume_state(&origin, Some(&claim(&origin)), Some(&marked), None), taken);
}

#[test]
fn machines() {
    let origin = objects::origin();
    let vm = |annotations: Value| {
        dynamic(json!({ "metadata": { "labels": origin.labels(), "annotations": annotations } }))
    };
    let of = |vm: &DynamicObject| machine_state(&origin, Some(vm));
    assert_eq!(of(&vm(json!({ ANNOTATION_PENDING: "Halted" }))), MachineState::Made);
    assert_eq!(of(&vm(json!({}))), MachineState::HandedOver);
    assert_eq!(of(&dynamic(json!({ "metadata": {} }))), MachineState::Foreign);
}

#[tokio::test]
async fn pods() {
    let origin = objects::origin();
    let state = async |status: Value| {
        let mut labels = origin.labels();
        labels.insert(LABEL_ATTEMPT.to_owned(), "3".to_owned());
        let pod = json!({ "metadata": { "labels": labels }, "status": status });
        pod_state(&origin, Some(&serde_json::from_value(pod).unwrap()), 9).await
    };
    let unscheduled = json!({ "phase": "Pending", "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node",
    }] });
    assert_eq!(state(unscheduled).await, PodState::Waiting(3, "Unschedulable: no node".into()));
    assert_eq!(state(json!({ "phase": "Running" })).await, PodState::Running(3));
    assert_eq!(state(json!({ "phase": "Succeeded" })).await, PodState::Succeeded(3, 9));
    assert!(matches!(state(json!({ "phase": "Failed" })).await, PodState::Failed(3, _)));
    assert_eq!(pod_state(&origin, None, 0).await, PodState::Missing);
}

#[tokio::test]
async fn a_pod_that_cannot_be_asked_says_so() {
    let origin = objects::origin();
    let pod = json!({
        "metadata": { "labels": origin.labels() },
        "spec": { "containers": [{ "name": "c", "ports": [
            { "name": PORT_RESULT, "containerPort": 8080 },
        ] }] },
        "status": { "phase": "Running", "podIP": "255.255.255.255" },
    });
    let state = pod_state(&origin, Some(&serde_json::from_value(pod).unwrap()), 9).await;
    let PodState::Unreachable(1, why) = state else { panic!("{state:?}") };
    assert!(why.contains("255.255.255.255:8080"), "{why}");
}
