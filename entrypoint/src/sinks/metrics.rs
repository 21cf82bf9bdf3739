//! Prometheus metrics: a pure renderer of the state, and the server on port 2112.
//!
//! Forklift's controller reads `v2v_disk_transfers` with a regular expression, not a parser: one
//! label, plain decimals, no `_total`. The client crates write `_total` and the content type of
//! `OpenMetrics`, so the few lines of the text format are written here, from one table that the
//! documentation is made from as well.

use super::{http, totals};
use crate::bus::{self, Bus};
use crate::event::{Phase, Snapshot, UnixMs};
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::any;
use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::net::TcpListener;

/// The content type of the reference, byte for byte.
pub const CONTENT_TYPE_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=values";

/// A scrape under way when the run ends has this long to be answered.
const GRACE: Duration = Duration::from_millis(500);

/// One line of a family: the label values, and the number.
type Sample = (Vec<String>, f64);

/// One metric: what is printed, what is documented, and where its values come from.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    samples: fn(&Snapshot, UnixMs) -> Vec<Sample>,
}

const FAMILIES: [Family; 9] = [
    Family {
        name: "v2v_disk_transfers",
        kind: "counter",
        // The help text, too, is what Forklift's own monitor prints.
        help: "Percent of disk copied",
        labels: &["disk_id"],
        samples: |s, _| disks(s, |index, disk| Some((index + 1, disk.percent?))),
    },
    Family {
        name: "v2vpod_disk_size_bytes",
        kind: "gauge",
        help: "Virtual size of the disk, once known",
        labels: &["disk"],
        samples: |s, _| disks(s, |index, disk| Some((index, float(disk.size_bytes?)))),
    },
    Family {
        name: "v2vpod_disk_copied_bytes_total",
        kind: "counter",
        help: "Bytes of the disk that are copied, once its copy has begun and its size is known",
        labels: &["disk"],
        samples: |s, _| {
            disks(s, |index, disk| {
                disk.percent.and(disk.size_bytes)?;
                Some((index, float(disk.done_bytes)))
            })
        },
    },
    Family {
        name: "v2vpod_disk_copy_rate_bytes_per_second",
        kind: "gauge",
        help: "Smoothed copy rate of the disk; 0 when its copy has ended",
        labels: &["disk"],
        samples: |s, _| {
            disks(s, |index, disk| {
                disk.percent?;
                Some((index, totals::current_rate(disk)))
            })
        },
    },
    Family {
        name: "v2vpod_phase",
        kind: "gauge",
        help: "1 for the present phase, 0 for the others",
        labels: &["phase"],
        samples: |s, _| {
            let present = s.phase();
            Phase::ALL
                .iter()
                .map(|p| (vec![p.as_str().to_owned()], f64::from(u8::from(present == Some(*p)))))
                .collect()
        },
    },
    Family {
        name: "v2vpod_phase_duration_seconds",
        kind: "gauge",
        help: "Time spent in the phase so far, for the phases that were reached",
        labels: &["phase"],
        samples: |s, now| {
            totals::phase_durations_ms(s, now)
                .into_iter()
                .map(|(phase, ms)| (vec![phase.as_str().to_owned()], float(ms) / 1000.0))
                .collect()
        },
    },
    Family {
        name: "v2vpod_warnings",
        kind: "gauge",
        help: "Warnings that are part of the result",
        labels: &[],
        #[allow(clippy::cast_precision_loss)] // a handful
        samples: |s, _| vec![(vec![], s.warnings.len() as f64)],
    },
    Family {
        name: "v2vpod_info",
        kind: "gauge",
        help: "Always 1; the labels describe the run",
        labels: &["version", "source", "transport", "accelerator", "trust"],
        samples: |s, _| {
            let labels = [env!("CARGO_PKG_VERSION"), s.source, s.transport, s.accelerator, s.trust];
            vec![(labels.map(str::to_owned).to_vec(), 1.0)]
        },
    },
    Family {
        name: "v2vpod_exit_code",
        kind: "gauge",
        help: "The exit code of the run, once it has ended; 0 is success",
        labels: &[],
        samples: |s, _| s.exit_code.map(|code| (vec![], f64::from(code))).into_iter().collect(),
    },
];

/// The state in Prometheus text format 0.0.4. A family without samples is left out altogether.
pub fn render(snapshot: &Snapshot, now: UnixMs) -> String {
    let mut text = String::new();
    for family in &FAMILIES {
        let Family { name, kind, help, .. } = family;
        let samples = (family.samples)(snapshot, now);
        if samples.is_empty() {
            continue;
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (values, number) in samples {
            let _ = writeln!(text, "{name}{} {}", labels(family.labels, &values), decimal(number));
        }
    }
    text
}

/// The table of metrics in `docs/contract.md`, as Markdown; a test keeps the two the same.
pub fn doc_table() -> String {
    let mut table = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for Family { name, kind, help, labels, .. } in &FAMILIES {
        let labels = labels.iter().map(|l| format!("`{l}`")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(table, "| `{name}` | {kind} | {labels} | {help} |");
    }
    table
}

/// Serves `/metrics` from the newest state until `cancel` resolves.
pub async fn serve(
    listener: TcpListener,
    bus: Bus,
    cancel: impl Future<Output = ()>,
) -> io::Result<()> {
    // The reference answers any method.
    let router = Router::new().route("/metrics", any(scrape)).with_state(bus);
    http::serve(listener, router, cancel, GRACE).await
}

#[allow(clippy::unused_async)] // axum's handlers are async
async fn scrape(State(bus): State<Bus>) -> impl IntoResponse {
    ([(CONTENT_TYPE, CONTENT_TYPE_TEXT)], render(&bus.snapshot(), bus::now_ms()))
}

/// One sample for each disk that `value` gives a number for, under the disk number it gives.
fn disks(
    snapshot: &Snapshot,
    value: impl Fn(usize, &crate::event::DiskState) -> Option<(usize, f64)>,
) -> Vec<Sample> {
    snapshot
        .disks
        .iter()
        .enumerate()
        .filter_map(|(index, disk)| value(index, disk))
        .map(|(number, value)| (vec![number.to_string()], value))
        .collect()
}

fn labels(names: &[&str], values: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> = names
        .iter()
        .zip(values)
        .map(|(name, value)| {
            let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            format!("{name}=\"{value}\"")
        })
        .collect();
    format!("{{{}}}", pairs.join(","))
}

/// Rust never prints a float in exponent form, and whole numbers without a fraction; what is left
/// to avoid is `NaN`, `inf` and `-0`.
fn decimal(number: f64) -> String {
    if number.is_finite() { (number + 0.0).to_string() } else { "0".to_owned() }
}

#[allow(clippy::cast_precision_loss)] // Prometheus stores every number as a float anyway
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
