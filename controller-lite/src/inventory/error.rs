//! Why there is no inventory, and what to do about it.

use std::io;
use thiserror::Error;

/// What kind of failure it is; decides whether another try makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Something that was given cannot be right.
    Config,
    /// The server does not let the user in, or not far enough.
    Auth,
    /// The server is not the one that is meant.
    Trust,
    /// It may pass.
    Network,
    /// The server answers what nobody understands.
    Server,
}

/// Why.
#[derive(Debug, Error)]
pub enum Error {
    /// The URL.
    #[error("the source's URL {url:?}: {reason}")]
    Url {
        /// As given, without a password.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// User or password.
    #[error("{what} cannot be sent to the server: it holds the control character {code:#04x}")]
    Character {
        /// `the user name` or `the password`.
        what: &'static str,
        /// The character.
        code: u32,
    },
    /// The CA's certificates.
    #[error("the CA certificate: {0}")]
    Ca(String),
    /// OpenSSL itself.
    #[error("TLS cannot be set up")]
    Tls(#[from] openssl::error::ErrorStack),
    /// No connection.
    #[error("{server} cannot be reached: {attempts}")]
    Unreachable {
        /// Host and port.
        server: String,
        /// Each address and what came of it.
        attempts: String,
    },
    /// No TLS.
    #[error("the TLS handshake with {server} failed: {reason}")]
    Handshake {
        /// Host and port.
        server: String,
        /// OpenSSL's words.
        reason: String,
    },
    /// A certificate that does not hold up.
    #[error("the certificate of {server} does not verify: {reason}")]
    NotVerified {
        /// Host and port.
        server: String,
        /// OpenSSL's words.
        reason: String,
    },
    /// Another certificate.
    #[error("the certificate of {server} has the thumbprint {presented}, not {expected}")]
    NotPinned {
        /// Host and port.
        server: String,
        /// What it has.
        presented: String,
        /// What was expected.
        expected: String,
    },
    /// The connection broke.
    #[error("the connection to {server} broke in {call}: {reason}")]
    Broken {
        /// Host and port.
        server: String,
        /// The call.
        call: &'static str,
        /// hyper's words.
        reason: String,
    },
    /// Too slow.
    #[error("{server} did not answer {call} within {seconds} s")]
    Slow {
        /// Host and port.
        server: String,
        /// The call, or the step.
        call: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// Not what VMware's servers say.
    #[error("{server} answered {call} with HTTP {status}")]
    Http {
        /// Host and port.
        server: String,
        /// The call.
        call: &'static str,
        /// The status.
        status: u16,
    },
    /// Not what VMware's servers say.
    #[error("{server} answered {call} with what cannot be read: {reason}")]
    Reply {
        /// Host and port.
        server: String,
        /// The call.
        call: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The server's own words.
    #[error("{server} refused {call}: {text} ({fault})")]
    Fault {
        /// Host and port.
        server: String,
        /// The call.
        call: &'static str,
        /// `InvalidLogin`.
        fault: String,
        /// For people.
        text: String,
    },
    /// A file with the password or the CA.
    #[error("{path} cannot be read")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// What kind of failure it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Url { .. } | Self::Character { .. } | Self::Ca(_) | Self::File { .. } => {
                Class::Config
            }
            Self::NotVerified { .. } | Self::NotPinned { .. } => Class::Trust,
            Self::Unreachable { .. }
            | Self::Handshake { .. }
            | Self::Broken { .. }
            | Self::Slow { .. }
            | Self::Http { status: 429 | 502..=504, .. } => Class::Network,
            Self::Http { status: 401 | 403, .. } => Class::Auth,
            Self::Fault { fault, .. } => match fault.as_str() {
                "InvalidLogin" | "NoPermission" | "NotAuthenticated" | "PasswordExpired" => {
                    Class::Auth
                }
                "HostCommunication" | "HostNotReachable" | "Timedout" | "TaskInProgress" => {
                    Class::Network
                }
                _ => Class::Server,
            },
            Self::Tls(_) | Self::Http { .. } | Self::Reply { .. } => Class::Server,
        }
    }

    /// One line of what to do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Url { .. } => {
                "write it as https://vcenter.example.com, vpx://vcenter.example.com or esx://esx1.example.com, with a port where it is not 443"
            }
            Self::Character { .. } => "look for line ends or other stray bytes in the secret",
            Self::Ca(_) => {
                "give the certificate of the CA that signed the server's, in PEM (cacert in the secret)"
            }
            Self::File { .. } => "check the path and who may read it",
            Self::NotVerified { .. } => {
                "give the CA's certificate (cacert in the secret) or trust by thumbprint; v2v-pod thumbprint HOST shows the certificate"
            }
            Self::NotPinned { .. } => {
                "compare with the server's console; if its certificate was renewed, put the new thumbprint into the Provider"
            }
            Self::Fault { fault, .. } if fault == "InvalidLogin" => {
                "check accessKeyId and secretKey in the secret; a vCenter user has a domain (administrator@vsphere.local)"
            }
            Self::Fault { fault, .. } if fault == "NoPermission" => {
                "give the user at least the role Read-only on the vCenter's root, with propagation"
            }
            Self::Unreachable { .. } | Self::Slow { .. } | Self::Broken { .. } => {
                "check that the host answers on this port from this cluster (network policy, firewall)"
            }
            Self::Handshake { .. } => "check that the host speaks TLS 1.2 or newer on this port",
            Self::Http { .. } | Self::Reply { .. } => {
                "check that the URL is that of a vCenter or an ESXi host (version 6.5 or newer), not of a proxy or a console"
            }
            Self::Tls(_) | Self::Fault { .. } => "see the server's own log for this moment",
        }
    }

    /// The session is over, or never was.
    pub(super) fn is_session_end(&self) -> bool {
        matches!(self, Self::Fault { fault, .. } if fault == "NotAuthenticated")
    }
}
