//! Lists a tar archive on a server: reads its headers in windows, wherever the listing wants to look.

use super::error::OvaError;
use super::tar::{self, Listing, TarError};
use super::url::Remote;
use crate::failure::Failure;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};
use url::Url;

/// Holds the description and the manifest in most OVAs, so that one request is enough for both.
pub const WINDOW: u64 = 64 << 10;
/// Each is a request; an appliance has a handful of files.
const MOST_WINDOWS: usize = 1000;

/// Lists the archive, of which the first window was read already.
pub async fn list(
    remote: &Remote,
    url: &Url,
    first: Vec<u8>,
    bytes: u64,
) -> Result<Listing, Failure> {
    let shown = || super::place::without_secrets(url);
    let mut known = BTreeMap::from([(0, first)]);
    while known.len() < MOST_WINDOWS {
        let wanted = Cell::new(None);
        let windows = Windows { known: &known, wanted: &wanted, bytes, at: 0 };
        let listed = tar::list(windows, bytes);
        let Some(window) = wanted.take() else {
            return listed.map_err(|source| OvaError::Tar { ova: shown(), source }.into());
        };
        let (content, _) = remote.read(url, window * WINDOW, WINDOW).await?;
        known.insert(window, content);
    }
    Err(OvaError::Tar { ova: shown(), source: TarError::Many }.into())
}

/// A file of which only some windows are known. Reading elsewhere fails, and notes which is wanted.
struct Windows<'a> {
    known: &'a BTreeMap<u64, Vec<u8>>,
    wanted: &'a Cell<Option<u64>>,
    bytes: u64,
    at: u64,
}

impl Read for Windows<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.bytes {
            return Ok(0);
        }
        let window = self.at / WINDOW;
        let Some(content) = self.known.get(&window) else {
            self.wanted.set(Some(window));
            return Err(io::Error::other("not read yet"));
        };
        let from = usize::try_from(self.at % WINDOW).map_err(io::Error::other)?;
        let mut rest = content.get(from..).unwrap_or_default();
        let read = rest.read(buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Windows<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::tar::{Builder, Header};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn windows_show_what_the_whole_shows(sizes in proptest::collection::vec(0..300_000_usize, 1..6)) {
            let mut builder = Builder::new(Vec::new());
            for (i, size) in sizes.iter().enumerate() {
                let mut header = Header::new_gnu();
                header.set_size(*size as u64);
                builder.append_data(&mut header, format!("f{i}"), &vec![1; *size][..]).unwrap();
            }
            let all = builder.into_inner().unwrap();
            let bytes = all.len() as u64;
            let mut known = BTreeMap::new();
            let listed = loop {
                let wanted = Cell::new(None);
                let listed = tar::list(Windows { known: &known, wanted: &wanted, bytes, at: 0 }, bytes);
                let Some(window) = wanted.take() else { break listed.unwrap() };
                let from = usize::try_from(window * WINDOW).unwrap();
                let to = (from + usize::try_from(WINDOW).unwrap()).min(all.len());
                prop_assert!(known.insert(window, all[from..to].to_vec()).is_none());
            };
            prop_assert_eq!(listed, tar::list(io::Cursor::new(&all), bytes).unwrap());
            prop_assert!(known.len() <= 2 * sizes.len() + 2);
        }
    }
}
