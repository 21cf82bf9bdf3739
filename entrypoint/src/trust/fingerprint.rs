//! Fingerprints of certificates, in any of the ways in which people write them. Pure.
//!
//! VMware calls them thumbprints and VDDK takes them as `AA:BB:…` of SHA-1; browsers, `openssl`,
//! PowerShell and `govc` write them in other ways, and newer tools of SHA-256.

use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use thiserror::Error;

const SHA1_BYTES: usize = 20;
const SHA256_BYTES: usize = 32;
const MD5_NIBBLES: usize = 32;
/// How much of a wrong fingerprint an error repeats.
const SHOWN_CHARS: usize = 50;
const EXPECTED: &str =
    "expected 20 pairs of hexadecimal digits (SHA-1) or 32 (SHA-256), as in AA:BB:…";

/// The fingerprint of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fingerprint {
    /// What VDDK and virt-v2v call the thumbprint.
    Sha1([u8; SHA1_BYTES]),
    /// What newer tools show.
    Sha256([u8; SHA256_BYTES]),
}

/// Why a text is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FingerprintError {
    /// Nothing, or a label alone.
    #[error("the fingerprint is empty; {EXPECTED}")]
    Empty,
    /// Sixteen bytes.
    #[error("{given:?} is an MD5 fingerprint, which proves nothing; {EXPECTED}")]
    Md5 {
        /// What was given, shortened.
        given: String,
    },
    /// Hexadecimal, but not 20 or 32 bytes.
    #[error("{given:?} has {digits} hexadecimal digits; {EXPECTED}")]
    Length {
        /// What was given, shortened.
        given: String,
        /// How many digits it has.
        digits: usize,
    },
    /// `SHA1:` before 32 bytes, or the other way round.
    #[error("{given:?} is called {label}, but has the length of {length}")]
    Label {
        /// What was given, shortened.
        given: String,
        /// What the label says.
        label: &'static str,
        /// What the length says.
        length: &'static str,
    },
    /// Something else.
    #[error("{given:?} is not a fingerprint; {EXPECTED}")]
    Other {
        /// What was given, shortened.
        given: String,
    },
}

impl Fingerprint {
    /// SHA-1 of a certificate in DER.
    pub fn of_sha1(der: &[u8]) -> Self {
        Self::Sha1(Sha1::digest(der).into())
    }

    /// SHA-256 of a certificate in DER.
    pub fn of_sha256(der: &[u8]) -> Self {
        Self::Sha256(Sha256::digest(der).into())
    }

    /// The digest of the same kind of another certificate.
    #[must_use]
    pub fn same_kind(&self, der: &[u8]) -> Self {
        match self {
            Self::Sha1(_) => Self::of_sha1(der),
            Self::Sha256(_) => Self::of_sha256(der),
        }
    }

    /// Whether it is that of this certificate in DER. Takes the same time wherever they differ.
    pub fn matches(&self, der: &[u8]) -> bool {
        openssl::memcmp::eq(self.bytes(), self.same_kind(der).bytes())
    }

    /// `SHA-1` or `SHA-256`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sha1(_) => "SHA-1",
            Self::Sha256(_) => "SHA-256",
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Sha1(bytes) => bytes,
            Self::Sha256(bytes) => bytes,
        }
    }

    fn from_nibbles(nibbles: &[u8]) -> Option<Self> {
        let (pairs, rest) = nibbles.as_chunks::<2>();
        if !rest.is_empty() {
            return None;
        }
        let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
        match bytes.len() {
            SHA1_BYTES => bytes.try_into().ok().map(Self::Sha1),
            SHA256_BYTES => bytes.try_into().ok().map(Self::Sha256),
            _ => None,
        }
    }
}

impl fmt::Display for Fingerprint {
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

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let given = trimmed(text);
        let (label, digits) = split_label(given);
        if digits.is_empty() {
            return Err(FingerprintError::Empty);
        }
        let short = || shortened(given);
        if label == Some(Label::Md5) {
            return Err(FingerprintError::Md5 { given: short() });
        }
        let nibbles = match (hexadecimal(digits), label) {
            (Some(nibbles), _) => nibbles,
            (None, Some(_)) => {
                base64(digits).ok_or_else(|| FingerprintError::Other { given: short() })?
            }
            (None, None) => return Err(FingerprintError::Other { given: short() }),
        };
        let Some(print) = Self::from_nibbles(&nibbles) else {
            return Err(match nibbles.len() {
                MD5_NIBBLES => FingerprintError::Md5 { given: short() },
                digits => FingerprintError::Length { given: short(), digits },
            });
        };
        match label.and_then(Label::kind) {
            Some(label) if label != print.kind() => {
                Err(FingerprintError::Label { given: short(), label, length: print.kind() })
            }
            _ => Ok(print),
        }
    }
}

