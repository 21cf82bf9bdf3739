//! The built image, end to end: real guests, real volumes, an unprivileged pod. See `v2v_pod_tests::e2e`.
//!
//! ```text
//! cargo build --release && cargo test -p v2v-pod-tests --test e2e            everything, as root
//! cargo test -p v2v-pod-tests --test e2e preflight                           one of them
//! ```
//!
//! Without KVM a conversion takes one to two minutes, and in pod mode the inspector as long again.
//! So one run carries many assertions, and at most two pods run at once. Tests start in the order of
//! their names, the longest (`cold`) first, so that the others run beside it.

// Test code: a broken assumption has to stop the run, with the place where it broke.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;
mod cold;
mod copy_first;
mod disks;
mod forklift;
mod https;
mod in_place;
mod inventory;
mod local;
mod ova;
mod preflight;
mod readers;
mod vsphere;
mod xen;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use v2v_pod_tests::e2e::lab::root;
use v2v_pod_tests::e2e::pod::{Pod, Request};
use v2v_pod_tests::e2e::process::Namespace;
use v2v_pod_tests::e2e::volume::{Block, MIB, leftovers, must};

/// The virtual sizes of the lab's disks.
const BOOT_BYTES: u64 = 1536 * MIB;
const DATA_BYTES: u64 = 64 * MIB;
/// A block volume may be larger than its disk, and usually is.
const ROOMY: u64 = BOOT_BYTES + 64 * MIB;

/// `V2V_gracePeriod` by default, and the end of the container.
const GRACE: Duration = Duration::from_secs(25);

/// A QEMU that fails at once: the appliance, which preflight starts when it has found a problem, then
/// costs a second instead of half a minute.
const NO_APPLIANCE: (&str, &str) = ("LIBGUESTFS_HV", "/bin/false");

/// A pod that converts these disks, seen at `/source`, into `e2e-guest`.
fn hyperv(work: &Path, source: &Path, disks: &str) -> Request {
    Request::new(work).mount_read_only(source, "/source").envs(&[
        ("V2V_source", "hyperv"),
        ("V2V_vmName", "My VM"),
        ("V2V_NewName", "e2e-guest"),
        ("V2V_diskPath", disks),
    ])
}

fn boots(block: &Block) {
    let boot = root().join("tests/lab/boot.sh");
    must(Command::new(boot).arg(&block.node).args(["--timeout", "600"]));
}

fn link(work: &Path, name: &str) -> String {
    let target = fs::read_link(work.join("v2v").join(name)).unwrap_or_default();
    target.to_string_lossy().into_owned()
}

/// Nothing of the pod is there any more: no process, and no temporary file in the work volume.
#[track_caller]
fn nothing_is_left(pod: &mut Pod, work: &Path, namespace: &Namespace) {
    // The kernel kills what is left in the container after its first process has ended, not before.
    let begin = Instant::now();
    while !namespace.tools().is_empty() && begin.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (files, tools) = (leftovers(work), namespace.tools());
    pod.check(files.is_empty(), format_args!("no leftover in the work volume, but {files:?}"));
    pod.check(tools.is_empty(), format_args!("no process left, but {tools:?}"));
}
