use super::*;
use proptest::prelude::*;

fn copying(size: u64) -> Snapshot {
    let mut s = Snapshot::default();
    s.apply(0, &Event::DiskSize { disk: 0, bytes: size });
    s.apply(1000, &Event::DiskStarted { disk: 0, total: 1 });
    s
}

#[test]
fn bytes_rate_and_time_left_follow_the_percent() {
    let mut s = copying(1000);
    s.apply(2000, &Event::DiskPercent { disk: 0, percent: 25.0 });
    assert_eq!(s.disks[0].done_bytes, 250);
    assert!((s.disks[0].rate_bytes_per_second - 250.0).abs() < 0.001);
    assert_eq!(s.disks[0].seconds_left(), Some(3));
}

#[test]
fn what_is_there_from_an_earlier_run_is_done_but_not_a_rate() {
    let mut s = copying(1000);
    s.apply(1500, &Event::DiskResumed { disk: 0, bytes: 800 });
    s.apply(1500, &Event::DiskPercent { disk: 0, percent: 80.0 });
    assert_eq!((s.disks[0].done_bytes, s.disks[0].seconds_left()), (800, None));
    s.apply(2500, &Event::DiskPercent { disk: 0, percent: 90.0 });
    assert!((s.disks[0].rate_bytes_per_second - 100.0).abs() < 0.001);
    assert_eq!(s.disks[0].seconds_left(), Some(1));
}

#[test]
fn two_bars_in_one_millisecond_lose_no_bytes() {
    let mut s = copying(1000);
    for percent in [40.0, 100.0] {
        s.apply(2000, &Event::DiskPercent { disk: 0, percent });
    }
    assert_eq!(s.disks[0].done_bytes, 1000);
}

#[test]
fn percent_never_goes_back() {
    let mut s = copying(1000);
    s.apply(2000, &Event::DiskPercent { disk: 0, percent: 50.0 });
    s.apply(3000, &Event::DiskPercent { disk: 0, percent: 20.0 });
    assert_eq!(s.disks[0].percent, Some(50.0));
}

#[test]
fn copy_finished_completes_every_started_disk_and_no_other() {
    let mut s = copying(1000);
    s.apply(1500, &Event::DiskSize { disk: 1, bytes: 7 });
    s.apply(2000, &Event::CopyFinished);
    assert_eq!(s.disks[0].percent, Some(100.0));
    assert_eq!(s.disks[0].done_bytes, 1000);
    assert_eq!(s.disks[1].percent, None);
}

#[test]
fn durations_end_where_the_next_phase_begins() {
    let mut s = Snapshot::default();
    s.apply(10, &Event::PhaseEntered(Phase::Preflight));
    s.apply(30, &Event::PhaseEntered(Phase::Convert));
    s.apply(30, &Event::PhaseEntered(Phase::Convert));
    assert_eq!(s.durations_ms(100), vec![(Phase::Preflight, 20), (Phase::Convert, 70)]);
}

#[test]
fn a_failure_ends_in_failed_with_its_reason() {
    let mut s = Snapshot::default();
    s.apply(1, &Event::Finished { exit_code: 21, reason: Some("auth") });
    assert_eq!((s.phase(), s.exit_code, s.reason), (Some(Phase::Failed), Some(21), Some("auth")));
}

proptest! {
    #[test]
    fn done_bytes_stay_within_the_size(size in any::<u64>(), steps in prop::collection::vec((0u64..10_000, -10.0f64..200.0), 0..50)) {
        let mut s = copying(size);
        let mut now = 1000;
        for (dt, percent) in steps {
            now += dt;
            s.apply(now, &Event::DiskPercent { disk: 0, percent });
            prop_assert!(s.disks[0].done_bytes <= size);
            prop_assert!(s.disks[0].percent.unwrap() <= 100.0);
            prop_assert!(s.disks[0].rate_bytes_per_second >= 0.0);
        }
    }

    #[test]
    fn messages_are_bounded(n in 0usize..200) {
        let mut s = Snapshot::default();
        for i in 0..n {
            s.apply(i as u64, &Event::Message { severity: Severity::Info, tool: "t", text: i.to_string() });
        }
        prop_assert!(s.messages.len() <= RECENT_MESSAGES);
    }
}
