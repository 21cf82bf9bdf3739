//! `v2v-pod bench`: what a site's own network and servers are good for, before anybody plans with it.
//!
//! `transports` reads the disks of one VM over HTTPS and over VDDK, with the command lines of virt-v2v,
//! and copies them with nbdcopy and with `v2v-pod copy`. It only reads the source. It is the part of
//! `benches/transports.py` that needs no lab: that script simulates the vCenter and the network.

mod args;
mod checks;
mod choose;
mod copies;
mod measure;
mod report;
mod session;

pub use args::{BenchCommand, TransportsArgs};

use crate::failure::{Class, Failure};
use crate::supervise::stop::Stop;
use report::Report;
use session::Session;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

/// Runs `bench transports`; the table, or JSON, and what ended it early.
pub async fn run(
    args: &TransportsArgs,
    env: &BTreeMap<String, String>,
) -> Result<(String, Option<Failure>), Failure> {
    let stop = Stop::on_signals()
        .map_err(|e| Failure::new(Class::Internal, format!("cannot handle signals: {e}")))?;
    let mut stopping = stop.clone();
    let session = tokio::select! {
        session = Session::open(args, env, &stop) => session?,
        cause = stopping.next() => return Err(cause.failure()),
    };
    let mut report = session.head();
    let failure = measure_rows(args, &session, &mut report).await.err();
    finish(args.json, args.report.as_deref(), report, failure)
}

/// What was measured is not lost with what failed.
fn finish(
    as_json: bool,
    file: Option<&Path>,
    mut report: Report,
    failure: Option<Failure>,
) -> Result<(String, Option<Failure>), Failure> {
    match failure {
        Some(failure) if report.samples.is_empty() => return Err(failure),
        Some(ref failure) => {
            report.settings.push(("ended_early_by", failure.message.clone().into()));
        }
        None => {}
    }
    let json = serde_json::to_string_pretty(&report.to_json()).unwrap_or_default();
    let unwritten = file.and_then(|file| {
        crate::vm_result::write_durably(file, format!("{json}\n").as_bytes()).err()
    });
    Ok((if as_json { json } else { report.to_text() }, failure.or(unwritten)))
}

/// Row by row, the competitors in turns, so that a slow minute of the network meets all of them.
async fn measure_rows(
    args: &TransportsArgs,
    session: &Session,
    report: &mut Report,
) -> Result<(), Failure> {
    for &disks in &session.counts {
        for round in 1..=args.rounds {
            for &competitor in &session.competitors {
                let sample = session.measure(disks, round, competitor).await?;
                progress(&format!(
                    "{disks} disk(s), round {round}, {} {}: {:.3} s",
                    competitor.transport, competitor.copier, sample.seconds
                ));
                report.samples.push(sample);
            }
        }
    }
    Ok(())
}

/// For whoever waits. A closed pipe is the reader's choice.
fn progress(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use args::{Competitor, Tool, Way};
    use report::Sample;

    fn measured(samples: usize) -> Report {
        let competitor = Competitor { transport: Way::Https, copier: Tool::Nbdcopy };
        let sample = Sample {
            disks: 1,
            round: 1,
            competitor,
            bytes: 1 << 20,
            seconds: 1.0,
            copier_cpu: 0.1,
            server_cpu: 0.1,
        };
        Report { samples: vec![sample; samples], ..Report::default() }
    }

    #[test]
    fn what_was_measured_before_a_failure_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("report.json");
        let failure = || Failure::new(Class::Network, "the server is gone");
        let (text, ended) = finish(false, Some(&file), measured(2), Some(failure())).unwrap();
        assert!(text.contains("nbdcopy") && text.contains("the server is gone"), "{text}");
        assert_eq!(ended.unwrap().class, Class::Network);
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(json["samples"].as_array().unwrap().len(), 2);
        assert_eq!(json["settings"]["ended_early_by"], "the server is gone");

        // Nothing is nothing; and a report that cannot be written is still printed.
        assert!(finish(true, Some(&file), measured(0), Some(failure())).is_err());
        let (text, ended) =
            finish(true, Some(Path::new("/nonexistent/r")), measured(1), None).unwrap();
        assert!(text.contains("\"samples\"") && ended.is_some());
    }
}
