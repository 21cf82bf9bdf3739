//! What is known of a source's VMs.

use serde::Serialize;

/// Everything that the server showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// As it calls itself: name, version, build.
    pub product: String,
    /// A vCenter or a host by itself.
    pub kind: ServerKind,
    /// In the server's order.
    pub vms: Vec<SourceVm>,
    /// VMs that it has, but of which it cannot or may not say enough.
    pub unreadable: Vec<Unreadable>,
}

/// What answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ServerKind {
    /// libvirt's `vpx://`.
    VCenter,
    /// libvirt's `esx://`.
    Esxi,
}

/// A VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceVm {
    /// As people type it.
    pub name: String,
    /// BIOS UUID, in small letters; the one that libvirt and virt-v2v know. Copies may share one.
    pub uuid: String,
    /// The server's reference, `vm-21`.
    pub moref: String,
    /// The datacenter's VM folders around it, the outermost first.
    pub folder: Vec<String>,
    /// Where it is registered.
    pub host: SourceHost,
    /// Only a VM that is off can be converted.
    pub power: Power,
    /// A template is no VM to libvirt until it is made one.
    pub template: bool,
    /// It has snapshots: over HTTPS virt-v2v then reads the disks as they were before the first one.
    pub snapshots: bool,
    /// How it boots.
    pub firmware: Firmware,
    /// UEFI with secure boot on.
    pub secure_boot: bool,
    /// VMware's identifier of the guest's system, `debian12_64Guest`.
    pub guest_id: String,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Of the CPUs, so many form a socket.
    pub cores_per_socket: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// Hard disks in virt-v2v's order.
    pub disks: Vec<SourceDisk>,
    /// Network cards in the order of `ethernet0` …
    pub nics: Vec<SourceNic>,
}

/// The host of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceHost {
    /// Its reference, `host-12`.
    pub moref: String,
    /// As people see it.
    pub name: String,
    /// Datacenter with the folders around it, `Europe/DC`, each as the server has it; `ha-datacenter` at a host by itself.
    pub datacenter: String,
    /// The parts of libvirt's path as the server has them (`%`, `/` and `\` are `%25`, `%2f`, `%5c`): datacenter with its
    /// folders, cluster with its folders, host. Empty at a host by itself.
    pub path: Vec<String>,
}

/// Whether it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Power {
    /// Its disks do not change.
    Off,
    /// They do.
    On,
    /// Part of what should be on them is in a file of memory.
    Suspended,
}

/// How it boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Firmware {
    /// A boot sector.
    Bios,
    /// An EFI system partition.
    Efi,
}

/// A hard disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceDisk {
    /// From 0, in virt-v2v's order.
    pub index: usize,
    /// As VMware shows it, `Hard disk 1`; its numbers are in no order that matters.
    pub label: String,
    /// Datastore of its file.
    pub datastore: String,
    /// Its file as VMware has it, `[datastore] web/web.vmdk`.
    pub path: String,
    /// What the guest sees.
    pub capacity_bytes: u64,
    /// What it hangs on.
    pub controller: Controller,
    /// Its place there.
    pub unit: u32,
    /// It takes no part in snapshots.
    pub independent: bool,
    /// A LUN instead of a file.
    pub raw_device: bool,
    /// `false` when libvirt's ESX driver leaves it out of the description, so that virt-v2v would convert the VM without it.
    pub seen: bool,
}

/// A controller. The order is that of libvirt's ESX driver, by kind and then by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Controller {
    /// `scsi` …
    pub bus: Bus,
    /// As in `scsi1`.
    pub number: u32,
}

/// Kinds of controllers, in the order of libvirt's ESX driver (`virVMXParseConfig`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bus {
    /// All kinds of it.
    Scsi,
    /// AHCI.
    Sata,
    /// Two channels.
    Ide,
    /// Unknown to the ESX driver of libvirt 11.3: such disks are not in the description.
    Nvme,
}

impl Bus {
    /// Whether virt-v2v, through libvirt, learns of its disks.
    pub fn is_seen(self) -> bool {
        self != Self::Nvme
    }
}

impl std::fmt::Display for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bus = match self.bus {
            Bus::Scsi => "scsi",
            Bus::Sata => "sata",
            Bus::Ide => "ide",
            Bus::Nvme => "nvme",
        };
        write!(f, "{bus}{}", self.number)
    }
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceNic {
    /// In small letters; one that was never started may have none yet.
    pub mac: Option<String>,
    /// The network's name; `None` when it hangs on nothing, or on what may not be seen.
    pub network: Option<String>,
}

/// A VM without a usable description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// The server's reference.
    pub moref: String,
    /// Its name, where that much is known.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Puts disks into virt-v2v's order and numbers them. virt-v2v takes the order of libvirt's description, and the ESX driver
/// goes through a VM's `.vmx` by kind of controller, controller and unit, whatever the order of its lines.
pub(super) fn in_order(mut disks: Vec<SourceDisk>) -> Vec<SourceDisk> {
    disks.sort_by_key(|disk| (disk.controller, disk.unit));
    for (index, disk) in disks.iter_mut().enumerate() {
        disk.index = index;
        disk.seen = disk.controller.bus.is_seen();
    }
    disks
}
