//! NBD URIs: `nbd://HOST[:PORT]/EXPORT`, `nbd+unix:///EXPORT?socket=PATH`, and `nbds…` with TLS.

use percent_encoding::percent_decode_str;
use std::fmt;
use std::path::PathBuf;
use url::Url;

/// Where the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// Host and port.
    Tcp(String, u16),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// TLS settings of a URI.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsSettings {
    /// Folder with `ca-cert.pem`, and `client-cert.pem` and `client-key.pem` for client authentication.
    pub certificates: Option<PathBuf>,
    /// File of `USER:HEXKEY` lines.
    pub psk_file: Option<PathBuf>,
    /// User of the pre-shared key.
    pub username: Option<String>,
    /// Name that the certificate must have, instead of the host's.
    pub hostname: Option<String>,
    /// Accept any certificate.
    pub insecure: bool,
}

/// A parsed URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NbdUri {
    /// Where.
    pub address: Address,
    /// Name of the export, may be empty.
    pub export: String,
    /// TLS, `None` without.
    pub tls: Option<TlsSettings>,
}

/// Why a URI cannot be used. Names the URI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("NBD URI {uri:?}: {why}")]
pub struct UriError {
    uri: String,
    why: String,
}

const SCHEMES: [&str; 6] = ["nbd", "nbds", "nbd+unix", "nbds+unix", "nbd+vsock", "nbds+vsock"];
const DEFAULT_PORT: u16 = 10809;

/// Whether the text is meant as an NBD URI.
pub fn is_nbd_uri(text: &str) -> bool {
    text.split_once("://")
        .is_some_and(|(scheme, _)| SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()))
}

impl std::str::FromStr for NbdUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        parse(text).map_err(|why| UriError { uri: text.to_owned(), why })
    }
}

fn parse(text: &str) -> Result<NbdUri, String> {
    if !is_nbd_uri(text) {
        return Err("it must begin with nbd://, nbds://, nbd+unix:// or nbds+unix://".into());
    }
    // `nbds+unix://alice@/?socket=…` has a user and no host, which URLs proper cannot have.
    let start = text.find("://").map_or(0, |at| at + 3);
    let length = text[start..].find(['/', '?', '#']).unwrap_or(text.len() - start);
    let (authority, rest) = text[start..].split_at(length);
    let host = if authority.ends_with('@') { "localhost" } else { "" };
    let url = Url::parse(&format!("{}{authority}{host}{rest}", &text[..start]))
        .map_err(|e| e.to_string())?;
    let scheme = url.scheme();
    if scheme.ends_with("+vsock") {
        return Err("vsock is not supported, use a Unix or TCP socket".into());
    }
    let mut socket = None;
    let mut tls = TlsSettings::default();
    let mut tls_asked = false;
    // Not `query_pairs`: a `+` is a plus here.
    for pair in url.query().unwrap_or("").split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decode(key)?, decode(value)?);
        tls_asked |= key.starts_with("tls-");
        match &*key {
            "socket" => socket = Some(PathBuf::from(&*value)),
            "tls-certificates" => tls.certificates = Some(PathBuf::from(&*value)),
            "tls-psk-file" => tls.psk_file = Some(PathBuf::from(&*value)),
            "tls-hostname" => tls.hostname = Some(value),
            "tls-verify-peer" => match &*value {
                "0" | "false" => tls.insecure = true,
                "1" | "true" => tls.insecure = false,
                _ => return Err("tls-verify-peer must be true or false".into()),
            },
            other => return Err(format!("unknown parameter {other:?}")),
        }
    }
    if !url.username().is_empty() {
        tls.username = Some(decode(url.username())?);
    }
    let secure = scheme.starts_with("nbds");
    if tls_asked && !secure {
        return Err("tls-… parameters need the scheme nbds".into());
    }
    let address = match (scheme.ends_with("+unix"), socket) {
        (true, Some(path)) if !path.as_os_str().is_empty() => Address::Unix(path),
        (true, _) => return Err("it needs ?socket=PATH".into()),
        (false, Some(_)) => return Err("socket= needs the scheme nbd+unix or nbds+unix".into()),
        (false, None) => {
            let host = url.host_str().filter(|h| !h.is_empty()).unwrap_or("localhost");
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Address::Tcp(decode(host)?, url.port().unwrap_or(DEFAULT_PORT))
        }
    };
    // Not `url.path()`, which takes `..` for a step up.
    let path = rest.split(['?', '#']).next().unwrap_or("");
    let export = decode(path.strip_prefix('/').unwrap_or(path))?;
    if export.len() > super::wire::MAX_NAME {
        return Err("the export's name is longer than 4096 bytes".into());
    }
    Ok(NbdUri { address, export, tls: secure.then_some(tls) })
}

fn decode(text: &str) -> Result<String, String> {
    percent_decode_str(text).decode_utf8().map(Into::into).map_err(|_| "it is not UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uri(text: &str) -> NbdUri {
        text.parse().unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn the_forms_in_use_are_understood() {
        let v2v = uri("nbd+unix:///?socket=/tmp/v2v.x/in0");
        assert_eq!(v2v.address, Address::Unix("/tmp/v2v.x/in0".into()));
        assert_eq!((v2v.export.as_str(), v2v.tls), ("", None));
        assert_eq!(uri("nbd://h").address, Address::Tcp("h".into(), 10809));
        assert_eq!(uri("nbd://[::1]:99/a%20b/c").address, Address::Tcp("::1".into(), 99));
        assert_eq!(uri("nbd://h/a%20b/c").export, "a b/c");
        let psk = uri("nbds+unix://alice@/?socket=/s&tls-psk-file=/k").tls.unwrap();
        assert_eq!((psk.username.as_deref(), psk.psk_file), (Some("alice"), Some("/k".into())));
        assert!(uri("nbds://h?tls-verify-peer=false").tls.unwrap().insecure);
    }

    #[test]
    fn errors_name_the_uri_and_say_what_is_missing() {
        for (text, want) in [
            ("nbd+unix:///", "socket=PATH"),
            ("nbd://h?socket=/x", "nbd+unix"),
            ("nbd://h?tls-certificates=/x", "nbds"),
            ("nbd+vsock://1", "vsock"),
            ("nbd://h?colour=red", "colour"),
            ("http://h", "nbd://"),
        ] {
            let e = text.parse::<NbdUri>().unwrap_err().to_string();
            assert!(e.contains(want) && e.contains(text), "{e}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(nbds?(\\+unix)?://)?\\PC*") {
            let _ = text.parse::<NbdUri>();
        }
    }
}
