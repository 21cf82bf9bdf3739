//! Conversion in place: on an overlay, committed or dropped.

use super::{BOOT_BYTES, ROOMY, boots, link, nothing_is_left};
use std::path::Path;
use v2v_pod_tests::e2e::lab::{lab, turn};
use v2v_pod_tests::e2e::pod::{INSPECTING, LONG, Request};
use v2v_pod_tests::e2e::volume::{Block, Scratch, same_bytes};

fn in_place(work: &Path, block: &Block) -> Request {
    Request::new(work).block(0, block).envs(&[
        ("V2V_inPlace", "1"),
        ("V2V_source", "ec2"),
        ("V2V_vmName", "x"),
        ("LOCAL_MIGRATION", "false"),
    ])
}

#[test]
fn in_place_works_on_an_overlay_and_commits_it() {
    let (lab, _turn) = (lab(), turn());
    let scratch = Scratch::new();
    let work = scratch.folder("work");
    let source = lab.guest.join("boot.img");
    let block = scratch.block_from("block0", &source, ROOMY);
    let mut pod = in_place(&work, &block).start();
    let namespace = pod.namespace();
    pod.until_log(INSPECTING, LONG);
    let (overlay, target) = (work.join("v2v/x-sda.qcow2"), link(&work, "x-sda"));
    pod.check(overlay.exists(), "there is an overlay while converting");
    pod.check(target == "/var/tmp/v2v/x-sda.qcow2", format_args!("the link leads to {target}"));
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
