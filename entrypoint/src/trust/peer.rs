//! What a TLS server presents, and whether it holds up.
//!
//! The verification is OpenSSL's, chain and host name alike. Its callback lets the handshake go
//! on after an error so that the certificate can be described; that the errors are kept is what
//! makes [`Peer::is_verified`] say no.

use super::anchors::Loaded;
use super::connect::{ConnectError, Limits, dial, handshake};
use super::endpoint::Endpoint;
use super::fingerprint::Fingerprint;
use super::moment::Moment;
use super::problem::Problem;
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::ssl::{Ssl, SslConnector, SslMethod, SslRef, SslVerifyMode, SslVersion};
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::{X509CheckFlags, X509VerifyFlags, X509VerifyParam, X509VerifyParamRef};
use openssl::x509::{
    X509, X509NameRef, X509PurposeId, X509Ref, X509StoreContext, X509VerifyResult,
};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// Saying goodbye is a courtesy.
const GOODBYE: Duration = Duration::from_secs(1);

/// How the verification ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verification {
    /// It was not asked for.
    None,
    /// Chain, dates, purpose and host name are right.
    Verified,
    /// They are not.
    Failed(Vec<Problem>),
}

/// A server and its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// As it was asked for.
    pub endpoint: Endpoint,
    /// The address that answered.
    pub address: SocketAddr,
    /// What it sent, in DER; its own certificate first, never empty.
    pub chain: Vec<Vec<u8>>,
    /// SHA-1 of its certificate: VDDK's thumbprint.
    pub sha1: Fingerprint,
    /// SHA-256 of its certificate.
    pub sha256: Fingerprint,
    /// Whose certificate it is, printable.
    pub subject: String,
    /// Who signed it, printable.
    pub issuer: String,
    /// Names and addresses it is for, printable. The common name only counts when there is no
    /// other name.
    pub names: Vec<String>,
    /// The beginning of its validity.
    pub not_before: Moment,
    /// The end of its validity.
    pub not_after: Moment,
    /// When all this was seen.
    pub seen: Moment,
    /// Whether it is signed with its own key.
    pub self_signed: bool,
    /// `TLSv1.2` or `TLSv1.3`.
    pub tls: &'static str,
    /// The verification against the given anchors.
    pub verification: Verification,
    security_level: u32,
}

/// Looks at the certificate without believing it.
pub async fn fetch(endpoint: &Endpoint, limits: &Limits) -> Result<Peer, ConnectError> {
    connect(endpoint, None, limits).await
}

/// Looks at the certificate and verifies it, on one connection. That it does not hold up is in
/// the result, not an error.
pub(super) async fn verify(
    endpoint: &Endpoint,
    anchors: Loaded,
    limits: &Limits,
) -> Result<Peer, ConnectError> {
    connect(endpoint, Some(anchors), limits).await
}

async fn connect(
    endpoint: &Endpoint,
    anchors: Option<Loaded>,
    limits: &Limits,
) -> Result<Peer, ConnectError> {
    let asked = anchors.is_some();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let ssl = session(endpoint, anchors, &seen)?;
    let (stream, address) = dial(endpoint, limits).await?;
    let mut tls = handshake(endpoint, stream, address, ssl, limits.handshake).await?;
    let _ = timeout(GOODBYE, Pin::new(&mut tls).shutdown()).await;
    let problems = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    let verification = if asked { judge(tls.ssl(), problems) } else { Verification::None };
    let unreadable =
        |source| ConnectError::Certificate { endpoint: endpoint.clone(), address, source };
    let leaf = tls.ssl().peer_certificate().ok_or_else(|| unreadable(None))?;
    describe(endpoint, address, tls.ssl(), &leaf, verification).map_err(|e| unreadable(Some(e)))
}

/// What to say and what to expect on the connection.
fn session(
    endpoint: &Endpoint,
    anchors: Option<Loaded>,
    seen: &Arc<Mutex<Vec<Problem>>>,
) -> Result<Ssl, ErrorStack> {
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    match anchors {
        None => builder.set_verify(SslVerifyMode::NONE),
        Some(anchors) => {
            builder.set_cert_store(anchors.store);
            let seen = Arc::clone(seen);
            builder.set_verify_callback(SslVerifyMode::PEER, move |good, context| {
                if !good {
                    let problem = Problem::of_context(context);
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    if !seen.contains(&problem) {
                        seen.push(problem);
                    }
                }
                true
            });
        }
    }
    let mut ssl = Ssl::new(builder.build().context())?;
    if let Some(name) = endpoint.name() {
        ssl.set_hostname(name)?;
    }
    expect_host(ssl.param_mut(), endpoint)?;
    Ok(ssl)
}

/// The host name or address that the certificate must be for, and that any anchor will do: the
/// server's own certificate or an intermediate one as well as a root.
fn expect_host(param: &mut X509VerifyParamRef, endpoint: &Endpoint) -> Result<(), ErrorStack> {
    param.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
    match (endpoint.name(), endpoint.ip()) {
        (Some(name), _) => param.set_host(name)?,
        (None, Some(ip)) => param.set_ip(ip)?,
        (None, None) => {}
    }
    param.set_flags(X509VerifyFlags::PARTIAL_CHAIN)
}

/// Both what the callback saw and what OpenSSL concluded must be good.
fn judge(ssl: &SslRef, mut problems: Vec<Problem>) -> Verification {
    let result = ssl.verify_result();
    if problems.is_empty() && result == X509VerifyResult::OK {
        return Verification::Verified;
    }
    if problems.is_empty() {
        let what = result.error_string().to_owned();
        problems.push(Problem::Other { what, subject: "the server's".to_owned() });
    }
    Verification::Failed(problems)
}

