//! Builds the KubeVirt `VirtualMachine` of a converted guest.
//!
//! The Serve phase calls it with what [`parse_domain`] read from virt-v2v's domain XML, and with
//! the inspection if there is one. It writes text and nothing else: it creates no object in a
//! cluster and knows no cluster. virt-v2v's own `-o kubevirt` is not used for this, because an API
//! server with KubeVirt's schema refuses it: `clock` and `features` are nested under `resources`,
//! networks lack a type, disks are paths on a host and those on other buses than virtio are left
//! out. What is written here passes that schema with unknown fields refused (tested), and keeps
//! to the rules of KubeVirt's admission webhook that the schema does not hold: no IDE bus, no
//! `pc` machine, one pod network, SMM with secure boot, no BIOS on arm64.

use serde_json::{Map, Value, json};

use super::domain_info::{Clock, ClockBase, Firmware, Nic, NicSource, Timer};
pub use super::domain_info::{DomainError, DomainInfo, parse_domain};
use super::inspection::{InspectedFirmware, Inspection};
pub use super::kube_name::rfc1123;
use super::kube_name::{is_subdomain, label_value};

/// Why no `VirtualMachine` could be built.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The name is no RFC 1123 label, which KubeVirt needs as it becomes the value of a label.
    #[error("{name:?} cannot be the name of a VirtualMachine{}", hint.as_ref().map_or_else(String::new, |hint| format!(", {hint:?} could")))]
    Name {
        /// The name as given.
        name: String,
        /// The nearest name that would do, see [`rfc1123`].
        hint: Option<String>,
    },
    /// A claim's name that no PVC can have.
    #[error("{name:?} cannot be the name of a PersistentVolumeClaim (disk {disk})")]
    ClaimName {
        /// The disk, from 0.
        disk: usize,
        /// The name as given.
        name: String,
    },
    /// Disks and claims do not match one to one.
    #[error("the guest has {disks} hard disks, but {claims} claims were given")]
    DiskCount {
        /// Hard disks in the domain XML.
        disks: usize,
        /// Claims given.
        claims: usize,
    },
    /// Should not happen: the tree holds strings, numbers and booleans only.
    #[error("the VirtualMachine could not be written as YAML")]
    Yaml(#[from] serde_saphyr::SerializeError),
}

/// What is decided outside of the guest's own definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmOptions {
    /// Name of the `VirtualMachine`: an RFC 1123 label, see [`rfc1123`].
    pub name: String,
    /// The claim of each hard disk, in the order of the domain XML.
    pub claim_names: Vec<String>,
}

/// Writes the `VirtualMachine`, stopped (`runStrategy: Halted`), as YAML.
///
/// Networks: KubeVirt allows a single pod network. The first interface that was connected to a
/// *network* gets it (masquerade, so the guest is behind the pod's address). Every other
/// interface, and all that were on a *bridge* (how libvirt describes any VMware port group),
/// becomes `bridge: {}` on a Multus network named after its source, made an RFC 1123 name. That
/// NetworkAttachmentDefinition has to exist, under that name, before the guest can start; with
/// virt-v2v's `--network`/`--bridge` the names can be chosen. MAC addresses are kept.
pub fn virtual_machine_yaml(
    domain: &DomainInfo,
    inspection: Option<&Inspection>,
    opts: &VmOptions,
) -> Result<String, VmError> {
    check(domain, opts)?;
    let guest = Guest::new(domain, inspection);
    let machine = json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {
            "name": opts.name,
            "labels": {
                "app": opts.name,
                // The label that virt-v2v sets and Forklift reads to recognise the system.
                "libguestfs.org/osinfo": inspection.and_then(Inspection::osinfo).and_then(label_value),
            },
        },
        "spec": {
            "runStrategy": "Halted",
            "template": {
                "metadata": { "labels": { "kubevirt.io/domain": opts.name } },
                "spec": guest.template_spec(&opts.claim_names),
            },
        },
    });
    Ok(serde_saphyr::to_string(&without_nulls(machine))?)
}

fn check(domain: &DomainInfo, opts: &VmOptions) -> Result<(), VmError> {
    let hint = rfc1123(&opts.name);
    if hint.as_deref() != Some(&opts.name) {
        return Err(VmError::Name { name: opts.name.clone(), hint });
    }
    let (disks, claims) = (domain.disks.len(), opts.claim_names.len());
    if disks != claims {
        return Err(VmError::DiskCount { disks, claims });
    }
    match opts.claim_names.iter().position(|name| !is_subdomain(name)) {
        Some(disk) => Err(VmError::ClaimName { disk, name: opts.claim_names[disk].clone() }),
        None => Ok(()),
    }
}

/// Drops what was left `null` above, i.e. the `None`s. Empty objects mean something and stay.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// The architectures that KubeVirt has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arch {
    Amd64,
    Arm64,
    S390x,
}

/// The inputs, with what follows from them in several places.
struct Guest<'a> {
    domain: &'a DomainInfo,
    arch: Arch,
    windows: bool,
    firmware: Firmware,
}

