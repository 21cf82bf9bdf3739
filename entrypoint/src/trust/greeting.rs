//! What the first bytes from a server say about it, when the handshake fails. Pure.
//!
//! OpenSSL's own words for a server that speaks something else ("wrong version number") help
//! nobody.

/// As much as is looked at.
pub(super) const HEAD_BYTES: usize = 80;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
const PROTOCOL_VERSION: u8 = 70;

/// What they say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// Nothing came.
    Nothing,
    /// Not TLS; its first line, printable.
    NotTls(String),
    /// An older version of TLS only; which, when it said so.
    TooOld(Option<&'static str>),
    /// TLS.
    Tls,
}

/// Reads them.
pub(super) fn read(head: &[u8]) -> Greeting {
    match *head {
        [] => Greeting::Nothing,
        [ALERT, 3, _, _, _, _, PROTOCOL_VERSION, ..] => Greeting::TooOld(None),
        [HANDSHAKE, 3, _, _, _, SERVER_HELLO, _, _, _, 3, minor @ 0..=2, ..] => {
            let versions = ["SSL 3.0", "TLS 1.0", "TLS 1.1"];
            Greeting::TooOld(versions.get(usize::from(minor)).copied())
        }
        [ALERT | HANDSHAKE, 3, ..] | [ALERT | HANDSHAKE] => Greeting::Tls,
        _ => Greeting::NotTls(first_line(head)),
    }
}

fn first_line(head: &[u8]) -> String {
    let line = head.split(|b| matches!(b, b'\r' | b'\n')).next().unwrap_or_default();
    super::peer::printable(&String::from_utf8_lossy(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn servers_are_recognized() {
        assert_eq!(read(b""), Greeting::Nothing);
        let http = read(b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n");
        assert_eq!(http, Greeting::NotTls("HTTP/1.1 400 Bad Request".into()));
        let vmware = read(b"220 VMware Authentication Daemon Version 1.10: SSL Required\r\n");
        assert!(matches!(vmware, Greeting::NotTls(t) if t.starts_with("220 VMware")));
        assert_eq!(read(b"\x15\x03\x02\0\x02\x02\x46"), Greeting::TooOld(None));
        assert_eq!(read(b"\x15\x03\x03\0\x02\x02\x28"), Greeting::Tls);
        let hello = |version: u8| [22, 3, version, 0, 99, 2, 0, 0, 90, 3, version, 7];
        assert_eq!(read(&hello(1)), Greeting::TooOld(Some("TLS 1.0")));
        assert_eq!(read(&hello(2)), Greeting::TooOld(Some("TLS 1.1")));
        assert_eq!(read(&hello(3)), Greeting::Tls);
        assert_eq!(read(b"\x1b[2Jboo"), Greeting::NotTls("\u{fffd}[2Jboo".into()));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(head in proptest::collection::vec(any::<u8>(), 0..HEAD_BYTES)) {
            let _ = read(&head);
        }
    }
}
