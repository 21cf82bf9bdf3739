//! Reads the libvirt domain XML that `virt-v2v -o local` writes beside the disks.
//!
//! Owns [`DomainInfo`], the part of a libvirt domain that has a counterpart in KubeVirt;
//! [`super::vm_yaml`] turns it into a `VirtualMachine`. Display, sound, consoles and the like are
//! not read, since KubeVirt adds its own. XML from libvirt itself is read too, which has more in
//! it (clock, UUID, boot order) than virt-v2v writes; see `output/create_libvirt_xml.ml` there.

use roxmltree::{Document, Node};
use std::str::FromStr;

use super::xml::{child, child_text, children, text};

/// Why a domain XML could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// The text is not well-formed XML.
    #[error("the domain XML is not well-formed")]
    Xml(#[from] roxmltree::Error),
    /// Well-formed, but something else than a domain.
    #[error("expected a libvirt <domain>, found <{found}>")]
    NotADomain {
        /// Name of the root element.
        found: String,
    },
    /// Something no machine can do without.
    #[error("the domain XML has no <{element}>")]
    Missing {
        /// What is missing.
        element: &'static str,
    },
    /// A number that is none, is zero, or is out of range.
    #[error("<{element}> of the domain XML is no usable number: {text:?}")]
    Number {
        /// Where.
        element: &'static str,
        /// What was there.
        text: String,
    },
    /// A MAC address that KubeVirt would refuse.
    #[error("network interface {nic} of the domain XML has the MAC address {mac:?}, which is none")]
    Mac {
        /// The interface, from 0.
        nic: usize,
        /// What was there.
        mac: String,
    },
}

/// A libvirt domain, as far as KubeVirt has the same.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each says whether one device is there")]
pub struct DomainInfo {
    /// Name of the guest.
    pub name: Option<String>,
    /// SMBIOS UUID; virt-v2v writes none.
    pub uuid: Option<String>,
    /// CPU architecture in qemu's words: `x86_64`, `aarch64`, …
    pub arch: Option<String>,
    /// Machine type: `q35`, `pc-i440fx-8.2`, `virt`, …
    pub machine: Option<String>,
    /// Memory in bytes, at least 1.
    pub memory_bytes: u64,
    /// Virtual CPUs, at least 1.
    pub vcpus: u32,
    /// How the CPUs are laid out, if said.
    pub topology: Option<Topology>,
    /// CPU model; absent for `host-passthrough` and `host-model`.
    pub cpu_model: Option<String>,
    /// Features switched on.
    pub features: Features,
    /// The clock, if said.
    pub clock: Option<Clock>,
    /// What the guest boots with.
    pub firmware: Firmware,
    /// Hard disks in order; CD-ROMs and floppies are left out.
    pub disks: Vec<DiskInfo>,
    /// Network interfaces in order.
    pub nics: Vec<Nic>,
    /// Whether there is a TPM.
    pub tpm: bool,
    /// Whether there is a random number generator.
    pub rng: bool,
    /// Whether there is a tablet as pointer.
    pub tablet: bool,
    /// Whether the guest's virtio drivers are older than virtio 1.0.
    pub virtio_transitional: bool,
}

/// CPU layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// CPU packages.
    pub sockets: u32,
    /// Cores of each.
    pub cores: u32,
    /// Threads of each core.
    pub threads: u32,
}

/// The features that KubeVirt knows as well. PAE is not among them: there it is always on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// ACPI.
    pub acpi: bool,
    /// APIC.
    pub apic: bool,
    /// System management mode, which secure boot needs.
    pub smm: bool,
}

/// What the guest boots with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// BIOS; also what libvirt takes when nothing is said.
    Bios,
    /// UEFI.
    Efi {
        /// Whether the loader enforces secure boot.
        secure_boot: bool,
    },
}

/// The guest's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    /// What the clock shows at start.
    pub base: ClockBase,
    /// Timers in order.
    pub timers: Vec<Timer>,
}

/// What the guest's clock shows at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClockBase {
    /// UTC, with an offset in seconds if the guest had moved its clock.
    Utc(Option<i64>),
    /// The host's local time.
    LocalTime,
    /// The time of a named zone.
    Zone(String),
}

/// One timer of the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    /// `rtc`, `pit`, `hpet`, `hypervclock`, `kvmclock`, …
    pub name: String,
    /// Whether the guest has it; the machine decides if not said.
    pub present: Option<bool>,
    /// What becomes of ticks that came late: `delay`, `catchup`, …
    pub tick_policy: Option<String>,
    /// What the timer follows: `guest` or `wall`.
    pub track: Option<String>,
}

