//! The journal of a copy: which ranges of the target are durable.
//!
//! A text file: one JSON line that names source, target and size, then one line `START END CHECK` for
//! each durable range. Lines are appended after the target was flushed, never before; a torn or
//! damaged line ends the journal. It is replaced as a whole (written aside, renamed) or appended to.

use crate::ranges::RangeSet;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

const VERSION: u32 = 1;
/// A journal longer than this is not read: it would be none of ours.
const MAX_LENGTH: u64 = 256 << 20;

/// What a journal belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    version: u32,
    /// The source's name and what tells its versions apart.
    pub source: String,
    /// The target.
    pub target: String,
    /// Bytes of the disk.
    pub size: u64,
}

impl Identity {
    /// An identity of the present version.
    pub fn new(source: String, target: String, size: u64) -> Self {
        Self { version: VERSION, source, target, size }
    }
}

/// What a journal says for this copy.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// There is none.
    Nothing,
    /// It belongs to something else; why.
    Void(String),
    /// These ranges are durable.
    Durable(RangeSet),
}

/// A journal to write to. The file is made with the first record: a small copy needs none.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    identity: Identity,
    file: Option<File>,
}

/// Reads a journal; one that cannot be used is void, not an error.
pub fn find(path: &Path, identity: &Identity) -> io::Result<Found> {
    let mut text = Vec::new();
    match File::open(path) {
        Ok(file) => {
            if file.metadata()?.len() > MAX_LENGTH {
                return Ok(Found::Void("it is no journal of a copy".into()));
            }
            file.take(MAX_LENGTH).read_to_end(&mut text)?;
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(e) => return Err(e),
    }
    Ok(parse(&text, identity))
}

/// Parses a journal's bytes.
pub fn parse(text: &[u8], identity: &Identity) -> Found {
    let mut lines = text.split_inclusive(|b| *b == b'\n');
    let head = lines.next().and_then(|l| serde_json::from_slice::<Identity>(l).ok());
    let Some(head) = head else { return Found::Void("it is no journal of a copy".into()) };
    if head.version != VERSION {
        return Found::Void(format!("it has the format {}, this is {VERSION}", head.version));
    }
    for (what, was, is) in
        [("source", &head.source, &identity.source), ("target", &head.target, &identity.target)]
    {
        if was != is {
            return Found::Void(format!("the {what} was {was:?} and is {is:?}"));
        }
    }
    if head.size != identity.size {
        return Found::Void(format!(
            "the source had {} bytes and has {}",
            head.size, identity.size
        ));
    }
    let mut durable = RangeSet::default();
    for line in lines {
        match parse_range(line).filter(|r| r.end <= identity.size) {
            Some(range) => durable.add(range),
            None => break,
        }
    }
    Found::Durable(durable)
}

fn parse_range(line: &[u8]) -> Option<Range<u64>> {
    let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (range, check) = line.rsplit_once(' ')?;
    if u64::from_str_radix(check, 16).ok()? != xxh3_64(range.as_bytes()) {
        return None;
    }
    let (start, end) = range.split_once(' ')?;
    let (start, end) = (start.parse().ok()?, end.parse().ok()?);
    (start < end).then_some(start..end)
}

fn lines(ranges: &RangeSet) -> String {
    let mut out = String::new();
    for range in ranges.iter() {
        let text = format!("{} {}", range.start, range.end);
        let check = xxh3_64(text.as_bytes());
        let _ = writeln!(out, "{text} {check:016x}");
    }
    out
}

impl Journal {
    /// A journal of a copy that begins; there must be no other at this place.
    pub fn fresh(path: &Path, identity: Identity) -> Self {
        Self { path: path.to_owned(), identity, file: None }
    }

    /// Begins a journal in place of any other, with what is durable already.
    pub fn start(path: &Path, identity: Identity, durable: &RangeSet) -> io::Result<Self> {
        let file = Some(create(path, &identity, durable)?);
        Ok(Self { path: path.to_owned(), identity, file })
    }

    /// Whether something was recorded.
    pub fn exists(&self) -> bool {
        self.file.is_some()
    }

    /// Records ranges; the caller has flushed them before. The record itself is not flushed: it may
    /// be lost with the power, and then the ranges are copied again, which is safe and cheaper than
    /// a second flush each time. A killed process loses nothing.
    pub fn append(&mut self, ranges: &RangeSet) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            return file.write_all(lines(ranges).as_bytes());
        }
        self.file = Some(create(&self.path, &self.identity, ranges)?);
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes a journal, durably, and opens it.
fn create(path: &Path, identity: &Identity, durable: &RangeSet) -> io::Result<File> {
    let aside = with_suffix(path, ".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&aside)?;
    let head = serde_json::to_string(identity).map_err(io::Error::other)?;
    file.write_all(format!("{head}\n{}", lines(durable)).as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    sync_folder(path)?;
    OpenOptions::new().append(true).open(path)
}

/// Removes a journal, durably; one that is not there is no error.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => sync_folder(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// The path with something appended to its name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn identity() -> Identity {
        Identity::new("file 1:2".into(), "device 3".into(), 1000)
    }

    fn set(ranges: &[(u64, u64)]) -> RangeSet {
        let mut set = RangeSet::default();
        for (start, end) in ranges {
            set.add(*start..*end);
        }
        set
    }

    #[test]
    fn what_was_recorded_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        assert_eq!(find(&path, &identity()).unwrap(), Found::Nothing);
        let mut j = Journal::start(&path, identity(), &set(&[(0, 10)])).unwrap();
        j.append(&set(&[(10, 20), (50, 60)])).unwrap();
        assert_eq!(find(&path, &identity()).unwrap(), Found::Durable(set(&[(0, 20), (50, 60)])));
        remove(&path).unwrap();
        remove(&path).unwrap();
        let mut j = Journal::fresh(&path, identity());
        assert!(!j.exists() && !path.exists());
        j.append(&set(&[(5, 6)])).unwrap();
        j.append(&set(&[(7, 9)])).unwrap();
        assert_eq!(find(&path, &identity()).unwrap(), Found::Durable(set(&[(5, 6), (7, 9)])));
    }

    #[test]
    fn another_source_target_or_size_voids_it_and_is_named() {
        let text = format!("{}\n", serde_json::to_string(&identity()).unwrap());
        for (other, word) in [
            (Identity { source: "file 9".into(), ..identity() }, "source"),
            (Identity { target: "file 9".into(), ..identity() }, "target"),
            (Identity { size: 999, ..identity() }, "999"),
        ] {
            assert!(
                matches!(parse(text.as_bytes(), &other), Found::Void(why) if why.contains(word))
            );
        }
        assert!(matches!(parse(b"hello\n", &identity()), Found::Void(_)));
    }

    #[test]
    fn a_torn_or_damaged_line_ends_it() {
        let head = serde_json::to_string(&identity()).unwrap();
        let good = lines(&set(&[(0, 10), (20, 30)]));
        let torn = format!("{head}\n{}", &good[..good.len() - 1]);
        assert_eq!(parse(torn.as_bytes(), &identity()), Found::Durable(set(&[(0, 10)])));
        let damaged = format!("{head}\n{}", good.replace("0 10 ", "0 11 "));
        assert_eq!(parse(damaged.as_bytes(), &identity()), Found::Durable(set(&[])));
        let beyond = format!("{head}\n{}", lines(&set(&[(990, 1001)])));
        assert_eq!(parse(beyond.as_bytes(), &identity()), Found::Durable(set(&[])));
    }

    proptest! {
        #[test]
        fn cutting_it_anywhere_never_adds_a_range(cut in 0_usize..200, ranges in proptest::collection::vec((0_u64..900, 1_u64..100), 1..8)) {
            let all = set(&ranges.iter().map(|(s, l)| (*s, s + l)).collect::<Vec<_>>());
            let text = format!("{}\n{}", serde_json::to_string(&identity()).unwrap(), lines(&all));
            let text = &text.as_bytes()[..text.len().saturating_sub(cut)];
            if let Found::Durable(found) = parse(text, &identity()) {
                prop_assert!(found.iter().all(|r| all.contains(&r)));
            }
        }
    }
}