impl<'a> Guest<'a> {
    fn new(domain: &'a DomainInfo, inspection: Option<&Inspection>) -> Self {
        let found = inspection.and_then(|inspection| inspection.firmware);
        Self {
            domain,
            arch: match domain.arch.as_deref() {
                Some("aarch64") => Arch::Arm64,
                Some("s390x") => Arch::S390x,
                _ => Arch::Amd64,
            },
            windows: inspection.is_some_and(Inspection::is_windows),
            // Silence of the XML means BIOS, but not against what virt-v2v found on the disks.
            firmware: match (domain.firmware, found) {
                (Firmware::Bios, Some(InspectedFirmware::Uefi)) => {
                    Firmware::Efi { secure_boot: false }
                }
                (firmware, _) => firmware,
            },
        }
    }

    fn template_spec(&self, claims: &[String]) -> Value {
        let domain = self.domain;
        let volume = |(index, claim): (usize, &String)| {
            json!({
                "name": disk_name(index),
                "persistentVolumeClaim": { "claimName": claim },
            })
        };
        let (interfaces, networks) = nics(&domain.nics);
        json!({
            "architecture": match self.arch {
                Arch::Amd64 => "amd64",
                Arch::Arm64 => "arm64",
                Arch::S390x => "s390x",
            },
            "domain": {
                "clock": self.clock(),
                "cpu": self.cpu(),
                "devices": self.devices(&interfaces),
                "features": self.features(),
                "firmware": { "bootloader": self.bootloader(), "uuid": domain.uuid },
                "machine": self.machine(),
                "memory": { "guest": format!("{}Mi", domain.memory_bytes.div_ceil(1 << 20)) },
            },
            "networks": networks,
            "volumes": claims.iter().enumerate().map(volume).collect::<Vec<_>>(),
        })
    }

    /// Only q35 is named: KubeVirt's webhook refuses `pc`, and its default is the right one else.
    fn machine(&self) -> Option<Value> {
        let q35 = self.domain.machine.as_deref().is_some_and(|machine| machine.contains("q35"));
        (q35 && self.arch == Arch::Amd64).then(|| json!({ "type": "q35" }))
    }

    /// Without a layout that fits the number of CPUs it is one socket, as virt-v2v writes it:
    /// client editions of Windows use two sockets at most. `host-passthrough` is not carried over:
    /// it would pin the guest to like hosts, and KubeVirt's default (`host-model`) does as well.
    fn cpu(&self) -> Value {
        let vcpus = self.domain.vcpus;
        let fits = |sockets: u32, cores: u32, threads: u32| {
            sockets.checked_mul(cores).and_then(|n| n.checked_mul(threads)) == Some(vcpus)
        };
        let (sockets, cores, threads) = match self.domain.topology {
            Some(t) if fits(t.sockets, t.cores, t.threads) => (t.sockets, t.cores, t.threads),
            _ => (1, vcpus, 1),
        };
        json!({
            "sockets": sockets, "cores": cores, "threads": threads, "model": self.domain.cpu_model,
        })
    }

    fn secure_boot(&self) -> bool {
        self.arch == Arch::Amd64 && self.firmware == Firmware::Efi { secure_boot: true }
    }

    /// Always said where there is a choice: Forklift reads the firmware from here.
    fn bootloader(&self) -> Option<Value> {
        match (self.arch, self.firmware) {
            (Arch::S390x, _) => None,
            (Arch::Amd64, Firmware::Bios) => Some(json!({ "bios": {} })),
            (Arch::Amd64 | Arch::Arm64, _) => {
                Some(json!({ "efi": { "secureBoot": self.secure_boot() } }))
            }
        }
    }

    /// For Windows the three enlightenments that depend on no other and that every Windows since
    /// 2008 takes; without `relaxed` a busy host brings it down with a watchdog error.
    fn features(&self) -> Value {
        let Self { domain, windows, arch, .. } = self;
        let amd64 = *arch == Arch::Amd64;
        json!({
            "acpi": domain.features.acpi.then(|| json!({})),
            "apic": (domain.features.apic && amd64).then(|| json!({})),
            "smm": (self.secure_boot() || domain.features.smm && amd64)
                .then(|| json!({ "enabled": true })),
            "hyperv": (*windows && amd64).then(|| json!({
                "relaxed": {}, "vapic": {}, "spinlocks": { "spinlocks": 8191 },
            })),
        })
    }

