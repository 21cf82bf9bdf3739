//! What tells one content of a source disk from another, as text for its journal.
//!
//! A disk at a vCenter or an ESXi host has the date or the tag of its file there, which the server tells in answer to a
//! question for the headers. A server that tells neither gives no identity: then nothing of an earlier try is believed.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a server said of a file without giving it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// HTTP's; 0 where there was no answer.
    pub status: u16,
    length: Option<u64>,
    tag: Option<String>,
    modified: Option<String>,
}

impl Head {
    /// Reads what `curl --head` printed. Of several answers (a proxy's first) the last one counts.
    pub fn parse(text: &str) -> Self {
        let mut head = Self::default();
        for line in text.lines().map(str::trim_end) {
            if let Some(rest) = line.strip_prefix("HTTP/") {
                let status = rest.split_whitespace().nth(1).and_then(|s| s.parse().ok());
                head = Self { status: status.unwrap_or(0), ..Self::default() };
                continue;
            }
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                _ if value.is_empty() => {}
                "content-length" => head.length = value.parse().ok(),
                // A weak one may stay the same for another content.
                "etag" if value.starts_with('"') => head.tag = Some(value.to_owned()),
                "last-modified" => head.modified = Some(value.to_owned()),
                _ => {}
            }
        }
        head
    }

    /// The version of the file; `None` where the server does not tell it.
    pub fn version(&self) -> Option<String> {
        let length = self.length.filter(|_| self.status == 200)?;
        if self.tag.is_none() && self.modified.is_none() {
            return None;
        }
        let mut text = format!("{length} bytes");
        for (what, value) in [("tag", &self.tag), ("modified", &self.modified)] {
            if let Some(value) = value {
                // Writing to a String does not fail.
                let _ = write!(text, ", {what} {value}");
            }
        }
        Some(text)
    }
}

/// Of a disk at a server.
pub fn of_vsphere(server: &str, uuid: &str, disk: &str, version: &str) -> String {
    format!("VM {} at {server}, {disk}, {version}", uuid.to_ascii_lowercase())
}

/// Of an image made of these files; `None` for one that does not show its changes (a device).
pub fn of_files(files: &[PathBuf]) -> io::Result<Option<String>> {
    let mut text = String::new();
    for file in files {
        match of_file(file)? {
            Some(one) if text.is_empty() => text = one,
            // Writing to a String does not fail.
            Some(one) => write!(text, "; {one}").unwrap_or_default(),
            None => return Ok(None),
        }
    }
    Ok(Some(text).filter(|t| !t.is_empty()))
}

/// Without the number of its file system, which changes when that is mounted anew.
fn of_file(file: &Path) -> io::Result<Option<String>> {
    let m = fs::metadata(file)?;
    if !m.is_file() {
        return Ok(None);
    }
    let (path, ino, size) = (file.display(), m.ino(), m.len());
    let (at, nanos) = (m.mtime(), m.mtime_nsec());
    Ok(Some(format!("file {path} ({ino}) of {size}, changed {at}.{nanos:09}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(lines: &str) -> Head {
        Head::parse(&lines.replace('\n', "\r\n"))
    }

    const ANSWER: &str = "HTTP/1.1 200 OK\nAccept-Ranges: bytes\nContent-Length: 1073741824\n\
        Last-Modified: Mon, 30 Nov 2026 10:00:00 GMT\nSet-Cookie: vmware_soap_session=\"x\"; Path=/\n\n";

    #[test]
    fn the_date_or_the_tag_and_the_length_are_the_version() {
        let version = head(ANSWER).version().unwrap();
        assert_eq!(version, "1073741824 bytes, modified Mon, 30 Nov 2026 10:00:00 GMT");
        for (from, to) in [("10:00", "10:01"), ("1824", "1825")] {
            assert_ne!(head(&ANSWER.replace(from, to)).version().unwrap(), version);
        }
        let tagged = head(&ANSWER.replace("Last-Modified: Mon", "ETag: \"a\"\nlast-modified: Mon"));
        assert!(tagged.version().unwrap().contains("tag \"a\", modified Mon"));
    }

    #[test]
    fn a_server_that_does_not_tell_gives_no_version() {
        for (from, to) in [
            ("Last-Modified: ", "X: "),
            ("Last-Modified: Mon, 30 Nov 2026 10:00:00 GMT", "Last-Modified: "),
            ("Last-Modified: Mon", "ETag: W/\"a\"\nX: Mon"),
            ("Content-Length: 1073741824", "Transfer-Encoding: chunked"),
            ("200 OK", "401 Unauthorized"),
        ] {
            assert_eq!(head(&ANSWER.replace(from, to)).version(), None, "{from} -> {to}");
        }
        assert_eq!(head("").version(), None);
        // Of a proxy's answer nothing is left.
        let last = head(&format!("{ANSWER}HTTP/1.1 404 Not Found\nContent-Length: 9\n\n"));
        assert_eq!((last.status, last.version()), (404, None));
    }

    #[test]
    fn every_part_makes_another_identity() {
        let one = of_vsphere("vc:443", "42-A", "[ds] a.vmdk", "1 bytes, tag \"x\"");
        assert_eq!(one, of_vsphere("vc:443", "42-a", "[ds] a.vmdk", "1 bytes, tag \"x\""));
        for other in [
            of_vsphere("vd:443", "42-A", "[ds] a.vmdk", "1 bytes, tag \"x\""),
            of_vsphere("vc:443", "42-B", "[ds] a.vmdk", "1 bytes, tag \"x\""),
            of_vsphere("vc:443", "42-A", "[ds] b.vmdk", "1 bytes, tag \"x\""),
            of_vsphere("vc:443", "42-A", "[ds] a.vmdk", "1 bytes, tag \"y\""),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn an_image_is_all_its_files_and_a_device_shows_no_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "1").unwrap();
        fs::write(&b, "2").unwrap();
        let both = [a.clone(), b.clone()];
        let before = of_files(&both).unwrap().unwrap();
        assert_eq!(of_files(&both).unwrap().unwrap(), before);
        let later = std::time::SystemTime::UNIX_EPOCH;
        fs::File::options().write(true).open(&b).unwrap().set_modified(later).unwrap();
        assert_ne!(of_files(&both).unwrap().unwrap(), before);
        assert_eq!(of_files(&[a, "/dev/null".into()]).unwrap(), None);
        assert_eq!(of_files(&[]).unwrap(), None);
        assert!(of_files(&["/nonexistent".into()]).is_err());
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(text in "(HTTP/[0-9. ]{0,8}|[A-Za-z-]{0,12}: ?|\\PC{0,9}|\r?\n){0,30}") {
            let head = Head::parse(&text);
            prop_assert!(head.version().is_none() || head.status == 200);
        }
    }
}
