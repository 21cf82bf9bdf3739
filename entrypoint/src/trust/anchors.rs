//! The certificates that are trusted to begin with: the system's, or those in a file.

use super::peer::name_text;
use openssl::error::ErrorStack;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::{X509, X509NameRef};
use std::env;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The system's CA certificates in our image, where the usual places lead to what a run, maybe an earlier one, trusts.
const KEPT: &str = "/etc/pki/tls/certs/ca-bundle.crt.bak";
/// Where distributions keep all their CA certificates in one file: Debian, Fedora.
const BUNDLES: [&str; 2] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
/// More subjects than this are counted, not listed.
const LISTED: usize = 3;

/// Whom to believe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchors {
    /// Those of the system. `SSL_CERT_FILE` and `SSL_CERT_DIR` replace them, as for every program
    /// with OpenSSL.
    System,
    /// Those in a file, PEM or DER, and no others.
    File(PathBuf),
}

/// Why there are no anchors.
#[derive(Debug, Error)]
pub enum AnchorError {
    /// Cannot be read.
    #[error("the CA file {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Zero bytes.
    #[error("the CA file {0} is empty")]
    Empty(PathBuf),
    /// PEM of something else, or a text without any.
    #[error("the CA file {path} holds no certificate{hint}")]
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// What it holds instead.
        hint: &'static str,
    },
    /// Damaged.
    #[error("a certificate in the CA file {path} cannot be read")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// OpenSSL's reason.
        source: ErrorStack,
    },
    /// OpenSSL did not take them.
    #[error("the CA certificates cannot be used")]
    Store(#[from] ErrorStack),
}

/// Anchors, ready to verify with.
pub(super) struct Loaded {
    pub(super) store: X509Store,
    /// For messages: `the CA certificates of the system`, or the file and what is in it.
    pub(super) description: String,
}

impl Anchors {
    /// Reads them.
    pub(super) fn load(&self) -> Result<Loaded, AnchorError> {
        let mut store = X509StoreBuilder::new()?;
        let Self::File(path) = self else {
            add_system(&mut store)?;
            return Ok(Loaded { store: store.build(), description: self.to_string() });
        };
        let certificates = read(path)?;
        let description = format!("{self} ({})", subjects(&certificates));
        for certificate in certificates {
            store.add_cert(certificate)?;
        }
        Ok(Loaded { store: store.build(), description })
    }
}

impl fmt::Display for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("the CA certificates of this system"),
            Self::File(path) => write!(f, "the CA file {}", path.display()),
        }
    }
}

fn add_system(store: &mut X509StoreBuilder) -> Result<(), ErrorStack> {
    if ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| env::var_os(name).is_some()) {
        return store.set_default_paths();
    }
    if let Ok(kept) = read(Path::new(KEPT)) {
        return kept.into_iter().try_for_each(|certificate| store.add_cert(certificate));
    }
    store.set_default_paths()?;
    // OpenSSL built elsewhere than the distribution looks in other places by default. A bundle
    // that cannot be read is no reason to stop: the default places may do.
    let Some(bundle) = BUNDLES.iter().find_map(|path| read(Path::new(path)).ok()) else {
        return Ok(());
    };
    bundle.into_iter().try_for_each(|certificate| store.add_cert(certificate))
}

fn read(path: &Path) -> Result<Vec<X509>, AnchorError> {
    let bytes = std::fs::read(path)
        .map_err(|source| AnchorError::Read { path: path.to_owned(), source })?;
    if bytes.trim_ascii().is_empty() {
        return Err(AnchorError::Empty(path.to_owned()));
    }
    if !contains(&bytes, b"-----BEGIN ") {
        return match X509::from_der(&bytes) {
            Ok(certificate) => Ok(vec![certificate]),
            Err(_) => Err(AnchorError::NoCertificate {
                path: path.to_owned(),
                hint: ": it is neither PEM nor DER",
            }),
        };
    }
    let certificates = X509::stack_from_pem(&bytes)
        .map_err(|source| AnchorError::Damaged { path: path.to_owned(), source })?;
    if certificates.is_empty() {
        let hint = match bytes {
            b if contains(&b, b"PRIVATE KEY") => ", but a private key",
            b if contains(&b, b"CERTIFICATE REQUEST") => ", but a certificate request",
            b if contains(&b, b"PKCS7") => {
                ", but PKCS #7; convert it with openssl pkcs7 -print_certs"
            }
            _ => "",
        };
        return Err(AnchorError::NoCertificate { path: path.to_owned(), hint });
    }
    Ok(certificates)
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|w| w == word)
}

fn subjects(certificates: &[X509]) -> String {
    let name = |certificate: &X509| {
        let subject: &X509NameRef = certificate.subject_name();
        name_text(subject)
    };
    let mut text: Vec<String> = certificates.iter().take(LISTED).map(name).collect();
    if certificates.len() > LISTED {
        text.push(format!("and {} more", certificates.len() - LISTED));
    }
    text.join("; ")
}
