//! The volume of the journals, for a VM whose disks are copied first: what is durable of a copy is
//! known after the pod is gone. It goes when the VM is handed over, or with the Plan.

use super::{LABEL_ROLE, Origin};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Where it is in the pod.
pub const JOURNAL_FOLDER: &str = "/journal";
/// Value of the role label.
pub const ROLE_JOURNAL: &str = "journal";
/// A journal has some kilobytes; many provisioners make nothing smaller.
const SIZE: &str = "1Gi";

/// The claim.
pub fn claim(origin: &Origin, class: Option<&str>) -> PersistentVolumeClaim {
    let mut metadata = origin.metadata(origin.journal_name());
    let role = (LABEL_ROLE.to_owned(), ROLE_JOURNAL.to_owned());
    metadata.labels.get_or_insert_default().extend([role]);
    let request = [("storage".to_owned(), Quantity(SIZE.to_owned()))];
    PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some(request.into()),
                limits: None,
            }),
            storage_class_name: class.map(str::to_owned),
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{LABEL_DISK, origin};
    use serde_json::json;

    #[test]
    fn it_goes_with_the_plan_and_is_no_disk() {
        let claim = json!(claim(&origin(), Some("fast")));
        assert_eq!(claim["metadata"]["name"], "wave1-web01-journal");
        assert_eq!(claim["metadata"]["ownerReferences"][0]["kind"], "Plan");
        assert_eq!(claim["metadata"]["labels"].get(LABEL_DISK), None);
        assert_eq!(
            claim["spec"],
            json!({
                "accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
                "volumeMode": "Filesystem", "resources": { "requests": { "storage": "1Gi" } },
            })
        );
    }
}
