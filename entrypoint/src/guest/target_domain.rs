//! The domain of a guest that was converted in place, as `virt-v2v -o local` would have written it.
//!
//! Two sources, kept apart: the source's own domain says what the guest *is* (memory, CPUs, firmware, network
//! interfaces with their MACs, boot order), and [`Capabilities`] what hardware it now has *drivers* for. So
//! no bus, no model and no machine of the source gets here, and neither does what virt-v2v leaves out as well:
//! UUID, timers, TPM. Pure.

use super::capabilities::{BlockBus, Capabilities, Machine, NetModel, TargetFirmware};
use super::domain_info::{DomainInfo, Firmware, NicSource};
use super::domain_xml::{DomainXmlError, attribute_text};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Writes it for these disks, in their order. Disks that the source does not know are disks of the target all
/// the same; those of the source that are not here are not.
pub fn target_domain(
    name: &str,
    source: &DomainInfo,
    guest: &Capabilities,
    disks: &[PathBuf],
) -> Result<String, DomainXmlError> {
    let mut xml = String::from("<domain type=\"kvm\">\n");
    let memory_kib = source.memory_bytes.div_ceil(1024);
    // Writing to a String does not fail, here and below.
    let _ = write!(
        xml,
        "  <name>{}</name>\n  <memory unit=\"KiB\">{memory_kib}</memory>\n  <vcpu>{}</vcpu>\n",
        quoted(name)?,
        source.vcpus,
    );
    write_cpu(&mut xml, source)?;
    // As virt-v2v does it: ACPI as the guest can, APIC whatever the source had.
    let acpi = if guest.acpi { "<acpi/>" } else { "" };
    let smm = if secure_boot(source, guest) { "<smm/>" } else { "" };
    let _ = writeln!(xml, "  <features>{acpi}<apic/>{smm}</features>");
    write_os(&mut xml, source, guest)?;
    if let Some(utc) = guest.rtc_utc {
        let offset = if utc { "utc" } else { "localtime" };
        let _ = writeln!(xml, "  <clock offset=\"{offset}\"/>");
    }
    xml.push_str("  <devices>\n");
    for (index, path) in disks.iter().enumerate() {
        write_disk(&mut xml, source, guest, (index, path))?;
    }
    write_nics(&mut xml, source, guest)?;
    if guest.rng {
        xml.push_str(
            "    <rng model=\"virtio\"><backend model=\"random\">/dev/urandom</backend></rng>\n",
        );
    }
    xml.push_str("    <input type=\"tablet\" bus=\"usb\"/>\n  </devices>\n</domain>\n");
    Ok(xml)
}

fn quoted(text: &str) -> Result<String, DomainXmlError> {
    attribute_text(Path::new(text))
}

fn write_cpu(xml: &mut String, source: &DomainInfo) -> Result<(), DomainXmlError> {
    if source.topology.is_none() && source.cpu_model.is_none() {
        return Ok(());
    }
    xml.push_str("  <cpu match=\"minimum\">");
    if let Some(model) = &source.cpu_model {
        let _ = write!(xml, "<model fallback=\"allow\">{}</model>", quoted(model)?);
    }
    if let Some(t) = source.topology {
        let _ = write!(
            xml,
            "<topology sockets=\"{}\" cores=\"{}\" threads=\"{}\"/>",
            t.sockets, t.cores, t.threads
        );
    }
    xml.push_str("</cpu>\n");
    Ok(())
}

/// virt-v2v knows BIOS from UEFI best: it has looked at the disks where the source's domain says nothing.
/// Secure boot is in the domain alone.
fn firmware(source: &DomainInfo, guest: &Capabilities) -> Firmware {
    let secure_boot = source.firmware == Firmware::Efi { secure_boot: true };
    match guest.firmware {
        Some(TargetFirmware::Bios) => Firmware::Bios,
        Some(TargetFirmware::Uefi) => Firmware::Efi { secure_boot },
        None => source.firmware,
    }
}

fn secure_boot(source: &DomainInfo, guest: &Capabilities) -> bool {
    firmware(source, guest) == Firmware::Efi { secure_boot: true }
}

