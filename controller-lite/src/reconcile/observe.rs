//! Looks at the objects of a VM, and says what they mean.

use super::cluster::{self, Cluster, Error, find};
use super::decide::{MachineState, PodState, VolumeState};
use super::{failure, pod_http};
use crate::objects::outcome::Outcome;
use crate::objects::pod::{PORT_LIVE, PORT_RESULT};
use crate::objects::volume::data_volume_may_be_used;
use crate::objects::{
    ANNOTATION_HANDED_OVER, ANNOTATION_OUTCOME, ANNOTATION_PENDING, LABEL_ATTEMPT, LABEL_DISK,
    LABEL_VM, Origin,
};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::DynamicObject;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// All objects of a Plan in its target namespace.
#[derive(Debug, Default)]
pub struct Objects {
    /// Claims.
    pub claims: Vec<PersistentVolumeClaim>,
    /// `DataVolumes`.
    pub data_volumes: Vec<DynamicObject>,
    /// Pods.
    pub pods: Vec<Pod>,
    /// VMs.
    pub machines: Vec<DynamicObject>,
}

impl Objects {
    /// Asks for them.
    pub async fn read(cluster: &Cluster, namespace: &str, uid: &str) -> Result<Self, Error> {
        Ok(Self {
            claims: cluster::of_plan(&cluster.claims(namespace), uid, "claims").await?,
            data_volumes: cluster::of_plan(&cluster.data_volumes(namespace), uid, "DataVolumes")
                .await?,
            pods: cluster::of_plan(&cluster.pods(namespace), uid, "pods").await?,
            machines: cluster::of_plan(&cluster.machines(namespace), uid, "VirtualMachines")
                .await?,
        })
    }

    /// How many volumes a VM has.
    pub fn volumes_of(&self, vm: &str) -> usize {
        let labels = self.claims.iter().map(ResourceExt::labels);
        let all = labels.chain(self.data_volumes.iter().map(ResourceExt::labels));
        let of_vm = all.filter(|l| l.get(LABEL_VM).is_some_and(|name| name == vm));
        of_vm
            .filter_map(|l| l.get(LABEL_DISK)?.parse().ok())
            .map(|n: usize| n + 1)
            .max()
            .unwrap_or(0)
    }
}

/// One volume: its claim, and CDI's object.
#[derive(Debug, Clone, Default)]
pub struct Volume {
    /// The claim.
    pub claim: Option<PersistentVolumeClaim>,
    /// CDI's object.
    pub data_volume: Option<DynamicObject>,
}

/// Finds the volume of a disk; `machine` is the UID of the VM, if it is there.
pub async fn volume(
    cluster: &Cluster,
    objects: &Objects,
    origin: &Origin,
    index: usize,
    machine: Option<&str>,
) -> Result<(Volume, VolumeState), Error> {
    let name = origin.claim_name(index);
    let data_volume = objects.data_volumes.iter().find(|dv| dv.name_any() == name).cloned();
    let listed = objects.claims.iter().find(|claim| claim.name_any() == name).cloned();
    let claim = match listed {
        Some(claim) => Some(claim),
        None => find(&cluster.claims(&origin.namespace), &name, "claim").await?,
    };
    let state = volume_state(origin, claim.as_ref(), data_volume.as_ref(), machine);
    Ok((Volume { claim, data_volume }, state))
}

/// Finds the volume of the journals.
pub async fn journal(
    cluster: &Cluster,
    objects: &Objects,
    origin: &Origin,
) -> Result<(Option<PersistentVolumeClaim>, VolumeState), Error> {
    let name = origin.journal_name();
    let listed = objects.claims.iter().find(|claim| claim.name_any() == name).cloned();
    let claim = match listed {
        Some(claim) => Some(claim),
        None => find(&cluster.claims(&origin.namespace), &name, "claim").await?,
    };
    let state = match volume_state(origin, claim.as_ref(), None, None) {
        // Somebody took it for his own.
        VolumeState::Taken(name) => VolumeState::Foreign(name),
        state => state,
    };
    Ok((claim, state))
}

