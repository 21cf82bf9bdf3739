//! The `VirtualMachine`: what the pod says of the guest, on our claims and mapped networks.
//!
//! The pod's YAML comes from a container that has read an untrusted guest, so nothing is taken
//! from it but what describes hardware: a guest that broke out of its conversion must not be able
//! to name another volume, secret or device of the cluster.

use super::outcome::Outcome;
use super::{ANNOTATION_OUTCOME, ANNOTATION_PENDING, Origin};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Parts of `domain` that are taken from the pod as they are.
const DOMAIN: [&str; 3] = ["clock", "features", "machine"];
/// Of others only this: a firmware may also name an image to boot from, a memory huge pages.
const PARTS: [(&str, &[&str]); 3] = [
    ("cpu", &["sockets", "cores", "threads", "model"]),
    ("firmware", &["bootloader"]),
    ("memory", &["guest"]),
];
/// Parts of `domain.devices` that are taken from the pod.
const DEVICES: [&str; 4] = ["inputs", "rng", "tpm", "useVirtioTransitional"];

/// What the inventory said of a VM, kept on the pod until the VM is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// BIOS UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Its NICs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<NicFacts>,
}

/// A NIC at the source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicFacts {
    /// Its address; that of an OVA rarely has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Its network's name, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

impl Facts {
    /// As an annotation.
    pub fn to_text(&self) -> String {
        // Plain strings: this cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From an annotation; what cannot be read says nothing.
    pub fn of_text(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }
}

/// Where a NIC goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// The network of the pods.
    Pod,
    /// A network of Multus, by `name` or `namespace/name`.
    Multus(String),
    /// Nowhere.
    Ignored,
}

/// Which network of the source becomes which.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkMap {
    /// By the name at the source.
    pub entries: Vec<(String, Network)>,
    /// For the others.
    pub default: Option<Network>,
}

impl NetworkMap {
    /// Where the NICs of a network go. `None`: nobody said.
    pub fn of(&self, network: Option<&str>) -> Option<&Network> {
        let entry = network.and_then(|n| self.entries.iter().find(|(source, _)| source == n));
        entry.map(|(_, target)| target).or(self.default.as_ref())
    }
}

/// What is decided outside of the guest.
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    /// For which VM.
    pub origin: &'a Origin,
    /// The claims, in virt-v2v's order.
    pub claims: &'a [String],
    /// Networks.
    pub networks: &'a NetworkMap,
    /// What the inventory said.
    pub facts: &'a Facts,
    /// What else the conversion said.
    pub outcome: &'a Outcome,
    /// What the VM gets when it is handed over; until then it is `Halted`.
    pub run_strategy: &'a str,
}

/// What the pod gave cannot become a VM.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not YAML.
    #[error("the pod's description of the VM is no YAML")]
    Yaml(#[source] Box<serde_saphyr::Error>),
    /// Another kind of object.
    #[error("the pod describes a {0}, not a VirtualMachine of kubevirt.io/v1")]
    Kind(String),
    /// As many disks as there are volumes.
    #[error("the pod describes a VM with {described} disks, but {claims} were converted")]
    Disks {
        /// In the description.
        described: usize,
        /// Volumes.
        claims: usize,
    },
    /// KubeVirt has one pod network for each VM.
    #[error(
        "NICs {0} and {1} would both be on the pod network, of which a VM has one: map one of their networks to Multus or to ignored"
    )]
    TwoPodNetworks(usize, usize),
}

