//! Conversion in place: on an overlay, committed or dropped, and the guest described.

use super::{BOOT_BYTES, ROOMY, boots, link, nothing_is_left};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use v2v_pod_tests::e2e::lab::{lab, turn};
use v2v_pod_tests::e2e::pod::{INSPECTING, LONG, Request};
use v2v_pod_tests::e2e::volume::{Block, Scratch, same_bytes};
use v2v_pod_tests::http;

fn in_place(work: &Path, block: &Block) -> Request {
    Request::new(work).block(0, block).envs(&[
        ("V2V_inPlace", "1"),
        ("V2V_source", "ec2"),
        ("V2V_vmName", "x"),
        ("LOCAL_MIGRATION", "false"),
    ])
}

/// The guest as its old host describes it: hardware of VMware's, in a file of libvirt's test driver, which starts
/// the guests of its file unless told that they are off (5).
const OLD_HOST: &str = "<node><domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>
  <name>x</name>
  <uuid>4236b3ba-1234-5678-9abc-0123456789ab</uuid>
  <memory unit='KiB'>1572864</memory>
  <vcpu>4</vcpu>
  <cpu><topology sockets='2' cores='2' threads='1'/></cpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <clock offset='localtime'/>
  <devices>
    <disk type='file' device='disk'><source file='/ds/x.vmdk'/><target dev='sda' bus='scsi'/></disk>
    <controller type='scsi' index='0' model='vmpvscsi'/>
    <interface type='bridge'><mac address='00:50:56:b6:aa:bb'/><source bridge='VM Network'/><model type='vmxnet3'/></interface>
    <interface type='bridge'><mac address='00:50:56:b6:aa:bc'/><source bridge='Backup'/><model type='e1000'/></interface>
  </devices>
  <test:runstate>5</test:runstate>
</domain></node>";

/// All of it: nothing of the old hardware may be there, and nothing that was not asked for.
fn wanted_vm() -> Value {
    let nic = |name: &str, mac: &str| json!({"name": name, "macAddress": mac, "model": "virtio", "bridge": {}});
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "x", "labels": {"app": "x", "libguestfs.org/osinfo": "debian12"}},
        "spec": {"runStrategy": "Halted", "template": {
            "metadata": {"labels": {"kubevirt.io/domain": "x"}},
            "spec": {
                "architecture": "amd64",
                "domain": {
                    "clock": {"utc": {}},
                    "cpu": {"sockets": 2, "cores": 2, "threads": 1},
                    "devices": {
                        "disks": [{"name": "disk-0", "bootOrder": 1, "disk": {"bus": "virtio"}}],
                        "inputs": [{"name": "tablet", "type": "tablet", "bus": "usb"}],
                        "interfaces": [nic("net-0", "00:50:56:b6:aa:bb"), nic("net-1", "00:50:56:b6:aa:bc")],
                        "rng": {},
                    },
                    "features": {"acpi": {}, "apic": {}},
                    "firmware": {"bootloader": {"bios": {}}},
                    "machine": {"type": "q35"},
                    "memory": {"guest": "1536Mi"},
                },
                "networks": [
                    {"name": "net-0", "multus": {"networkName": "vm-network"}},
                    {"name": "net-1", "multus": {"networkName": "backup"}},
                ],
                "volumes": [{"name": "disk-0", "persistentVolumeClaim": {"claimName": "root"}}],
            },
        }},
    })
}

#[test]
fn in_place_works_on_an_overlay_commits_it_and_describes_the_guest() {
    let (lab, _turn) = (lab(), turn());
    let scratch = Scratch::new();
    let (work, host) = (scratch.folder("work"), scratch.folder("host"));
    for (name, text) in [("host.xml", OLD_HOST), ("secretKey", "unused"), ("accessKeyId", "unused")]
    {
        fs::write(host.join(name), text).unwrap();
    }
    let source = lab.guest.join("boot.img");
    let block = scratch.block_from("block0", &source, ROOMY);
    let mut pod = in_place(&work, &block)
        .mount_read_only(&host, "/etc/secret")
        .envs(&[
            ("V2V_libvirtURL", "test:///etc/secret/host.xml"),
            ("V2V_output", "local"),
            ("V2V_claimNames", "[\"root\"]"),
            ("LOCAL_MIGRATION", "true"),
        ])
        .start();
    let namespace = pod.namespace();
    pod.until_log(INSPECTING, LONG);
    let (overlay, target) = (work.join("v2v/x-sda.qcow2"), link(&work, "x-sda"));
    pod.check(overlay.exists(), "there is an overlay while converting");
    pod.check(target == "/var/tmp/v2v/x-sda.qcow2", format_args!("the link leads to {target}"));
    let result = pod.ports.result;
    pod.until("the result is served", LONG, |_| http::is_open(result));
    let vm = http::request(result, "GET", "/vm");
    let found: Value = serde_saphyr::from_str(&vm.body).unwrap_or_default();
    let wanted = wanted_vm();
    pod.check(found == wanted, format_args!("/vm is the guest, {wanted:#}, and not {}", vm.body));
    let warnings = http::request(result, "GET", "/warnings");
    pod.check(warnings.status == Some(204), format_args!("nothing was assumed: {warnings:?}"));
    let answer = http::request(result, "POST", "/shutdown");
    pod.check(answer.status == Some(204), format_args!("/shutdown is answered: {answer:?}"));
    pod.ends_with(0, LONG);
    nothing_is_left(&mut pod, &work, &namespace);
    let target = link(&work, "x-sda");
    pod.check(target == "/dev/block0", format_args!("the link leads to the volume, not {target}"));
    let changed = !same_bytes(&block.node, &source, BOOT_BYTES);
    pod.check(changed, "the conversion has changed the volume");
    boots(&block);
}

#[test]
fn in_place_failing_leaves_the_volume_as_it_was() {
    let (lab, _turn) = (lab(), turn());
    let scratch = Scratch::new();
    let work = scratch.folder("work");
    let source = lab.bootless.join("boot.img");
    let block = scratch.block_from("block0", &source, ROOMY);
    let mut pod = in_place(&work, &block).start();
    let namespace = pod.namespace();
    pod.fails_with(27, "no-boot-loader", LONG);
    let same = same_bytes(&block.node, &source, BOOT_BYTES);
    pod.check(same, "the volume has not changed by a byte");
    nothing_is_left(&mut pod, &work, &namespace);
    let target = link(&work, "x-sda");
    pod.check(target == "/dev/block0", format_args!("the link leads to the volume, not {target}"));
}
