//! The manifest of an OVA (`.mf`): one checksum a line, `SHA256(web.ovf)= 0123…`. Pure.

use sha1::{Digest as _, Sha1};
use sha2::{Sha256, Sha512};
use std::fmt::{self, Write as _};
use thiserror::Error;

/// A manifest has a line for each file.
pub const MOST_BYTES: u64 = 4 << 20;

/// How a checksum is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// How.
    pub algorithm: Algorithm,
    /// Of which file; as written.
    pub file: String,
    /// Lower-case hexadecimal.
    pub digest: String,
    /// Written so that virt-v2v understands it.
    pub known_to_virt_v2v: bool,
}

/// What is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ManifestError {
    /// Not text.
    #[error("it is not UTF-8")]
    Text,
    /// Not a checksum.
    #[error("line {number} is no checksum (such as SHA256(disk1.vmdk)= 0123...): {line:?}")]
    Line {
        /// Counted from 1.
        number: usize,
        /// Its beginning.
        line: String,
    },
    /// One that we do not know.
    #[error(
        "line {number} has a checksum of kind {name:?}; SHA1, SHA256 and SHA512 can be verified"
    )]
    Algorithm {
        /// Counted from 1.
        number: usize,
        /// As written.
        name: String,
    },
    /// Too short or too long.
    #[error("line {number} has {found} hexadecimal digits where {algorithm} has {wanted}")]
    Length {
        /// Counted from 1.
        number: usize,
        /// Which.
        algorithm: Algorithm,
        /// Digits there.
        found: usize,
        /// Digits expected.
        wanted: usize,
    },
}

impl Algorithm {
    /// By the names of the standard, and those of OpenSSL 3.
    fn by_name(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "SHA1" | "SHA-1" => Some(Self::Sha1),
            "SHA256" | "SHA-256" | "SHA2-256" => Some(Self::Sha256),
            "SHA512" | "SHA-512" | "SHA2-512" => Some(Self::Sha512),
            _ => None,
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::Sha1 => 40,
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    /// Begins a checksum.
    pub fn hasher(self) -> Hasher {
        match self {
            Self::Sha1 => Hasher::Sha1(Sha1::new()),
            Self::Sha256 => Hasher::Sha256(Sha256::new()),
            Self::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
            Self::Sha512 => "SHA512",
        })
    }
}

/// A checksum that is being made.
#[allow(missing_docs, missing_debug_implementations)]
pub enum Hasher {
    Sha1(Sha1),
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// More bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(h) => h.update(bytes),
            Self::Sha256(h) => h.update(bytes),
            Self::Sha512(h) => h.update(bytes),
        }
    }

    /// Lower-case hexadecimal.
    pub fn finish(self) -> String {
        let bytes: Vec<u8> = match self {
            Self::Sha1(h) => h.finalize().to_vec(),
            Self::Sha256(h) => h.finalize().to_vec(),
            Self::Sha512(h) => h.finalize().to_vec(),
        };
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

/// Reads a manifest; empty lines are nothing.
pub fn parse(bytes: &[u8]) -> Result<Vec<Entry>, ManifestError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ManifestError::Text)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(at, line)| entry(at + 1, line)).collect()
}

fn entry(number: usize, line: &str) -> Result<Entry, ManifestError> {
    let broken = || ManifestError::Line { number, line: line.chars().take(80).collect() };
    let (name, rest) = line.split_once('(').ok_or_else(broken)?;
    // The file's name may have a bracket in it.
    let (file, digest) = rest.rsplit_once(')').ok_or_else(broken)?;
    let digest = digest.trim_start().strip_prefix('=').ok_or_else(broken)?.trim();
    if file.is_empty() || digest.is_empty() || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(broken());
    }
    let algorithm = Algorithm::by_name(name.trim());
    let algorithm = algorithm.ok_or_else(|| ManifestError::Algorithm {
        number,
        name: name.chars().take(40).collect(),
    })?;
    let (found, wanted) = (digest.len(), algorithm.digits());
    if found != wanted {
        return Err(ManifestError::Length { number, algorithm, found, wanted });
    }
    let as_virt_v2v_reads = format!("{name}({file})= {digest}");
    let known = matches!(name, "SHA1" | "SHA256") && line == as_virt_v2v_reads;
    Ok(Entry {
        algorithm,
        file: file.to_owned(),
        digest: digest.to_ascii_lowercase(),
        known_to_virt_v2v: known,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHA1: &str = "DA39A3EE5E6B4B0D3255BFEF95601890AFD80709";

    #[test]
    fn lines_of_several_tools() {
        let sha512 = "0".repeat(128);
        let text = format!(
            "SHA1(web.ovf)= {SHA1}\r\n\nSHA2-512(d (1).vmdk)= {sha512}\nSHA1 (x) = {SHA1}\nSHA256(y)= {}\n",
            "a".repeat(64)
        );
        let entries = parse(text.as_bytes()).unwrap();
        let files: Vec<&str> = entries.iter().map(|e| e.file.as_str()).collect();
        assert_eq!(files, ["web.ovf", "d (1).vmdk", "x", "y"]);
        let known: Vec<bool> = entries.iter().map(|e| e.known_to_virt_v2v).collect();
        assert_eq!(known, [true, false, false, true]);
        assert_eq!(entries[0].digest, Algorithm::Sha1.hasher().finish());
        assert_eq!(parse(b"").unwrap(), []);
    }

    #[test]
    fn what_is_wrong_names_the_line() {
        for (text, part) in [
            ("\nhello", "line 2"),
            ("SHA1(x) 00", "line 1"),
            ("SHA1(x)= zz", "line 1"),
            ("SHA1()= 00", "line 1"),
            ("MD5(x)= 00", "\"MD5\""),
            ("SHA1(x)= 00", "2 hexadecimal digits where SHA1 has 40"),
        ] {
            let e = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(e.contains(part), "{e}");
        }
        assert_eq!(parse(b"\xff"), Err(ManifestError::Text));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(file in "[^\\p{C}]{1,30}", bytes in proptest::collection::vec(any::<u8>(), 0..99)) {
            let mut hasher = Algorithm::Sha256.hasher();
            hasher.update(&bytes);
            let digest = hasher.finish();
            let entries = parse(format!("SHA256({file})= {digest}\n").as_bytes()).unwrap();
            prop_assert_eq!((&entries[0].file, &entries[0].digest), (&file, &digest));
        }

        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "(SHA1|MD5|\\(|\\)|=| |0|\n){0,20}") {
            let _ = (parse(&bytes), parse(text.as_bytes()));
        }
    }
}