fn volume_state(
    origin: &Origin,
    claim: Option<&PersistentVolumeClaim>,
    data_volume: Option<&DynamicObject>,
    machine: Option<&str>,
) -> VolumeState {
    let marked_by =
        |annotations: &BTreeMap<String, String>| annotations.get(ANNOTATION_HANDED_OVER).cloned();
    let mark = data_volume.and_then(|d| marked_by(d.annotations()));
    let Some(claim) = claim else {
        let Some(data_volume) = data_volume else { return VolumeState::Missing };
        if mark.is_some() {
            return if mark.as_deref() == machine {
                VolumeState::HandedOver
            } else {
                VolumeState::Taken(data_volume.name_any())
            };
        }
        let phase = data_volume_phase(data_volume);
        return VolumeState::Pending(format!(
            "CDI has not made the claim yet (DataVolume is {phase})"
        ));
    };
    let name = claim.name_any();
    let owners = claim.owner_references();
    let of_cdi =
        data_volume.is_some() && owners.iter().any(|o| o.kind == "DataVolume" && o.name == name);
    if !(origin.made(Some(claim.labels())) || of_cdi) {
        return VolumeState::Foreign(name);
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return VolumeState::Leaving(name);
    }
    let mark = marked_by(claim.annotations()).or(mark);
    let mut machines = owners.iter().filter(|o| o.kind == "VirtualMachine").peekable();
    if mark.is_some() || machines.peek().is_some() {
        // One of the same name, made anew, is another VM.
        let is_of = |o: &OwnerReference| Some(o.uid.as_str()) == machine;
        return if mark.is_some() && mark.as_deref() == machine && machines.any(is_of) {
            VolumeState::HandedOver
        } else {
            VolumeState::Taken(name)
        };
    }
    if let Some(phase) = data_volume.map(data_volume_phase).filter(|p| !data_volume_may_be_used(p))
    {
        return VolumeState::Pending(format!("DataVolume {name} is {phase}"));
    }
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    if phase == Some("Lost") {
        return VolumeState::Pending(format!("claim {name} has lost its volume"));
    }
    // Not bound may mean that it waits for the pod.
    VolumeState::Usable
}

fn data_volume_phase(data_volume: &DynamicObject) -> &str {
    data_volume.data["status"]["phase"].as_str().unwrap_or("new")
}

/// What a pod is doing.
pub async fn pod_state(origin: &Origin, pod: Option<&Pod>, now: i64) -> PodState {
    let Some(pod) = pod else { return PodState::Missing };
    if !origin.made(pod.metadata.labels.as_ref()) {
        return PodState::Foreign(pod.name_any());
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return PodState::Leaving;
    }
    let attempt = pod.labels().get(LABEL_ATTEMPT).and_then(|n| n.parse().ok()).unwrap_or(1);
    let empty = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&empty);
    match status.phase.as_deref() {
        Some("Running") => match address(pod).zip(port(pod, PORT_RESULT)) {
            Some((ip, port)) => match pod_http::is_open(ip, port).await {
                Ok(true) => PodState::Serving(attempt),
                Ok(false) => PodState::Running(attempt),
                Err(error) => PodState::Unreachable(attempt, error.to_string()),
            },
            None => PodState::Running(attempt),
        },
        Some("Succeeded") => PodState::Succeeded(attempt, ended_at(status).unwrap_or(now)),
        Some("Failed") => {
            PodState::Failed(attempt, failure::of_pod(pod, created(pod).unwrap_or(now)))
        }
        _ => PodState::Waiting(attempt, waits_for(status)),
    }
}

/// When it was made.
pub fn created(pod: &Pod) -> Option<i64> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second())
}

/// When the last of its containers ended.
pub fn ended_at(status: &PodStatus) -> Option<i64> {
    let ends = status.container_statuses.iter().flatten();
    let ends = ends.filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    ends.map(|time| time.0.as_second()).max()
}

/// Why a pod does not run yet.
pub fn waits_for(status: &PodStatus) -> String {
    let containers =
        status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let mut waiting = containers.filter_map(|c| c.state.as_ref()?.waiting.as_ref());
    let conditions = status.conditions.iter().flatten();
    let mut unmet = conditions.filter(|c| c.type_ == "PodScheduled" && c.status == "False");
    let words = |reason: Option<&String>, message: Option<&String>| {
        let parts: Vec<&str> =
            [reason, message].into_iter().flatten().map(String::as_str).collect();
        parts.join(": ")
    };
    unmet
        .next()
        .map(|c| words(c.reason.as_ref(), c.message.as_ref()))
        .or_else(|| waiting.next().map(|w| words(w.reason.as_ref(), w.message.as_ref())))
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "for its node".to_owned())
}

/// The pod's address.
pub fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

/// A port by its name.
pub fn port(pod: &Pod, name: &str) -> Option<u16> {
    let ports = pod.spec.as_ref()?.containers.iter().flat_map(|c| c.ports.iter().flatten());
    let mut named = ports.filter(|p| p.name.as_deref() == Some(name));
    named.find_map(|p| u16::try_from(p.container_port).ok())
}

/// How far a running pod is.
pub async fn progress(pod: &Pod) -> Option<pod_http::Progress> {
    pod_http::progress(address(pod)?, port(pod, PORT_LIVE)?).await
}

/// The state of the VM object.
pub fn machine_state(origin: &Origin, machine: Option<&DynamicObject>) -> MachineState {
    let Some(machine) = machine else { return MachineState::Missing };
    if !origin.made(machine.metadata.labels.as_ref()) {
        return MachineState::Foreign;
    }
    if machine.annotations().contains_key(ANNOTATION_PENDING) {
        MachineState::Made
    } else {
        MachineState::HandedOver
    }
}

/// What the conversion said, if the VM was made of it.
pub fn outcome(origin: &Origin, machine: Option<&DynamicObject>) -> Option<Outcome> {
    let machine = machine.filter(|m| origin.made(m.metadata.labels.as_ref()))?;
    machine.annotations().get(ANNOTATION_OUTCOME).map(|text| Outcome::of_text(text))
}

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
