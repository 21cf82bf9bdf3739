//! An asynchronous NBD client: several connections to one export, reconnected when they break.
//!
//! Requests are not repeated here: the engine decides what may be tried again.

pub mod connection;
pub mod error;
pub mod handshake;
mod pending;
pub mod stream;
mod tls;
pub mod uri;
pub mod wire;

use crate::extent::Extent;
use bytes::BytesMut;
use connection::Connection;
pub use error::NbdError;
use handshake::{Agreement, Wishes};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
pub use uri::{NbdUri, UriError, is_nbd_uri};
use wire::{
    CMD_NO_HOLE, EXPORT_FLUSH, EXPORT_MULTI_CONN, EXPORT_READ_ONLY, EXPORT_WRITE_ZEROES, Export,
};

/// How to connect.
#[derive(Debug, Clone, Copy)]
pub struct NbdOptions {
    /// At most so many connections, when the server allows more than one.
    pub connections: usize,
    /// Ask for extents.
    pub extents: bool,
    /// How long a silent server is waited for.
    pub patience: Duration,
}

/// A client of one export.
#[derive(Debug)]
pub struct NbdClient {
    uri: NbdUri,
    options: NbdOptions,
    agreement: Agreement,
    slots: Vec<Slot>,
    reconnections: AtomicU64,
    /// Something is written: see [`NbdClient::connect_for_writing`].
    writing: bool,
}

#[derive(Debug, Default)]
struct Slot {
    connection: Mutex<Option<Arc<Connection>>>,
    load: AtomicUsize,
    /// Failed attempts so far, and what the last of them said.
    failures: std::sync::Mutex<(u64, String)>,
}

