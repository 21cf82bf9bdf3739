//! Where an OVA is, as the user writes it; and the other settings. Pure.

use crate::trust::Fingerprint;
use crate::vsphere::access::TrustMode;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use thiserror::Error;
use url::Url;

/// A path or a web address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file or folder.
    Local(PathBuf),
    /// On a server.
    Url(Url),
}

/// Why a text names no OVA.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlaceError {
    /// Cannot be read. The text is not repeated: it may hold a password.
    #[error("the URL of the OVA cannot be read")]
    Url(#[source] url::ParseError),
    /// `nfs://` and others.
    #[error("an OVA is read from a path, http:// or https://, not from {0}://")]
    Scheme(String),
    /// Every process here could see it.
    #[error("the URL of the OVA holds a password; give it as a file (secretKey, -ip FILE)")]
    Password,
}

/// When the manifest's checksums are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Verify {
    /// Of what is here; of what is read from a server in place, the description's alone.
    #[default]
    Auto,
    /// Of everything, and there must be one for each file; reads all from a server once more.
    Always,
    /// Of nothing.
    Never,
}

/// An OVA that is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where it is.
    pub place: Place,
    /// Whether it is verified.
    pub verify: Verify,
    /// How a server proves itself.
    pub trust: TrustMode,
    /// The server's thumbprint, when given.
    pub thumbprint: Option<Fingerprint>,
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        // A path may have a colon; what looks like a scheme is one.
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        let is_word = |s: &String| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric());
        match scheme.filter(is_word).as_deref() {
            None => Ok(Self::Local(text.into())),
            Some("http" | "https") => {
                let url = Url::parse(text).map_err(PlaceError::Url)?;
                if url.password().is_some() {
                    return Err(PlaceError::Password);
                }
                Ok(Self::Url(url))
            }
            Some(other) => Err(PlaceError::Scheme(other.to_owned())),
        }
    }
}

impl Place {
    /// `file`, `http` or `https`.
    pub fn transport(&self) -> &'static str {
        match self {
            Self::Local(_) => "file",
            Self::Url(url) if url.scheme() == "https" => "https",
            Self::Url(_) => "http",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::Url(url) => f.write_str(&without_secrets(url)),
        }
    }
}

/// The path in what the user wrote, which may be an address.
pub fn path_of(text: &str) -> &str {
    let address =
        |scheme| text.strip_prefix(scheme).map(|rest: &str| rest.split(['?', '#']).next());
    address("https://").or_else(|| address("http://")).flatten().unwrap_or(text)
}

/// For messages: a query may be a signature that opens the file to everybody.
pub fn without_secrets(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    let query = if url.query().is_some() { "?..." } else { "" };
    format!("{}://{host}{port}{}{query}", url.scheme(), url.path())
}

/// The same for what a tool says: no address in it keeps its query.
pub fn hide_queries(text: &str) -> String {
    let mut hidden = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, address) = rest.split_at(start + 3);
        hidden.push_str(before);
        let is_end = |c: char| c.is_whitespace() || c.is_control() || "\"'<>".contains(c);
        let end = address.find(is_end).unwrap_or(address.len());
        match address[..end].find('?') {
            None => hidden.push_str(&address[..end]),
            Some(query) => {
                hidden.push_str(&address[..query]);
                hidden.push_str("?...");
                // A bracket or colon at the end is the sentence's.
                let inner = address[query..end].trim_end_matches([']', ')', ':', ',', '.']);
                hidden.push_str(&address[query + inner.len()..end]);
            }
        }
        rest = &address[end..];
    }
    hidden + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_say_has_no_queries() {
        for (said, shown) in [
            (
                "nbdkit: curl[1]: error: problem doing HEAD request to fetch size of URL [https://h/a.ova?X-Sig=s3cret&b[]=1]: 403",
                "nbdkit: curl[1]: error: problem doing HEAD request to fetch size of URL [https://h/a.ova?...]: 403",
            ),
            ("http://a/?s3cret and HTTPS://b/?s3cret", "http://a/?... and HTTPS://b/?..."),
            ("is it? http://a/b no", "is it? http://a/b no"),
            ("", ""),
        ] {
            assert_eq!(hide_queries(said), shown);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_query_stays(before in ".{0,9}", query in "[!#-&(-;=?-~]{1,30}", after in "( .{0,9})?") {
            let query = format!("{query}s3cret=");
            let hidden = hide_queries(&format!("{before}https://h/x?{query}{after}"));
            proptest::prop_assert!(!hidden.contains("s3cret"), "{}", hidden);
        }
    }

    #[test]
    fn paths_and_addresses() {
        let place = |text: &str| text.parse::<Place>();
        for path in ["/ova/web.ova", "a:b.ova", "dir with://x", "C:/x"] {
            assert_eq!(place(path).unwrap(), Place::Local(path.into()), "{path}");
        }
        let url = place("HTTPS://me@host:8443/a b.ova?sig=geheim").unwrap();
        assert_eq!(url.transport(), "https");
        assert_eq!(url.to_string(), "https://host:8443/a%20b.ova?...");
        assert_eq!(place("nfs://host/x"), Err(PlaceError::Scheme("nfs".into())));
        assert_eq!(place("https://u:hunter2@host/x"), Err(PlaceError::Password));
        assert!(!place("https://u:hunter2@ho st/x").unwrap_err().to_string().contains("hunter2"));
    }
}
