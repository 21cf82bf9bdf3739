//! The server in a Provider's URL. Pure.

use super::error::Error;
use std::fmt;
use std::str::FromStr;
use url::{Host, Url};

/// Where vCenter and ESXi listen.
const PORT: u16 = 443;

/// A vCenter or ESXi host. Which of the two it is, it says itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Name or address.
    pub host: Host<String>,
    /// 443 unless given.
    pub port: u16,
}

impl FromStr for Server {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // Whatever is said of it: no password.
        let shown = match (text.split_once("://"), text.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
            (None, Some((_, rest))) => format!("…@{rest}"),
            _ => text.to_owned(),
        };
        let wrong = |reason| Error::Url { url: shown.clone(), reason };
        let url = Url::parse(text.trim()).map_err(|_| wrong("it is not a URL"))?;
        if !matches!(url.scheme(), "https" | "vpx" | "esx") {
            return Err(wrong("its scheme is none of https, vpx, esx"));
        }
        if url.password().is_some() {
            return Err(wrong("it holds a password, which belongs into the secret"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it has parameters; whom to trust has settings of its own"));
        }
        let host =
            url.host_str().filter(|h| !h.is_empty()).ok_or_else(|| wrong("it has no host"))?;
        // Of an unknown scheme the host is left as it was written.
        let host = Host::parse(host).map_err(|_| wrong("its host is none"))?;
        Ok(Self { host, port: url.port().unwrap_or(PORT) })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_server_comes_in_many_ways() {
        for (text, shown) in [
            ("https://vc.example.com", "vc.example.com:443"),
            ("https://vc.example.com/sdk", "vc.example.com:443"),
            ("vpx://user%40x@VC:8443/DC/h", "vc:8443"),
            ("esx://root@10.0.0.1", "10.0.0.1:443"),
            ("https://[fe80::1]:9", "[fe80::1]:9"),
        ] {
            assert_eq!(text.parse::<Server>().unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_none_is_said_without_the_password() {
        for text in [
            "vcenter",
            "",
            "http://vc",
            "https://",
            "https://u:hunter2@vc/sdk",
            "vpx://u:hunt@er2@vc",
            "vpx://vc/DC?no_verify=1",
            "hunter2@vc",
        ] {
            let error = text.parse::<Server>().unwrap_err().to_string();
            assert!(!error.contains("hunt"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_server_or_an_error(text in any::<String>(), host in "\\PC{0,12}") {
            let _ = text.parse::<Server>();
            let _ = format!("vpx://{host}").parse::<Server>();
        }
    }
}