/// One hard disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskInfo {
    /// `virtio`, `scsi`, `sata`, `ide`, `usb`, …
    pub bus: String,
    /// Name in libvirt: `vda`, …
    pub target: Option<String>,
    /// The file, as the XML names it.
    pub file: Option<String>,
    /// Place in the boot order, from 1.
    pub boot_order: Option<u32>,
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// MAC address, checked.
    pub mac: Option<String>,
    /// `virtio`, `e1000`, …
    pub model: Option<String>,
    /// What it is connected to.
    pub source: NicSource,
}

/// What a network interface is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NicSource {
    /// A network that libvirt (or qemu, `type='user'`) provides, usually behind NAT.
    Network(Option<String>),
    /// A bridge or device of the host, by name if it has one.
    Bridge(Option<String>),
}

/// Reads a domain XML.
pub fn parse_domain(xml: &str) -> Result<DomainInfo, DomainError> {
    let document = Document::parse(xml)?;
    let domain = document.root_element();
    if domain.tag_name().name() != "domain" {
        return Err(DomainError::NotADomain { found: domain.tag_name().name().to_owned() });
    }
    let os_type = child(domain, "os").and_then(|os| child(os, "type"));
    let cpu = child(domain, "cpu");
    let vcpus = child_text(domain, "vcpu").unwrap_or("1");
    Ok(DomainInfo {
        name: child_text(domain, "name").map(str::to_owned),
        uuid: child_text(domain, "uuid").map(str::to_owned),
        arch: os_type.and_then(|node| owned(node, "arch")),
        machine: os_type.and_then(|node| owned(node, "machine")),
        memory_bytes: read_memory(domain)?,
        vcpus: positive("vcpu", vcpus)?,
        topology: cpu.and_then(|cpu| child(cpu, "topology")).map(read_topology).transpose()?,
        cpu_model: cpu.and_then(|cpu| child_text(cpu, "model")).map(str::to_owned),
        features: read_features(domain),
        clock: child(domain, "clock").map(read_clock),
        firmware: read_firmware(domain),
        disks: devices(domain, "disk").filter(|disk| is_hard_disk(*disk)).map(read_disk).collect(),
        nics: devices(domain, "interface").enumerate().map(read_nic).collect::<Result<_, _>>()?,
        tpm: devices(domain, "tpm").next().is_some(),
        rng: devices(domain, "rng").next().is_some(),
        tablet: devices(domain, "input").any(|input| input.attribute("type") == Some("tablet")),
        virtio_transitional: is_transitional(domain),
    })
}

fn devices<'a, 'i: 'a>(
    domain: Node<'a, 'i>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'i>> {
    children(domain, "devices").flat_map(move |devices| children(devices, name))
}

fn owned(node: Node<'_, '_>, attribute: &str) -> Option<String> {
    node.attribute(attribute).filter(|value| !value.is_empty()).map(str::to_owned)
}

fn positive<T: FromStr + PartialOrd + Default>(
    element: &'static str,
    text: &str,
) -> Result<T, DomainError> {
    let number = text.trim().parse().ok().filter(|number| *number > T::default());
    number.ok_or_else(|| DomainError::Number { element, text: text.to_owned() })
}

/// libvirt's units, see its "Memory Allocation": KiB unless said, and KB means 1000.
fn read_memory(domain: Node<'_, '_>) -> Result<u64, DomainError> {
    let memory = child(domain, "memory").ok_or(DomainError::Missing { element: "memory" })?;
    let amount: u64 = positive("memory", text(memory).unwrap_or_default())?;
    let unit = memory.attribute("unit").unwrap_or("KiB");
    let factor = match unit {
        "b" | "bytes" => Some(1),
        "KB" => Some(1000),
        "k" | "KiB" => Some(1 << 10),
        "MB" => Some(1_000_000),
        "M" | "MiB" => Some(1 << 20),
        "GB" => Some(1_000_000_000),
        "G" | "GiB" => Some(1 << 30),
        "TB" => Some(1_000_000_000_000),
        "T" | "TiB" => Some(1 << 40),
        _ => None,
    };
    factor
        .and_then(|factor: u64| amount.checked_mul(factor))
        .ok_or_else(|| DomainError::Number { element: "memory", text: format!("{amount} {unit}") })
}

fn read_topology(topology: Node<'_, '_>) -> Result<Topology, DomainError> {
    let count = |name| positive("topology", topology.attribute(name).unwrap_or("1"));
    Ok(Topology { sockets: count("sockets")?, cores: count("cores")?, threads: count("threads")? })
}

