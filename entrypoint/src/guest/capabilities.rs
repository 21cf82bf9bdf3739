//! What a conversion made of the guest: the hardware that it has drivers for now.
//!
//! virt-v2v-in-place writes no description of its result (its `-O`, where there is one, has what the
//! inspector says, and no hardware). With `-v` every version prints its findings, after the conversion and
//! once more at the end, one `gcaps_… = …` a line. [`Reader`] picks them out of the lines as they pass by;
//! it keeps a few values, whatever else there is. What decides whether the guest boots, the buses, is
//! never guessed in silence: without it there are no [`Capabilities`], and the caller takes
//! [`Capabilities::assumed`] and says so. Pure.

use super::inspection::Inspection;

/// The bus of the disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockBus {
    /// `virtio-blk`
    VirtioBlk,
    /// `virtio-scsi`
    VirtioScsi,
    /// `ide`, which is SATA on a q35 machine: no virtio drivers.
    Ide,
}

/// The model of the network interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetModel {
    /// `virtio-net`
    Virtio,
    /// `e1000`
    E1000,
    /// `rtl8139`
    Rtl8139,
}

impl BlockBus {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::VirtioBlk => "virtio",
            Self::VirtioScsi => "virtio-scsi",
            Self::Ide => "SATA",
        }
    }
}

impl NetModel {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::E1000 => "e1000",
            Self::Rtl8139 => "rtl8139",
        }
    }
}

/// The machine type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// `i440fx`
    I440fx,
    /// `q35`
    Q35,
    /// `virt`, of arm64 and others.
    Virt,
}

/// The firmware that the target needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetFirmware {
    /// `bios`
    Bios,
    /// `uefi`
    Uefi,
}

/// The hardware that a converted guest is to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// For all disks.
    pub block: BlockBus,
    /// For all network interfaces.
    pub net: NetModel,
    /// The machine type, if said.
    pub machine: Option<Machine>,
    /// CPU architecture in qemu's words, if said.
    pub arch: Option<String>,
    /// It has a driver for a random number generator.
    pub rng: bool,
    /// Its virtio drivers are of virtio 1.0.
    pub virtio_1_0: bool,
    /// It works with ACPI.
    pub acpi: bool,
    /// It keeps its clock in UTC, not in local time, if said.
    pub rtc_utc: Option<bool>,
    /// What virt-v2v decided from the source's description and the disks, if said.
    pub firmware: Option<TargetFirmware>,
    /// The disk that it boots from, from 0, if said.
    pub boot_disk: Option<usize>,
}

impl Capabilities {
    /// What most likely boots when virt-v2v did not say what it did. Its conversion of Linux puts virtio
    /// drivers into the initial ramdisk, and nothing else. For anything else, Windows above all, it does so
    /// only when it has the drivers at hand: there it is what virt-v2v takes without them, SATA and e1000,
    /// for which systems bring drivers of their own.
    pub fn assumed(inspection: Option<&Inspection>) -> Self {
        let os = inspection.and_then(|i| i.os.as_ref());
        let linux = os.is_some_and(|os| os.name.as_deref() == Some("linux"));
        Self {
            block: if linux { BlockBus::VirtioBlk } else { BlockBus::Ide },
            net: if linux { NetModel::Virtio } else { NetModel::E1000 },
            machine: None,
            arch: os.and_then(|os| os.arch.as_deref()).and_then(arch),
            rng: false,
            virtio_1_0: true,
            acpi: true,
            rtc_utc: None,
            firmware: None,
            boot_disk: None,
        }
    }
}

/// Listens to virt-v2v-in-place. A line that comes again counts anew, one with a value that is not known as not said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reader {
    block: Option<BlockBus>,
    net: Option<NetModel>,
    machine: Option<Machine>,
    arch: Option<String>,
    rng: Option<bool>,
    virtio_1_0: Option<bool>,
    acpi: Option<bool>,
    rtc_utc: Option<bool>,
    firmware: Option<TargetFirmware>,
    boot_disk: Option<usize>,
}

impl Reader {
    /// One line of the tool's output.
    pub fn line(&mut self, line: &str) {
        let line = line.trim_end();
        let Some((name, value)) = line.split_once(" = ").or_else(|| line.split_once(": ")) else {
            return;
        };
        match name {
            "gcaps_block_bus" => self.block = block(value),
            "gcaps_net_bus" => self.net = net(value),
            "gcaps_machine" => self.machine = machine(value),
            "gcaps_arch" => self.arch = arch(value),
            "gcaps_virtio_rng" => self.rng = value.parse().ok(),
            "gcaps_virtio_1_0" => self.virtio_1_0 = value.parse().ok(),
            "gcaps_acpi" => self.acpi = value.parse().ok(),
            "gcaps_rtc_utc" => self.rtc_utc = value.parse().ok(),
            "target firmware" => self.firmware = firmware(value),
            "target boot device" => self.boot_disk = value.parse().ok(),
            _ => {}
        }
    }

    /// What was heard, if the buses were among it. What else was not said is as versions without that line
    /// mean it: ACPI and virtio 1.0 are there, a random number generator is not needed.
    pub fn capabilities(&self) -> Option<Capabilities> {
        Some(Capabilities {
            block: self.block?,
            net: self.net?,
            machine: self.machine,
            arch: self.arch.clone(),
            rng: self.rng.unwrap_or(false),
            virtio_1_0: self.virtio_1_0.unwrap_or(true),
            acpi: self.acpi.unwrap_or(true),
            rtc_utc: self.rtc_utc,
            firmware: self.firmware,
            boot_disk: self.boot_disk,
        })
    }
}

fn block(value: &str) -> Option<BlockBus> {
    match value {
        "virtio-blk" => Some(BlockBus::VirtioBlk),
        "virtio-scsi" => Some(BlockBus::VirtioScsi),
        "ide" => Some(BlockBus::Ide),
        _ => None,
    }
}

fn net(value: &str) -> Option<NetModel> {
    match value {
        "virtio-net" => Some(NetModel::Virtio),
        "e1000" => Some(NetModel::E1000),
        "rtl8139" => Some(NetModel::Rtl8139),
        _ => None,
    }
}

fn machine(value: &str) -> Option<Machine> {
    match value {
        "i440fx" => Some(Machine::I440fx),
        "q35" => Some(Machine::Q35),
        "virt" => Some(Machine::Virt),
        _ => None,
    }
}

fn firmware(value: &str) -> Option<TargetFirmware> {
    match value {
        "bios" => Some(TargetFirmware::Bios),
        "uefi" => Some(TargetFirmware::Uefi),
        _ => None,
    }
}

/// A word such as `x86_64`.
fn arch(value: &str) -> Option<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=16).contains(&value.len()).then_some(())?;
    value.chars().all(word).then(|| value.to_owned())
}

#[cfg(test)]
#[path = "capabilities_tests.rs"]
pub(super) mod tests;
