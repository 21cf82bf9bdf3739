use super::*;
use crate::guest::inspection::parse_inspection;
use proptest::prelude::*;

/// The end of what virt-v2v-in-place 2.6.0 `-v -x -i libvirtxml` printed for a Debian 12 guest (Debian 12's
/// package in the image).
pub(in crate::guest) const RECORDED: &str = "\
info:
    source name: esx-guest
hypervisor type: vmware
       VM genid: 
         memory: 1610612736 (bytes)
       nr vCPUs: 4
     CPU vendor: 
      CPU model: 
   CPU topology: sockets: 2 cores/socket: 2 threads/core: 1
   CPU features: 
       firmware: unknown
        display: 
          sound: 
disks:
	0 [scsi]
	1 [scsi]
removable media:

NICs:
	Bridge \"VM Network\" mac: 00:50:56:b6:aa:bb [vmxnet3]
	Bridge \"Backup\" mac: 00:50:56:b6:aa:bc [e1000]

i_root = /dev/sda1
i_type = linux
i_distro = debian
i_osinfo = debian12
i_arch = x86_64
i_major_version = 12
i_minor_version = 15
i_package_format = deb
i_package_management = apt
i_product_name = 12.15
i_product_variant = unknown
i_windows_systemroot = 
i_windows_software_hive = 
i_windows_system_hive = 
i_windows_current_control_set = 
i_drive_mappings = 

gcaps_block_bus = virtio-blk
gcaps_net_bus = virtio-net
gcaps_virtio_rng = true
gcaps_virtio_balloon = true
gcaps_isa_pvpanic = true
gcaps_virtio_socket = true
gcaps_machine = q35
gcaps_arch = x86_64
gcaps_arch_min_version = 0
gcaps_virtio_1_0 = true
gcaps_rtc_utc = true

virtio-blk slot 0:
	0 [scsi]virtio-blk slot 1:
	1 [scsi]
target firmware: bios
target NICs:
	Bridge \"VM Network\" mac: 00:50:56:b6:aa:bb [vmxnet3]
	Bridge \"Backup\" mac: 00:50:56:b6:aa:bc [e1000]
mountpoint stats:
    mountpoint statvfs /dev/sda1 / (ext4):
        bsize=4096 blocks=377186 bfree=311147 bavail=287416
rm -rf -- '/var/tmp/v2vnbdkit.kN8YF8'
";

fn heard(text: &str) -> Reader {
    let mut reader = Reader::default();
    text.lines().for_each(|line| reader.line(line));
    reader
}

#[test]
fn the_recorded_output_is_understood() {
    let wanted = Capabilities {
        block: BlockBus::VirtioBlk,
        net: NetModel::Virtio,
        machine: Some(Machine::Q35),
        arch: Some("x86_64".to_owned()),
        rng: true,
        virtio_1_0: true,
        acpi: true,
        rtc_utc: Some(true),
        firmware: Some(TargetFirmware::Bios),
        boot_disk: None,
    };
    assert_eq!(heard(RECORDED).capabilities(), Some(wanted));
}

#[test]
fn a_guest_without_virtio_drivers_gets_none_of_virtio() {
    let text = RECORDED
        .replace("= virtio-blk", "= ide")
        .replace("= virtio-net", "= e1000")
        .replace("gcaps_virtio_rng = true", "gcaps_virtio_rng = false")
        .replace("= q35", "= i440fx")
        .replace("gcaps_rtc_utc = true", "gcaps_rtc_utc = false")
        .replace("gcaps_virtio_1_0 = true", "gcaps_virtio_1_0 = false")
        .replace("target firmware: bios", "target firmware: uefi\ntarget boot device: 1")
        + "gcaps_acpi = false\r\n";
    let found = heard(&text).capabilities().unwrap();
    assert_eq!((found.block, found.net), (BlockBus::Ide, NetModel::E1000));
    assert_eq!((found.rng, found.virtio_1_0, found.acpi), (false, false, false));
    assert_eq!((found.machine, found.rtc_utc), (Some(Machine::I440fx), Some(false)));
    assert_eq!(found.firmware, Some(TargetFirmware::Uefi));
    assert_eq!(found.boot_disk, Some(1));
}

#[test]
fn without_both_buses_nothing_is_known() {
    for missing in ["gcaps_block_bus", "gcaps_net_bus"] {
        let rest: Vec<&str> = RECORDED.lines().filter(|l| !l.starts_with(missing)).collect();
        assert_eq!(heard(&rest.join("\n")).capabilities(), None, "{missing}");
        let strange = format!("{RECORDED}{missing} = of-the-future\n");
        assert_eq!(heard(&strange).capabilities(), None, "{missing}");
    }
    // The same words elsewhere in a line are not virt-v2v's.
    let quoted: Vec<String> = RECORDED.lines().map(|l| format!("nbdkit: debug: {l}")).collect();
    assert_eq!(heard(&quoted.join("\n")), Reader::default());
}

#[test]
fn only_linux_is_assumed_to_have_virtio_drivers() {
    let assumed = |os: &str| {
        let xml = format!("<x><operatingsystem>{os}</operatingsystem></x>");
        Capabilities::assumed(Some(&parse_inspection(&xml).unwrap()))
    };
    let linux = assumed("<name>linux</name><arch>aarch64</arch>");
    assert_eq!((linux.block, linux.net), (BlockBus::VirtioBlk, NetModel::Virtio));
    assert_eq!(linux.arch.as_deref(), Some("aarch64"));
    for other in [assumed("<name>windows</name>"), assumed(""), Capabilities::assumed(None)] {
        assert_eq!((other.block, other.net), (BlockBus::Ide, NetModel::E1000));
    }
}

proptest! {
    #[test]
    fn any_line_is_heard_and_little_is_kept(
        lines in proptest::collection::vec("(gcaps_(block_bus|net_bus|arch|machine|acpi) = |target firmware: |target boot device: )?\\PC{0,40}", 0..20)
    ) {
        let mut reader = Reader::default();
        for line in &lines {
            reader.line(line);
        }
        prop_assert!(reader.arch.as_ref().is_none_or(|arch| arch.len() <= 16));
        // Whatever was said before, the recorded lines are the last word.
        let acpi = reader.acpi.unwrap_or(true);
        RECORDED.lines().for_each(|line| reader.line(line));
        let wanted = Capabilities { acpi, boot_disk: reader.boot_disk, ..heard(RECORDED).capabilities().unwrap() };
        prop_assert_eq!(reader.capabilities(), Some(wanted));
    }
}
