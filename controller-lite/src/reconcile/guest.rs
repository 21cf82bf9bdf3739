//! From a Plan's VM, its Provider and what was found at the source to the values that objects are
//! built from. Pure.

use super::failure::Failure;
use crate::api::plan::{
    NetworkTarget, Plan, PlanVm, StorageMap, StorageTarget, Strategy, VolumeMode,
};
use crate::api::provider::{Provider, SourceKind};
use crate::objects::Origin;
use crate::objects::source::{FilePath, Source};
use crate::objects::vm::{Facts, Network, NetworkMap};
use crate::objects::volume::{Mode, Placement};
use kube::ResourceExt;
use serde::Serialize;

/// A guest at its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Where it is.
    pub source: Source,
    /// Its disks, in virt-v2v's order.
    pub disks: Vec<GuestDisk>,
    /// What the VM object needs.
    pub facts: Facts,
    /// Host that it is read from.
    pub host: Option<String>,
    /// The host's own Secret, instead of the Provider's.
    pub secret: Option<String>,
}

/// A disk of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestDisk {
    /// As the guest sees it.
    pub bytes: u64,
    /// Where it is stored.
    pub datastore: Option<String>,
}

/// For which VM objects are made. `None` only for objects that the schema would have refused.
pub fn origin(plan: &Plan, vm: &PlanVm) -> Option<Origin> {
    Some(Origin {
        plan: plan.name_any(),
        plan_namespace: plan.namespace()?,
        plan_uid: plan.uid()?,
        namespace: plan.target_namespace()?,
        vm: vm.target_name()?.to_owned(),
    })
}

/// Which volume a disk gets.
pub fn placement(map: &StorageMap, vm: &str, index: usize, disk: &GuestDisk) -> Placement {
    let of_disk = map.entries.iter().find(|entry| {
        entry.disk.as_ref().is_some_and(|d| {
            d.index as usize == index && d.vm.as_deref().is_none_or(|name| name == vm)
        })
    });
    let of_datastore = map
        .entries
        .iter()
        .find(|entry| entry.datastore.is_some() && entry.datastore == disk.datastore);
    let chosen: &StorageTarget = of_disk.or(of_datastore).map_or(&map.default, |e| &e.target);
    let mode = chosen.volume_mode.or(map.default.volume_mode);
    Placement {
        class: chosen.storage_class.clone().or_else(|| map.default.storage_class.clone()),
        access: chosen.access_mode.or(map.default.access_mode).map(|mode| word(&mode)),
        mode: mode.map(|mode| match mode {
            VolumeMode::Block => Mode::Block,
            VolumeMode::Filesystem => Mode::Filesystem,
        }),
    }
}

/// The network map.
pub fn networks(plan: &Plan) -> NetworkMap {
    let target = |target: &NetworkTarget| match target {
        NetworkTarget::Pod {} => Network::Pod,
        NetworkTarget::Multus { network_name } => Network::Multus(network_name.clone()),
        NetworkTarget::Ignored {} => Network::Ignored,
    };
    let map = &plan.spec.network_map;
    NetworkMap {
        entries: map.entries.iter().map(|e| (e.source.clone(), target(&e.network))).collect(),
        default: map.default.as_ref().map(target),
    }
}

/// A strategy that the pod has not for sources of this type.
pub fn unfit_strategy(plan: &Plan, provider: &Provider) -> Option<Failure> {
    let kind = match (plan.spec.strategy, provider.spec.kind) {
        (Strategy::CopyFirst, SourceKind::Ova) => "ova",
        (Strategy::CopyFirst, SourceKind::Xen) => "xen",
        _ => return None,
    };
    let message = format!("the strategy copyFirst is not for Providers of type {kind}");
    Some(Failure::lasting("config", message, "use the strategy cold"))
}

/// What of the guest does not fit the Plan, before anything is made.
pub fn misfit(guest: &Guest, networks: &NetworkMap) -> Option<Failure> {
    if guest.disks.is_empty() {
        return Some(Failure::lasting("not-found", "the VM has no disks", "choose another VM"));
    }
    let mut on_pod = 0;
    for nic in &guest.facts.nics {
        match networks.of(Some(&nic.network)) {
            None => {
                let message = format!("the network {:?} of the VM is not mapped", nic.network);
                let advice = "make a Plan with an entry for it, or a default, in spec.networkMap";
                return Some(Failure::lasting("config", message, advice));
            }
            Some(Network::Pod) => on_pod += 1,
            Some(Network::Multus(_) | Network::Ignored) => {}
        }
    }
    (on_pod > 1).then(|| {
        let message =
            format!("{on_pod} NICs of the VM would be on the pod network, of which a VM has one");
        let advice = "map the networks of the others to multus or ignored in spec.networkMap";
        Failure::lasting("config", message, advice)
    })
}

