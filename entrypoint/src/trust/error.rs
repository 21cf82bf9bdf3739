//! Why a server is not trusted, and what to do about it.

use super::anchors::AnchorError;
use super::connect::ConnectError;
use super::endpoint::Endpoint;
use super::fingerprint::Fingerprint;
use super::peer::{Peer, Verification};
use super::problem::Problem;
use crate::failure::{Class, Failure};
use datapath::error_chain;
use openssl::error::ErrorStack;
use std::fmt;
use thiserror::Error;

/// A certificate for many names is not listed in full.
const LISTED: usize = 12;

/// Why a server is not trusted.
#[derive(Debug, Error)]
pub enum TrustError {
    /// The CA certificates cannot be used.
    #[error(transparent)]
    Anchors(#[from] AnchorError),
    /// No certificate was seen.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The certificate does not hold up.
    #[error("{0}")]
    NotVerified(Box<NotVerified>),
    /// It is not the pinned one.
    #[error("{0}")]
    NotPinned(Box<NotPinned>),
    /// OpenSSL itself.
    #[error("the certificate cannot be examined")]
    OpenSsl(#[from] ErrorStack),
}

/// A certificate that does not hold up.
#[derive(Debug)]
pub struct NotVerified {
    /// The server.
    pub peer: Peer,
    /// Against what it was verified, in words.
    pub anchors: String,
}

/// A certificate that is not the pinned one.
#[derive(Debug)]
pub struct NotPinned {
    /// The server.
    pub peer: Peer,
    /// The pin.
    pub expected: Fingerprint,
    /// Against what the certificate was verified with success, in words; `None` without a CA.
    pub verified: Option<String>,
    /// Whose fingerprint the pin is instead.
    pub owner: Owner,
}

/// Whose fingerprint a pin is that is not the server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Nobody's that was seen.
    Unknown,
    /// That of a CA certificate which the server sent along.
    Issuer(String),
    /// That of the other host.
    Other(Endpoint),
}

impl NotVerified {
    fn problems(&self) -> &[Problem] {
        match &self.peer.verification {
            Verification::Failed(problems) => problems,
            Verification::None | Verification::Verified => &[],
        }
    }
}

/// The problem with the facts about this server.
pub(super) fn problem_text(peer: &Peer, problem: &Problem) -> String {
    match problem {
        Problem::Name => {
            format!("it is not for {}, but for {}", peer.endpoint.host, names(peer))
        }
        other => other.to_string(),
    }
}

fn names(peer: &Peer) -> String {
    let mut names: Vec<&str> = peer.names.iter().map(String::as_str).take(LISTED).collect();
    let more = format!("{} more", peer.names.len().saturating_sub(LISTED));
    if peer.names.len() > LISTED {
        names.push(&more);
    }
    if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") }
}

impl fmt::Display for NotVerified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, subject) = (self.peer.place(), &self.peer.subject);
        let problems: Vec<String> =
            self.problems().iter().map(|p| problem_text(&self.peer, p)).collect();
        write!(
            f,
            "the certificate {subject} of {place} does not verify with {}: {}",
            self.anchors,
            problems.join("; ")
        )
    }
}

impl fmt::Display for NotPinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, subject) = (self.peer.place(), &self.peer.subject);
        let (kind, expected) = (self.expected.kind(), &self.expected);
        let presented = expected.same_kind(self.peer.leaf());
        write!(f, "the certificate {subject} of {place} ")?;
        if let Some(anchors) = &self.verified {
            write!(f, "is valid under {anchors}, but it ")?;
        }
        write!(
            f,
            "is not the one with the given thumbprint: expected {kind} {expected}, presented {presented}"
        )?;
        match &self.owner {
            Owner::Unknown => Ok(()),
            Owner::Issuer(name) => {
                write!(f, "; the given one is that of the CA {name}, not of the server")
            }
            Owner::Other(other) => write!(
                f,
                "; the given one is that of the ESXi host {other}, and {}'s is needed",
                self.peer.endpoint.host
            ),
        }
    }
}

impl TrustError {
    /// The class of the failure.
    pub fn class(&self) -> Class {
        match self {
            Self::Anchors(AnchorError::Store(_))
            | Self::OpenSsl(_)
            | Self::Connect(ConnectError::Setup(_)) => Class::Internal,
            Self::Anchors(_) => Class::Config,
            Self::Connect(ConnectError::Certificate { .. })
            | Self::NotVerified(_)
            | Self::NotPinned(_) => Class::Trust,
            Self::Connect(_) => Class::Network,
        }
    }

