//! `Plan`: which VMs go where, and how far they are. The status is in `plan_status`.

#![allow(clippy::duplicated_attributes, reason = "printer columns are told by the same words")]

use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NameRef;
pub use super::plan_status::*;

/// A part of the spec that cannot change any more once the Plan has begun (`status.startTime`).
macro_rules! fixed_once_begun {
    ($field:literal) => {
        Rule::new(concat!(
            "!has(oldSelf.status) || !has(oldSelf.status.startTime) || ",
            "(has(self.spec.",
            $field,
            ") == has(oldSelf.spec.",
            $field,
            ") && ",
            "(!has(self.spec.",
            $field,
            ") || self.spec.",
            $field,
            " == oldSelf.spec.",
            $field,
            "))"
        ))
        .message(concat!(
            $field,
            " cannot be changed: the Plan has begun; make another Plan for what is new"
        ))
        .field_path(concat!(".spec.", $field))
    };
}

/// VMs to be converted, and where to.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "conversion.v2v-pod.dev",
    version = "v1alpha1",
    kind = "Plan",
    doc = "VMs to be converted: from which Provider, onto which storage and networks, and how far each is.",
    namespaced,
    status = "PlanStatus",
    derive = "PartialEq",
    shortname = "v2vplan",
    category = "v2v",
    printcolumn(name = "Provider", type_ = "string", json_path = ".spec.providerRef.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "VMs", type_ = "integer", json_path = ".status.total"),
    printcolumn(name = "Done", type_ = "integer", json_path = ".status.succeeded"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failed"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 63")
        .message("the name of a Plan has at most 63 characters: it is a label of all it makes"),
    validation = fixed_once_begun!("providerRef"),
    validation = fixed_once_begun!("targetNamespace"),
    validation = fixed_once_begun!("vms"),
    validation = fixed_once_begun!("storageMap"),
    validation = fixed_once_begun!("networkMap"),
    validation = fixed_once_begun!("transport"),
    validation = fixed_once_begun!("strategy"),
)]
#[serde(rename_all = "camelCase")]
pub struct PlanSpec {
    /// The Provider, in this namespace.
    pub provider_ref: NameRef,

    /// Namespace of the volumes, pods and VMs; default: the Plan's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("targetNamespace is not a name of a namespace: small letters, digits and dashes"))]
    pub target_namespace: Option<String>,

    /// The VMs. Several run at the same time, see `limits`; they begin in this order.
    #[schemars(length(min = 1, max = 200))]
    #[x_kube(validation = Rule::new(
        "self.all(a, self.exists_one(b, (has(a.targetName) ? a.targetName : a.name) == (has(b.targetName) ? b.targetName : b.name)))")
        .message("two VMs of the Plan would have the same name; give one of them another targetName"))]
    pub vms: Vec<PlanVm>,

    /// Which storage the disks get.
    #[serde(default)]
    pub storage_map: StorageMap,

    /// Which networks the NICs get.
    #[serde(default)]
    pub network_map: NetworkMap,

    /// Which way the disks of a vSphere VM come.
    #[serde(default)]
    pub transport: Transport,

    /// `cold`: virt-v2v converts the VM while it reads it, and another try begins anew. `copyFirst`:
    /// the disks are copied, and then converted where they are; another try goes on with the copy
    /// (Providers of type vsphere and disk). In both the VM is off and stays off.
    #[serde(default)]
    pub strategy: Strategy,

    /// Whether the new VM is started.
    #[serde(default)]
    pub run_strategy: RunStrategy,

    /// How many VMs are converted at the same time.
    #[serde(default)]
    pub limits: Limits,

    /// How often a VM is tried again after a failure that may pass; 0: never.
    #[serde(default = "default_retries")]
    #[schemars(range(max = 20))]
    pub retries: u32,

    /// Image of the conversion pod; default: the one the controller was started with,
    /// which pods in another `targetNamespace` always get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,

    /// Resources of the conversion pod; what is not said has the controller's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

fn default_retries() -> u32 {
    3
}

