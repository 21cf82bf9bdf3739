//! Tests of [`super`].

use super::super::soap::page;
use super::super::tree::tests::tree;
use super::*;
use proptest::prelude::*;
use roxmltree::Document;

/// A VM with nothing special about it.
pub fn a_vm() -> SourceVm {
    read_one(&vm_xml("", &disk_xml(2000, 1000, 0))).unwrap()
}

fn a_tree() -> Tree {
    tree(&[
        ("group-d1", "Folder", "Datacenters", ""),
        ("datacenter-2", "Datacenter", "DC", "group-d1"),
        ("group-v3", "Folder", "vm", "datacenter-2"),
        ("group-v7", "Folder", "prod", "group-v3"),
        ("group-h4", "Folder", "host", "datacenter-2"),
        ("domain-c9", "ClusterComputeResource", "C", "group-h4"),
        ("host-10", "HostSystem", "h1", "domain-c9"),
        ("network-5", "Network", "VM Net%2fwork", "group-n5"),
        ("dvportgroup-6", "DistributedVirtualPortgroup", "dv 1", "group-n5"),
    ])
}

const CONTROLLERS: [(&str, u32, u32); 7] = [
    ("VirtualIDEController", 200, 0),
    ("VirtualIDEController", 201, 1),
    ("ParaVirtualSCSIController", 1000, 0),
    ("VirtualLsiLogicSASController", 1001, 1),
    ("VirtualAHCIController", 15000, 0),
    ("VirtualNVMEController", 31000, 0),
    ("VirtualUSBXHCIController", 14000, 0),
];

fn disk_xml(key: u32, controller: u32, unit: u32) -> String {
    format!(
        r#"<VirtualDevice xsi:type="VirtualDisk"><key>{key}</key><deviceInfo><label>Hard disk {key}</label></deviceInfo>
        <backing xsi:type="VirtualDiskFlatVer2BackingInfo"><fileName>[ds 1] web/{key}.vmdk</fileName><diskMode>persistent</diskMode></backing>
        <controllerKey>{controller}</controllerKey><unitNumber>{unit}</unitNumber><capacityInKB>1024</capacityInKB></VirtualDevice>"#
    )
}

fn vm_xml(properties: &str, devices: &str) -> String {
    let controller = |(kind, key, number): &(&str, u32, u32)| {
        format!(
            r#"<VirtualDevice xsi:type="{kind}"><key>{key}</key><busNumber>{number}</busNumber></VirtualDevice>"#
        )
    };
    let controllers: Vec<String> = CONTROLLERS.iter().map(controller).collect();
    let usual = [
        ("name", "web%2f1"),
        ("config.uuid", "42000000-1111-2222-3333-44445555AAAA"),
        ("runtime.powerState", "poweredOff"),
        ("runtime.connectionState", "connected"),
        ("config.hardware.numCPU", "2"),
        ("config.hardware.memoryMB", "2048"),
    ];
    let usual = usual.iter().filter(|(name, _)| !properties.contains(&format!(">{name}<")));
    let usual: Vec<String> = usual.map(|(name, value)| property(name, value)).collect();
    let devices = if devices.is_empty() {
        String::new()
    } else {
        property("config.hardware.device", &(controllers.concat() + devices))
    };
    format!(
        r#"<r xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><returnval><objects><obj type="VirtualMachine">vm-21</obj>
        <propSet><name>runtime.host</name><val type="HostSystem" xsi:type="ManagedObjectReference">host-10</val></propSet>
        <propSet><name>parent</name><val type="Folder" xsi:type="ManagedObjectReference">group-v7</val></propSet>
        {}{devices}{properties}</objects></returnval></r>"#,
        usual.concat()
    )
}

fn read_one(xml: &str) -> Result<SourceVm, Unreadable> {
    let document = Document::parse(xml).unwrap();
    let (objects, _) = page(document.root_element());
    read(&objects[0], &a_tree(), ServerKind::VCenter)
}

fn property(name: &str, value: &str) -> String {
    format!("<propSet><name>{name}</name><val>{value}</val></propSet>")
}

#[test]
fn a_vm_is_read() {
    let vm = a_vm();
    assert_eq!((vm.name.as_str(), vm.moref.as_str()), ("web/1", "vm-21"));
    assert_eq!(vm.uuid, "42000000-1111-2222-3333-44445555aaaa");
    assert_eq!(vm.folder, ["prod"]);
    assert_eq!(vm.host.path, ["DC", "C", "h1"]);
    assert_eq!((vm.cpus, vm.cores_per_socket, vm.memory_bytes), (2, 1, 2 << 30));
    assert_eq!((vm.power, vm.firmware, vm.secure_boot), (Power::Off, Firmware::Bios, false));
    assert!(!vm.snapshots && !vm.template);
    assert_eq!(vm.disks.len(), 1);
    assert_eq!((vm.disks[0].datastore.as_str(), vm.disks[0].capacity_bytes), ("ds 1", 1 << 20));
}

#[test]
fn disks_come_in_virt_v2vs_order() {
    let devices = [
        disk_xml(1, 31000, 0),
        disk_xml(2, 201, 0),
        disk_xml(3, 200, 1),
        disk_xml(4, 15000, 3),
        disk_xml(5, 1001, 0),
        disk_xml(6, 1000, 10),
        disk_xml(7, 1000, 9),
    ];
    let vm = read_one(&vm_xml("", &devices.concat())).unwrap();
    let order: Vec<&str> =
        vm.disks.iter().map(|d| d.label.trim_start_matches("Hard disk ")).collect();
    assert_eq!(order, ["7", "6", "5", "4", "3", "2", "1"]);
    let places: Vec<String> =
        vm.disks.iter().map(|d| format!("{}:{}", d.controller, d.unit)).collect();
    assert_eq!(
        places,
        ["scsi0:9", "scsi0:10", "scsi1:0", "sata0:3", "ide0:1", "ide1:0", "nvme0:0"]
    );
    assert!(vm.disks.iter().enumerate().all(|(i, d)| d.index == i && d.seen == (i < 6)));
}

