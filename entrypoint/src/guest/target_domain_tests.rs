use super::*;
use crate::guest::disks_domain::disks_domain;
use crate::guest::domain_info::{DiskInfo, Nic, Topology, parse_domain};
use crate::guest::image::ImageFormat;
use proptest::prelude::*;

/// A domain as libvirt's driver for ESXi and vCenter writes it.
const VSPHERE: &str = "<domain type='vmware' xmlns:vmware='http://libvirt.org/schemas/domain/vmware/1.0'>
  <name>Web 01</name>
  <uuid>4236b3ba-1234-5678-9abc-0123456789ab</uuid>
  <memory unit='KiB'>1572864</memory>
  <currentMemory unit='KiB'>1572864</currentMemory>
  <vcpu placement='static'>4</vcpu>
  <cpu><topology sockets='2' dies='1' cores='2' threads='1'/></cpu>
  <os firmware='efi'><type arch='x86_64'>hvm</type><loader secure='yes'/></os>
  <clock offset='utc'/>
  <devices>
    <disk type='file' device='disk'><source file='[ds1] web/web.vmdk'/><target dev='sda' bus='scsi'/></disk>
    <disk type='file' device='disk'><source file='[ds1] web/web_1.vmdk'/><target dev='sdb' bus='scsi'/></disk>
    <disk type='file' device='cdrom'><target dev='hda' bus='ide'/></disk>
    <controller type='scsi' index='0' model='vmpvscsi'/>
    <interface type='bridge'><mac address='00:50:56:b6:aa:bb'/><source bridge='VM &amp; Network'/><model type='vmxnet3'/></interface>
    <interface type='bridge'><mac address='00:50:56:b6:aa:bc'/><source bridge='Backup'/><model type='e1000'/></interface>
    <video><model type='vmvga' vram='4096' primary='yes'/></video>
  </devices>
  <vmware:moref>vm-42</vmware:moref>
</domain>";

fn linux() -> Capabilities {
    Capabilities {
        block: BlockBus::VirtioBlk,
        net: NetModel::Virtio,
        machine: Some(Machine::Q35),
        arch: Some("x86_64".to_owned()),
        rng: true,
        virtio_1_0: true,
        acpi: true,
        firmware: Some(TargetFirmware::Uefi),
        boot_disk: None,
    }
}

fn disks(count: usize) -> Vec<PathBuf> {
    (0..count).map(|i| format!("/var/tmp/v2v/w-sd{}", v2v_args::drive_name(i)).into()).collect()
}

fn target(source: &str, guest: &Capabilities, count: usize) -> (String, DomainInfo) {
    let xml = target_domain("w", &parse_domain(source).unwrap(), guest, &disks(count)).unwrap();
    let info = parse_domain(&xml).unwrap();
    (xml, info)
}

#[test]
fn the_guest_stays_and_the_hardware_of_the_source_goes() {
    let (xml, info) = target(VSPHERE, &linux(), 2);
    for word in ["vmware", "vmxnet3", "scsi", "e1000", "vmdk", "vmvga", "4236b3ba", "clock"] {
        assert!(!xml.contains(word), "{word}: {xml}");
    }
    assert_eq!(info.memory_bytes, 1536 << 20);
    assert_eq!(
        (info.vcpus, info.topology),
        (4, Some(Topology { sockets: 2, cores: 2, threads: 1 }))
    );
    assert_eq!(info.firmware, Firmware::Efi { secure_boot: true });
    assert!(
        info.features.acpi && info.features.apic && info.features.smm && info.rng && info.tablet
    );
    assert_eq!(info.machine.as_deref(), Some("q35"));
    let nic = |mac: &str, bridge: &str| Nic {
        mac: Some(mac.to_owned()),
        model: Some("virtio".to_owned()),
        source: NicSource::Bridge(Some(bridge.to_owned())),
    };
    let nics = [nic("00:50:56:b6:aa:bb", "VM & Network"), nic("00:50:56:b6:aa:bc", "Backup")];
    assert_eq!(info.nics, nics);
    let disk = |dev: &str, file: &str| DiskInfo {
        bus: "virtio".to_owned(),
        target: Some(dev.to_owned()),
        file: Some(format!("/var/tmp/v2v/{file}")),
        boot_order: None,
    };
    assert_eq!(info.disks, [disk("vda", "w-sda"), disk("vdb", "w-sdb")]);
}