/// One VM of the source. Its `targetName`, or without one its `name`, names all that is made for it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.name), has(self.uuid), has(self.moref)].exists_one(x, x)")
        .message("a VM is said by exactly one of name, uuid and moref"),
    validation = Rule::new("has(self.targetName) || has(self.name) && self.name.size() <= 63 && self.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("targetName is required, because the VM's name is not a name in Kubernetes: a small letter, then small letters, digits and dashes, at most 63")
        .field_path(".targetName"),
    validation = Rule::new("!has(self.paths) || has(self.name)")
        .message("paths go with name: a volume with files has no uuid and no moref")
        .field_path(".paths"),
)]
pub struct PlanVm {
    /// Name at the source. Must be the only one of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub name: Option<String>,
    /// BIOS UUID of the VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$')")
        .message("uuid is a BIOS UUID as 4216a2b0-1234-5678-9abc-def012345678"))]
    pub uuid: Option<String>,
    /// vSphere's reference, `vm-21`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_-]+$')")
        .message("moref is a reference of vSphere as vm-21"))]
    pub moref: Option<String>,
    /// Name of the new VM; default: `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("targetName is a name in Kubernetes: a small letter, then small letters, digits and dashes"))]
    pub target_name: Option<String>,
    /// For a Provider of type `ova` the OVA, for `disk` the disks in their order: paths within
    /// the source volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 64),
        inner(length(min = 1, max = 512), regex(pattern = r"^[^,\x00-\x1f\x7f]*$"))
    )]
    #[x_kube(validation = Rule::new("self.all(p, !p.startsWith('/') && !('/' + p + '/').contains('/../'))")
        .message("a path is within the source volume: it does not begin with / and has no .."))]
    pub paths: Option<Vec<String>>,
}

/// How a VM is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmSelector<'a> {
    /// By its name.
    Name(&'a str),
    /// By its BIOS UUID.
    Uuid(&'a str),
    /// By vSphere's reference.
    Moref(&'a str),
}

impl PlanVm {
    /// How the VM is said. `None` only for an object the schema would have refused.
    pub fn selector(&self) -> Option<VmSelector<'_>> {
        let name = self.name.as_deref().map(VmSelector::Name);
        let uuid = || self.uuid.as_deref().map(VmSelector::Uuid);
        name.or_else(uuid).or_else(|| self.moref.as_deref().map(VmSelector::Moref))
    }

    /// Name of the new VM, unique in the Plan, and a DNS label. `None` as above.
    pub fn target_name(&self) -> Option<&str> {
        self.target_name.as_deref().or(self.name.as_deref())
    }
}

impl Plan {
    /// Namespace of what is made. `None` only for an object that did not come from a server.
    pub fn target_namespace(&self) -> Option<String> {
        self.spec.target_namespace.clone().or_else(|| self.namespace())
    }

    /// Whether that is not the Plan's own.
    pub fn is_elsewhere(&self) -> bool {
        self.target_namespace() != self.namespace()
    }

    /// The conversion image. In another namespace it is not the Plan's author who says what runs.
    pub fn image<'a>(&'a self, default: &'a str) -> &'a str {
        let own = self.spec.image.as_deref().filter(|_| !self.is_elsewhere());
        own.unwrap_or(default)
    }
}

/// Which storage the disks get. An entry for a disk wins over one for its datastore, which wins
/// over the default.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageMap {
    /// For disks that no entry is about.
    #[serde(default)]
    pub default: StorageTarget,
    /// For one datastore or disk each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    pub entries: Vec<StorageEntry>,
    /// Storage class of the journals of `copyFirst`, a file system of 1 GiB for each VM while it is
    /// converted; default: the default's class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub journal_storage_class: Option<String>,
}

/// The storage of one datastore or disk.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.datastore) != has(self.disk)")
    .message("an entry is about exactly one of datastore and disk"))]
pub struct StorageEntry {
    /// Name of the datastore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub datastore: Option<String>,
    /// One disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskRef>,
    /// What it gets; what is not said here is as in the default.
    #[serde(flatten)]
    pub target: StorageTarget,
}

/// A disk of a VM of the Plan.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskRef {
    /// Target name of the VM; default: all VMs of the Plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub vm: Option<String>,
    /// Number of the disk, from 0, in the order of virt-v2v.
    #[schemars(range(max = 255))]
    pub index: u32,
}

