//! The report: a table for people, JSON for programs. Pure.
//!
//! Ratios are taken within a round and their median is given: what the network did to all competitors of a
//! round does not count.

use super::args::{Competitor, Tool, Way};
use serde_json::{Value, json};
use std::fmt::Write as _;

const MIB: f64 = 1_048_576.0;
const GIB: f64 = 1024.0 * MIB;

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Copied at once.
    pub disks: usize,
    /// From 1.
    pub round: u16,
    /// Who.
    pub competitor: Competitor,
    /// Virtual size of all disks.
    pub bytes: u64,
    /// Until the last copy had ended.
    pub seconds: f64,
    /// CPU seconds of the copiers.
    pub copier_cpu: f64,
    /// CPU seconds of nbdkit.
    pub server_cpu: f64,
}

/// Least, median and most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle.
    pub median: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[half]
        } else {
            f64::midpoint(values[half - 1], values[half])
        };
        Some(Self { min, median, max })
    }

    fn json(self) -> Value {
        json!({"min": self.min, "median": self.median, "max": self.max})
    }

    fn text(self, digits: usize) -> String {
        let Self { min, median, max } = self;
        format!("{median:.digits$} ({min:.digits$}-{max:.digits$})")
    }
}

/// What was measured, and with what.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Of the tools and the machine.
    pub versions: Vec<(&'static str, String)>,
    /// What was asked for, in words.
    pub settings: Vec<(&'static str, Value)>,
    /// The command lines of the first disk.
    pub commands: Vec<(String, String)>,
    /// In the order in which they were taken.
    pub samples: Vec<Sample>,
}

/// A line of the table.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    disks: usize,
    competitor: Competitor,
    seconds: Spread,
    mib_s: f64,
    x_nbdcopy: Option<Spread>,
    x_https: Option<Spread>,
    cpu_s_gib: f64,
    server_cpu_s_gib: f64,
}

impl Report {
    fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for sample in &self.samples {
            let known = rows.iter().any(|r| is(r, sample));
            if !known && let Some(row) = self.row(sample.disks, sample.competitor) {
                rows.push(row);
            }
        }
        rows
    }

    fn of(&self, disks: usize, competitor: Competitor) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |s| s.disks == disks && s.competitor == competitor)
    }

    fn row(&self, disks: usize, competitor: Competitor) -> Option<Row> {
        let bytes = self.of(disks, competitor).next()?.bytes;
        let field =
            |get: fn(&Sample) -> f64| Spread::of(self.of(disks, competitor).map(get).collect());
        let seconds = field(|s| s.seconds)?;
        #[allow(clippy::cast_precision_loss)] // for people
        let size = bytes as f64;
        Some(Row {
            disks,
            competitor,
            seconds,
            mib_s: size / MIB / seconds.median,
            x_nbdcopy: self.beside(
                disks,
                competitor,
                Competitor { copier: Tool::Nbdcopy, ..competitor },
            ),
            x_https: self.beside(
                disks,
                competitor,
                Competitor { transport: Way::Https, ..competitor },
            ),
            cpu_s_gib: field(|s| s.copier_cpu)?.median / (size / GIB),
            server_cpu_s_gib: field(|s| s.server_cpu)?.median / (size / GIB),
        })
    }

    /// How many times as fast as another one; `None` for itself, and when the other was not measured.
    fn beside(&self, disks: usize, one: Competitor, other: Competitor) -> Option<Spread> {
        if one == other {
            return None;
        }
        let ratio = |sample: &Sample| {
            let partner = self.of(disks, other).find(|s| s.round == sample.round)?;
            Some(partner.seconds / sample.seconds)
        };
        Spread::of(self.of(disks, one).filter_map(ratio).collect())
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let object = |pairs: &[(&'static str, String)]| -> Value {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), Value::from(v.as_str()))).collect()
        };
        let settings: Value =
            self.settings.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        let commands: Value =
            self.commands.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect();
        let samples: Vec<Value> = self.samples.iter().map(sample_json).collect();
        let table: Vec<Value> = self.rows().iter().map(row_json).collect();
        json!({
            "versions": object(&self.versions), "settings": settings, "commands": commands,
            "samples": samples, "table": table,
        })
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        for (name, value) in &self.versions {
            let _ = writeln!(text, "{:<12} {value}", format!("{name}:"));
        }
        for (name, value) in &self.settings {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let _ = writeln!(text, "{:<12} {value}", format!("{name}:"));
        }
        let _ = writeln!(
            text,
            "\n{:>5} {:<9} {:<8} {:>26} {:>8} {:>18} {:>18} {:>9} {:>10}",
            "disks",
            "transport",
            "copier",
            "seconds (min-max)",
            "MiB/s",
            "x nbdcopy",
            "x HTTPS",
            "CPU s/GiB",
            "nbdkit CPU"
        );
        for row in self.rows() {
            let ratio = |r: Option<Spread>| r.map_or_else(|| "-".to_owned(), |r| r.text(2));
            let _ = writeln!(
                text,
                "{:>5} {:<9} {:<8} {:>26} {:>8.1} {:>18} {:>18} {:>9.3} {:>10.3}",
                row.disks,
                row.competitor.transport,
                row.competitor.copier,
                row.seconds.text(3),
                row.mib_s,
                ratio(row.x_nbdcopy),
                ratio(row.x_https),
                row.cpu_s_gib,
                row.server_cpu_s_gib
            );
        }
        text.push('\n');
        for (name, line) in &self.commands {
            let _ = writeln!(text, "{name}: {line}");
        }
        text
    }
}

