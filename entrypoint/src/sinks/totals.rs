//! Sums over a [`Snapshot`] that more than one sink shows. Pure.

use crate::event::{DiskState, Phase, Snapshot, UnixMs};
use serde::Serialize;

/// All disks together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Total {
    /// Percent of all bytes; while a size is unknown, the mean of the disks' percents.
    pub percent: f64,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes of all disks; `None` while a size is unknown.
    pub size_bytes: Option<u64>,
    /// Rates of the disks under way, added up.
    pub rate_bytes_per_second: f64,
    /// Time left at that rate; `None` when unknown.
    pub seconds_left: Option<u64>,
}

/// Adds the disks up. Zero when there are none.
pub fn total(disks: &[DiskState]) -> Total {
    let done_bytes = disks.iter().fold(0u64, |sum, d| sum.saturating_add(d.done_bytes));
    let size_bytes = disks
        .iter()
        .try_fold(0u64, |sum, d| d.size_bytes.map(|size| sum.saturating_add(size)))
        .filter(|_| !disks.is_empty());
    let finished = !disks.is_empty() && disks.iter().all(|d| d.finished_ms.is_some());
    let rate_bytes_per_second = disks.iter().map(current_rate).sum();
    #[allow(clippy::cast_precision_loss)] // shown with a few digits
    let percent = match size_bytes {
        _ if finished => 100.0,
        Some(size) if size > 0 => done_bytes as f64 * 100.0 / size as f64,
        _ => disks.iter().filter_map(|d| d.percent).sum::<f64>() / disks.len().max(1) as f64,
    };
    let seconds_left = match size_bytes {
        _ if finished => Some(0),
        Some(size) if rate_bytes_per_second >= 1.0 => {
            // The cast saturates.
            #[allow(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss
            )]
            let seconds = (size.saturating_sub(done_bytes) as f64 / rate_bytes_per_second) as u64;
            Some(seconds)
        }
        _ => None,
    };
    Total { percent, done_bytes, size_bytes, rate_bytes_per_second, seconds_left }
}

/// The rate of a disk under way; 0 before and after its copy.
pub fn current_rate(disk: &DiskState) -> f64 {
    if disk.finished_ms.is_some() { 0.0 } else { disk.rate_bytes_per_second }
}

/// Milliseconds spent in each phase that was reached, in the order of a run. A phase that was
/// entered twice appears once, with both times added. `Done` and `Failed` last for ever and have
/// no duration.
pub fn phase_durations_ms(snapshot: &Snapshot, now: UnixMs) -> Vec<(Phase, u64)> {
    let spans = snapshot.durations_ms(now);
    Phase::ALL
        .into_iter()
        .filter(|phase| !phase.is_final())
        .filter_map(|phase| {
            spans
                .iter()
                .filter(|(p, _)| *p == phase)
                .map(|(_, ms)| *ms)
                .reduce(|a, b| a + b)
                .map(|ms| (phase, ms))
        })
        .collect()
}

/// Milliseconds from the first phase to `now`, or to the end of the run.
pub fn elapsed_ms(snapshot: &Snapshot, now: UnixMs) -> u64 {
    let Some(first) = snapshot.phases.first() else {
        return 0;
    };
    let end = snapshot.phases.iter().find(|p| p.phase.is_final()).map_or(now, |p| p.started_ms);
    end.saturating_sub(first.started_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn snapshot(events: &[(UnixMs, Event)]) -> Snapshot {
        let mut s = Snapshot::default();
        for (at, event) in events {
            s.apply(*at, event);
        }
        s
    }

    #[test]
    fn totals_weigh_disks_by_size() {
        let s = snapshot(&[
            (0, Event::DiskSize { disk: 0, bytes: 3000 }),
            (0, Event::DiskSize { disk: 1, bytes: 1000 }),
            (0, Event::DiskStarted { disk: 0, total: 2 }),
            (1000, Event::DiskPercent { disk: 0, percent: 100.0 }),
            (1000, Event::DiskStarted { disk: 1, total: 2 }),
            (2000, Event::DiskPercent { disk: 1, percent: 10.0 }),
        ]);
        let t = total(&s.disks);
        assert_eq!((t.done_bytes, t.size_bytes), (3100, Some(4000)));
        assert!((t.percent - 77.5).abs() < 1e-9, "{t:?}");
        // Only the disk under way has a rate: 100 bytes per second, 900 bytes to go.
        assert_eq!(t.seconds_left, Some(9));
    }

    #[test]
    fn totals_without_sizes_are_the_mean_of_the_percents() {
        let s = snapshot(&[
            (0, Event::DiskStarted { disk: 0, total: 2 }),
            (0, Event::DiskStarted { disk: 1, total: 2 }),
            (0, Event::DiskPercent { disk: 0, percent: 50.0 }),
        ]);
        let t = total(&s.disks);
        assert!((t.percent - 25.0).abs() < 1e-9, "{t:?}");
        assert_eq!((t.size_bytes, t.seconds_left), (None, None));
        assert_eq!(total(&[]), Total::default());
    }

    #[test]
    fn a_phase_entered_twice_is_counted_once() {
        let s = snapshot(&[
            (0, Event::PhaseEntered(Phase::Convert)),
            (10, Event::PhaseEntered(Phase::Copy)),
            (30, Event::PhaseEntered(Phase::Convert)),
            (35, Event::Finished { exit_code: 0, reason: None }),
        ]);
        assert_eq!(phase_durations_ms(&s, 99), [(Phase::Convert, 15), (Phase::Copy, 20)]);
        assert_eq!((elapsed_ms(&s, 99), elapsed_ms(&Snapshot::default(), 99)), (35, 0));
    }
}