/// What a volume is made of.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageTarget {
    /// Storage class; default: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class: Option<String>,
    /// Access mode; default: by CDI's profile of the class, without CDI `ReadWriteOnce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_mode: Option<AccessMode>,
    /// Volume mode; default: by CDI's profile of the class, without CDI `Filesystem`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_mode: Option<VolumeMode>,
}

/// Who may attach a volume. `ReadWriteMany` lets a VM migrate live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum AccessMode {
    /// One node.
    ReadWriteOnce,
    /// Many nodes.
    ReadWriteMany,
    /// One pod.
    ReadWriteOncePod,
}

/// What a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum VolumeMode {
    /// A device.
    Block,
    /// A file system, with the disk as a file.
    Filesystem,
}

/// Which networks the NICs get.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkMap {
    /// For NICs that no entry is about. Without it such a NIC is an error, said before anything is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<NetworkTarget>,
    /// For one network of the source each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["source".into()]))]
    pub entries: Vec<NetworkEntry>,
}

/// Where the NICs of one network of the source go.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkEntry {
    /// Name of the network at the source.
    #[schemars(length(min = 1, max = 255))]
    pub source: String,
    /// Where its NICs go.
    pub network: NetworkTarget,
}

/// Where a NIC goes: exactly one of these.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum NetworkTarget {
    /// The network of the cluster's pods.
    Pod {},
    /// A network of Multus.
    #[serde(rename_all = "camelCase")]
    Multus {
        /// The `NetworkAttachmentDefinition`: `NAME`, or `NAMESPACE/NAME`.
        #[schemars(
            length(min = 1, max = 317),
            regex(pattern = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")
        )]
        network_name: String,
    },
    /// Nowhere: the new VM does not have this NIC.
    Ignored {},
}

/// Which way the disks of a vSphere VM come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// VDDK when the Provider has its image, else HTTPS.
    #[default]
    Auto,
    /// VDDK or not at all.
    Vddk,
    /// HTTPS.
    Https,
}

/// How a VM is converted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Strategy {
    /// virt-v2v converts the disks while it reads them.
    #[default]
    Cold,
    /// The disks are copied, with a journal on a small volume of its own, and then converted in place.
    CopyFirst,
}

/// KubeVirt's run strategy of the new VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum RunStrategy {
    /// Not started.
    #[default]
    Halted,
    /// Started, and started again whenever it stops.
    Always,
    /// Started, and started again when it fails.
    RerunOnFailure,
    /// Started and stopped by hand.
    Manual,
}

/// How many VMs are converted at the same time.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Of the whole Plan.
    #[serde(default = "default_vms")]
    #[schemars(range(min = 1, max = 200))]
    pub vms: u32,
    /// From the same ESXi host, which serves only so many readers.
    #[serde(default = "default_per_host")]
    #[schemars(range(min = 1, max = 200))]
    pub per_host: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { vms: default_vms(), per_host: default_per_host() }
    }
}

fn default_vms() -> u32 {
    4
}

fn default_per_host() -> u32 {
    2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_is_named_by_its_target_name_and_said_by_one_of_three() {
        let vm: PlanVm =
            serde_json::from_str(r#"{"moref": "vm-21", "targetName": "web"}"#).unwrap();
        assert_eq!(vm.selector(), Some(VmSelector::Moref("vm-21")));
        assert_eq!(vm.target_name(), Some("web"));
        let vm: PlanVm = serde_json::from_str(r#"{"name": "web"}"#).unwrap();
        assert_eq!((vm.selector(), vm.target_name()), (Some(VmSelector::Name("web")), Some("web")));
    }

    #[test]
    fn networks_are_objects_with_one_key() {
        let map: NetworkMap = serde_json::from_value(serde_json::json!({
            "default": {"pod": {}},
            "entries": [{"source": "VM Network", "network": {"multus": {"networkName": "default/vlan10"}}},
                        {"source": "vMotion", "network": {"ignored": {}}}],
        }))
        .unwrap();
        assert_eq!(map.default, Some(NetworkTarget::Pod {}));
        assert_eq!(
            map.entries[0].network,
            NetworkTarget::Multus { network_name: "default/vlan10".into() }
        );
        assert_eq!(map.entries[1].network, NetworkTarget::Ignored {});
    }
}