fn is(row: &Row, sample: &Sample) -> bool {
    row.disks == sample.disks && row.competitor == sample.competitor
}

fn sample_json(s: &Sample) -> Value {
    json!({
        "disks": s.disks, "round": s.round, "transport": s.competitor.transport.to_string(),
        "copier": s.competitor.copier.to_string(), "bytes": s.bytes, "seconds": s.seconds,
        "copier_cpu_seconds": s.copier_cpu, "server_cpu_seconds": s.server_cpu,
    })
}

fn row_json(r: &Row) -> Value {
    json!({
        "disks": r.disks, "transport": r.competitor.transport.to_string(),
        "copier": r.competitor.copier.to_string(), "seconds": r.seconds.json(), "mib_s": r.mib_s,
        "x_nbdcopy": r.x_nbdcopy.map(Spread::json), "x_https": r.x_https.map(Spread::json),
        "copier_cpu_s_gib": r.cpu_s_gib, "server_cpu_s_gib": r.server_cpu_s_gib,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(round: u16, transport: Way, copier: Tool, seconds: f64) -> Sample {
        let competitor = Competitor { transport, copier };
        Sample {
            disks: 1,
            round,
            competitor,
            bytes: 1 << 30,
            seconds,
            copier_cpu: 0.5,
            server_cpu: 1.0,
        }
    }

    fn report() -> Report {
        let samples = [(1, 8.0, 4.0, 2.0), (2, 80.0, 20.0, 4.0), (3, 10.0, 5.0, 2.0)]
            .into_iter()
            .flat_map(|(round, slow, fast, vddk)| {
                [
                    sample(round, Way::Https, Tool::Nbdcopy, slow),
                    sample(round, Way::Https, Tool::V2vPod, fast),
                    sample(round, Way::Vddk, Tool::V2vPod, vddk),
                ]
            })
            .collect();
        let versions = vec![("nbdkit", "nbdkit 1.42.3".to_owned())];
        Report { versions, samples, ..Report::default() }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let rows = report().rows();
        assert_eq!(rows.len(), 3);
        // Round 2 was slow for all: the ratio of its seconds is what counts, not the seconds.
        assert_eq!(rows[1].x_nbdcopy, Some(Spread { min: 2.0, median: 2.0, max: 4.0 }));
        assert_eq!(rows[2].x_https, Some(Spread { min: 2.0, median: 2.5, max: 5.0 }));
        assert_eq!((rows[0].x_nbdcopy, rows[0].x_https, rows[2].x_nbdcopy), (None, None, None));
        assert!((rows[1].mib_s - 1024.0 / 5.0).abs() < 1e-9);
    }

    #[test]
    fn both_forms_have_every_row() {
        let (text, json) = (report().to_text(), report().to_json());
        assert!(text.contains("nbdkit:      nbdkit 1.42.3"), "{text}");
        for row in ["    1 https     nbdcopy", "    1 https     v2v-pod", "    1 vddk      v2v-pod"]
        {
            assert_eq!(text.matches(row).count(), 1, "{text}");
        }
        let count = |list: &str| json[list].as_array().unwrap().len();
        assert_eq!((count("table"), count("samples")), (3, 9));
        assert_eq!(json["table"][1]["x_nbdcopy"]["median"], 2.0);
        assert!(json["table"][0]["x_nbdcopy"].is_null());
    }

    #[test]
    fn the_middle_of_two_is_between_them() {
        assert_eq!(Spread::of(vec![3.0, 1.0]), Some(Spread { min: 1.0, median: 2.0, max: 3.0 }));
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
