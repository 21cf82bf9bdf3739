//! Of two controllers one works.

use crate::lab::{Controller, Room};
use serde_json::Value;
use std::time::{Duration, Instant};

#[test]
fn one_leads_and_the_other_follows_when_it_is_killed() {
    let room = Room::new();
    let start = |name| Controller::start(room.server, &room.namespace, &["--identity", name]);
    let held_by = |name: &'static str| move |lease: &Value| lease["spec"]["holderIdentity"] == name;
    let first = start("first");
    room.until("lease", "controller-lite", held_by("first"));
    let second = start("second");
    let begin = Instant::now();
    while !second.log().contains("waits for the lease") {
        assert!(begin.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(50));
    }
    first.kill();
    room.until("lease", "controller-lite", held_by("second"));
    assert!(second.log().contains(r#""message":"leads""#), "{}", second.log());
    // Who stops by itself gives it back at once.
    assert_eq!(second.stop(), Some(0));
    assert!(room.get("lease", "controller-lite")["spec"]["holderIdentity"].is_null());
}
