//! Requests that wait for their replies, and what has arrived of them. No I/O.

use super::error::NbdError;
use super::wire::{Command, Descriptor};
use bytes::BytesMut;
use std::collections::HashMap;
use tokio::sync::oneshot;

/// What a request came to.
#[derive(Debug)]
pub enum Outcome {
    /// The buffer, filled.
    Data(BytesMut),
    /// Extents from the request's offset on.
    Extents(Vec<Descriptor>),
    /// Done.
    Done,
}

/// One request in flight.
#[derive(Debug)]
pub struct Entry {
    /// What was asked.
    pub command: Command,
    /// Where.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Where data goes; as long as the request.
    pub buffer: BytesMut,
    /// Extents so far.
    pub extents: Vec<Descriptor>,
    /// First error chunk.
    pub error: Option<(u32, String)>,
    covered: Vec<(u64, u64)>,
    chunks: u64,
    reply: oneshot::Sender<Result<Outcome, NbdError>>,
}

impl Entry {
    /// A request and the channel for its result.
    pub fn new(
        command: Command,
        offset: u64,
        length: u64,
        buffer: BytesMut,
    ) -> (Self, oneshot::Receiver<Result<Outcome, NbdError>>) {
        let (reply, receiver) = oneshot::channel();
        let entry = Self {
            command,
            offset,
            length,
            buffer,
            extents: Vec::new(),
            error: None,
            covered: Vec::new(),
            chunks: 0,
            reply,
        };
        (entry, receiver)
    }

    /// Counts a chunk: a server must not answer one request for ever.
    pub fn count_chunk(&mut self) -> Result<(), &'static str> {
        self.chunks += 1;
        let most = if self.command == Command::Read { 16 + self.length / 512 } else { 16 };
        if self.chunks > most {
            return Err("endless chunks in one reply");
        }
        Ok(())
    }

    /// Claims a part of the buffer for a data or hole chunk at `offset` of the export.
    pub fn claim(&mut self, offset: u64, length: u64) -> Result<(usize, usize), &'static str> {
        if self.command != Command::Read {
            return Err("data for a request that was no read");
        }
        let start = offset.checked_sub(self.offset).ok_or("data from before the request")?;
        let end = start.checked_add(length).ok_or("data beyond the request")?;
        if length == 0 || end > self.length {
            return Err("data beyond the request, or none");
        }
        // Sorted, and nearly always one or two ranges.
        let at = self.covered.partition_point(|(s, _)| *s < start);
        let after_previous = at == 0 || self.covered[at - 1].1 <= start;
        let before_next = self.covered.get(at).is_none_or(|(s, _)| *s >= end);
        if !after_previous || !before_next {
            return Err("the same data twice");
        }
        self.covered.insert(at, (start, end));
        let (Ok(start), Ok(end)) = (usize::try_from(start), usize::try_from(end)) else {
            return Err("data beyond the request");
        };
        Ok((start, end))
    }

    fn result(&mut self) -> Result<Outcome, NbdError> {
        if let Some((errno, message)) = self.error.take() {
            return Err(NbdError::Server {
                command: self.command,
                offset: self.offset,
                length: self.length,
                errno,
                message,
            });
        }
        match self.command {
            Command::Read => {
                let got: u64 = self.covered.iter().map(|(s, e)| e - s).sum();
                if got != self.length {
                    return Err(NbdError::Protocol(format!(
                        "{got} bytes instead of {} at {}",
                        self.length, self.offset
                    )));
                }
                Ok(Outcome::Data(std::mem::take(&mut self.buffer)))
            }
            Command::BlockStatus if self.extents.is_empty() => {
                Err(NbdError::Protocol("a block status reply without extents".into()))
            }
            Command::BlockStatus => Ok(Outcome::Extents(std::mem::take(&mut self.extents))),
            _ => Ok(Outcome::Done),
        }
    }

    /// Gives the result to whoever waits; nobody may wait any more.
    pub fn finish(mut self) {
        let result = self.result();
        let _ = self.reply.send(result);
    }

    /// Gives an error to whoever waits.
    pub fn fail(self, error: NbdError) {
        let _ = self.reply.send(Err(error));
    }
}

/// All requests of a connection.
#[derive(Debug, Default)]
pub struct Pending {
    entries: HashMap<u64, Entry>,
    next: u64,
    /// Why the connection ended.
    pub dead: Option<Fault>,
}

