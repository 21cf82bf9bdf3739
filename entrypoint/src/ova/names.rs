//! Names of files in an OVA: parsed once, so that none of them can lead out of it. Pure.

use std::fmt;
use thiserror::Error;

/// Deeper or longer names are an attack, not an appliance.
const MOST_BYTES: usize = 1024;

/// A path below the OVA's top: relative, without `.` and `..`, printable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing is left of it.
    #[error("an empty name")]
    Empty,
    /// From the root.
    #[error("the absolute name {0:?}")]
    Absolute(String),
    /// Out of the OVA.
    #[error("the name {0:?}, which leads out of the OVA")]
    Outside(String),
    /// Not text, not printable, or far too long.
    #[error("the name {0:?}, which is not printable UTF-8 of at most {MOST_BYTES} bytes")]
    Unreadable(String),
    /// A file elsewhere.
    #[error("the address {0:?}: only files in the OVA itself are read")]
    Address(String),
}

impl Name {
    /// The name of a member of an archive, or of a file below a folder.
    pub fn parse(raw: &[u8]) -> Result<Self, NameError> {
        Self::below(None, raw)
    }

    /// A reference in a file of this name: relative to its folder.
    pub fn sibling(&self, reference: &str) -> Result<Self, NameError> {
        // As in an address, a colon before the first slash ends a scheme.
        let scheme = reference.split('/').next().and_then(|first| first.split_once(':'));
        if scheme.is_some_and(|(s, _)| s.bytes().all(|b| b.is_ascii_alphanumeric())) {
            return Err(NameError::Address(reference.to_owned()));
        }
        Self::below(self.folder(), reference.as_bytes())
    }

    fn below(folder: Option<&str>, raw: &[u8]) -> Result<Self, NameError> {
        let shown = || String::from_utf8_lossy(&raw[..raw.len().min(200)]).into_owned();
        let text = std::str::from_utf8(raw).map_err(|_| NameError::Unreadable(shown()))?;
        if raw.len() > MOST_BYTES || text.chars().any(char::is_control) {
            return Err(NameError::Unreadable(shown()));
        }
        if text.starts_with('/') {
            return Err(NameError::Absolute(text.to_owned()));
        }
        let mut parts: Vec<&str> = folder.map(|f| f.split('/').collect()).unwrap_or_default();
        for part in text.split('/') {
            match part {
                "" | "." => (),
                // A reference may go up within the OVA; a member's name has no reason to.
                ".." => {
                    if folder.is_none() || parts.pop().is_none() {
                        return Err(NameError::Outside(text.to_owned()));
                    }
                }
                part => parts.push(part),
            }
        }
        if text.is_empty() || parts.is_empty() {
            return Err(NameError::Empty);
        }
        Ok(Self(parts.join("/")))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder that it is in.
    pub fn folder(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(folder, _)| folder)
    }

    /// Whether it ends like this, in any case.
    pub fn has_extension(&self, extension: &str) -> bool {
        let found = self.0.rsplit('/').next().and_then(|file| file.rsplit_once('.'));
        found.is_some_and(|(_, e)| e.eq_ignore_ascii_case(extension)) && !self.is_shadow()
    }

    /// macOS packs the attributes of `web.ovf` as `._web.ovf`.
    fn is_shadow(&self) -> bool {
        self.0.rsplit('/').next().is_some_and(|file| file.starts_with("._"))
    }

    /// The same name with `text` behind it.
    #[must_use]
    pub fn with_suffix(&self, text: &str) -> Self {
        Self(format!("{}{text}", self.0))
    }

    /// Whether every tool that virt-v2v hands it to (a shell, tar, its own list of tar's output) takes it for what it is.
    pub fn is_plain(&self) -> bool {
        let harmless = |c: char| c.is_ascii_alphanumeric() || "._-+=@/".contains(c);
        !self.0.starts_with('-') && self.0.chars().all(harmless) && !self.is_shadow()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Component, Path};

    #[test]
    fn names_of_members() {
        for (raw, name) in [
            ("web.ovf", "web.ovf"),
            ("./web.ovf", "web.ovf"),
            ("a//b/./c", "a/b/c"),
            ("Disk 1 ü.vmdk", "Disk 1 ü.vmdk"),
        ] {
            assert_eq!(Name::parse(raw.as_bytes()).unwrap().as_str(), name);
        }
        for raw in ["", ".", "./", "/etc/passwd", "../x", "a/../b", "a/..", "a\nb", "a\0b"] {
            assert!(Name::parse(raw.as_bytes()).is_err(), "{raw:?}");
        }
        assert!(Name::parse(b"\xff.ovf").is_err() && Name::parse(&[b'a'; 2000]).is_err());
    }

    #[test]
    fn what_macos_adds_is_no_description() {
        let name = |raw: &str| Name::parse(raw.as_bytes()).unwrap();
        assert!(name("sub/web.OVF").has_extension("ovf"));
        let shadow = name("__MACOSX/._web.ovf");
        assert!(!shadow.has_extension("ovf") && !shadow.is_plain());
    }

    #[test]
    fn references_stay_in_the_ova() {
        let ovf = Name::parse(b"sub/web.ovf").unwrap();
        assert_eq!(ovf.sibling("d.vmdk").unwrap().as_str(), "sub/d.vmdk");
        assert_eq!(ovf.sibling("../d.vmdk").unwrap().as_str(), "d.vmdk");
        assert_eq!(ovf.sibling("../../d.vmdk"), Err(NameError::Outside("../../d.vmdk".into())));
        for bad in ["/dev/sda", "http://x/d.vmdk", "file:/etc/passwd", "", "..", "json:{}"] {
            assert!(ovf.sibling(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn plain_names_are_safe_on_a_command_line() {
        let plain = |raw: &str| Name::parse(raw.as_bytes()).unwrap().is_plain();
        assert!(plain("sub/web-disk1.vmdk"));
        for bad in ["--checkpoint-action=exec=sh.ovf", "a b.ovf", "a'b.mf", "é.ovf", "a\\b", "*.mf"]
        {
            assert!(!plain(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_name_leads_out(raw in proptest::collection::vec(any::<u8>(), 0..40), reference in "[./a-c:]{0,12}") {
            let inside = |name: &Name| Path::new(name.as_str()).components().all(|c| matches!(c, Component::Normal(_)));
            if let Ok(name) = Name::parse(&raw) {
                prop_assert!(inside(&name));
                if let Ok(other) = name.sibling(&reference) {
                    prop_assert!(inside(&other));
                }
            }
        }
    }
}
