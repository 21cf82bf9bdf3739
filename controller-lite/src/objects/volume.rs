//! The empty volume of a disk: a claim, or a blank `DataVolume` where CDI is installed.

use super::size::{self, Overhead};
use super::{LABEL_DISK, Origin};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

/// How a volume is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A device.
    Block,
    /// A file system with `disk.img` in it.
    Filesystem,
}

impl Mode {
    /// As the API has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Block => "Block",
            Self::Filesystem => "Filesystem",
        }
    }

    /// The mode of a claim: without a word it is a file system.
    pub fn of(claim: &PersistentVolumeClaim) -> Self {
        let mode = claim.spec.as_ref().and_then(|s| s.volume_mode.as_deref());
        if mode == Some("Block") { Self::Block } else { Self::Filesystem }
    }
}

/// What the storage map says of a disk; what is not said is left to the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// The storage class.
    pub class: Option<String>,
    /// The access mode.
    pub access: Option<String>,
    /// The mode.
    pub mode: Option<Mode>,
}

/// The volume of one disk.
#[derive(Debug, Clone, Copy)]
pub struct Volume<'a> {
    /// For which VM.
    pub origin: &'a Origin,
    /// Which disk.
    pub index: usize,
    /// How large the disk is.
    pub disk_bytes: u64,
    /// What kind of volume.
    pub placement: &'a Placement,
}

impl Volume<'_> {
    fn metadata(&self) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
        let mut metadata = self.origin.metadata(self.origin.claim_name(self.index));
        metadata
            .labels
            .get_or_insert_default()
            .insert(LABEL_DISK.to_owned(), self.index.to_string());
        metadata
    }

    /// A claim, where there is no CDI.
    pub fn claim(&self, overhead: Overhead) -> PersistentVolumeClaim {
        let bytes = match self.placement.mode {
            Some(Mode::Block) => size::rounded(self.disk_bytes),
            // What is not said becomes a file system.
            Some(Mode::Filesystem) | None => size::with_overhead(self.disk_bytes, overhead),
        };
        let access = self.placement.access.as_deref().unwrap_or("ReadWriteOnce");
        let request = [("storage".to_owned(), Quantity(size::quantity(bytes)))];
        PersistentVolumeClaim {
            metadata: self.metadata(),
            spec: Some(PersistentVolumeClaimSpec {
                access_modes: Some(vec![access.to_owned()]),
                resources: Some(VolumeResourceRequirements {
                    requests: Some(request.into()),
                    limits: None,
                }),
                storage_class_name: self.placement.class.clone(),
                volume_mode: self.placement.mode.map(|mode| mode.as_str().to_owned()),
                ..PersistentVolumeClaimSpec::default()
            }),
            status: None,
        }
    }

    /// A blank `DataVolume`, whose claim has the same name. CDI adds the overhead of a file system
    /// itself, and takes from the class's profile what is not said here.
    pub fn data_volume(&self) -> Value {
        let Placement { class, access, mode } = self.placement;
        let mut metadata = json!(self.metadata());
        // A finished DataVolume stays, so that it can be seen and handed over.
        let mut notes = json!({ "cdi.kubevirt.io/storage.deleteAfterCompletion": "false" });
        if *mode != Some(Mode::Block) {
            // CDI writes disk.img. With a class that waits for its first consumer it would do so
            // beside our pod; so it is done at once. On a device it writes nothing.
            notes["cdi.kubevirt.io/storage.bind.immediate.requested"] = json!("true");
        }
        metadata["annotations"] = notes;
        let bytes = size::quantity(size::rounded(self.disk_bytes));
        let mut storage = json!({ "resources": { "requests": { "storage": bytes } } });
        if let Some(class) = class {
            storage["storageClassName"] = json!(class);
        }
        if let Some(access) = access {
            storage["accessModes"] = json!([access]);
        }
        if let Some(mode) = mode {
            storage["volumeMode"] = json!(mode.as_str());
        }
        json!({
            "apiVersion": "cdi.kubevirt.io/v1beta1",
            "kind": "DataVolume",
            "metadata": metadata,
            "spec": { "source": { "blank": {} }, "storage": storage },
        })
    }
}

/// Whether the conversion may use the claim of a `DataVolume` in this phase: it is done, or waits
/// for somebody to use it.
pub fn data_volume_may_be_used(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "WaitForFirstConsumer" | "PendingPopulation")
}

#[cfg(test)]
mod tests {
    use super::super::origin;
    use super::*;

    const GIB: u64 = 1 << 30;

    fn placement(mode: Option<Mode>) -> Placement {
        Placement { class: Some("fast".to_owned()), access: None, mode }
    }

    #[test]
    fn claims() {
        let (origin, block) = (origin(), placement(Some(Mode::Block)));
        let volume =
            Volume { origin: &origin, index: 1, disk_bytes: 9 * GIB - 1, placement: &block };
        let claim = json!(volume.claim(Overhead::DEFAULT));
        assert_eq!(claim["metadata"]["name"], "wave1-web01-disk-1");
        assert_eq!(claim["metadata"]["labels"][LABEL_DISK], "1");
        assert_eq!(claim["metadata"]["ownerReferences"][0]["kind"], "Plan");
        assert_eq!(
            claim["spec"],
            json!({
                "accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "volumeMode": "Block",
                "resources": { "requests": { "storage": "9216Mi" } },
            })
        );
        for mode in [None, Some(Mode::Filesystem)] {
            let file = placement(mode);
            let claim = Volume { placement: &file, ..volume }.claim(Overhead::DEFAULT);
            assert_eq!(json!(claim)["spec"]["resources"]["requests"]["storage"], "10240Mi");
            assert_eq!(Mode::of(&claim), Mode::Filesystem);
        }
    }

    #[test]
    fn blank_data_volumes() {
        let (origin, block) = (origin(), placement(Some(Mode::Block)));
        let volume = Volume { origin: &origin, index: 0, disk_bytes: GIB, placement: &block };
        let made = volume.data_volume();
        assert_eq!(
            made["spec"],
            json!({
                "source": { "blank": {} },
                "storage": {
                    "resources": { "requests": { "storage": "1024Mi" } },
                    "storageClassName": "fast", "volumeMode": "Block",
                },
            })
        );
        let notes = |made: &Value| made["metadata"]["annotations"].clone();
        let immediate = "cdi.kubevirt.io/storage.bind.immediate.requested";
        assert_eq!(notes(&made)[immediate], Value::Null);
        let open = Placement::default();
        let made = Volume { placement: &open, ..volume }.data_volume();
        assert_eq!(notes(&made)[immediate], "true");
        assert_eq!(
            made["spec"]["storage"],
            json!({ "resources": { "requests": { "storage": "1024Mi" } } })
        );
    }
}
