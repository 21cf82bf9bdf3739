//! Runs the built `v2v-pod` against the recorded cases. See the crate's documentation; in short:
//!
//! ```text
//! cargo build && cargo test -p v2v-pod-tests                      all cases, as root
//! V2V_CASE=inplace/ cargo test -p v2v-pod-tests                   only names with this in them
//! V2V_POD_BIN=/path/to/v2v-pod cargo test -p v2v-pod-tests        another binary
//! V2V_CONFORMANCE=a.json:b.json cargo test -p v2v-pod-tests       further cases
//! tests/data/conformance/contract-cases.json holds cases derived from the contract, not recorded.
//! V2V_KEEP=1 V2V_CASE=ova/ cargo test -p v2v-pod-tests -- --nocapture   leave the roots for a look
//! ```

use std::path::Path;
use std::sync::LazyLock;
use v2v_pod_tests::cases;
use v2v_pod_tests::differences::{self, DIFFERENCES};
use v2v_pod_tests::suite::Suite;

static SUITE: LazyLock<Suite> =
    LazyLock::new(|| Suite::new(Path::new(env!("CARGO_BIN_EXE_v2v-standin"))));

/// Groups that have a test of their own below.
const GROUPS: &[&str] = &[
    "vsphere",
    "validate",
    "disks",
    "fail",
    "ova",
    "hyperv",
    "inplace",
    "remote-inspect",
    "customize-linux",
    "customize-windows",
    "http",
    "monitor",
];

#[test]
fn conformance_cases() {
    SUITE.check(None);
}

#[test]
fn there_are_cases_and_every_group_is_shown() {
    assert!(!SUITE.is_empty(), "no case in scope; V2V_CASE={:?}", std::env::var("V2V_CASE"));
    let all = cases::load();
    for group in GROUPS {
        assert!(all.iter().any(|c| c.group() == *group), "no case in group {group}");
    }
}

#[test]
fn every_deliberate_difference_is_one() {
    let all = cases::load();
    for difference in DIFFERENCES {
        let changes_one =
            all.iter().filter(|c| differences::matches(difference.case, &c.name)).any(|c| {
                let mut adjusted = c.clone();
                (difference.adjust)(&mut adjusted);
                format!("{adjusted:?}") != format!("{c:?}")
            });
        assert!(changes_one, "{}: changes no case: {}", difference.case, difference.reason);
    }
}

macro_rules! group {
    ($name:ident, $group:literal) => {
        #[test]
        fn $name() {
            SUITE.check(Some($group));
        }
    };
}

group!(vsphere, "vsphere");
group!(validate, "validate");
group!(disks, "disks");
group!(fail, "fail");
group!(ova, "ova");
group!(hyperv, "hyperv");
group!(inplace, "inplace");
group!(remote_inspect, "remote-inspect");
group!(customize_linux, "customize-linux");
group!(customize_windows, "customize-windows");
group!(http, "http");
group!(monitor, "monitor");
