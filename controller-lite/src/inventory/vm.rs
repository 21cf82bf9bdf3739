//! A VM, of what the server says about it. Pure.

use super::model::{
    Bus, Controller, Firmware, Power, ServerKind, SourceDisk, SourceNic, SourceVm, Unreadable,
    in_order,
};
use super::names::typed;
use super::soap::{Object, Reference, child, kind, said};
use super::tree::Tree;
use roxmltree::Node;
use std::collections::HashMap;
use std::str::FromStr;

/// What is asked about each VM.
pub(super) const PATHS: [&str; 17] = [
    "name",
    "parent",
    "parentVApp",
    "runtime.host",
    "runtime.powerState",
    "runtime.connectionState",
    "snapshot",
    "config.uuid",
    "config.template",
    "config.guestId",
    "config.firmware",
    "config.bootOptions",
    "config.hardware.numCPU",
    "config.hardware.numCoresPerSocket",
    "config.hardware.memoryMB",
    "config.hardware.device",
    "config.files.vmPathName",
];

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The VM, or why it is not one that could be converted.
pub(super) fn read(
    object: &Object<'_>,
    tree: &Tree,
    server: ServerKind,
) -> Result<SourceVm, Unreadable> {
    describe(object, tree, server).map_err(|reason| Unreadable {
        moref: object.reference.value.clone(),
        name: typed(object.text("name").unwrap_or_default()),
        reason,
    })
}

fn describe(object: &Object<'_>, tree: &Tree, server: ServerKind) -> Result<SourceVm, String> {
    let text = |path: &'static str| object.text(path).ok_or_else(|| unknown(object, path));
    let devices = object.property("config.hardware.device");
    let devices = devices.ok_or_else(|| unknown(object, "config.hardware.device"))?;
    let host = object.property("runtime.host").and_then(Reference::of);
    let host = host.ok_or_else(|| unknown(object, "runtime.host"))?;
    let parent = object.property("parent").or_else(|| object.property("parentVApp"));
    let folder = parent.and_then(Reference::of).map(|r| tree.folders(&r.value));
    Ok(SourceVm {
        name: typed(text("name")?),
        uuid: text("config.uuid")?.trim().to_ascii_lowercase(),
        moref: object.reference.value.clone(),
        folder: folder.unwrap_or_default(),
        host: tree.host(&host.value, server).ok_or_else(|| {
            format!("the user may not see its host {} with all that is around it", host.value)
        })?,
        power: match text("runtime.powerState")? {
            "poweredOff" => Power::Off,
            "poweredOn" => Power::On,
            "suspended" => Power::Suspended,
            other => return Err(format!("its power state is {other:?}")),
        },
        template: object.text("config.template") == Some("true"),
        snapshots: object
            .property("snapshot")
            .is_some_and(|s| child(s, "rootSnapshotList").is_some()),
        firmware: match object.text("config.firmware").unwrap_or("bios") {
            "bios" => Firmware::Bios,
            "efi" => Firmware::Efi,
            other => return Err(format!("its firmware is {other:?}")),
        },
        secure_boot: object
            .property("config.bootOptions")
            .and_then(|options| said(options, "efiSecureBootEnabled"))
            == Some("true"),
        guest_id: object.text("config.guestId").unwrap_or_default().to_owned(),
        cpus: number(text("config.hardware.numCPU")?, "number of CPUs")?,
        cores_per_socket: match object.text("config.hardware.numCoresPerSocket") {
            Some(text) => number::<u32>(text, "number of cores")?.max(1),
            None => 1,
        },
        memory_bytes: times(number(text("config.hardware.memoryMB")?, "memory")?, MIB)?,
        disks: disks(devices)?,
        nics: nics(devices, tree),
    })
}

/// Why a property is not there: the server says so itself, or the VM's state does.
fn unknown(object: &Object<'_>, path: &str) -> String {
    if let Some((path, fault)) = object.missing {
        return format!("the server does not give its {path}: {fault}");
    }
    match object.text("runtime.connectionState") {
        Some("connected") | None => format!("the server does not give its {path}"),
        Some(state) => format!("it is {state}: the server does not give its {path}"),
    }
}

fn number<T: FromStr>(text: &str, what: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("its {what} is {text:?}"))
}

fn times(number: u64, unit: u64) -> Result<u64, String> {
    number.checked_mul(unit).ok_or_else(|| format!("it claims {number} times {unit} bytes"))
}