    /// What to do, where more is known than the class knows.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Anchors(AnchorError::Store(_)) | Self::OpenSsl(_) => None,
            Self::Anchors(_) => Some(
                "give a file with CA certificates in PEM, or one certificate in DER".to_owned(),
            ),
            Self::Connect(error) => connect_advice(error),
            Self::NotVerified(e) => Some(unverified_advice(e)),
            Self::NotPinned(e) => Some(unpinned_advice(e)),
        }
    }
}

impl From<TrustError> for Failure {
    fn from(error: TrustError) -> Self {
        let failure = Self::new(error.class(), error_chain(&error));
        match error.advice() {
            Some(advice) => failure.advise(advice),
            None => failure,
        }
    }
}

fn connect_advice(error: &ConnectError) -> Option<String> {
    match error {
        ConnectError::Resolve { .. } => {
            Some("check the spelling of the host name, and the name servers of this machine or pod".to_owned())
        }
        ConnectError::Unreachable { endpoint, .. } => Some(format!(
            "check that the server is up, that port {} is the right one, and that no firewall or network policy is between",
            endpoint.port
        )),
        ConnectError::Stalled { .. } | ConnectError::Closed { .. } => Some(
            "check that this is the port of its web service (443), and what a proxy or load balancer before it does"
                .to_owned(),
        ),
        ConnectError::NotTls { endpoint, .. } => Some(format!(
            "is {} the right port? vCenter and ESXi speak TLS on 443",
            endpoint.port
        )),
        ConnectError::TooOld { .. } => {
            Some("enable TLS 1.2 on the server, or update it".to_owned())
        }
        ConnectError::Handshake { .. } => {
            Some("check the TLS settings of the server, and what a proxy before it does".to_owned())
        }
        ConnectError::Certificate { .. } | ConnectError::Setup(_) => None,
    }
}

fn unverified_advice(error: &NotVerified) -> String {
    let mut advice: Vec<String> = Vec::new();
    for problem in error.problems() {
        let text = problem_advice(&error.peer, problem);
        if !advice.contains(&text) {
            advice.push(text);
        }
    }
    advice.join("; ")
}

fn problem_advice(peer: &Peer, problem: &Problem) -> String {
    let host = &peer.endpoint.host;
    match problem {
        Problem::SelfSigned => format!(
            "give the certificate as cacert, or its thumbprint: it now presents SHA-1 {}; first compare that on the server's console",
            peer.sha1
        ),
        Problem::UnknownIssuer { .. } => format!(
            "give the certificate of the CA that signed it as cacert (vCenter's own: https://{host}/certs/download.zip), or the thumbprint: it now presents SHA-1 {}; first compare that on the server's console",
            peer.sha1
        ),
        Problem::Name if peer.names.is_empty() => {
            "have a certificate issued for that name".to_owned()
        }
        Problem::Name => {
            format!(
                "name the server as its certificate does ({}), or have one issued for {host}",
                names(peer)
            )
        }
        Problem::Expired { ca: None, .. } => "renew the certificate on the server".to_owned(),
        Problem::Expired { ca: Some(name), .. } => {
            format!("give the CA's present certificate as cacert instead of the expired {name}")
        }
        Problem::NotYetValid { .. } => {
            "compare the clock of this node with that of the server".to_owned()
        }
        Problem::Purpose => "have a certificate issued for server authentication".to_owned(),
        Problem::Weak { .. } => {
            "have a certificate issued with a longer key and SHA-256, or give the thumbprint"
                .to_owned()
        }
        Problem::Other { .. } => Class::Trust.advice().to_owned(),
    }
}

fn unpinned_advice(error: &NotPinned) -> String {
    let endpoint = &error.peer.endpoint;
    let look =
        format!("`v2v-pod thumbprint {endpoint}` shows both digests, of which either will do");
    match (&error.owner, &error.verified) {
        (Owner::Issuer(_), _) => {
            format!("give the server's own thumbprint ({look}), or the CA's certificate as cacert")
        }
        (Owner::Other(_), _) => format!("give the thumbprint of {}: {look}", endpoint.host),
        (Owner::Unknown, Some(_)) => format!(
            "if the certificate was renewed, give the new thumbprint or none, as the CA vouches for it; {look}"
        ),
        (Owner::Unknown, None) => format!(
            "if the certificate was renewed, compare the new thumbprint on the server's console and give it; {look}. If it was not, somebody may be between"
        ),
    }
}
