//! A disk's name and progress in words, for the terminal.

use super::human::{human_bytes, human_duration, human_percent, human_rate, printable};
use super::totals;
use crate::event::DiskState;

/// `disk 0 (/dev/block0)`; the target is left out when it is not known.
pub fn disk_name(index: usize, disk: &DiskState) -> String {
    if disk.target.is_empty() {
        format!("disk {index}")
    } else {
        format!("disk {index} ({})", printable(&disk.target))
    }
}

/// `37%, 3.7 GiB of 10.0 GiB, 120.0 MiB/s, 53s left`, with as much as is known.
pub fn disk_progress(disk: &DiskState) -> String {
    let mut parts = vec![human_percent(disk.percent.unwrap_or(0.0))];
    if let Some(size) = disk.size_bytes {
        parts.push(format!("{} of {}", human_bytes(disk.done_bytes), human_bytes(size)));
    }
    if let (Some(started), Some(finished)) = (disk.started_ms, disk.finished_ms) {
        parts.push(format!("in {}", human_duration(finished.saturating_sub(started) / 1000)));
    } else if totals::current_rate(disk) >= 1.0 {
        parts.push(human_rate(disk.rate_bytes_per_second));
        parts.extend(disk.seconds_left().map(|s| format!("{} left", human_duration(s))));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Snapshot};

    #[test]
    fn rate_and_time_left_are_said_when_known() {
        let mut s = Snapshot::default();
        s.apply(0, &Event::DiskSize { disk: 0, bytes: 100 << 20 });
        s.apply(0, &Event::DiskStarted { disk: 0, total: 1 });
        s.apply(1_000, &Event::DiskPercent { disk: 0, percent: 25.0 });
        assert_eq!(disk_progress(&s.disks[0]), "25%, 25.0 MiB of 100.0 MiB, 25.0 MiB/s, 3s left");
    }
}
