//! What virt-v2v's output means: phases, disks and percents.
//!
//! Two streams feed it. The *output* (stdout and stderr in one pipe, so in order) carries
//! nbdcopy's bars and the human messages; the *messages* are the JSON lines of
//! `--machine-readable`. Bars are booked by the output alone, since the order between two pipes is
//! not known. Pure.

use crate::event::{Event, Phase, Severity};
use serde::Deserialize;

/// One line of `--machine-readable=fd:N`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MachineMessage {
    /// The text.
    pub message: String,
    /// `message`, `info`, `warning` or `error`.
    #[serde(rename = "type")]
    pub kind: String,
}

impl MachineMessage {
    /// `None` when the line is not such a message.
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// Its severity.
    pub fn severity(&self) -> Severity {
        match self.kind.as_str() {
            "error" => Severity::Error,
            "warning" => Severity::Warning,
            _ => Severity::Info,
        }
    }
}

/// More disks than any source has.
const MOST_DISKS: usize = 1000;

/// Follows one run of virt-v2v.
#[derive(Debug, Default)]
pub struct Tracker {
    /// The disk whose bar is being drawn, from 0.
    current: Option<usize>,
    /// Number of disks that virt-v2v counts.
    total: Option<usize>,
    /// Sizes seen in the trace so far.
    sizes: usize,
    finishing: bool,
}

impl Tracker {
    /// How many disks virt-v2v says it copies, once it has said so.
    pub fn total(&self) -> Option<usize> {
        self.total
    }

    /// A piece of output, without its end.
    pub fn output(&mut self, line: &str, emit: &mut impl FnMut(Event)) {
        if let Some((number, total)) = copying(line) {
            self.start(number, total, emit);
        } else if let Some(percent) = bar_percent(line) {
            if let Some(disk) = self.current {
                emit(Event::DiskPercent { disk, percent });
            }
        } else if is_finishing(line) {
            self.finish(emit);
        } else if let Some(bytes) = created_size(line) {
            emit(Event::DiskSize { disk: self.sizes, bytes });
            self.sizes += 1;
        }
    }

    /// A machine-readable message.
    pub fn message(&mut self, message: &MachineMessage, emit: &mut impl FnMut(Event)) {
        if message.severity() != Severity::Info {
            return;
        }
        let text = message.message.as_str();
        if let Some((number, total)) = copying(text) {
            self.start(number, total, emit);
        } else if text.starts_with("Creating output metadata") || text.starts_with("Finishing off")
        {
            self.finish(emit);
        }
    }

    fn start(&mut self, number: usize, total: usize, emit: &mut impl FnMut(Event)) {
        // A guest can print such a line too: numbers that no source has are not believed.
        let Some(disk) = number.checked_sub(1).filter(|_| number <= total && total <= MOST_DISKS)
        else {
            return;
        };
        self.total = Some(total);
        // The same message comes on both streams; the later one must not move the bar back.
        if self.current.is_none_or(|current| disk > current) {
            if self.current.is_none() {
                emit(Event::PhaseEntered(Phase::Copy));
            }
            self.current = Some(disk);
            emit(Event::DiskStarted { disk, total });
        }
    }

    fn finish(&mut self, emit: &mut impl FnMut(Event)) {
        if !self.finishing && self.current.is_some() {
            self.finishing = true;
            emit(Event::CopyFinished);
        }
    }
}

/// `Copying disk 2/5` anywhere in the line.
fn copying(line: &str) -> Option<(usize, usize)> {
    let rest = &line[line.rfind("Copying disk ")? + "Copying disk ".len()..];
    let (number, rest) = rest.split_once('/')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((decimal(number)?, decimal(&rest[..digits])?))
}

fn decimal(text: &str) -> Option<usize> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The percent of `█  37% [****----]`: something, a space, a number, and a bar of `*` and `-`.
fn bar_percent(line: &str) -> Option<f64> {
    let (head, bar) = line.rsplit_once("% [")?;
    let bar = bar.split_once(']')?.0;
    if bar.is_empty() || !bar.bytes().all(|b| matches!(b, b'*' | b'-')) {
        return None;
    }
    let digits = head.len() - head.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (before, number) = head.split_at(head.len() - digits);
    (before.chars().count() >= 2 && before.ends_with(' '))
        .then(|| decimal(number))
        .flatten()
        .and_then(|n| u32::try_from(n).ok().filter(|n| *n <= 100).map(f64::from))
}