/// Why a connection ended; every waiting request gets it.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Bytes stopped coming.
    Lost(String),
    /// Bytes made no sense.
    Protocol(String),
    /// Silence.
    Stalled(u64),
}

impl Fault {
    /// The error for a request.
    pub fn error(&self, what: &str) -> NbdError {
        match self {
            Self::Lost(text) => NbdError::Lost(text.clone()),
            Self::Protocol(text) => NbdError::Protocol(text.clone()),
            Self::Stalled(seconds) => {
                NbdError::Stalled { what: what.to_owned(), seconds: *seconds }
            }
        }
    }
}

impl Pending {
    /// Adds a request; its cookie. Fails when the connection has ended.
    pub fn add(&mut self, entry: Entry) -> Result<u64, NbdError> {
        if let Some(fault) = &self.dead {
            return Err(fault.error(&entry.command.to_string()));
        }
        self.next = self.next.wrapping_add(1);
        self.entries.insert(self.next, entry);
        Ok(self.next)
    }

    /// Takes a request out, to work on it or to finish it.
    pub fn take(&mut self, cookie: u64) -> Option<Entry> {
        self.entries.remove(&cookie)
    }

    /// Puts a request back that has more chunks to come.
    pub fn put_back(&mut self, cookie: u64, entry: Entry) {
        if let Some(fault) = &self.dead {
            let error = fault.error(&entry.command.to_string());
            entry.fail(error);
        } else {
            self.entries.insert(cookie, entry);
        }
    }

    /// Ends the connection. Later calls change nothing.
    pub fn kill(&mut self, fault: &Fault) {
        if self.dead.is_none() {
            self.dead = Some(fault.clone());
        }
        for (_, entry) in self.entries.drain() {
            let error = fault.error(&entry.command.to_string());
            entry.fail(error);
        }
    }

    /// Whether something waits, and whether part of it may take long (extents of a whole disk,
    /// a flush of much data).
    pub fn waits(&self) -> (bool, bool) {
        let slow = self.entries.values().any(|e| {
            matches!(e.command, Command::BlockStatus | Command::Flush | Command::WriteZeroes)
        });
        (!self.entries.is_empty(), slow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(offset: u64, length: u64) -> (Entry, oneshot::Receiver<Result<Outcome, NbdError>>) {
        Entry::new(
            Command::Read,
            offset,
            length,
            BytesMut::zeroed(usize::try_from(length).unwrap()),
        )
    }

    #[test]
    fn data_must_lie_in_the_request_and_come_once() {
        let (mut e, _rx) = read(1000, 100);
        assert!(
            e.claim(999, 10).is_err() && e.claim(1095, 10).is_err() && e.claim(1000, 0).is_err()
        );
        assert_eq!(e.claim(1050, 50).unwrap(), (50, 100));
        assert!(e.claim(1049, 2).is_err() && e.claim(1099, 1).is_err());
        assert!(e.claim(u64::MAX, u64::MAX).is_err());
        assert_eq!(e.claim(1000, 50).unwrap(), (0, 50));
    }

    #[test]
    fn a_read_with_a_gap_is_an_error() {
        let (mut e, mut rx) = read(0, 100);
        e.claim(0, 40).unwrap();
        e.finish();
        assert!(
            matches!(rx.try_recv().unwrap(), Err(NbdError::Protocol(t)) if t.contains("40 bytes instead of 100"))
        );
    }

    #[test]
    fn a_dead_connection_takes_no_requests_and_fails_the_waiting() {
        let mut p = Pending::default();
        let (e, mut rx) = read(0, 10);
        p.add(e).unwrap();
        p.kill(&Fault::Stalled(5));
        assert!(matches!(rx.try_recv().unwrap(), Err(NbdError::Stalled { seconds: 5, .. })));
        assert!(p.add(read(0, 10).0).is_err());
    }

    proptest! {
        #[test]
        fn claimed_parts_never_overlap(parts in proptest::collection::vec((0_u64..200, 0_u64..60), 0..30)) {
            let (mut e, _rx) = read(20, 100);
            let mut seen = [false; 100];
            for (offset, length) in parts {
                if let Ok((a, b)) = e.claim(offset, length) {
                    for byte in &mut seen[a..b] {
                        prop_assert!(!*byte);
                        *byte = true;
                    }
                }
            }
        }
    }
}
