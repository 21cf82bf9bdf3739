//! Where a TLS server is: host and port, from what people and libvirt write. Pure.

use percent_encoding::percent_decode_str;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use thiserror::Error;
use url::{Host, Url};

/// vCenter, ESXi and the SDK of both.
const HTTPS_PORT: u16 = 443;
/// Schemes of URLs behind which there is a TLS server of that host.
const SCHEMES: [&str; 4] = ["vpx", "esx", "gsx", "https"];

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A name in lower case (ASCII), or an address.
    pub host: Host<String>,
    /// The port; 443 when none was given.
    pub port: u16,
}

/// Why a text names no server.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EndpointError {
    /// Nothing before the port, or nothing at all.
    #[error("{0:?} names no host; write HOST, HOST:PORT or [IPv6]:PORT")]
    NoHost(String),
    /// Not a name and not an address.
    #[error("{host:?} is neither a host name nor an address")]
    Host {
        /// The host as given.
        host: String,
        /// Why.
        source: url::ParseError,
    },
    /// Not a number from 1 to 65535.
    #[error("{0:?} is not a port")]
    Port(String),
    /// Not a URL. The text is not repeated: it may hold a password.
    #[error("the URL cannot be read")]
    Url(#[source] url::ParseError),
    /// `http://`, `qemu:///system` and others.
    #[error("a {0}:// URL names no server with a certificate; vpx://, esx:// and https:// do")]
    Scheme(String),
}

impl Endpoint {
    /// A host at the usual port.
    fn at_https(host: Host<String>) -> Self {
        Self { host, port: HTTPS_PORT }
    }

    /// The host of a libvirt or web URL.
    pub fn of_url(text: &str) -> Result<Self, EndpointError> {
        let url = Url::parse(text).map_err(EndpointError::Url)?;
        if !SCHEMES.contains(&url.scheme()) {
            return Err(EndpointError::Scheme(url.scheme().to_owned()));
        }
        // For a scheme that `url` does not know, even an IPv4 address is an opaque name.
        let host = match url.host() {
            Some(Host::Ipv6(address)) => Host::Ipv6(address),
            Some(Host::Ipv4(address)) => Host::Ipv4(address),
            Some(Host::Domain(name)) => host(&percent_decode_str(name).decode_utf8_lossy())?,
            None => return Err(EndpointError::NoHost(format!("{}://", url.scheme()))),
        };
        match url.port() {
            Some(0) => Err(EndpointError::Port("0".to_owned())),
            port => Ok(Self { host, port: port.unwrap_or(HTTPS_PORT) }),
        }
    }

    /// The ESXi host that a `vpx://` URL names below the vCenter: the last part of its path.
    /// `None` for other URLs, and when that part does not look like a host.
    pub fn esxi_host(url: &str) -> Option<Self> {
        let url = Url::parse(url).ok().filter(|url| url.scheme() == "vpx")?;
        let mut parts = url.path_segments()?.filter(|part| !part.is_empty());
        let _datacenter = parts.next()?;
        let last = percent_decode_str(parts.next_back()?).decode_utf8().ok()?.into_owned();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
        if !last.chars().all(plain) {
            return None;
        }
        bare_v6(&last).map_or_else(|| host(&last), Ok).ok().map(Self::at_https)
    }

    /// For SNI and for comparison with the certificate: without the dot of a fully qualified name.
    pub fn name(&self) -> Option<&str> {
        match &self.host {
            Host::Domain(name) => Some(name.strip_suffix('.').unwrap_or(name)),
            Host::Ipv4(_) | Host::Ipv6(_) => None,
        }
    }

    /// With the address that answers to a name: `vcenter:443 (10.0.0.5)`.
    pub(super) fn at(&self, address: IpAddr) -> String {
        if self.ip() == Some(address) { self.to_string() } else { format!("{self} ({address})") }
    }

    /// The address, when it is not a name.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.host {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
        }
    }
}

/// `HOST:PORT`, with brackets around IPv6.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// `HOST`, `HOST:PORT`, `[IPv6]`, `[IPv6]:PORT`, IPv6 alone, or a URL.
impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let text = text.trim();
        if text.contains("://") {
            return Self::of_url(text);
        }
        if let Some(host) = bare_v6(text) {
            return Ok(Self::at_https(host));
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port_number(port)?),
            _ => (text, HTTPS_PORT),
        };
        if name.is_empty() {
            return Err(EndpointError::NoHost(text.to_owned()));
        }
        Ok(Self { host: host(name)?, port })
    }
}

fn bare_v6(text: &str) -> Option<Host<String>> {
    text.parse().ok().map(Host::Ipv6)
}

fn port_number(text: &str) -> Result<u16, EndpointError> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port != 0);
    port.ok_or_else(|| EndpointError::Port(text.to_owned()))
}

