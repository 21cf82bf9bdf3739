use super::*;
use crate::grant::Copier;
use crate::rundir::RunDir;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const LOST: &str = "nbdkit: error: command 402: asynchronous read failed: The connection was lost";

/// Whether a tool of this name that says this and fails is started again, and why it failed.
async fn fails(name: &'static str, said: &str) -> Failed {
    let dir = tempfile::tempdir().unwrap();
    let tool = dir.path().join(name);
    fs::write(&tool, format!("#!/bin/sh\ncat <<'END'\n{said}\nEND\nexit 1\n")).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let run = RunDir::create(dir.path()).unwrap();
    let path = format!("{}:/usr/bin:/bin", dir.path().display());
    let env = BTreeMap::from([("PATH".to_owned(), path)]);
    let runner = Runner {
        bus: Bus::default(),
        stop: Stop::default(),
        toolbox: Toolbox::new(&env, &run, dir.path()),
        tmp: run.tmp(),
        grace: Duration::from_secs(1),
        transcript: None,
        copy: CopySettings { copier: Copier::Nbdcopy, ..CopySettings::default() },
        retries: 2,
        meant: None,
        findings: None,
    };
    let tool = Tool { name, messages: false, class: Class::Conversion, copies: true };
    runner.run_once(tool, None, |_| Vec::new()).await.unwrap_err()
}

#[tokio::test]
async fn a_tool_is_started_again_only_when_nothing_was_written() {
    let before = fails("virt-v2v", LOST).await;
    assert!(before.again && before.failure.passing, "{}", before.failure);
    let copying = format!("[   1.0] Copying disk 1/2\n{LOST}");
    let during = fails("virt-v2v", &copying).await;
    assert!(!during.again, "whoever copies, a copy that has begun is not begun anew");
    assert!(during.failure.passing, "but the same run may succeed later");
    let in_place = fails("virt-v2v-in-place", LOST).await;
    assert!(!in_place.again, "the disk may be half converted");
    assert!(!fails("virt-v2v", "virt-v2v: error: inspection could not detect").await.again);
}