/// Paths of a VM whose files are on a volume.
pub fn paths(vm: &PlanVm) -> Result<Vec<FilePath>, Failure> {
    let paths = vm.paths.as_deref().unwrap_or_default();
    if paths.is_empty() {
        let advice = "name the files of the VM in spec.vms[].paths";
        return Err(Failure::lasting("config", "the VM has no paths", advice));
    }
    let bad = |error: crate::objects::source::BadPath| {
        Failure::lasting("config", error.to_string(), "make a Plan with another path")
    };
    paths.iter().map(|path| FilePath::parse(path)).collect::<Result<_, _>>().map_err(bad)
}

/// A guest that is a list of disk images of these sizes.
pub fn of_disks(provider: &Provider, vm: &PlanVm, sizes: &[u64]) -> Result<Guest, Failure> {
    let paths = paths(vm)?;
    if paths.len() != sizes.len() {
        let message = format!("{} paths, but {} sizes were measured", paths.len(), sizes.len());
        return Err(Failure::lasting("internal", message, "report it"));
    }
    let name = vm.name.clone().or_else(|| vm.target_name.clone()).unwrap_or_default();
    Ok(Guest {
        source: Source::Disk { claim: source_claim(provider)?, paths, name },
        disks: sizes.iter().map(|bytes| GuestDisk { bytes: *bytes, datastore: None }).collect(),
        facts: Facts::default(),
        host: None,
        secret: None,
    })
}

/// The claim with the files of a Provider.
pub fn source_claim(provider: &Provider) -> Result<String, Failure> {
    let volume = provider.spec.source_volume.as_ref();
    volume.map(|v| v.claim_name.clone()).ok_or_else(|| {
        Failure::lasting(
            "config",
            "the Provider has no sourceVolume",
            "name the PVC with the files",
        )
    })
}

/// The Secret that the pod gets.
pub fn secret(provider: &Provider) -> Option<String> {
    match provider.spec.kind {
        SourceKind::Vsphere | SourceKind::Xen => {
            provider.spec.secret_ref.as_ref().map(|secret| secret.name.clone())
        }
        SourceKind::Ova | SourceKind::Disk => None,
    }
}

/// How the API writes a value without fields.
pub fn word<T: Serialize>(value: &T) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::vm::NicFacts;
    use serde_json::{Value, json};

    fn plan(spec: &Value) -> Plan {
        let mut whole = json!({
            "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Plan",
            "metadata": { "name": "p", "namespace": "lab", "uid": "u" },
            "spec": { "providerRef": { "name": "x" }, "vms": [{ "name": "web" }] },
        });
        for (key, value) in spec.as_object().unwrap() {
            whole["spec"][key] = value.clone();
        }
        serde_json::from_value(whole).unwrap()
    }

    fn guest(networks: &[&str]) -> Guest {
        let nic = |n: &&str| NicFacts { mac: "00:50:56:00:00:01".into(), network: (*n).to_owned() };
        Guest {
            source: Source::Disk { claim: "c".into(), paths: vec![], name: "web".into() },
            disks: vec![GuestDisk { bytes: 1, datastore: Some("ssd".into()) }],
            facts: Facts { uuid: None, nics: networks.iter().map(nic).collect() },
            host: None,
            secret: None,
        }
    }

    #[test]
    fn a_disk_beats_its_datastore_which_beats_the_default() {
        let plan = plan(&json!({ "storageMap": {
            "default": { "storageClass": "slow", "volumeMode": "Block" },
            "entries": [
                { "datastore": "ssd", "storageClass": "fast" },
                { "disk": { "vm": "web", "index": 1 }, "accessMode": "ReadWriteMany" },
            ],
        } }));
        let of = |vm: &str, index: usize| {
            placement(&plan.spec.storage_map, vm, index, &guest(&[]).disks[0])
        };
        let fast = of("web", 0);
        assert_eq!((fast.class.as_deref(), fast.mode), (Some("fast"), Some(Mode::Block)));
        let disk = of("web", 1);
        assert_eq!(
            (disk.class.as_deref(), disk.access.as_deref()),
            (Some("slow"), Some("ReadWriteMany"))
        );
        assert_eq!(of("db", 1), fast);
    }

    #[test]
    fn networks_that_do_not_fit_are_found_beforehand() {
        let some = networks(&plan(&json!({ "networkMap": {
            "entries": [{ "source": "LAN", "network": { "pod": {} } }],
        } })));
        assert_eq!(misfit(&guest(&["LAN"]), &some), None);
        assert!(misfit(&guest(&["DMZ"]), &some).unwrap().message.contains("DMZ"));
        assert!(misfit(&guest(&["LAN", "LAN"]), &some).unwrap().message.starts_with("2 NICs"));
        let none = Guest { disks: vec![], ..guest(&[]) };
        assert_eq!(misfit(&none, &some).unwrap().class, "not-found");
    }
}