/// Without what is copied along: blanks, quotes, and the invisible mark that Windows' certificate
/// dialogue puts before a thumbprint.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| {
        c.is_whitespace() || matches!(c, '"' | '\'' | '\u{200e}' | '\u{200f}' | '\u{feff}')
    })
}

fn shortened(text: &str) -> String {
    let mut chars = text.chars();
    let mut short: String = chars.by_ref().take(SHOWN_CHARS).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Md5,
    Sha1,
    Sha256,
    /// "Fingerprint" or "Thumbprint" and no more.
    Unnamed,
}

impl Label {
    fn kind(self) -> Option<&'static str> {
        match self {
            Self::Sha1 => Some("SHA-1"),
            Self::Sha256 => Some("SHA-256"),
            Self::Md5 | Self::Unnamed => None,
        }
    }
}

/// Takes `SHA1 Fingerprint=`, `sha-256:`, `Thumbprint:` and the like away. None of these words
/// could be hexadecimal.
fn split_label(text: &str) -> (Option<Label>, &str) {
    const ALGORITHMS: [(&str, Label); 7] = [
        ("sha-256", Label::Sha256),
        ("sha_256", Label::Sha256),
        ("sha256", Label::Sha256),
        ("sha-1", Label::Sha1),
        ("sha_1", Label::Sha1),
        ("sha1", Label::Sha1),
        ("md5", Label::Md5),
    ];
    let mut label = None;
    let mut rest = text;
    for (word, meaning) in ALGORITHMS {
        if let Some(after) = after_word(rest, word) {
            (label, rest) = (Some(meaning), after.trim_start());
            break;
        }
    }
    for word in ["fingerprint", "thumbprint"] {
        if let Some(after) = after_word(rest, word) {
            (label, rest) = (label.or(Some(Label::Unnamed)), after.trim_start());
            break;
        }
    }
    if label.is_some() {
        rest = trimmed(rest.strip_prefix(['=', ':']).unwrap_or(rest));
    }
    (label, rest)
}

fn after_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(word.len())?;
    head.eq_ignore_ascii_case(word).then_some(rest)
}

/// The digits of groups of equal and even length, with the same sign between all of them.
fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let separator = text.chars().find(|c| !c.is_ascii_hexdigit());
    let groups: Vec<&str> = match separator {
        None => vec![text],
        Some(sign @ (':' | '-' | '.' | ' ')) => text.split(sign).collect(),
        Some(_) => return None,
    };
    let length = groups.first()?.len();
    let even = groups.len() == 1 || (length > 0 && length.is_multiple_of(2));
    if !even || groups.iter().any(|g| g.len() != length) {
        return None;
    }
    let digit = |c: char| c.to_digit(16).and_then(|d| u8::try_from(d).ok());
    groups.concat().chars().map(digit).collect()
}