#[test]
fn what_cannot_be_converted_says_why() {
    for (xml, reason) in [
        (vm_xml("", ""), "does not give its config.hardware.device"),
        (vm_xml(&property("runtime.connectionState", "inaccessible"), ""), "it is inaccessible"),
        (
            vm_xml(
                r#"<missingSet><path>config.hardware</path><fault><fault xsi:type="NoPermission"/></fault></missingSet>"#,
                "",
            ),
            "config.hardware: NoPermission",
        ),
        (vm_xml("", &disk_xml(2000, 14000, 0)), "no known kind"),
        (vm_xml("", &(disk_xml(1, 1000, 0) + &disk_xml(2, 1000, 0))), "scsi0:0"),
        (vm_xml("", &disk_xml(1, 1000, 0).replace("[ds 1]", "")), "names no datastore"),
        (
            vm_xml(
                &property("config.hardware.memoryMB", "99999999999999999999"),
                &disk_xml(1, 1000, 0),
            ),
            "memory",
        ),
        (vm_xml(&property("config.firmware", "coreboot"), &disk_xml(1, 1000, 0)), "coreboot"),
        (vm_xml(&property("runtime.powerState", "x"), &disk_xml(1, 1000, 0)), "power state"),
        (vm_xml("", &disk_xml(1, 1000, 0)).replace("host-10", "host-99"), "host-99"),
    ] {
        let unreadable = read_one(&xml).unwrap_err();
        assert!(unreadable.reason.contains(reason), "{reason}: {}", unreadable.reason);
        assert_eq!((unreadable.name.as_str(), unreadable.moref.as_str()), ("web/1", "vm-21"));
    }
}

#[test]
fn firmware_snapshots_and_disks_of_other_kinds() {
    let more = property("config.firmware", "efi")
        + &property("config.bootOptions", "<efiSecureBootEnabled>true</efiSecureBootEnabled>")
        + &property("snapshot", "<rootSnapshotList><name>a</name></rootSnapshotList>")
        + &property("config.hardware.numCoresPerSocket", "0")
        + &property("config.template", "true");
    let raw = disk_xml(1, 1000, 0)
        .replace("FlatVer2", "RawDiskMappingVer1")
        .replace(">persistent", ">independent_persistent");
    let vm = read_one(&vm_xml(&more, &raw)).unwrap();
    assert_eq!((vm.firmware, vm.secure_boot, vm.snapshots), (Firmware::Efi, true, true));
    assert!(vm.template && vm.disks[0].raw_device && vm.disks[0].independent);
    assert_eq!(vm.cores_per_socket, 1);
}

#[test]
fn networks_have_names() {
    let nic = |key: u32, mac: &str, backing: &str| {
        format!(
            r#"<VirtualDevice xsi:type="VirtualVmxnet3"><key>{key}</key><backing>{backing}</backing><addressType>assigned</addressType>{mac}</VirtualDevice>"#
        )
    };
    let devices = disk_xml(1, 1000, 0)
        + &nic(4002, "", "<deviceName>gone</deviceName>")
        + &nic(
            4001,
            "<macAddress>00:50:56:AA:BB:02</macAddress>",
            "<port><portgroupKey>dvportgroup-6</portgroupKey></port>",
        )
        + &nic(
            4000,
            "<macAddress>00:50:56:aa:bb:01</macAddress>",
            r#"<deviceName>old</deviceName><network type="Network">network-5</network>"#,
        )
        + &nic(4003, "", "<port><portgroupKey>dvportgroup-99</portgroupKey></port>");
    let vm = read_one(&vm_xml("", &devices)).unwrap();
    let nics: Vec<_> = vm.nics.iter().map(|n| (n.mac.as_deref(), n.network.as_deref())).collect();
    assert_eq!(
        nics,
        [
            (Some("00:50:56:aa:bb:01"), Some("VM Net/work")),
            (Some("00:50:56:aa:bb:02"), Some("dv 1")),
            (None, Some("gone")),
            (None, None),
        ]
    );
}

proptest! {
    #[test]
    fn disks_are_numbered_by_place_in_any_order(
        places in prop::collection::btree_set((0usize..6, 0u32..64), 1..12)
            .prop_map(|set| set.into_iter().collect::<Vec<_>>())
            .prop_shuffle()
    ) {
        let devices: String = places.iter().enumerate()
            .map(|(i, (c, unit))| disk_xml(u32::try_from(i).unwrap(), CONTROLLERS[*c].1, *unit)).collect();
        let vm = read_one(&vm_xml("", &devices)).unwrap();
        prop_assert_eq!(vm.disks.len(), places.len());
        let sorted = vm.disks.windows(2).all(|w| (w[0].controller, w[0].unit) < (w[1].controller, w[1].unit));
        prop_assert!(sorted);
    }

    #[test]
    fn no_description_is_too_odd(
        pieces in prop::collection::vec(
            "<(/?)(key|busNumber|backing|fileName|controllerKey|unitNumber|capacityInBytes|macAddress|port|portgroupKey)>|[0-9\\[\\]-]{1,21}", 0..16),
        kinds in "(VirtualDisk|VirtualIDEController|VirtualE1000)",
    ) {
        let xml = format!(r#"<VirtualDevice xsi:type="{kinds}">{}</VirtualDevice>"#, pieces.concat());
        let all = vm_xml("", &xml);
        if Document::parse(&all).is_ok() {
            let _ = read_one(&all);
        }
    }
}
