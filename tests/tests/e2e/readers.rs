//! Readers of the log.

use super::preflight::too_small;
use std::process::Stdio;
use std::time::Duration;
use v2v_pod_tests::e2e::lab::{lab, turn};
use v2v_pod_tests::e2e::volume::{MIB, Scratch, leftovers};

/// Longer than the wait for a reader at the end (5 s), shorter than a hang.
const WITHOUT_READER: Duration = Duration::from_secs(60);

#[test]
fn a_log_that_nobody_reads_changes_nothing() {
    let (lab, _turn) = (lab(), turn());
    let scratch = Scratch::new();
    let work = scratch.folder("work");
    let block = scratch.block("block0", 1024 * MIB);
    let request = || too_small(&work, &lab.guest, &block);

    let mut unread = request().start_with_output(Stdio::piped());
    unread.fails_with(20, "volume", WITHOUT_READER);

    // Behind podman there is always a reader that takes something. So the same once more with a pipe
    // that is full before v2v-pod starts.
    let script = "exec 3> >(exec sleep 600); head -c 65536 /dev/zero >&3; exec v2v-pod >&3";
    let mut full = request().option("--entrypoint", "/bin/bash").command(&["-c", script]).start();
    full.fails_with(20, "volume", WITHOUT_READER);

    // And with one whose reader is gone.
    let script = "exec 3> >(exec true); sleep 1; exec v2v-pod >&3";
    let mut gone = request().option("--entrypoint", "/bin/bash").command(&["-c", script]).start();
    gone.fails_with(20, "volume", WITHOUT_READER);
    let left = leftovers(&work);
    gone.check(left.is_empty(), format_args!("no leftover in the work volume, but {left:?}"));
}
