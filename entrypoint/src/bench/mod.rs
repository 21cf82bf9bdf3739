//! `v2v-pod bench`: what a site's own network and servers are good for, before anybody plans with it.
//!
//! `transports` reads the disks of one VM over HTTPS and over VDDK, with the command lines of virt-v2v,
//! and copies them with nbdcopy and with `v2v-pod copy`. It only reads the source. It is the part of
//! `benches/transports.py` that needs no lab: that script simulates the vCenter and the network.

mod args;
mod checks;
mod lines;
mod measure;
mod report;
mod session;
mod vm;

pub use args::{BenchCommand, TransportsArgs};

use crate::failure::{Class, Failure};
use crate::supervise::stop::Stop;
use report::Report;
use session::Session;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Runs `bench transports`; the table, or JSON.
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
    measure_rows(args, &session, &mut report).await?;
    let json = serde_json::to_string_pretty(&report.to_json()).unwrap_or_default();
    if let Some(file) = &args.report {
        crate::vm_result::write_durably(file, format!("{json}\n").as_bytes())?;
    }
    Ok((if args.json { json } else { report.to_text() }, None))
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
