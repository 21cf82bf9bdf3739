//! The stand-in for VDDK's library with the real nbdkit and its vddk plugin, in the built image: `tests/lab/vddk-stub.sh`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;
use v2v_pod_tests::e2e::lab::{lab, root, said, turn};

#[test]
fn the_stand_in_serves_nbdkit_as_vddk_does() {
    let (_lab, _turn) = (lab(), turn());
    let library = root().join("target/release/libvixDiskLib.so");
    let output = Command::new(root().join("tests/lab/vddk-stub.sh"))
        .arg("--library")
        .arg(library)
        .output()
        .unwrap();
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    let passed = said.lines().filter(|l| l.starts_with("ok")).count();
    assert!(passed >= 20, "{passed} checks ran: {said}");
}
