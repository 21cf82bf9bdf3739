//! Whether the server is the one that is meant: by a CA, by a thumbprint, or unasked.
//!
//! One [`check`] for vCenter and ESXi, HTTPS and VDDK, before anything is sent to them. It gives
//! the SHA-1 thumbprint that VDDK wants from the certificate that was verified, and the anchor
//! with which libvirt and curl verify the same certificate. It does not write files or talk to
//! anybody else.

pub mod anchors;
pub mod command;
pub mod connect;
pub mod endpoint;
mod error;
pub mod fingerprint;
mod greeting;
pub mod moment;
pub mod peer;
mod problem;

pub use anchors::{AnchorError, Anchors};
pub use connect::{ConnectError, Limits};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{NotPinned, NotVerified, Owner, TrustError};
pub use fingerprint::{Fingerprint, FingerprintError};
pub use peer::{Peer, Verification};
pub use problem::Problem;

use datapath::error_chain;
use error::problem_text;
use std::path::PathBuf;

/// How a server proves itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// By a certificate under a CA.
    Ca {
        /// The CA certificates; those of the system when there is none.
        file: Option<PathBuf>,
        /// The certificate must be this one, too.
        pin: Option<Fingerprint>,
    },
    /// By presenting this certificate.
    Thumbprint(Fingerprint),
    /// It need not.
    Insecure {
        /// Handed to VDDK as it is. One of SHA-256, which VDDK does not take, is looked up.
        thumbprint: Option<Fingerprint>,
    },
}

/// A server that is trusted, and what others need for the same conclusion.
#[derive(Debug, Clone, Default)]
pub struct Trusted {
    /// What it presented, when it was looked at.
    pub peer: Option<Peer>,
    /// SHA-1, for VDDK: of the certificate in `peer`, or as given in insecure mode.
    pub thumbprint: Option<Fingerprint>,
    /// In thumbprint mode: the pinned certificate, as the CA file of HTTPS clients.
    pub anchor_pem: Option<Vec<u8>>,
    /// Why an HTTPS client would refuse the server even with that anchor.
    pub https_problem: Option<String>,
    /// For log and result.
    pub warnings: Vec<String>,
}

/// Looks at a server and decides. `other` is the ESXi host in a vCenter's URL: when the thumbprint
/// is not the server's, it is asked whether it is its own.
pub async fn check(
    trust: &Trust,
    endpoint: &Endpoint,
    other: Option<&Endpoint>,
    limits: &Limits,
) -> Result<Trusted, TrustError> {
    match trust {
        Trust::Ca { file, pin } => {
            let anchors = file.clone().map_or(Anchors::System, Anchors::File);
            by_ca(&anchors, pin.as_ref(), endpoint, other, limits).await
        }
        Trust::Thumbprint(print) => by_thumbprint(print, endpoint, other, limits).await,
        Trust::Insecure { thumbprint } => {
            insecure(thumbprint.as_ref(), endpoint, other, limits).await
        }
    }
}

/// Looks at a server and verifies what it presents; that it does not hold up is in the result.
pub async fn verify(
    endpoint: &Endpoint,
    anchors: &Anchors,
    limits: &Limits,
) -> Result<Peer, TrustError> {
    Ok(peer::verify(endpoint, anchors.load()?, limits).await?)
}

async fn by_ca(
    anchors: &Anchors,
    pin: Option<&Fingerprint>,
    endpoint: &Endpoint,
    other: Option<&Endpoint>,
    limits: &Limits,
) -> Result<Trusted, TrustError> {
    let loaded = anchors.load()?;
    let anchors = loaded.description.clone();
    let peer = peer::verify(endpoint, loaded, limits).await?;
    if !peer.is_verified() {
        return Err(TrustError::NotVerified(Box::new(NotVerified { peer, anchors })));
    }
    if let Some(pin) = pin.filter(|pin| !pin.matches(peer.leaf())) {
        return Err(not_pinned(peer, pin, Some(anchors), other, limits).await);
    }
    let thumbprint = Some(peer.sha1);
    Ok(Trusted { peer: Some(peer), thumbprint, ..Trusted::default() })
}

async fn by_thumbprint(
    print: &Fingerprint,
    endpoint: &Endpoint,
    other: Option<&Endpoint>,
    limits: &Limits,
) -> Result<Trusted, TrustError> {
    let peer = peer::fetch(endpoint, limits).await?;
    if !print.matches(peer.leaf()) {
        return Err(not_pinned(peer, print, None, other, limits).await);
    }
    let problems = peer.problems_as_anchor()?;
    let texts: Vec<String> = problems.iter().map(|p| problem_text(&peer, p)).collect();
    let https_problem = (!texts.is_empty()).then(|| {
        format!("the certificate of {endpoint} is the pinned one, but {}", texts.join("; "))
    });
    Ok(Trusted {
        thumbprint: Some(peer.sha1),
        anchor_pem: Some(peer.leaf_pem()?),
        https_problem,
        peer: Some(peer),
        warnings: Vec::new(),
    })
}

async fn insecure(
    print: Option<&Fingerprint>,
    endpoint: &Endpoint,
    other: Option<&Endpoint>,
    limits: &Limits,
) -> Result<Trusted, TrustError> {
    let mut warnings =
        vec![format!("the certificate of {endpoint} is not verified, as asked for (insecure)")];
    if let Some(print @ Fingerprint::Sha1(_)) = print {
        return Ok(Trusted { thumbprint: Some(*print), warnings, ..Trusted::default() });
    }
    let peer = match peer::fetch(endpoint, limits).await {
        Ok(peer) => Some(peer),
        Err(e) => {
            warnings.push(format!("no thumbprint for VDDK: {}", error_chain(&e)));
            None
        }
    };
    // VDDK would refuse a wrong one; handing it the right one instead would undo the pin.
    if let (Some(print), Some(peer)) = (print, &peer)
        && !print.matches(peer.leaf())
    {
        return Err(not_pinned(peer.clone(), print, None, other, limits).await);
    }
    let thumbprint = peer.as_ref().map(|peer| peer.sha1);
    Ok(Trusted { peer, thumbprint, warnings, ..Trusted::default() })
}

async fn not_pinned(
    peer: Peer,
    expected: &Fingerprint,
    verified: Option<String>,
    other: Option<&Endpoint>,
    limits: &Limits,
) -> TrustError {
    let owner = match peer.issuer_with(expected) {
        Some(name) => Owner::Issuer(name),
        None => owner(&peer, expected, other, limits).await,
    };
    TrustError::NotPinned(Box::new(NotPinned { peer, expected: *expected, verified, owner }))
}

/// Asks the other host. That it cannot be asked changes nothing.
async fn owner(
    peer: &Peer,
    expected: &Fingerprint,
    other: Option<&Endpoint>,
    limits: &Limits,
) -> Owner {
    let Some(other) = other.filter(|other| **other != peer.endpoint) else {
        return Owner::Unknown;
    };
    match peer::fetch(other, limits).await {
        Ok(found) if expected.matches(found.leaf()) => Owner::Other(other.clone()),
        _ => Owner::Unknown,
    }
}
