//! Whom to believe: the same four ways that the conversion pod has (docs/contract.md, Trust). Nothing is sent to a server
//! before it has proved itself.

use super::error::Error;
use super::server::Server;
use openssl::error::ErrorStack;
use openssl::hash::{DigestBytes, MessageDigest};
use openssl::ssl::{ConnectConfiguration, SslConnector, SslMethod, SslVerifyMode, SslVersion};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::{X509CheckFlags, X509VerifyFlags};
use openssl::x509::{X509, X509Ref};
use std::fmt::{self, Write as _};
use std::str::FromStr;
use thiserror::Error;

/// How a server proves itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// By a certificate for its name under a CA.
    Ca {
        /// CA certificates in PEM; the system's when there are none.
        pem: Option<Vec<u8>>,
        /// The certificate must be this one, too.
        pin: Option<Thumbprint>,
    },
    /// By this very certificate, whatever name and dates are in it.
    Thumbprint(Thumbprint),
    /// It need not.
    Insecure,
}

impl Trust {
    /// What the pod makes of a CA and a thumbprint when no mode is set: both that are given must hold.
    pub fn auto(pem: Option<Vec<u8>>, pin: Option<Thumbprint>) -> Self {
        match (pem, pin) {
            (None, Some(pin)) => Self::Thumbprint(pin),
            (pem, pin) => Self::Ca { pem, pin },
        }
    }

    /// For the connections to come.
    pub(super) fn connector(&self) -> Result<SslConnector, Error> {
        // It takes the system's CAs and verifies, unless told otherwise.
        let mut builder = SslConnector::builder(SslMethod::tls_client())?;
        builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
        match self {
            Self::Ca { pem: None, .. } => {}
            Self::Ca { pem: Some(pem), .. } => {
                let mut store = X509StoreBuilder::new()?;
                for certificate in certificates(pem)? {
                    store.add_cert(certificate)?;
                }
                builder.set_cert_store(store.build());
            }
            Self::Thumbprint(_) | Self::Insecure => builder.set_verify(SslVerifyMode::NONE),
        }
        Ok(builder.build())
    }

    /// For one connection.
    pub(super) fn configure(
        &self,
        connector: &SslConnector,
    ) -> Result<ConnectConfiguration, ErrorStack> {
        let mut configuration = connector.configure()?;
        if let Self::Ca { .. } = self {
            let param = configuration.param_mut();
            param.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
            // Any anchor will do: the server's own certificate or an intermediate one as well as a root.
            param.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
        } else {
            configuration.set_verify_hostname(false);
        }
        Ok(configuration)
    }

    /// After the handshake, before anything is sent.
    pub(super) fn admit(&self, server: &Server, leaf: Option<&X509Ref>) -> Result<(), Error> {
        let (Self::Thumbprint(pin) | Self::Ca { pin: Some(pin), .. }) = self else { return Ok(()) };
        let presented = match leaf {
            Some(leaf) => Some(pin.same_kind(leaf)?),
            None => None,
        };
        if presented.as_ref().is_some_and(|p| openssl::memcmp::eq(p.bytes(), pin.bytes())) {
            return Ok(());
        }
        let presented = presented.map_or("none".to_owned(), |p| p.to_string());
        Err(Error::NotPinned { server: server.to_string(), presented, expected: pin.to_string() })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<X509>, Error> {
    let found = X509::stack_from_pem(pem).map_err(|e| Error::Ca(e.to_string()))?;
    if found.is_empty() {
        return Err(Error::Ca("there is none in what was given".to_owned()));
    }
    Ok(found)
}

/// The digest of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thumbprint {
    /// What VDDK and virt-v2v call the thumbprint.
    Sha1([u8; 20]),
    /// What newer tools show.
    Sha256([u8; 32]),
}

/// Why a text is no thumbprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "it is no thumbprint: expected 20 pairs of hexadecimal digits (SHA-1) or 32 (SHA-256), as in AA:BB:…"
)]
pub struct ThumbprintError;

impl Thumbprint {
    fn same_kind(self, certificate: &X509Ref) -> Result<Self, ErrorStack> {
        let digest = |kind: MessageDigest| certificate.digest(kind);
        Ok(match self {
            Self::Sha1(_) => Self::Sha1(sized(&digest(MessageDigest::sha1())?)),
            Self::Sha256(_) => Self::Sha256(sized(&digest(MessageDigest::sha256())?)),
        })
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Sha1(bytes) => bytes,
            Self::Sha256(bytes) => bytes,
        }
    }
}

/// A digest is as long as its kind says.
fn sized<const N: usize>(digest: &DigestBytes) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
    bytes
}

impl FromStr for Thumbprint {
    type Err = ThumbprintError;

    fn from_str(text: &str) -> Result<Self, ThumbprintError> {
        let text = text.trim();
        let label = ["sha256", "sha-256", "sha1", "sha-1"].into_iter().find_map(|l| {
            text.get(..l.len()).filter(|t| t.eq_ignore_ascii_case(l)).map(|t| (l, t.len()))
        });
        let (label, digits) = match label {
            Some((label, length)) => {
                (Some(label), text[length..].trim_start_matches([':', '=', ' ']))
            }
            None => (None, text),
        };
        let digits: Vec<u8> = digits.bytes().filter(|b| !matches!(b, b':' | b' ' | b'-')).collect();
        let (pairs, rest) = digits.as_chunks::<2>();
        let bytes = pairs.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?));
        let bytes: Vec<u8> = bytes.collect::<Option<_>>().ok_or(ThumbprintError)?;
        let sha256 = label.map(|l| l.ends_with("256"));
        match (bytes.len(), rest, sha256) {
            (20, [], None | Some(false)) => bytes.try_into().map(Self::Sha1),
            (32, [], None | Some(true)) => bytes.try_into().map(Self::Sha256),
            _ => return Err(ThumbprintError),
        }
        .map_err(|_| ThumbprintError)
    }
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok())
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.bytes().iter().enumerate() {
            if i > 0 {
                f.write_char(':')?;
            }
            write!(f, "{byte:02X}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn thumbprints_come_in_many_ways() {
        let plain = "aabbccddeeff00112233445566778899aabbccdd";
        let print: Thumbprint = plain.parse().unwrap();
        let shown = "AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD";
        assert_eq!(print.to_string(), shown);
        for text in [shown, &format!(" SHA1:{plain}\n"), &format!("sha1={shown}")] {
            assert_eq!(text.parse(), Ok(print), "{text}");
        }
        let long = format!("{plain}{}", "0".repeat(24));
        assert!(matches!(long.parse(), Ok(Thumbprint::Sha256(_))));
        assert!(format!("sha256:{long}").parse::<Thumbprint>().is_ok());
        for text in ["", "sha1:", "AA:BB", &format!("sha256:{plain}"), &format!("{plain}0"), "é"] {
            assert_eq!(text.parse::<Thumbprint>(), Err(ThumbprintError), "{text}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_an_error() {
        for pem in
            [b"".as_slice(), b"x", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
        {
            let trust = Trust::Ca { pem: Some(pem.to_vec()), pin: None };
            assert!(matches!(trust.connector().err(), Some(Error::Ca(_))));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_thumbprint_or_an_error(text in any::<String>()) {
            let _ = text.parse::<Thumbprint>();
        }

        #[test]
        fn a_thumbprint_comes_back(bytes in any::<[u8; 32]>()) {
            let print = Thumbprint::Sha256(bytes);
            prop_assert_eq!(print.to_string().parse(), Ok(print));
        }
    }
}