#[test]
fn each_bus_and_model_is_the_guests() {
    let bus = |block, machine| {
        let guest = Capabilities { block, machine, ..linux() };
        target(VSPHERE, &guest, 1).1.disks[0].bus.clone()
    };
    assert_eq!(bus(BlockBus::VirtioScsi, Some(Machine::Q35)), "scsi");
    assert_eq!(bus(BlockBus::Ide, Some(Machine::Q35)), "sata");
    assert_eq!(bus(BlockBus::Ide, Some(Machine::I440fx)), "ide");
    assert_eq!(bus(BlockBus::Ide, None), "sata");
    for (net, model) in [(NetModel::E1000, "e1000"), (NetModel::Rtl8139, "rtl8139")] {
        let (_, info) = target(VSPHERE, &Capabilities { net, ..linux() }, 1);
        assert!(info.nics.iter().all(|nic| nic.model.as_deref() == Some(model)), "{info:?}");
    }
    let (_, old) = target(VSPHERE, &Capabilities { virtio_1_0: false, ..linux() }, 1);
    assert!(old.virtio_transitional);
    assert!(!target(VSPHERE, &linux(), 1).1.virtio_transitional);
}

#[test]
fn bios_or_uefi_is_virt_v2vs_word_and_secure_boot_the_sources() {
    let firmware = |source: &str, firmware| {
        target(source, &Capabilities { firmware, ..linux() }, 1).1.firmware
    };
    let silent = VSPHERE.replace(" firmware='efi'", "").replace("<loader secure='yes'/>", "");
    assert_eq!(firmware(&silent, Some(TargetFirmware::Uefi)), Firmware::Efi { secure_boot: false });
    assert_eq!(firmware(&silent, None), Firmware::Bios);
    assert_eq!(firmware(VSPHERE, None), Firmware::Efi { secure_boot: true });
    assert_eq!(firmware(VSPHERE, Some(TargetFirmware::Bios)), Firmware::Bios);
}

#[test]
fn there_are_as_many_disks_as_volumes_and_the_source_says_which_boots_first() {
    let orders = |source: &str, boot_disk, count| -> Vec<Option<u32>> {
        let (_, info) = target(source, &Capabilities { boot_disk, ..linux() }, count);
        info.disks.iter().map(|disk| disk.boot_order).collect()
    };
    assert_eq!(orders(VSPHERE, None, 3), [None, None, None]);
    assert_eq!(orders(VSPHERE, Some(1), 3), [None, Some(1), None]);
    let said = VSPHERE.replace("bus='scsi'/></disk>", "bus='scsi'/><boot order='2'/></disk>");
    assert_eq!(orders(&said, Some(2), 3), [Some(2), Some(2), None]);
    assert_eq!(orders(VSPHERE, Some(7), 1), [None]);
}

#[test]
fn without_a_domain_it_is_what_virt_v2v_makes_up() {
    let links: Vec<_> = disks(2).into_iter().map(|path| (path, ImageFormat::Raw)).collect();
    let (_, info) = target(&disks_domain(&links).unwrap(), &linux(), 2);
    assert_eq!((info.memory_bytes, info.vcpus, info.topology), (2 << 30, 1, None));
    let default = NicSource::Network(Some("default".to_owned()));
    assert_eq!(info.nics, [Nic { mac: None, model: Some("virtio".to_owned()), source: default }]);
    assert_eq!(info.firmware, Firmware::Efi { secure_boot: false }, "virt-v2v looked at the disks");
}

proptest! {
    #[test]
    fn names_of_any_kind_come_back(
        name in "[^\\p{C}]{1,30}", bridge in "[^\\p{C}]{1,30}", model in "[^\\p{C}]{1,30}"
    ) {
        let mut source = parse_domain(VSPHERE).unwrap();
        source.nics[0].source = NicSource::Bridge(Some(bridge.clone()));
        source.cpu_model = Some(model.clone());
        let xml = target_domain(&name, &source, &linux(), &disks(1)).unwrap();
        let info = parse_domain(&xml).unwrap();
        prop_assert_eq!(info.name, Some(name.trim().to_owned()).filter(|n| !n.is_empty()));
        prop_assert_eq!(info.cpu_model, Some(model.trim().to_owned()).filter(|n| !n.is_empty()));
        prop_assert_eq!(&info.nics[0].source, &NicSource::Bridge(Some(bridge)));
    }
}