fn host(text: &str) -> Result<Host<String>, EndpointError> {
    Host::parse(text).map_err(|source| EndpointError::Host { host: text.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        text.parse::<Endpoint>().map_or_else(|e| format!("error: {e}"), |e| e.to_string())
    }

    #[test]
    fn hosts_and_ports() {
        for (text, expected) in [
            ("vcenter", "vcenter:443"),
            (" VCenter.Example.COM:8443\n", "vcenter.example.com:8443"),
            ("10.0.0.5", "10.0.0.5:443"),
            ("10.0.0.5:902", "10.0.0.5:902"),
            ("[fd00::10]", "[fd00::10]:443"),
            ("[fd00::10]:8443", "[fd00::10]:8443"),
            ("fd00::10", "[fd00::10]:443"),
            ("::1", "[::1]:443"),
            ("bücher.example", "xn--bcher-kva.example:443"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn urls_of_libvirt() {
        for (text, expected) in [
            ("vpx://admin@vcenter/DC/Cluster/esxi1?no_verify=1", "vcenter:443"),
            ("vpx://admin%40vsphere.local@vcenter.x:8443/DC/esxi1", "vcenter.x:8443"),
            ("vpx://admin@vsphere.local@vcenter.x/DC/esxi1", "vcenter.x:443"),
            ("vpx://DOM%5cuser:p%40ss@10.1.2.3/DC/esxi1", "10.1.2.3:443"),
            ("vpx://user@%76center/DC/esxi1", "vcenter:443"),
            ("esx://root@[fd00::10]?no_verify=1", "[fd00::10]:443"),
            ("esx://root@[fd00::10]:444/", "[fd00::10]:444"),
            ("esx://ESXI1", "esxi1:443"),
            ("https://vcenter.x/sdk", "vcenter.x:443"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_a_password() {
        for (text, part) in [
            ("", "names no host"),
            (":443", "names no host"),
            ("esx:///", "names no host"),
            ("vcenter:https", "\"https\" is not a port"),
            ("vcenter:0", "not a port"),
            ("vcenter:65536", "not a port"),
            ("vcenter:+443", "not a port"),
            ("vcenter:", "not a port"),
            ("a b", "neither a host name"),
            ("[fd00::10", "neither a host name"),
            ("qemu:///system", "qemu:// URL"),
            ("http://vcenter", "http:// URL"),
            ("esx://root:hunter2@host:port/", "URL cannot be read"),
        ] {
            let text = shown(text);
            assert!(text.contains(part) && !text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn the_esxi_host_of_a_vcenter_url() {
        let esxi = |url: &str| Endpoint::esxi_host(url).map(|e| e.to_string());
        assert_eq!(esxi("vpx://u@vc/DC/Cluster/esxi1.x?no_verify=1"), Some("esxi1.x:443".into()));
        assert_eq!(esxi("vpx://u@vc/DC/10.0.0.7/"), Some("10.0.0.7:443".into()));
        assert_eq!(esxi("vpx://u@vc/DC/fd00%3a%3a7"), Some("[fd00::7]:443".into()));
        assert_eq!(esxi("vpx://u@vc/DC/%65sxi1"), Some("esxi1:443".into()));
        for none in [
            "vpx://u@vc/DC",
            "vpx://u@vc/DC/My%20Cluster",
            "esx://u@esxi1/a/b",
            "esxi1",
            "vpx://u@vc",
        ] {
            assert_eq!(esxi(none), None, "{none}");
        }
    }

    #[test]
    fn names_for_certificates() {
        let endpoint: Endpoint = "vcenter.x.".parse().unwrap();
        assert_eq!((endpoint.name(), endpoint.ip()), (Some("vcenter.x"), None));
        assert_eq!(endpoint.at("10.0.0.5".parse().unwrap()), "vcenter.x.:443 (10.0.0.5)");
        let endpoint: Endpoint = "[::1]:5".parse().unwrap();
        assert_eq!((endpoint.name(), endpoint.ip()), (None, "::1".parse().ok()));
        assert_eq!(endpoint.at("::1".parse().unwrap()), "[::1]:5");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(text in "\\PC{0,40}") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
            }
            let _ = Endpoint::esxi_host(&text);
        }

        #[test]
        fn addresses_survive(bits in any::<u128>(), port in 1..=u16::MAX) {
            let address = std::net::Ipv6Addr::from_bits(bits);
            let expected = Endpoint { host: Host::Ipv6(address), port };
            prop_assert_eq!(format!("[{address}]:{port}").parse::<Endpoint>().unwrap(), expected.clone());
            prop_assert_eq!(Endpoint::of_url(&format!("esx://u%40x@[{address}]:{port}/")).unwrap(), expected);
        }
    }
}
