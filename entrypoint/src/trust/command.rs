//! `v2v-pod thumbprint`: what a server presents, and whether it holds up.

use super::endpoint::Endpoint;
use super::error::problem_text;
use super::peer::{Peer, Verification};
use super::{Anchors, Limits, verify};
use crate::failure::{Class, Failure};
use clap::Args;
use datapath::error_chain;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// The text of `v2v-pod thumbprint --help`.
pub const THUMBPRINT_HELP: &str = "\
Shows the certificate of a server: both thumbprints, subject, validity and names, and whether it
verifies with the CA certificates of this system, or those in --cacert, for this host name.

Ask the host that the conversion will ask:
  vpx://USER@VCENTER/DC/CLUSTER/ESXI   vCenter, not the ESXi host below it
  esx://USER@ESXI                      the ESXi host

A certificate that does not verify is shown as well. Compare its thumbprint with the one on the
server's own console before you give it to anything: somebody between would show you theirs.
  ESXi     openssl x509 -in /etc/vmware/ssl/rui.crt -noout -fingerprint -sha1
  vCenter  /usr/lib/vmware-vmafd/bin/vecs-cli entry getcert --store MACHINE_SSL_CERT \\
             --alias __MACHINE_CERT | openssl x509 -noout -fingerprint -sha1

Exits with 0 when a certificate was seen, verified or not (see `verified` with --json), else with
the code of the failure: 23 when the server cannot be reached, 64 when the CA file is no good.

Examples:
  v2v-pod thumbprint vcenter.example.com
  v2v-pod thumbprint esxi1.example.com --cacert ca.pem
  v2v-pod thumbprint '[fd00::10]:8443' --json | jq -r .sha1
  v2v-pod thumbprint 'vpx://admin@vcenter.example.com/DC/Cluster/esxi1'";

/// `v2v-pod thumbprint`.
#[derive(Debug, Args)]
pub struct ThumbprintArgs {
    /// The server: HOST, HOST:PORT, [IPv6]:PORT, or a vpx://, esx:// or https:// URL
    #[arg(value_name = "HOST[:PORT]")]
    pub host: String,
    /// CA certificates to verify with, PEM or DER (default: those of the system)
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Seconds that the connection, and then the TLS handshake, may take
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    pub timeout: u16,
}

/// Runs the command; what to print.
pub async fn run(args: &ThumbprintArgs) -> Result<String, Failure> {
    let endpoint: Endpoint = args.host.parse().map_err(|e| {
        Failure::new(Class::Usage, error_chain(&e)).advise("see `v2v-pod thumbprint --help`")
    })?;
    let anchors = args.cacert.clone().map_or(Anchors::System, Anchors::File);
    let limit = Duration::from_secs(args.timeout.into());
    let peer = verify(&endpoint, &anchors, &Limits { connect: limit, handshake: limit }).await?;
    if args.json {
        let shown = Shown::new(&peer, &anchors);
        return serde_json::to_string_pretty(&shown)
            .map_err(|e| Failure::new(Class::Internal, format!("no JSON: {e}")));
    }
    Ok(text(&peer, &anchors))
}

#[derive(Serialize)]
#[allow(clippy::struct_excessive_bools)] // questions that scripts ask
struct Shown<'a> {
    host: String,
    port: u16,
    address: String,
    tls: &'a str,
    sha1: String,
    sha256: String,
    subject: &'a str,
    issuer: &'a str,
    self_signed: bool,
    names: &'a [String],
    not_before: String,
    not_after: String,
    expired: bool,
    not_yet_valid: bool,
    verified: bool,
    verified_with: String,
    problems: Vec<String>,
}

impl<'a> Shown<'a> {
    fn new(peer: &'a Peer, anchors: &Anchors) -> Self {
        Self {
            host: peer.endpoint.host.to_string(),
            port: peer.endpoint.port,
            address: peer.address.ip().to_string(),
            tls: peer.tls,
            sha1: peer.sha1.to_string(),
            sha256: peer.sha256.to_string(),
            subject: &peer.subject,
            issuer: &peer.issuer,
            self_signed: peer.self_signed,
            names: &peer.names,
            not_before: peer.not_before.rfc3339(),
            not_after: peer.not_after.rfc3339(),
            expired: peer.expired(),
            not_yet_valid: peer.not_yet_valid(),
            verified: peer.is_verified(),
            verified_with: anchors.to_string(),
            problems: problems(peer),
        }
    }
}

fn problems(peer: &Peer) -> Vec<String> {
    match &peer.verification {
        Verification::Failed(problems) => problems.iter().map(|p| problem_text(peer, p)).collect(),
        Verification::None | Verification::Verified => Vec::new(),
    }
}

fn text(peer: &Peer, anchors: &Anchors) -> String {
    let mut out = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<9} {value}");
    };
    row("server", &format!("{}, {}", peer.place(), peer.tls));
    row("SHA-1", &peer.sha1.to_string());
    row("SHA-256", &peer.sha256.to_string());
    row("subject", &peer.subject);
    row("issuer", if peer.self_signed { "itself (self-signed)" } else { &peer.issuer });
    row("validity", &validity(peer));
    let names = peer.names.join(", ");
    row("names", if names.is_empty() { "none" } else { &names });
    if peer.is_verified() {
        row("verified", &format!("yes, with {anchors}"));
    } else {
        row("verified", &format!("NO, not with {anchors}"));
        for problem in problems(peer) {
            row("", &format!("- {problem}"));
        }
        row("", "Compare the thumbprint on the server's console before you trust it.");
    }
    out
}

fn validity(peer: &Peer) -> String {
    let Peer { not_before, not_after, seen, .. } = peer;
    let now = if peer.expired() {
        format!("EXPIRED {}", not_after.relative(*seen))
    } else if peer.not_yet_valid() {
        format!("NOT YET VALID, begins {}", not_before.relative(*seen))
    } else {
        format!("ends {}", not_after.relative(*seen))
    };
    format!("{not_before} to {not_after} ({now})")
}
