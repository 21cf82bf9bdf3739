//! A disk in memory, of any size, and a correct server of it.

use crate::fake::{Peer, Server};
use crate::frames::{
    BLOCK_STATUS, BLOCK_STATUS_EXT, DATA, DISCONNECT, DONE, FLUSH, HOLE, MORE, NONE, READ, Request,
    STATUS, WRITE, ZERO, announce_extended, chunk, data_payload, done, hole_payload, simple,
    status_payload, wide_status_payload,
};
use crate::shake::{Age, Offer, shake};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

pub const PAGE: u64 = 4096;

/// Pages that are not there are zero.
#[derive(Debug, Clone)]
pub struct Disk {
    pages: Arc<Mutex<BTreeMap<u64, Vec<u8>>>>,
    size: u64,
    /// Length and flags of each zero request so far.
    zeroed: Arc<Mutex<Vec<(u64, u16)>>>,
}

/// A run of zeroes or of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub offset: u64,
    pub length: u64,
    pub zero: bool,
}

impl Disk {
    pub fn new(size: u64) -> Self {
        Self { pages: Arc::default(), size, zeroed: Arc::default() }
    }

    /// Every other group of pages has data.
    pub fn striped(size: u64, group: u64) -> Self {
        let disk = Self::new(size);
        for page in (0..size / PAGE).filter(|page| (page / group).is_multiple_of(2)) {
            disk.write(page * PAGE, &pattern(page * PAGE, PAGE));
        }
        disk
    }

    pub fn zeroed(&self) -> Vec<(u64, u16)> {
        self.zeroed.lock().unwrap().clone()
    }

    pub fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        let pages = self.pages.lock().unwrap();
        let byte = |at: u64| pages.get(&(at / PAGE)).map_or(0, |p| p[index(at)]);
        (offset..offset + length).map(byte).collect()
    }

    pub fn write(&self, offset: u64, data: &[u8]) {
        let mut pages = self.pages.lock().unwrap();
        for (at, byte) in (offset..).zip(data) {
            pages.entry(at / PAGE).or_insert_with(|| vec![0; 4096])[index(at)] = *byte;
        }
    }

    pub fn zero(&self, offset: u64, length: u64) {
        assert!(offset.is_multiple_of(PAGE) && length.is_multiple_of(PAGE));
        let gone = offset / PAGE..(offset + length) / PAGE;
        self.pages.lock().unwrap().retain(|page, _| !gone.contains(page));
    }

    /// The range in runs; a neighbour is of the other kind.
    pub fn runs(&self, offset: u64, length: u64) -> Vec<Run> {
        let (pages, end) = (self.pages.lock().unwrap(), offset + length);
        let mut runs: Vec<Run> = Vec::new();
        let mut at = offset;
        while at < end {
            let zero = !pages.contains_key(&(at / PAGE));
            let next = if zero {
                pages.range(at / PAGE..).next().map_or(end, |(page, _)| page * PAGE).min(end)
            } else {
                ((at / PAGE + 1) * PAGE).min(end)
            };
            match runs.last_mut() {
                Some(last) if last.zero == zero => last.length += next - at,
                _ => runs.push(Run { offset: at, length: next - at, zero }),
            }
            at = next;
        }
        runs
    }

    /// Answers a request as a correct server of this age does.
    pub fn answer(&self, age: Age, request: &Request) -> Vec<u8> {
        assert!(request.offset + request.length <= self.size);
        match request.command {
            WRITE => self.write(request.offset, &request.payload),
            ZERO => {
                self.zeroed.lock().unwrap().push((request.length, request.flags));
                self.zero(request.offset, request.length);
            }
            STATUS => return self.status(age, request),
            READ if age < Age::Structured => {
                let data = self.read(request.offset, request.length);
                return [simple(request.cookie, 0), data].concat();
            }
            READ => {
                let chunks = self.runs(request.offset, request.length);
                let chunks = chunks.iter().map(|run| self.piece(age, request, *run));
                return [chunks.collect::<Vec<_>>().concat(), end(age, request)].concat();
            }
            other => assert_eq!(other, FLUSH),
        }
        if age < Age::Extended { simple(request.cookie, 0) } else { end(age, request) }
    }

    /// A part of a read, as a chunk.
    pub fn piece(&self, age: Age, request: &Request, run: Run) -> Vec<u8> {
        let (kind, payload) = if run.zero {
            (HOLE, hole_payload(run.offset, u32::try_from(run.length).unwrap()))
        } else {
            (DATA, data_payload(run.offset, &self.read(run.offset, run.length)))
        };
        frame(age, request, MORE, kind, &payload)
    }

    fn status(&self, age: Age, request: &Request) -> Vec<u8> {
        let runs = self.runs(request.offset, request.length);
        let flags = |run: &Run| if run.zero { 3 } else { 0 };
        if age == Age::Extended {
            let extents: Vec<_> = runs.iter().map(|r| (r.length, flags(r))).collect();
            let count = u32::try_from(extents.len()).unwrap();
            let payload = wide_status_payload(7, count, &extents);
            return frame(age, request, DONE, BLOCK_STATUS_EXT, &payload);
        }
        let narrow = |r: &Run| (u32::try_from(r.length).unwrap(), u32::from(r.zero) * 3);
        let payload = status_payload(7, &runs.iter().map(narrow).collect::<Vec<_>>());
        frame(age, request, DONE, BLOCK_STATUS, &payload)
    }
}

/// Bytes that tell their place, never zero.
pub fn pattern(offset: u64, length: u64) -> Vec<u8> {
    let byte = |at: u64| u8::try_from((at * 7 + at / 251) % 255 + 1).unwrap();
    (offset..offset + length).map(byte).collect()
}

fn index(at: u64) -> usize {
    usize::try_from(at % PAGE).unwrap()
}

/// A chunk of a structured or extended reply.
pub fn frame(age: Age, request: &Request, flags: u16, kind: u16, payload: &[u8]) -> Vec<u8> {
    if age == Age::Extended {
        let head = announce_extended(request, flags, kind, payload.len() as u64);
        return [head, payload.to_vec()].concat();
    }
    chunk(request.cookie, flags, kind, payload)
}

fn end(age: Age, request: &Request) -> Vec<u8> {
    if age == Age::Extended { frame(age, request, DONE, NONE, &[]) } else { done(request.cookie) }
}

/// Serves a connection until the client leaves, or for so many requests.
pub async fn serve(peer: &mut Peer, offer: &Offer, disk: &Disk, requests: usize) -> io::Result<()> {
    shake(peer, offer).await?;
    for _ in 0..requests {
        let request = peer.request(offer.age == Age::Extended).await?;
        if request.command == DISCONNECT {
            break;
        }
        peer.send(&disk.answer(offer.age, &request)).await?;
    }
    Ok(())
}

/// A correct server.
pub fn server(offer: Offer, disk: &Disk) -> Server {
    let disk = disk.clone();
    Server::start(move |mut peer, _| {
        let disk = disk.clone();
        async move { serve(&mut peer, &offer, &disk, usize::MAX).await }
    })
}
