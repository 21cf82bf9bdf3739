//! From a Plan's VM, its Provider and what was found at the source to the values that objects are
//! built from. Pure.

use super::failure::Failure;
use crate::api::plan::{
    NetworkTarget, Plan, PlanVm, StorageMap, StorageTarget, Strategy, VolumeMode,
};
use crate::api::provider::{Provider, SourceKind};
use crate::objects::Origin;
use crate::objects::source::{FilePath, Source};
use crate::objects::vm::{Facts, Network, NetworkMap, NicFacts};
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

/// What a look into files or at a Xen host gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    /// What its firmware tells it.
    pub uuid: Option<String>,
    /// Of the disks in bytes, in virt-v2v's order.
    pub sizes: Vec<u64>,
    /// In that order too.
    pub nics: Vec<NicFacts>,
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
        let network = nic.network.as_deref();
        match (networks.of(network), network) {
            (None, Some(network)) => {
                let message = format!("the network {network:?} of the VM is not mapped");
                let advice = "make a Plan with an entry for it, or a default, in spec.networkMap";
                return Some(Failure::lasting("config", message, advice));
            }
            // As the VM is made: the first one goes to the pod network, if that is free.
            (None, None) => on_pod = on_pod.max(1),
            (Some(Network::Pod), _) => on_pod += 1,
            (Some(Network::Multus(_) | Network::Ignored), _) => {}
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
fn paths(vm: &PlanVm) -> Result<Vec<FilePath>, Failure> {
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

/// Where a guest is that only a pod can look at.
pub fn source(provider: &Provider, vm: &PlanVm) -> Result<Source, Failure> {
    let name = || vm.name.clone().or_else(|| vm.target_name.clone()).unwrap_or_default();
    match provider.spec.kind {
        SourceKind::Disk => {
            Ok(Source::Disk { paths: paths(vm)?, claim: source_claim(provider)?, name: name() })
        }
        SourceKind::Ova => match <[FilePath; 1]>::try_from(paths(vm)?) {
            Ok([path]) => Ok(Source::Ova { path, claim: source_claim(provider)?, name: name() }),
            Err(paths) => {
                let message = format!("the VM has {} paths, and an OVA is one", paths.len());
                let advice = "name the OVA alone, or the .ovf of one that is a folder";
                Err(Failure::lasting("config", message, advice))
            }
        },
        SourceKind::Xen => {
            let said = vm.name.clone().or_else(|| vm.uuid.clone());
            let name = said.ok_or_else(|| {
                let message = "a Xen host knows no moref";
                Failure::lasting("config", message, "say the VM by name or uuid")
            })?;
            // The schema has seen to it.
            let url = provider.spec.url.clone().unwrap_or_default();
            let (trust, thumbprint) =
                (word(&provider.spec.trust.mode), provider.spec.trust.thumbprint.clone());
            let legacy = provider.spec.ssh_legacy.unwrap_or(false);
            Ok(Source::Xen { url, name, trust, thumbprint, legacy })
        }
        SourceKind::Vsphere => {
            Err(Failure::lasting("internal", "an inventory is asked for it", "report it"))
        }
    }
}

/// The guest there.
pub fn of_looked(source: Source, looked: &Looked) -> Result<Guest, Failure> {
    let Looked { uuid, sizes, nics } = looked;
    if let Source::Disk { paths, .. } = &source
        && paths.len() != sizes.len()
    {
        let message = format!("{} paths, but {} disks were found", paths.len(), sizes.len());
        return Err(Failure::lasting("internal", message, "report it"));
    }
    Ok(Guest {
        source,
        disks: sizes.iter().map(|bytes| GuestDisk { bytes: *bytes, datastore: None }).collect(),
        facts: Facts { uuid: uuid.clone(), nics: nics.clone() },
        host: None,
        secret: None,
    })
}

/// The claim with the files of a Provider.
fn source_claim(provider: &Provider) -> Result<String, Failure> {
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
        let nic = |n: &&str| NicFacts {
            mac: Some("00:50:56:00:00:01".into()),
            network: Some((*n).to_owned()),
        };
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
        // One that the source names none for goes to the pod network while that is free.
        let mut unnamed = guest(&["LAN", "LAN"]);
        unnamed.facts.nics[1].network = None;
        assert_eq!(misfit(&unnamed, &some), None);
        unnamed.facts.nics.swap(0, 1);
        assert!(misfit(&unnamed, &some).unwrap().message.starts_with("2 NICs"));
        let none = Guest { disks: vec![], ..guest(&[]) };
        assert_eq!(misfit(&none, &some).unwrap().class, "not-found");
    }

    fn looked_at(provider: &Value, vm: &Value) -> Result<Source, Failure> {
        let provider = json!({
            "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Provider",
            "metadata": { "name": "x", "namespace": "lab" }, "spec": provider,
        });
        let plan = plan(&json!({ "vms": [vm] }));
        source(&serde_json::from_value(provider).unwrap(), &plan.spec.vms[0])
    }

    #[test]
    fn files_and_xen_hosts_are_sources() {
        let volume = json!({ "claimName": "files" });
        let ova = json!({ "type": "ova", "sourceVolume": volume });
        let path = |p: &str| FilePath::parse(p).unwrap();
        assert_eq!(
            looked_at(&ova, &json!({ "name": "web", "paths": ["a/web.ova"] })),
            Ok(Source::Ova { claim: "files".into(), path: path("a/web.ova"), name: "web".into() })
        );
        let two = json!({ "name": "web", "paths": ["a.ova", "b.ova"] });
        assert!(looked_at(&ova, &two).unwrap_err().message.contains("2 paths"));
        let disks = looked_at(&json!({ "type": "disk", "sourceVolume": volume }), &two).unwrap();
        let one = Looked { sizes: vec![1], ..Looked::default() };
        assert_eq!(of_looked(disks, &one).unwrap_err().class, "internal");
        let url = "xen+ssh://root@xen1";
        let xen = json!({ "type": "xen", "url": url, "secretRef": { "name": "s" } });
        let name = "6a0a7a2e-0000-4000-8000-00000000000a";
        let by_uuid = looked_at(&xen, &json!({ "uuid": name, "targetName": "web" })).unwrap();
        let (url, trust) = (url.to_owned(), "auto".to_owned());
        let wanted = Source::Xen { url, name: name.into(), trust, thumbprint: None, legacy: false };
        assert_eq!(by_uuid, wanted);
        let moref = json!({ "moref": "vm-21", "targetName": "web" });
        assert_eq!(looked_at(&xen, &moref).unwrap_err().class, "config");
        let nics = guest(&["LAN"]).facts.nics;
        let looked = Looked { uuid: Some(name.into()), sizes: vec![7, 8], nics };
        let found = of_looked(wanted, &looked).unwrap();
        assert_eq!(found.facts.uuid.as_deref(), Some(name));
        assert_eq!((found.disks[1].bytes, found.facts.nics.len()), (8, 1));
    }
}
