//! The status of a `Plan`: how far each VM is, and what to do when one failed. All that the
//! controller remembers is here or in the objects it made.

use crate::objects::outcome::GuestOs;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far a Plan is.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanStatus {
    /// How far the Plan is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<PlanPhase>,
    /// One line for people: what goes on, or what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `Ready` (`False`: somebody has to do something before all of it can be run), `Succeeded`, `Failed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the first object was made. From then on most of the spec cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the last VM was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Time>,
    /// How many VMs the Plan has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u32>,
    /// How many of them are converted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded: Option<u32>,
    /// How many of them failed for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<u32>,
    /// The VMs, by their target names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub vms: Vec<VmStatus>,
}

/// How far a Plan is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum PlanPhase {
    /// Nothing was made yet. The message says what it waits for.
    #[default]
    Pending,
    /// VMs are being converted.
    Running,
    /// All VMs are converted.
    Succeeded,
    /// All VMs are done, and at least one of them failed.
    Failed,
}

/// How far a VM is.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VmStatus {
    /// Target name of the VM.
    pub name: String,
    /// How far it is.
    #[serde(default)]
    pub phase: VmPhase,
    /// One line for people: what goes on, or what failed and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Class of the last failure, as in the pod's termination message (`auth`, `trust`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// How many conversion pods were started.
    #[serde(default)]
    pub attempts: u32,
    /// When the next attempt begins, in phase `Retrying`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_time: Option<Time>,
    /// Host of the source that it is read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// UUID that the firmware of the source tells the guest; the new VM keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// When its first object was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Time>,
    /// Its disks, in the order of virt-v2v.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["index".into()]))]
    pub disks: Vec<DiskStatus>,
    /// Its NICs at the source, in the order of virt-v2v: their networks are what `networkMap` maps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<NicStatus>,
    /// What is in the disks, once they are converted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestOs>,
    /// The first warnings of the conversion.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// How many warnings there were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning_count: Option<u32>,
    /// `Ready` (found at the source, and fit for the Plan), `Converted` (its disks), `Succeeded`, `Failed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// How far a VM is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum VmPhase {
    /// Waits for its turn, see `limits`.
    #[default]
    Pending,
    /// Looked for at the source, and checked against the maps.
    Preflight,
    /// Its volumes are being made.
    Volumes,
    /// Its conversion pod runs.
    Converting,
    /// The last pod failed for a reason that may pass; another one starts at `retryTime`.
    Retrying,
    /// Converted; the new VM is being made.
    CreatingVm,
    /// The new VM is there and owns the volumes.
    Succeeded,
    /// Failed for good; the message says what to do.
    Failed,
}

/// One NIC.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NicStatus {
    /// Its address, where the source has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Name of its network at the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

/// One disk.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskStatus {
    /// Number of the disk, from 0, in the order of virt-v2v.
    pub index: u32,
    /// Its PVC, in the target namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_name: Option<String>,
    /// Size of the disk in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Bytes that are dealt with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<u64>,
    /// Bytes per second, while it is copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
}