fn write_os(
    xml: &mut String,
    source: &DomainInfo,
    guest: &Capabilities,
) -> Result<(), DomainXmlError> {
    let arch = guest.arch.as_deref().or(source.arch.as_deref());
    let arch = match arch {
        Some(arch) => format!(" arch=\"{}\"", quoted(arch)?),
        None => String::new(),
    };
    let machine = match guest.machine {
        // What has secure boot.
        _ if secure_boot(source, guest) => " machine=\"q35\"",
        Some(Machine::I440fx) => " machine=\"pc\"",
        Some(Machine::Q35) => " machine=\"q35\"",
        Some(Machine::Virt) => " machine=\"virt\"",
        None => "",
    };
    let efi = match firmware(source, guest) {
        Firmware::Bios => "",
        Firmware::Efi { .. } => " firmware=\"efi\"",
    };
    let loader = if secure_boot(source, guest) { "<loader secure=\"yes\"/>" } else { "" };
    let _ = writeln!(xml, "  <os{efi}><type{arch}{machine}>hvm</type>{loader}</os>");
    Ok(())
}

/// Virtio drivers that are older than virtio 1.0 need other devices on q35, which have no legacy mode else.
fn transitional(guest: &Capabilities) -> bool {
    guest.machine == Some(Machine::Q35) && !guest.virtio_1_0
}

fn write_disk(
    xml: &mut String,
    source: &DomainInfo,
    guest: &Capabilities,
    (index, path): (usize, &Path),
) -> Result<(), DomainXmlError> {
    let (bus, prefix) = match (guest.block, guest.machine) {
        (BlockBus::VirtioBlk, _) => ("virtio", "vd"),
        (BlockBus::VirtioScsi, _) => ("scsi", "sd"),
        (BlockBus::Ide, Some(Machine::I440fx)) => ("ide", "hd"),
        (BlockBus::Ide, _) => ("sata", "sd"),
    };
    let model =
        if bus == "virtio" && transitional(guest) { " model=\"virtio-transitional\"" } else { "" };
    let boot = match boot_order(source, guest, index) {
        Some(order) => format!("<boot order=\"{order}\"/>"),
        None => String::new(),
    };
    let _ = writeln!(
        xml,
        "    <disk type=\"file\" device=\"disk\"{model}><driver name=\"qemu\" type=\"raw\"/>\
         <source file=\"{}\"/><target dev=\"{prefix}{}\" bus=\"{bus}\"/>{boot}</disk>",
        attribute_text(path)?,
        v2v_args::drive_name(index),
    );
    Ok(())
}

/// What the source says of any of its disks goes before what newer versions of virt-v2v found out.
fn boot_order(source: &DomainInfo, guest: &Capabilities, index: usize) -> Option<u32> {
    if source.disks.iter().any(|disk| disk.boot_order.is_some()) {
        return source.disks.get(index)?.boot_order;
    }
    (guest.boot_disk == Some(index)).then_some(1)
}

fn write_nics(
    xml: &mut String,
    source: &DomainInfo,
    guest: &Capabilities,
) -> Result<(), DomainXmlError> {
    let model = match guest.net {
        NetModel::Virtio if transitional(guest) => "virtio-transitional",
        NetModel::Virtio => "virtio",
        NetModel::E1000 => "e1000",
        NetModel::Rtl8139 => "rtl8139",
    };
    for nic in &source.nics {
        let (kind, name) = match &nic.source {
            NicSource::Network(name) => ("network", name),
            NicSource::Bridge(name) => ("bridge", name),
        };
        let from = match name {
            Some(name) => format!("<source {kind}=\"{}\"/>", quoted(name)?),
            None => String::new(),
        };
        // Checked where it was read.
        let mac = match &nic.mac {
            Some(mac) => format!("<mac address=\"{mac}\"/>"),
            None => String::new(),
        };
        let _ = writeln!(
            xml,
            "    <interface type=\"{kind}\">{mac}{from}<model type=\"{model}\"/></interface>"
        );
    }
    Ok(())
}

#[cfg(test)]
#[path = "target_domain_tests.rs"]
mod tests;