fn describe(
    endpoint: &Endpoint,
    address: SocketAddr,
    ssl: &SslRef,
    leaf: &X509,
    verification: Verification,
) -> Result<Peer, ErrorStack> {
    let der = leaf.to_der()?;
    let mut chain = Vec::new();
    for certificate in ssl.peer_cert_chain().into_iter().flatten() {
        chain.push(certificate.to_der()?);
    }
    if chain.first() != Some(&der) {
        chain.insert(0, der.clone());
    }
    Ok(Peer {
        endpoint: endpoint.clone(),
        address,
        chain,
        sha1: Fingerprint::of_sha1(&der),
        sha256: Fingerprint::of_sha256(&der),
        subject: name_text(leaf.subject_name()),
        issuer: name_text(leaf.issuer_name()),
        names: names(leaf),
        not_before: Moment::of_asn1(leaf.not_before())?,
        not_after: Moment::of_asn1(leaf.not_after())?,
        seen: Moment::now(),
        self_signed: is_self_signed(leaf),
        tls: ssl.version_str(),
        verification,
        security_level: ssl.ssl_context().security_level(),
    })
}

impl Peer {
    /// Whether the verification was asked for and found nothing.
    pub fn is_verified(&self) -> bool {
        self.verification == Verification::Verified
    }

    /// The server as it was asked for, and the address that answered.
    pub fn place(&self) -> String {
        self.endpoint.at(self.address.ip())
    }

    /// Past its end.
    pub fn expired(&self) -> bool {
        self.not_after < self.seen
    }

    /// Before its beginning.
    pub fn not_yet_valid(&self) -> bool {
        self.seen < self.not_before
    }

    /// The server's certificate in DER.
    pub fn leaf(&self) -> &[u8] {
        self.chain.first().map_or(&[], Vec::as_slice)
    }

    /// The server's certificate in PEM.
    pub fn leaf_pem(&self) -> Result<Vec<u8>, ErrorStack> {
        X509::from_der(self.leaf())?.to_pem()
    }

    /// Subject of the certificate that signed, if it is the one with this fingerprint.
    pub(super) fn issuer_with(&self, print: &Fingerprint) -> Option<String> {
        let der = self.chain.iter().skip(1).find(|der| print.matches(der))?;
        Some(name_text(X509::from_der(der).ok()?.subject_name()))
    }

    /// What a TLS client still has against the certificate when the certificate itself is its
    /// only anchor.
    pub(super) fn problems_as_anchor(&self) -> Result<Vec<Problem>, ErrorStack> {
        let leaf = X509::from_der(self.leaf())?;
        let mut problems = Vec::new();
        let (now, since, from) = (self.seen, self.not_after, self.not_before);
        if self.expired() {
            problems.push(Problem::Expired { ca: None, since, now });
        }
        if self.not_yet_valid() {
            problems.push(Problem::NotYetValid { ca: None, from, now });
        }
        let mut param = X509VerifyParam::new()?;
        expect_host(&mut param, &self.endpoint)?;
        // Without a callback OpenSSL stops at the first error; the dates are looked at above.
        param.set_flags(X509VerifyFlags::NO_CHECK_TIME)?;
        param.set_purpose(X509PurposeId::SSL_SERVER)?;
        param.set_auth_level(i32::try_from(self.security_level).unwrap_or(0));
        let mut store = X509StoreBuilder::new()?;
        store.add_cert(leaf.clone())?;
        store.set_param(&param)?;
        let mut context = X509StoreContext::new()?;
        let (good, result) = context.init(&store.build(), &leaf, Stack::new()?.as_ref(), |c| {
            Ok((c.verify_cert()?, c.error()))
        })?;
        if !good {
            problems.push(Problem::new(result.as_raw(), result.error_string(), false, Some(&leaf)));
        }
        Ok(problems)
    }
}

fn is_self_signed(certificate: &X509Ref) -> bool {
    certificate.issued(certificate) == X509VerifyResult::OK
        && certificate.public_key().and_then(|key| certificate.verify(&key)).unwrap_or(false)
}

fn names(certificate: &X509Ref) -> Vec<String> {
    let (mut dns, mut addresses) = (Vec::new(), Vec::new());
    for name in certificate.subject_alt_names().into_iter().flatten() {
        if let Some(name) = name.dnsname() {
            dns.push(printable(name));
        } else if let Some(address) = name.ipaddress().and_then(ip) {
            addresses.push(address.to_string());
        }
    }
    if dns.is_empty() {
        let common = certificate.subject_name().entries_by_nid(Nid::COMMONNAME);
        dns.extend(common.filter_map(|e| Some(printable(&e.data().to_string().ok()?))));
    }
    dns.append(&mut addresses);
    dns
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// `CN=vcenter, O=VMware`.
pub(super) fn name_text(name: &X509NameRef) -> String {
    let part = |entry: &openssl::x509::X509NameEntryRef| {
        let key = entry.object().nid().short_name().unwrap_or("?");
        let value = entry.data().to_string().map(|v| printable(&v)).unwrap_or_default();
        format!("{key}={value}")
    };
    let parts: Vec<String> = name.entries().map(part).collect();
    if parts.is_empty() { "(no name)".to_owned() } else { parts.join(", ") }
}

/// What a server says is shown in logs and on terminals: no control characters.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
