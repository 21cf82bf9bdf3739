//! The objects that the controller makes, built from plain values.
//!
//! Pure: nothing here talks to an API server, reads a clock or knows the CRDs. The same values
//! always make the same object, so that applying one again changes nothing.

pub mod event;
pub mod journal;
pub mod name;
pub mod outcome;
pub mod pod;
pub mod size;
pub mod source;
pub mod vm;
pub mod volume;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::BTreeMap;

/// The API group, and the prefix of every label and annotation.
pub const GROUP: &str = "conversion.v2v-pod.dev";
/// Who applies: server-side apply's field manager, and the reporter of events.
pub const MANAGER: &str = "controller-lite";

/// Name of the Plan.
pub const LABEL_PLAN: &str = "conversion.v2v-pod.dev/plan";
/// UID of the Plan: a Plan of the same name made anew does not take over what an earlier one left.
pub const LABEL_PLAN_UID: &str = "conversion.v2v-pod.dev/plan-uid";
/// Namespace of the Plan, which may be another one than the object's.
pub const LABEL_PLAN_NAMESPACE: &str = "conversion.v2v-pod.dev/plan-namespace";
/// Name of the VM that is made.
pub const LABEL_VM: &str = "conversion.v2v-pod.dev/vm";
/// Number of the disk, from 0, in virt-v2v's order.
pub const LABEL_DISK: &str = "conversion.v2v-pod.dev/disk";
/// Which try this pod is, from 1.
pub const LABEL_ATTEMPT: &str = "conversion.v2v-pod.dev/attempt";
/// On every conversion pod, for the anti-affinity and network policies.
pub const LABEL_ROLE: &str = "conversion.v2v-pod.dev/role";
/// On a VM that is not handed over yet: the run strategy that it gets then.
pub const ANNOTATION_PENDING: &str = "conversion.v2v-pod.dev/pending-run-strategy";
/// On a claim and its `DataVolume`: the UID of the VM that got it. It stays whatever becomes of that
/// VM: what is in the volume is the user's from then on.
pub const ANNOTATION_HANDED_OVER: &str = "conversion.v2v-pod.dev/handed-over";
/// On the pod: what the inventory said of the VM, for the VM object, see [`vm::Facts`].
pub const ANNOTATION_FACTS: &str = "conversion.v2v-pod.dev/source";

/// On a VM: what its conversion said beside it, see [`outcome::Outcome`].
pub const ANNOTATION_OUTCOME: &str = "conversion.v2v-pod.dev/outcome";

/// On a pod that measures disks: a digest of its spec, see `reconcile::measure`.
pub const ANNOTATION_DIGEST: &str = "conversion.v2v-pod.dev/spec-digest";

/// For which VM of which Plan an object is made; gives names, labels and the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The Plan's name.
    pub plan: String,
    /// The Plan's namespace.
    pub plan_namespace: String,
    /// The Plan's UID.
    pub plan_uid: String,
    /// Where the objects are made.
    pub namespace: String,
    /// Name of the VM that is made: an RFC 1123 label.
    pub vm: String,
}

impl Origin {
    /// Labels of every object of this VM.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = plan_labels(&self.plan, &self.plan_namespace, &self.plan_uid);
        labels.insert(LABEL_VM.to_owned(), self.vm.clone());
        labels
    }

    /// Whether an object with these labels was made for this VM.
    pub fn made(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        let is = |key: &str, value: &str| {
            labels.and_then(|l| l.get(key)).is_some_and(|found| found == value)
        };
        is(LABEL_PLAN_UID, &self.plan_uid) && is(LABEL_VM, &self.vm)
    }

    /// Name of the pod. The API server lets one object have it: there are never two pods for a VM.
    pub fn pod_name(&self) -> String {
        name::joined(&[&self.plan, &self.vm])
    }

    /// Name of the claim of disk `index`.
    pub fn claim_name(&self, index: usize) -> String {
        name::joined(&[&self.plan, &self.vm, "disk", &index.to_string()])
    }

    /// Name of the claim with the journals of a copy.
    pub fn journal_name(&self) -> String {
        name::joined(&[&self.plan, &self.vm, "journal"])
    }

    /// The Plan as owner; none in another namespace, where owner references do not reach.
    pub fn owner(&self) -> Option<Vec<OwnerReference>> {
        (self.namespace == self.plan_namespace).then(|| {
            vec![OwnerReference {
                api_version: format!("{GROUP}/v1alpha1"),
                kind: "Plan".to_owned(),
                name: self.plan.clone(),
                uid: self.plan_uid.clone(),
                controller: Some(true),
                ..OwnerReference::default()
            }]
        })
    }

    /// Metadata of an object that goes with the Plan.
    pub fn metadata(&self, name: String) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels()),
            owner_references: self.owner(),
            ..ObjectMeta::default()
        }
    }
}

/// Labels of every object of a Plan.
pub fn plan_labels(plan: &str, namespace: &str, uid: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/managed-by", MANAGER.to_owned()),
        (LABEL_PLAN, plan.to_owned()),
        (LABEL_PLAN_NAMESPACE, namespace.to_owned()),
        (LABEL_PLAN_UID, uid.to_owned()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

#[cfg(test)]
pub(crate) fn origin() -> Origin {
    Origin {
        plan: "wave1".to_owned(),
        plan_namespace: "lab".to_owned(),
        plan_uid: "5f0c9c36-0000-4000-8000-000000000001".to_owned(),
        namespace: "lab".to_owned(),
        vm: "web01".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_say_whose_an_object_is() {
        let origin = origin();
        assert_eq!(origin.pod_name(), "wave1-web01");
        assert_eq!(origin.claim_name(10), "wave1-web01-disk-10");
        assert_eq!(origin.journal_name(), "wave1-web01-journal");
        assert!(origin.made(Some(&origin.labels())));
        let other = Origin { plan_uid: "another".to_owned(), ..origin.clone() };
        assert!(!other.made(Some(&origin.labels())));
        assert!(!origin.made(None));
    }

    #[test]
    fn owner_references_do_not_leave_the_namespace() {
        let here = origin();
        assert_eq!(here.owner().unwrap()[0].name, "wave1");
        assert_eq!(Origin { namespace: "prod".to_owned(), ..here }.owner(), None);
    }
}