/// `[  90.0] Finishing off` at the start of the line.
fn is_finishing(line: &str) -> bool {
    let Some((time, rest)) = line.strip_prefix('[').and_then(|l| l.split_once(']')) else {
        return false;
    };
    time.bytes().all(|b| matches!(b, b' ' | b'.' | b'0'..=b'9'))
        && rest.starts_with(" Finishing off")
}

/// Path in `libguestfs: trace: disk_create "PATH" "raw" SIZE`: where virt-v2v makes a disk.
pub fn created_path(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("libguestfs: trace: disk_create \"")?;
    rest.split_once("\" \"").map(|(path, _)| path)
}

/// Size in `libguestfs: trace: disk_create "…-sda" "raw" 6442450944`: the target's exact size,
/// known before its copy begins. virt-v2v creates the disks in order.
fn created_size(line: &str) -> Option<u64> {
    let rest = &line[line.find("trace: disk_create \"")?..];
    let mut words = rest.rsplit("\" ");
    let size = words.next()?.split(' ').next()?;
    size.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events(lines: &[&str]) -> Vec<Event> {
        let mut tracker = Tracker::default();
        let mut out = Vec::new();
        for line in lines {
            tracker.output(line, &mut |e| out.push(e));
        }
        out
    }

    #[test]
    fn a_copy_of_two_disks() {
        let out = events(&[
            "[  20.2] Copying disk 1/2",
            "█  40% [****************------------------------]",
            "█ 100% [****************************************]",
            "[  60.0] Copying disk 2/2",
            "▝   7% [***-------------------------------------]",
            "[  90.0] Finishing off",
        ]);
        assert_eq!(
            out,
            [
                Event::PhaseEntered(Phase::Copy),
                Event::DiskStarted { disk: 0, total: 2 },
                Event::DiskPercent { disk: 0, percent: 40.0 },
                Event::DiskPercent { disk: 0, percent: 100.0 },
                Event::DiskStarted { disk: 1, total: 2 },
                Event::DiskPercent { disk: 1, percent: 7.0 },
                Event::CopyFinished,
            ]
        );
    }

    #[test]
    fn the_json_echo_of_a_disk_does_not_restart_it() {
        let mut tracker = Tracker::default();
        let mut out = Vec::new();
        tracker.output("[ 1.0] Copying disk 2/2", &mut |e| out.push(e));
        let echo = MachineMessage::parse(
            r#"{"message":"Copying disk 1/2","timestamp":"t","type":"message"}"#,
        )
        .unwrap();
        tracker.message(&echo, &mut |e| out.push(e));
        assert_eq!(out.len(), 2);
    }

    #[test]
    fn what_only_looks_like_a_bar_is_none() {
        for line in [
            "37% [***---]",
            " 38% [**--]",
            "x 12% [ab]",
            "x 12% []",
            "x 400% [**]",
            "[ x ] Finishing off",
            "Copying disk 0/1",
            "Copying disk 18446744073709551615/18446744073709551615",
            "Copying disk a/1",
        ] {
            let mut all = vec!["[ 1.0] Copying disk 1/1"];
            all.push(line);
            assert_eq!(events(&all).len(), 2, "{line}");
        }
        assert!(events(&["x 12% [**--]"]).is_empty(), "a bar before any disk");
        assert_eq!(events(&["[ 1.0] Copying disk 1/1", "xx [  90.0] Finishing off"]).len(), 2);
    }

    #[test]
    fn sizes_come_from_the_trace() {
        let out = events(&[
            r#"libguestfs: trace: disk_create "/var/tmp/v2v/demo-sda" "raw" 3221225472"#,
            r#"libguestfs: trace: disk_create "/var/tmp/v2v/demo-sdb" "raw" 512 "preallocation:full""#,
            "libguestfs: trace: disk_create = 0",
        ]);
        assert_eq!(
            out,
            [
                Event::DiskSize { disk: 0, bytes: 3_221_225_472 },
                Event::DiskSize { disk: 1, bytes: 512 }
            ]
        );
    }

    #[test]
    fn the_path_of_a_new_disk_is_read() {
        let line = r#"libguestfs: trace: disk_create "/w/a b-sda" "raw" 512"#;
        assert_eq!(created_path(line), Some("/w/a b-sda"));
        assert_eq!(created_path("libguestfs: trace: disk_create = 0"), None);
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "\\PC{0,80}|(.*Copying disk )?[0-9/]{0,30}|.{0,5} [0-9]{0,25}% \\[[*-]{0,5}\\]|.*trace: disk_create \".*") {
            events(&[&line]);
            created_path(&line);
            let _ = MachineMessage::parse(&line);
        }
    }
}