    fn devices(&self, interfaces: &[Value]) -> Value {
        let domain = self.domain;
        let ordered = domain.disks.iter().enumerate();
        let boot = ordered.filter_map(|(index, disk)| Some((disk.boot_order?, index))).min();
        let boot = boot.map_or(0, |(_, index)| index);
        let disk = |index| {
            json!({
                "name": disk_name(index),
                "bootOrder": (index == boot).then_some(1),
                "disk": { "bus": self.bus(&domain.disks[index].bus) },
            })
        };
        let tablet = domain.tablet && self.arch != Arch::S390x;
        json!({
            // Otherwise KubeVirt gives an interface to a guest that has none.
            "autoattachPodInterface": domain.nics.is_empty().then_some(false),
            "disks": (0..domain.disks.len()).map(disk).collect::<Vec<_>>(),
            "inputs": tablet.then(|| json!([{ "name": "tablet", "type": "tablet", "bus": "usb" }])),
            "interfaces": interfaces,
            "rng": domain.rng.then(|| json!({})),
            // Persistent, as Forklift does: Windows 11 keeps keys in it that must outlive a stop.
            "tpm": domain.tpm.then(|| json!({ "persistent": true })),
            "useVirtioTransitional": domain.virtio_transitional.then_some(true),
        })
    }

    /// KubeVirt has no IDE; SATA is what a guest with IDE drivers most likely boots from.
    /// arm64 has no SATA either.
    fn bus<'b>(&self, bus: &'b str) -> &'b str {
        match bus {
            "ide" | "sata" if self.arch == Arch::Amd64 => "sata",
            "ide" | "sata" | "scsi" => "scsi",
            "usb" => "usb",
            _ => "virtio",
        }
    }

    /// Windows gets what virt-v2v gives it under `-o kubevirt` (there in the wrong place), and
    /// the XML's own timers, which virt-v2v does not write, go before that. UTC also stands for
    /// local time, which KubeVirt does not have.
    fn clock(&self) -> Option<Value> {
        let base = match self.domain.clock.as_ref().map(|clock| &clock.base) {
            None if !self.windows => return None,
            Some(ClockBase::Zone(zone)) => json!({ "timezone": zone }),
            Some(ClockBase::Utc(Some(offset))) => json!({ "utc": { "offsetSeconds": offset } }),
            None | Some(ClockBase::Utc(None) | ClockBase::LocalTime) => json!({ "utc": {} }),
        };
        let mut timers = Map::new();
        if self.windows {
            timers.insert("hpet".to_owned(), json!({ "present": false }));
            timers.insert("hyperv".to_owned(), json!({}));
            timers.insert("pit".to_owned(), json!({ "tickPolicy": "delay" }));
            timers.insert("rtc".to_owned(), json!({ "tickPolicy": "catchup" }));
        }
        timers.extend(
            self.domain.clock.iter().flat_map(|clock: &Clock| &clock.timers).filter_map(timer),
        );
        let timers = (!timers.is_empty() && self.arch == Arch::Amd64).then_some(timers);
        Some(json!({ "utc": base["utc"], "timezone": base["timezone"], "timer": timers }))
    }
}

/// A timer in KubeVirt's words; `None` for those it does not have.
fn timer(timer: &Timer) -> Option<(String, Value)> {
    let (present, policy, track) = (timer.present, &timer.tick_policy, &timer.track);
    let (name, value) = match timer.name.as_str() {
        "rtc" => ("rtc", json!({ "present": present, "tickPolicy": policy, "track": track })),
        "pit" => ("pit", json!({ "present": present, "tickPolicy": policy })),
        "hpet" => ("hpet", json!({ "present": present, "tickPolicy": policy })),
        "hypervclock" => ("hyperv", json!({ "present": present })),
        "kvmclock" => ("kvm", json!({ "present": present })),
        _ => return None,
    };
    Some((name.to_owned(), value))
}

fn disk_name(index: usize) -> String {
    format!("disk-{index}")
}

/// The interfaces and the networks of the same names; see [`virtual_machine_yaml`] for the rule.
fn nics(nics: &[Nic]) -> (Vec<Value>, Vec<Value>) {
    let pod = nics.iter().position(|nic| matches!(nic.source, NicSource::Network(_)));
    let each = nics.iter().enumerate().map(|(index, nic)| {
        let name = format!("net-{index}");
        let on_pod = pod == Some(index);
        let (NicSource::Network(source) | NicSource::Bridge(source)) = &nic.source;
        let attachment = source.as_deref().and_then(rfc1123).unwrap_or_else(|| name.clone());
        let interface = json!({
            "name": name,
            "model": nic_model(nic.model.as_deref()),
            "macAddress": nic.mac,
            "masquerade": on_pod.then(|| json!({})),
            "bridge": (!on_pod).then(|| json!({})),
        });
        let network = json!({
            "name": name,
            "pod": on_pod.then(|| json!({})),
            "multus": (!on_pod).then(|| json!({ "networkName": attachment })),
        });
        (interface, network)
    });
    each.unzip()
}

/// KubeVirt's webhook takes these models only. Others mean virtio: `virtio-transitional`, and
/// VMware's `vmxnet3`, for which virt-v2v installed virtio drivers.
fn nic_model(model: Option<&str>) -> &str {
    match model {
        Some(model @ ("e1000" | "e1000e" | "igb" | "ne2k_pci" | "pcnet" | "rtl8139")) => model,
        _ => "virtio",
    }
}

#[cfg(test)]
#[path = "vm_yaml_tests.rs"]
mod tests;