fn bus(kind: &str) -> Option<Bus> {
    Some(match kind {
        "ParaVirtualSCSIController"
        | "VirtualBusLogicController"
        | "VirtualLsiLogicController"
        | "VirtualLsiLogicSASController"
        | "VirtualSCSIController" => Bus::Scsi,
        "VirtualAHCIController" | "VirtualSATAController" => Bus::Sata,
        "VirtualIDEController" => Bus::Ide,
        "VirtualNVMEController" => Bus::Nvme,
        _ => return None,
    })
}

fn disks(devices: Node<'_, '_>) -> Result<Vec<SourceDisk>, String> {
    let mut controllers = HashMap::new();
    for device in devices.children() {
        if let Some(bus) = kind(device).and_then(bus)
            && let (Some(key), Some(text)) = (said(device, "key"), said(device, "busNumber"))
        {
            let number = number(text, "controller's number")?;
            controllers.insert(key.to_owned(), Controller { bus, number });
        }
    }
    let disks = devices.children().filter(|d| kind(*d) == Some("VirtualDisk"));
    let disks: Vec<SourceDisk> = disks.map(|d| disk(d, &controllers)).collect::<Result<_, _>>()?;
    let mut places: Vec<_> = disks.iter().map(|d| (d.controller, d.unit)).collect();
    places.sort_unstable();
    let twice = places.iter().zip(places.iter().skip(1)).find(|(a, b)| a == b);
    if let Some(((controller, unit), _)) = twice {
        return Err(format!("two of its disks are {controller}:{unit}"));
    }
    Ok(in_order(disks))
}

fn disk(
    device: Node<'_, '_>,
    controllers: &HashMap<String, Controller>,
) -> Result<SourceDisk, String> {
    let key = said(device, "key").unwrap_or_default();
    let label =
        child(device, "deviceInfo").and_then(|i| said(i, "label")).unwrap_or(key).to_owned();
    let of = |what: String| format!("its disk {label:?} {what}");
    let backing = child(device, "backing").ok_or_else(|| of("has no file".to_owned()))?;
    let path = said(backing, "fileName").ok_or_else(|| of("has no file".to_owned()))?;
    let (datastore, _) = path
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .ok_or_else(|| of(format!("is in {path:?}, which names no datastore")))?;
    let controller = said(device, "controllerKey").and_then(|key| controllers.get(key));
    let bytes = match (said(device, "capacityInBytes"), said(device, "capacityInKB")) {
        (Some(bytes), _) => number(bytes, "disk's size")?,
        (None, Some(kib)) => times(number(kib, "disk's size")?, KIB)?,
        (None, None) => return Err(of("has no size".to_owned())),
    };
    let unit = said(device, "unitNumber").ok_or_else(|| of("has no unit number".to_owned()))?;
    Ok(SourceDisk {
        index: 0,
        datastore: typed(datastore),
        path: path.to_owned(),
        capacity_bytes: bytes,
        controller: *controller
            .ok_or_else(|| of("hangs on a controller of no known kind".to_owned()))?,
        unit: number(unit, "disk's unit number")?,
        independent: said(backing, "diskMode").is_some_and(|m| m.starts_with("independent")),
        raw_device: kind(backing).is_some_and(|k| k.contains("RawDisk")),
        seen: true,
        label,
    })
}

fn nics(devices: Node<'_, '_>, tree: &Tree) -> Vec<SourceNic> {
    // Every kind of card has this element, and nothing else has.
    let cards = devices
        .children()
        .filter(|d| child(*d, "addressType").is_some() || child(*d, "macAddress").is_some());
    let mut cards: Vec<(i64, SourceNic)> = cards
        .map(|card| {
            let key = said(card, "key").and_then(|k| k.trim().parse().ok()).unwrap_or(i64::MAX);
            let mac = said(card, "macAddress").map(|m| m.trim().to_ascii_lowercase());
            let network = child(card, "backing").and_then(|b| network(b, tree));
            (key, SourceNic { mac: mac.filter(|m| !m.is_empty()), network })
        })
        .collect();
    cards.sort_by_key(|(key, _)| *key);
    cards.into_iter().map(|(_, nic)| nic).collect()
}

fn network(backing: Node<'_, '_>, tree: &Tree) -> Option<String> {
    if let Some(port) = child(backing, "port") {
        return tree.network(said(port, "portgroupKey")?);
    }
    if let Some(id) = said(backing, "opaqueNetworkId") {
        return tree.opaque_network(id);
    }
    let by_reference = child(backing, "network").and_then(Reference::of);
    by_reference
        .and_then(|r| tree.network(&r.value))
        .or_else(|| said(backing, "deviceName").map(typed).filter(|n| !n.is_empty()))
}

#[cfg(test)]
#[path = "vm_tests.rs"]
pub(super) mod tests;