/// As OpenSSH writes fingerprints: base64, mostly without the padding. Only behind a label.
/// Returns hexadecimal digits, like [`hexadecimal`].
fn base64(text: &str) -> Option<Vec<u8>> {
    let body = text.trim_end_matches('=');
    let padded = format!("{body}{}", "=".repeat((4 - body.len() % 4) % 4));
    let bytes = openssl::base64::decode_block(&padded).ok()?;
    // The decoder is lenient about what it ignores; a fingerprint has one writing only.
    if openssl::base64::encode_block(&bytes) != padded {
        return None;
    }
    Some(bytes.iter().flat_map(|b| [b >> 4, b & 15]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHA1: &str = "A9:99:3E:36:47:06:81:6A:BA:3E:25:71:78:50:C2:6C:9C:D0:D8:9D";
    const SHA256: &str = "BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:B0:03:61:A3:96:17:7A:9C:B4:10:FF:61:F2:00:15:AD";

    fn parsed(text: &str) -> Result<String, FingerprintError> {
        text.parse::<Fingerprint>().map(|f| f.to_string())
    }

    #[test]
    fn digests_are_those_of_the_standard() {
        assert_eq!(Fingerprint::of_sha1(b"abc").to_string(), SHA1);
        assert_eq!(Fingerprint::of_sha256(b"abc").to_string(), SHA256);
        for text in [SHA1, SHA256] {
            let print: Fingerprint = text.parse().unwrap();
            assert!(print.matches(b"abc") && !print.matches(b"abd"));
        }
    }

    #[test]
    fn labels_and_writings_of_tools() {
        let plain = SHA1.replace(':', "");
        for text in [
            format!("SHA1 Fingerprint={SHA1}\n"),
            format!("sha1 Fingerprint={}", SHA1.to_lowercase()),
            format!("SHA-1: {SHA1}"),
            format!("sha1:{plain}"),
            format!("Thumbprint: {plain}"),
            format!("\u{200e}{}", plain.to_lowercase()),
            format!("\"{SHA1}\""),
            SHA1.replace(':', " "),
            SHA1.replace(':', "-"),
            "SHA1:qZk+NkcGgWq6PiVxeFDCbJzQ2J0".to_owned(),
        ] {
            assert_eq!(parsed(&text).as_deref(), Ok(SHA1), "{text}");
        }
        for text in [
            format!("sha256 Fingerprint={SHA256}"),
            format!("SHA256 Thumbprint: {SHA256}"),
            "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0".to_owned(),
            "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=".to_owned(),
        ] {
            assert_eq!(parsed(&text).as_deref(), Ok(SHA256), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |text: &str| parsed(text).unwrap_err().to_string();
        assert!(error(" \n").contains("empty"));
        assert!(error("SHA1 Fingerprint=").contains("empty"));
        assert!(error("900150983cd24fb0d6963f7d28e17f72").contains("MD5"));
        assert!(error("MD5 Fingerprint=90:01:50:98:3C:D2").contains("MD5"));
        assert!(error(&SHA1[..56]).contains("38 hexadecimal digits"));
        let text = error(&format!("SHA256:{SHA1}"));
        assert!(text.contains("called SHA-256") && text.contains("length of SHA-1"), "{text}");
        assert!(error(&format!("sha1={SHA256}")).contains("called SHA-1"));
        for rubbish in [
            "vcenter.example.com",
            "A9:99-3E",
            "A9::99",
            ":A9",
            "A9:9",
            "SHA1:not base64!",
            "Ä9:99",
        ] {
            assert!(error(rubbish).contains("not a fingerprint"), "{rubbish}");
        }
        // Without a label base64 could be anything.
        assert!(error("ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=").contains("not a"));
        // Bits that the padding hides.
        assert!(parsed("SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa1").is_err());
        let long = error(&"zz".repeat(500));
        assert!(long.contains('…') && long.len() < 250, "{long}");
    }

    proptest! {
        #[test]
        fn every_writing_of_a_digest_is_read(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 20),
                proptest::collection::vec(any::<u8>(), 32),
            ],
            separator in prop_oneof![Just(":"), Just("-"), Just("."), Just(" "), Just("")],
            upper in any::<bool>(),
            around in "[ \t\r\n]{0,3}",
        ) {
            let pairs: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
            let text = pairs.join(separator);
            let text = if upper { text.to_uppercase() } else { text };
            let print: Fingerprint = format!("{around}{text}{around}").parse().unwrap();
            prop_assert_eq!(print.bytes(), &bytes[..]);
            prop_assert_eq!(print.to_string().parse::<Fingerprint>().unwrap(), print);
        }

        #[test]
        fn other_lengths_are_refused(bytes in proptest::collection::vec(any::<u8>(), 1..64)) {
            prop_assume!(bytes.len() != 20 && bytes.len() != 32);
            let text: Vec<String> = bytes.iter().map(|b| format!("{b:02X}")).collect();
            prop_assert!(text.join(":").parse::<Fingerprint>().is_err());
        }

        #[test]
        fn nothing_makes_it_panic(text in "\\PC{0,80}") {
            let _ = text.parse::<Fingerprint>();
        }

        #[test]
        fn one_wrong_digit_is_one_too_many(der in proptest::collection::vec(any::<u8>(), 0..99), bit in 0..160usize) {
            let Fingerprint::Sha1(mut bytes) = Fingerprint::of_sha1(&der) else { unreachable!() };
            prop_assert!(Fingerprint::Sha1(bytes).matches(&der));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!Fingerprint::Sha1(bytes).matches(&der));
        }
    }
}
