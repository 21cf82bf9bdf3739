//! libnbd's own tests of nbdcopy, with v2v-pod under that name. The script fetches them as a source package.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;
use v2v_pod_tests::copy::pod_binary;

#[test]
fn libnbds_tests_of_nbdcopy_pass() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/nbdcopy-suite.sh");
    let output = Command::new(script).arg(pod_binary()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{said}");
    for line in text.lines().filter(|l| l.starts_with("skip")) {
        eprintln!("SKIPPED in libnbd's suite: {line}");
        // The kernel module is not for us to load; everything else can be installed.
        assert!(
            line.contains("/sys/module/nbd"),
            "needs what scripts/install-deps.sh lab installs: {line}"
        );
    }
    let passed = text.lines().filter(|l| l.starts_with("ok ")).count();
    assert!(passed >= 30, "only {passed} of libnbd's tests were run: {text}");
}