impl Machine<'_> {
    /// Builds it from the pod's `/vm`.
    pub fn build(&self, yaml: &str) -> Result<Value, Error> {
        let described: Value =
            serde_saphyr::from_str(yaml).map_err(|error| Error::Yaml(Box::new(error)))?;
        let kind = format!("{} of {}", word(&described["kind"]), word(&described["apiVersion"]));
        if kind != "VirtualMachine of kubevirt.io/v1" {
            return Err(Error::Kind(kind));
        }
        let guest = &described["spec"]["template"]["spec"];
        let (interfaces, networks) = self.nics(list(&guest["domain"]["devices"]["interfaces"]))?;
        let mut devices = picked(&guest["domain"]["devices"], &DEVICES);
        devices
            .insert("disks".to_owned(), self.disks(&guest["domain"]["devices"]["disks"])?.into());
        if interfaces.is_empty() {
            // Otherwise KubeVirt gives an interface to a guest that has none.
            devices.insert("autoattachPodInterface".to_owned(), json!(false));
        } else {
            devices.insert("interfaces".to_owned(), interfaces.into());
        }
        let mut domain = picked(&guest["domain"], &DOMAIN);
        for (part, keys) in PARTS {
            domain.insert(part.to_owned(), picked(&guest["domain"][part], keys).into());
        }
        if let Some(uuid) = &self.facts.uuid {
            // Licences of guests hang on it.
            domain["firmware"]["uuid"] = json!(uuid.to_lowercase());
        }
        domain.insert("devices".to_owned(), devices.into());
        let mut spec = picked(guest, &["architecture"]);
        spec.insert("domain".to_owned(), domain.into());
        if !networks.is_empty() {
            spec.insert("networks".to_owned(), networks.into());
        }
        spec.insert("volumes".to_owned(), self.volumes());
        Ok(self.object(&described["metadata"]["labels"]["libguestfs.org/osinfo"], &spec))
    }

    fn object(&self, osinfo: &Value, spec: &Map<String, Value>) -> Value {
        let Origin { vm, namespace, .. } = self.origin;
        let mut labels = self.origin.labels();
        labels.insert("app".to_owned(), vm.clone());
        if let Some(osinfo) = osinfo.as_str() {
            labels.insert("libguestfs.org/osinfo".to_owned(), osinfo.to_owned());
        }
        json!({
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachine",
            "metadata": {
                "name": vm,
                "namespace": namespace,
                "labels": labels,
                "annotations": {
                    ANNOTATION_OUTCOME: self.outcome.to_text(),
                    ANNOTATION_PENDING: self.run_strategy,
                },
            },
            "spec": {
                "runStrategy": "Halted",
                "template": {
                    "metadata": { "labels": { "kubevirt.io/domain": vm } },
                    "spec": spec,
                },
            },
        })
    }

    /// The described disks, in order, under our names. One boots: the described one, else the first.
    fn disks(&self, described: &Value) -> Result<Vec<Value>, Error> {
        let described = list(described);
        if described.len() != self.claims.len() {
            let (described, claims) = (described.len(), self.claims.len());
            return Err(Error::Disks { described, claims });
        }
        let first = described
            .iter()
            .enumerate()
            .filter_map(|(index, disk)| Some((disk["bootOrder"].as_u64()?, index)))
            .min()
            .map_or(0, |(_, index)| index);
        let disk = |(index, described): (usize, &Value)| {
            let bus = described["disk"]["bus"].as_str().unwrap_or("virtio");
            let mut disk = json!({ "name": disk_name(index), "disk": { "bus": bus } });
            if index == first {
                disk["bootOrder"] = json!(1);
            }
            disk
        };
        Ok(described.iter().enumerate().map(disk).collect())
    }

    fn volumes(&self) -> Value {
        let volume = |(index, claim): (usize, &String)| {
            json!({
                "name": disk_name(index), "persistentVolumeClaim": { "claimName": claim },
            })
        };
        self.claims.iter().enumerate().map(volume).collect()
    }

    fn nics(&self, described: &[Value]) -> Result<(Vec<Value>, Vec<Value>), Error> {
        let (mut interfaces, mut networks, mut on_pod) = (Vec::new(), Vec::new(), None);
        for (index, nic) in described.iter().enumerate() {
            let mac = nic["macAddress"].as_str();
            let name = format!("net-{index}");
            let mut interface = json!({
                "name": name, "model": nic["model"].as_str().unwrap_or("virtio"),
            });
            if let Some(mac) = mac {
                interface["macAddress"] = json!(mac);
            }
            // Preflight has refused networks of the source that the map does not know. Where the
            // source names none (files), one NIC is on the pod network, and the others nowhere.
            let network = self.source_network(mac, index, described.len());
            let target = self.networks.of(network).cloned();
            let target = target.unwrap_or(match on_pod {
                None => Network::Pod,
                Some(_) => Network::Ignored,
            });
            match target {
                Network::Ignored => continue,
                Network::Pod => {
                    if let Some(other) = on_pod.replace(index) {
                        return Err(Error::TwoPodNetworks(other, index));
                    }
                    interface["masquerade"] = json!({});
                    networks.push(json!({ "name": name, "pod": {} }));
                }
                Network::Multus(network) => {
                    interface["bridge"] = json!({});
                    networks.push(json!({ "name": name, "multus": { "networkName": network } }));
                }
            }
            interfaces.push(interface);
        }
        Ok((interfaces, networks))
    }

    /// By the address; where one of both has none, by the place among as many.
    fn source_network(&self, mac: Option<&str>, index: usize, count: usize) -> Option<&str> {
        let nics = &self.facts.nics;
        let is_it = |nic: &&NicFacts| {
            nic.mac.as_deref().zip(mac).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
        };
        let in_place = || {
            let nic = nics.get(index).filter(|_| nics.len() == count)?;
            (nic.mac.is_none() || mac.is_none()).then_some(nic)
        };
        nics.iter().find(is_it).or_else(in_place)?.network.as_deref()
    }
}

/// The owner reference by which claims go with the VM.
pub fn owner(name: &str, uid: &str) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": name, "uid": uid,
    })
}

/// Makes a VM the user's: it gets its run strategy, and goes on without its Plan.
pub fn hand_over(run_strategy: &str, resource_version: &str) -> Value {
    json!({
        "metadata": {
            // Somebody who changed it in between is not overwritten.
            "resourceVersion": resource_version,
            "annotations": { ANNOTATION_PENDING: null },
        },
        "spec": { "runStrategy": run_strategy },
    })
}

fn disk_name(index: usize) -> String {
    format!("disk-{index}")
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn picked(from: &Value, keys: &[&str]) -> Map<String, Value> {
    let of = |key: &&str| Some(((*key).to_owned(), from.get(*key)?.clone()));
    keys.iter().filter_map(of).collect()
}

#[cfg(test)]
#[path = "vm_tests.rs"]
mod tests;