impl Slot {
    fn failures(&self) -> std::sync::MutexGuard<'_, (u64, String)> {
        self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl NbdClient {
    /// Opens the first connection; more follow when they are needed.
    pub async fn connect(uri: NbdUri, options: NbdOptions) -> Result<Self, NbdError> {
        let wishes = Wishes { extents: options.extents };
        let first = Connection::open(&uri, wishes, options.patience).await?;
        let agreement = *first.agreement();
        let count =
            if agreement.export.has(EXPORT_MULTI_CONN) { options.connections.max(1) } else { 1 };
        let mut slots: Vec<Slot> = (1..count).map(|_| Slot::default()).collect();
        slots.push(Slot { connection: Mutex::new(Some(Arc::new(first))), ..Slot::default() });
        // Searched from the front; the open one must win while there is nothing to choose.
        slots.reverse();
        Ok(Self {
            uri,
            options,
            agreement,
            slots,
            reconnections: AtomicU64::new(0),
            writing: false,
        })
    }

    /// The same for a target. A server that went away takes with it what it had not made durable, so a
    /// broken connection is not replaced in silence: the next request or flush fails with
    /// [`NbdError::Lost`], and goes on failing until [`NbdClient::reset`].
    pub async fn connect_for_writing(uri: NbdUri, options: NbdOptions) -> Result<Self, NbdError> {
        Ok(Self { writing: true, ..Self::connect(uri, options).await? })
    }

    /// Drops all connections; whoever calls it knows what is lost with them.
    pub async fn reset(&self) {
        for slot in &self.slots {
            drop(slot.connection.lock().await.take());
        }
    }

    /// The export.
    pub fn export(&self) -> &Export {
        &self.agreement.export
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.agreement.export.size
    }

    /// Whether it must not be written to.
    pub fn read_only(&self) -> bool {
        self.agreement.export.has(EXPORT_READ_ONLY)
    }

    /// Whether the server tells extents.
    pub fn has_extents(&self) -> bool {
        self.agreement.allocation.is_some()
    }

    /// Connections that may be open at once.
    pub fn connections(&self) -> usize {
        self.slots.len()
    }

    /// How often a broken connection was replaced.
    pub fn reconnections(&self) -> u64 {
        self.reconnections.load(Ordering::Relaxed)
    }

    async fn with<T, F, Fut>(&self, request: F) -> Result<T, NbdError>
    where
        F: FnOnce(Arc<Connection>) -> Fut,
        Fut: Future<Output = Result<T, NbdError>>,
    {
        let Some(slot) = self.slots.iter().min_by_key(|s| s.load.load(Ordering::Relaxed)) else {
            return Err(NbdError::Lost("no connection".into()));
        };
        let _load = Load::on(&slot.load);
        let connection = self.connection(slot).await?;
        request(connection).await
    }

    /// The slot's connection, opened anew when it broke. Whoever waited while somebody else failed to
    /// open it gets that failure: a queue of requests must not wait for one time-out each.
    async fn connection(&self, slot: &Slot) -> Result<Arc<Connection>, NbdError> {
        let seen = slot.failures().0;
        let mut place = slot.connection.lock().await;
        if let Some(open) = place.as_ref().filter(|c| !c.is_dead()) {
            return Ok(Arc::clone(open));
        }
        {
            let failures = slot.failures();
            if failures.0 != seen {
                return Err(NbdError::Lost(failures.1.clone()));
            }
        }
        if self.writing && place.is_some() {
            return Err(NbdError::Lost("what it had not made durable may be lost".into()));
        }
        let replaced = place.is_some();
        let wishes = Wishes { extents: self.options.extents };
        let new = match Connection::open(&self.uri, wishes, self.options.patience).await {
            Ok(new) => new,
            // nbdkit refuses an export when its own source cannot be reached for a moment; this one was there before.
            Err(NbdError::Refused { what, reason, passing: true }) => {
                let text = format!("the server now refuses {what}: {reason}");
                let mut failures = slot.failures();
                *failures = (failures.0 + 1, text.clone());
                return Err(NbdError::Lost(text));
            }
            Err(e) => {
                if e.is_transient() {
                    let mut failures = slot.failures();
                    *failures = (failures.0 + 1, crate::error_chain(&e));
                }
                return Err(e);
            }
        };
        let (before, now) = (self.size(), new.agreement().export.size);
        if before != now {
            return Err(NbdError::Changed { before, now });
        }
        if replaced {
            self.reconnections.fetch_add(1, Ordering::Relaxed);
        }
        let new = Arc::new(new);
        *place = Some(Arc::clone(&new));
        Ok(new)
    }

    /// Reads as many bytes as the buffer is long. The buffer is lost on failure.
    pub async fn read(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut, NbdError> {
        let most = self.agreement.export.max_payload.max(1) as usize;
        let (mut at, mut rest) = (offset, buffer);
        let mut whole = BytesMut::new();
        loop {
            let tail = rest.split_off(rest.len().min(most));
            let piece = self.with(|c| async move { c.read(at, rest).await }).await?;
            at += piece.len() as u64;
            if whole.is_empty() {
                whole = piece;
            } else {
                whole.unsplit(piece);
            }
            if tail.is_empty() {
                return Ok(whole);
            }
            rest = tail;
        }
    }

    /// Writes, in pieces that the server takes.
    pub async fn write(&self, offset: u64, data: &[u8]) -> Result<(), NbdError> {
        let most = self.agreement.export.max_payload.max(1) as usize;
        let mut at = offset;
        for piece in data.chunks(most) {
            self.with(|c| async move { c.write(at, piece).await }).await?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Writes zeroes; `None` when the server has no such command.
    pub async fn zero(
        &self,
        offset: u64,
        length: u64,
        allocate: bool,
    ) -> Option<Result<(), NbdError>> {
        if !self.agreement.export.has(EXPORT_WRITE_ZEROES) {
            return None;
        }
        let flags = if allocate { CMD_NO_HOLE } else { 0 };
        Some(self.with(|c| async move { c.write_zeroes(offset, length, flags).await }).await)
    }

    /// Whether the server knows FLUSH.
    pub fn can_flush(&self) -> bool {
        self.agreement.export.has(EXPORT_FLUSH)
    }

    /// Fails when a connection broke that something may have been written to.
    async fn check_alive(&self) -> Result<(), NbdError> {
        for slot in &self.slots {
            if slot.connection.lock().await.as_ref().is_some_and(|c| c.is_dead()) {
                return Err(NbdError::Lost("what it had not made durable may be lost".into()));
            }
        }
        Ok(())
    }

    /// Makes all completed writes durable, on every connection.
    pub async fn flush(&self) -> Result<(), NbdError> {
        if !self.can_flush() {
            return self.check_alive().await;
        }
        // With several connections the server has promised that one flush covers all of them. It is
        // sent on each all the same: a connection that broke unnoticed must not be forgotten, the
        // server at its other end may have been another one.
        let mut flushed = false;
        for slot in &self.slots {
            let open = slot.connection.lock().await.clone();
            if let Some(connection) = open {
                connection.flush().await?;
                flushed = true;
            }
        }
        if flushed {
            return Ok(());
        }
        self.with(|c| async move { c.flush().await }).await
    }

    /// Extents that begin at `offset` and together cover exactly `length` bytes, or fewer when the
    /// server tells fewer at a time.
    pub async fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, NbdError> {
        let told = self.with(|c| async move { c.block_status(offset, length).await }).await?;
        let limit = offset + length;
        let mut extents: Vec<Extent> = Vec::new();
        let mut at = offset;
        for d in told {
            let end = at.saturating_add(d.length).min(limit);
            let zero = d.flags & wire::STATE_ZERO != 0;
            match extents.last_mut() {
                Some(last) if last.zero == zero => last.end = end,
                _ => extents.push(Extent { start: at, end, zero }),
            }
            at = end;
            if at >= limit {
                break;
            }
        }
        Ok(extents)
    }

    /// Ends all connections politely.
    pub async fn close(&self) {
        for slot in &self.slots {
            if let Some(connection) = slot.connection.lock().await.take() {
                connection.disconnect().await;
            }
        }
    }
}

/// Counts a request on a slot while it runs.
struct Load<'a>(&'a AtomicUsize);

impl<'a> Load<'a> {
    fn on(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