fn read_features(domain: Node<'_, '_>) -> Features {
    let on = |name| {
        child(domain, "features")
            .and_then(|features| child(features, name))
            .is_some_and(|feature| feature.attribute("state") != Some("off"))
    };
    Features { acpi: on("acpi"), apic: on("apic"), smm: on("smm") }
}

/// UEFI is said in one of two ways: `<os firmware='efi'>`, where libvirt picks the loader, or
/// (virt-v2v's way) a `<loader>` in flash. A loader of type `rom` is a BIOS.
fn read_firmware(domain: Node<'_, '_>) -> Firmware {
    let Some(os) = child(domain, "os") else {
        return Firmware::Bios;
    };
    let loader = child(os, "loader");
    let in_flash = loader.is_some_and(|loader| loader.attribute("type") == Some("pflash"));
    if os.attribute("firmware") != Some("efi") && !in_flash {
        return Firmware::Bios;
    }
    let by_loader = loader.is_some_and(|loader| loader.attribute("secure") == Some("yes"));
    let by_feature = child(os, "firmware").is_some_and(|firmware| {
        children(firmware, "feature").any(|feature| {
            feature.attribute("name") == Some("secure-boot")
                && feature.attribute("enabled") == Some("yes")
        })
    });
    Firmware::Efi { secure_boot: by_loader || by_feature }
}

fn read_clock(clock: Node<'_, '_>) -> Clock {
    let base = match clock.attribute("offset") {
        Some("localtime") => ClockBase::LocalTime,
        Some("timezone") => owned(clock, "timezone").map_or(ClockBase::Utc(None), ClockBase::Zone),
        Some("variable") if clock.attribute("basis") == Some("localtime") => ClockBase::LocalTime,
        Some("variable") => {
            ClockBase::Utc(clock.attribute("adjustment").and_then(|text| text.parse().ok()))
        }
        _ => ClockBase::Utc(None),
    };
    Clock { base, timers: children(clock, "timer").filter_map(read_timer).collect() }
}

fn read_timer(timer: Node<'_, '_>) -> Option<Timer> {
    Some(Timer {
        name: owned(timer, "name")?,
        present: timer.attribute("present").map(|present| present == "yes"),
        tick_policy: owned(timer, "tickpolicy"),
        track: owned(timer, "track"),
    })
}

/// `lun` is a hard disk too: a SCSI device passed through.
fn is_hard_disk(disk: Node<'_, '_>) -> bool {
    !matches!(disk.attribute("device"), Some("cdrom" | "floppy"))
}

fn read_disk(disk: Node<'_, '_>) -> DiskInfo {
    let target = child(disk, "target");
    let dev = target.and_then(|target| owned(target, "dev"));
    DiskInfo {
        bus: target
            .and_then(|target| owned(target, "bus"))
            .unwrap_or_else(|| bus_of(dev.as_deref().unwrap_or_default()).to_owned()),
        target: dev,
        file: child(disk, "source").and_then(|source| owned(source, "file")),
        boot_order: child(disk, "boot")
            .and_then(|boot| boot.attribute("order"))
            .and_then(|order| order.parse().ok()),
    }
}

/// The bus that libvirt concludes from a disk's name if the XML gives none.
fn bus_of(dev: &str) -> &'static str {
    match dev.get(..2) {
        Some("hd") => "ide",
        Some("sd") => "scsi",
        _ => "virtio",
    }
}

fn read_nic((index, nic): (usize, Node<'_, '_>)) -> Result<Nic, DomainError> {
    let mac = child(nic, "mac").and_then(|mac| owned(mac, "address"));
    if let Some(mac) = mac.as_ref().filter(|mac| !is_mac(mac)) {
        return Err(DomainError::Mac { nic: index, mac: mac.clone() });
    }
    let source = |attribute| child(nic, "source").and_then(|source| owned(source, attribute));
    Ok(Nic {
        mac,
        model: child(nic, "model").and_then(|model| owned(model, "type")),
        source: match nic.attribute("type") {
            Some("network") => NicSource::Network(source("network")),
            Some("user") => NicSource::Network(None),
            _ => NicSource::Bridge(source("bridge").or_else(|| source("dev"))),
        },
    })
}

fn is_mac(mac: &str) -> bool {
    let pair = |pair: &str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
    mac.split(':').count() == 6 && mac.split(':').all(pair)
}

/// virt-v2v says it on every virtio device alike (`virtio_transitional` in its source).
fn is_transitional(domain: Node<'_, '_>) -> bool {
    const NAME: &str = "virtio-transitional";
    devices(domain, "disk").any(|disk| disk.attribute("model") == Some(NAME))
        || devices(domain, "interface")
            .filter_map(|nic| child(nic, "model"))
            .any(|model| model.attribute("type") == Some(NAME))
}
