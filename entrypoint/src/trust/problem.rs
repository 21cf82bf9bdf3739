//! What is wrong with a certificate, from OpenSSL's codes to words.

use super::moment::Moment;
use super::peer::name_text;
use openssl::x509::{X509Ref, X509StoreContextRef};
use std::fmt;

/// `X509_V_ERR_…` of `openssl/x509_vfy.h`; the bindings have no names for them.
mod code {
    pub(super) const UNABLE_TO_GET_ISSUER: i32 = 2;
    pub(super) const NOT_YET_VALID: i32 = 9;
    pub(super) const EXPIRED: i32 = 10;
    pub(super) const SELF_SIGNED: i32 = 18;
    pub(super) const SELF_SIGNED_IN_CHAIN: i32 = 19;
    pub(super) const UNABLE_TO_GET_ISSUER_LOCALLY: i32 = 20;
    pub(super) const UNABLE_TO_VERIFY_LEAF: i32 = 21;
    pub(super) const INVALID_PURPOSE: i32 = 26;
    pub(super) const HOST_MISMATCH: i32 = 62;
    pub(super) const IP_MISMATCH: i32 = 64;
    pub(super) const KEY_TOO_SMALL: i32 = 66;
    pub(super) const CA_KEY_TOO_SMALL: i32 = 67;
    pub(super) const CA_DIGEST_TOO_WEAK: i32 = 68;
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Past its end.
    Expired {
        /// Whose certificate; `None` is the server's own.
        ca: Option<String>,
        /// Its end.
        since: Moment,
        /// When that was noticed.
        now: Moment,
    },
    /// Before its beginning.
    NotYetValid {
        /// Whose certificate; `None` is the server's own.
        ca: Option<String>,
        /// Its beginning.
        from: Moment,
        /// When that was noticed.
        now: Moment,
    },
    /// The host is not among its names.
    Name,
    /// Signed by itself, and not an anchor.
    SelfSigned,
    /// Signed by somebody who is not an anchor.
    UnknownIssuer {
        /// Who signed the last certificate of the chain.
        issuer: String,
    },
    /// Not for servers.
    Purpose,
    /// A key or a digest that OpenSSL holds for too weak.
    Weak {
        /// OpenSSL's words.
        what: String,
    },
    /// What OpenSSL says.
    Other {
        /// Its words.
        what: String,
        /// About whose certificate.
        subject: String,
    },
}

impl Problem {
    /// Reads what OpenSSL tells a callback.
    pub(super) fn of_context(context: &X509StoreContextRef) -> Self {
        let ca = context.error_depth() > 0;
        let result = context.error();
        Self::new(result.as_raw(), result.error_string(), ca, context.current_cert())
    }

    /// The same, from its parts; `ca`: not the server's own certificate.
    pub(super) fn new(code: i32, text: &str, ca: bool, certificate: Option<&X509Ref>) -> Self {
        let subject = certificate.map(|c| name_text(c.subject_name())).unwrap_or_default();
        let ca = ca.then(|| subject.clone());
        let now = Moment::now();
        let end = certificate.and_then(|c| Moment::of_asn1(c.not_after()).ok());
        let begin = certificate.and_then(|c| Moment::of_asn1(c.not_before()).ok());
        match (code, begin, end) {
            (code::EXPIRED, _, Some(since)) => Self::Expired { ca, since, now },
            (code::NOT_YET_VALID, Some(from), _) => Self::NotYetValid { ca, from, now },
            (code::HOST_MISMATCH | code::IP_MISMATCH, ..) => Self::Name,
            (code::SELF_SIGNED, ..) => Self::SelfSigned,
            (
                code::UNABLE_TO_GET_ISSUER
                | code::SELF_SIGNED_IN_CHAIN
                | code::UNABLE_TO_GET_ISSUER_LOCALLY
                | code::UNABLE_TO_VERIFY_LEAF,
                ..,
            ) => {
                let issuer = certificate.map(|c| name_text(c.issuer_name())).unwrap_or_default();
                Self::UnknownIssuer { issuer }
            }
            (code::INVALID_PURPOSE, ..) if ca.is_none() => Self::Purpose,
            (code::KEY_TOO_SMALL | code::CA_KEY_TOO_SMALL | code::CA_DIGEST_TOO_WEAK, ..) => {
                Self::Weak { what: text.to_owned() }
            }
            _ => Self::Other { what: text.to_owned(), subject },
        }
    }
}

/// As the predicate of "the certificate".
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = |ca: &Option<String>| {
            ca.as_ref().map_or_else(|| "it".to_owned(), |name| format!("the CA certificate {name}"))
        };
        match self {
            Self::Expired { ca, since, now } => {
                write!(f, "{} expired on {since} ({})", whose(ca), since.relative(*now))
            }
            Self::NotYetValid { ca, from, now } => {
                write!(f, "{} is valid only from {from} ({})", whose(ca), from.relative(*now))
            }
            Self::Name => f.write_str("it is for other names"),
            Self::SelfSigned => f.write_str("it is self-signed and not a trusted one"),
            Self::UnknownIssuer { issuer } => write!(f, "its issuer {issuer} is not a trusted one"),
            Self::Purpose => f.write_str("it is not meant for servers (extended key usage)"),
            Self::Weak { what } => write!(f, "it is too weak ({what})"),
            Self::Other { what, subject } => write!(f, "{what} ({subject})"),
        }
    }
}
