//! One connection in the transmission phase: many requests in flight, one task that reads replies.

use super::error::{NbdError, clean};
use super::handshake::{Agreement, Replies, Wishes, handshake};
use super::pending::{Entry, Fault, Outcome, Pending};
use super::stream::{self, Duplex};
use super::uri::NbdUri;
use super::wire::{
    CHUNK_BLOCK_STATUS, CHUNK_BLOCK_STATUS_EXT, CHUNK_DATA, CHUNK_ERROR, CHUNK_HOLE, CHUNK_NONE,
    CMD_PAYLOAD_LEN, Command, Descriptor, EXTENDED_REPLY_MAGIC, Fields, MAX_ERROR_PAYLOAD,
    MAX_EXTENTS_PAYLOAD, REPLY_DONE, Request, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC,
    parse_block_status,
};
use bytes::{Buf, BytesMut};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Extents of a whole disk (nbdkit's VDDK plugin asks for all at the first question), zeroing and
/// flushing may take this many times as long as other requests.
const SLOW_FACTOR: u32 = 10;
/// Fewer bytes than this between two looks are no progress.
const PROGRESS: u64 = 4096;

/// An open connection. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    writer: tokio::sync::Mutex<WriteHalf<Box<dyn Duplex>>>,
    shared: Arc<Shared>,
    agreement: Agreement,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    moved: AtomicU64,
    working: AtomicUsize,
    dead: CancellationToken,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill(&self, fault: &Fault) {
        self.pending().kill(fault);
        self.dead.cancel();
    }

    fn moved(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A request on its way out, or a reply on its way in. Neither need be in the table.
struct Working<'a>(&'a Shared);

impl<'a> Working<'a> {
    fn on(shared: &'a Shared) -> Self {
        shared.working.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.working.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    /// Connects and shakes hands. `patience` is for connecting, for the handshake as a whole, and for
    /// the silence of later requests.
    pub async fn open(uri: &NbdUri, wishes: Wishes, patience: Duration) -> Result<Self, NbdError> {
        let stream = stream::open(&uri.address, patience).await?;
        Self::over(stream, uri, wishes, patience).await
    }

    /// The same on a stream that is open already.
    pub async fn over(
        stream: Box<dyn Duplex>,
        uri: &NbdUri,
        wishes: Wishes,
        patience: Duration,
    ) -> Result<Self, NbdError> {
        let shaken = tokio::time::timeout(patience, handshake(stream, uri, wishes)).await;
        let (stream, agreement) = shaken.map_err(|_| NbdError::Stalled {
            what: "the handshake".into(),
            seconds: patience.as_secs(),
        })??;
        let (read, write) = tokio::io::split(stream);
        let shared = Arc::new(Shared::default());
        let reader = tokio::spawn(read_replies(read, Arc::clone(&shared), agreement));
        let watchdog = tokio::spawn(watch(Arc::clone(&shared), patience));
        Ok(Self {
            writer: tokio::sync::Mutex::new(write),
            shared,
            agreement,
            tasks: [reader, watchdog],
        })
    }

    /// What the handshake agreed on.
    pub fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// Whether it takes no more requests.
    pub fn is_dead(&self) -> bool {
        self.shared.dead.is_cancelled()
    }

    /// Reads as many bytes as the buffer is long. The buffer is lost on failure.
    pub async fn read(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut, NbdError> {
        let length = buffer.len() as u64;
        match self.request(Command::Read, 0, offset, length, buffer, &[]).await? {
            Outcome::Data(data) => Ok(data),
            other => Err(unexpected(&other)),
        }
    }

    /// Writes.
    pub async fn write(&self, offset: u64, data: &[u8]) -> Result<(), NbdError> {
        let length = data.len() as u64;
        self.request(Command::Write, 0, offset, length, BytesMut::new(), data).await.map(drop)
    }

    /// Writes zeroes; `flags` is 0 or `CMD_NO_HOLE`.
    pub async fn write_zeroes(&self, offset: u64, length: u64, flags: u16) -> Result<(), NbdError> {
        self.request(Command::WriteZeroes, flags, offset, length, BytesMut::new(), &[])
            .await
            .map(drop)
    }

    /// Makes completed writes durable.
    pub async fn flush(&self) -> Result<(), NbdError> {
        self.request(Command::Flush, 0, 0, 0, BytesMut::new(), &[]).await.map(drop)
    }

    /// Extents from `offset` on; they may cover less or more than `length`.
    pub async fn block_status(
        &self,
        offset: u64,
        length: u64,
    ) -> Result<Vec<Descriptor>, NbdError> {
        let status = Command::BlockStatus;
        if self.agreement.allocation.is_none() {
            let message = "it offers no extents any more".to_owned();
            return Err(NbdError::Server { command: status, offset, length, errno: 95, message });
        }
        match self.request(status, 0, offset, length, BytesMut::new(), &[]).await? {
            Outcome::Extents(extents) => Ok(extents),
            other => Err(unexpected(&other)),
        }
    }

    /// Says goodbye; errors do not matter any more.
    pub async fn disconnect(&self) {
        let bye =
            Request { command: Command::Disconnect, flags: 0, cookie: 0, offset: 0, length: 0 };
        if let Some(header) = bye.encode(self.agreement.replies == Replies::Extended) {
            let mut writer = self.writer.lock().await;
            let goodbye = async {
                writer.write_all(&header).await?;
                writer.shutdown().await
            };
            let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
        }
    }

    async fn request(
        &self,
        command: Command,
        flags: u16,
        offset: u64,
        length: u64,
        buffer: BytesMut,
        payload: &[u8],
    ) -> Result<Outcome, NbdError> {
        let size = self.agreement.export.size;
        let out_of_range = NbdError::OutOfRange { command, offset, length, size };
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(out_of_range);
        }
        let extended = self.agreement.replies == Replies::Extended;
        let flags = if extended && !payload.is_empty() { flags | CMD_PAYLOAD_LEN } else { flags };
        let (entry, receiver) = Entry::new(command, offset, length, buffer);
        let mut writer = tokio::select! {
            writer = self.writer.lock() => writer,
            () = self.shared.dead.cancelled() => return Err(self.fault(command)),
        };
        let cookie = self.shared.pending().add(entry)?;
        let request = Request { command, flags, cookie, offset, length };
        let Some(header) = request.encode(extended) else {
            self.shared.pending().take(cookie);
            return Err(out_of_range);
        };
        let working = Working::on(&self.shared);
        // A request that is cut off in the middle would make the rest of the stream nonsense.
        let cut = CutGuard { shared: &self.shared, armed: true };
        let sent = tokio::select! {
            sent = send(&mut writer, &header, payload, &self.shared) => sent,
            () = self.shared.dead.cancelled() => return Err(self.fault(command)),
        };
        cut.done(sent);
        drop(working);
        drop(writer);
        receiver.await.unwrap_or_else(|_| Err(self.fault(command)))
    }

    fn fault(&self, command: Command) -> NbdError {
        let fault = self.shared.pending().dead.clone();
        fault.unwrap_or(Fault::Lost("it was closed".into())).error(&command.to_string())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn unexpected(outcome: &Outcome) -> NbdError {
    NbdError::Protocol(format!("an answer of the wrong kind: {outcome:?}"))
}

async fn send(
    writer: &mut WriteHalf<Box<dyn Duplex>>,
    header: &[u8],
    payload: &[u8],
    shared: &Shared,
) -> std::io::Result<()> {
    let mut bytes = Buf::chain(header, payload);
    while bytes.has_remaining() {
        let n = writer.write_buf(&mut bytes).await?;
        if n == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        shared.moved(n);
    }
    writer.flush().await
}

struct CutGuard<'a> {
    shared: &'a Shared,
    armed: bool,
}

impl CutGuard<'_> {
    fn done(mut self, sent: std::io::Result<()>) {
        self.armed = false;
        if let Err(e) = sent {
            self.shared.kill(&Fault::Lost(e.to_string()));
        }
    }
}

impl Drop for CutGuard<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.shared.kill(&Fault::Lost("a request was cut off".into()));
        }
    }
}

/// Ends the connection when something waits and nothing moves.
async fn watch(shared: Arc<Shared>, patience: Duration) {
    let step = patience / 2;
    let mut last = 0;
    let mut quiet_steps = 0;
    loop {
        tokio::time::sleep(step).await;
        let moved = shared.moved.load(Ordering::Relaxed);
        let (waiting, slow) = shared.pending().waits();
        let waiting = waiting || shared.working.load(Ordering::Relaxed) > 0;
        if !waiting || moved.wrapping_sub(last) >= PROGRESS {
            (last, quiet_steps) = (moved, 0);
            continue;
        }
        quiet_steps += 1;
        let allowed = if slow { 2 * SLOW_FACTOR } else { 2 };
        if quiet_steps >= allowed {
            shared.kill(&Fault::Stalled((step * quiet_steps).as_secs()));
            return;
        }
    }
}

type Reader = BufReader<ReadHalf<Box<dyn Duplex>>>;

async fn read_replies(half: ReadHalf<Box<dyn Duplex>>, shared: Arc<Shared>, agreement: Agreement) {
    // Headers are small; payloads of at least this size go past the buffer.
    let mut reader = BufReader::with_capacity(4096, half);
    let fault = loop {
        let step = tokio::select! {
            step = one_reply(&mut reader, &shared, &agreement) => step,
            () = shared.dead.cancelled() => return,
        };
        if let Err(fault) = step {
            break fault;
        }
    };
    shared.kill(&fault);
}

/// A reply, or one chunk of it.
async fn one_reply(
    reader: &mut Reader,
    shared: &Shared,
    agreement: &Agreement,
) -> Result<(), Fault> {
    let mut magic = [0; 4];
    fill(reader, &mut magic, shared).await?;
    match (u32::from_be_bytes(magic), agreement.replies) {
        (SIMPLE_REPLY_MAGIC, Replies::Simple | Replies::Structured) => {
            simple_reply(reader, shared, agreement).await
        }
        (STRUCTURED_REPLY_MAGIC, Replies::Structured) => {
            let mut head = [0; 16];
            fill(reader, &mut head, shared).await?;
            let mut f = Fields(&head);
            let (flags, kind) = (f.u16().unwrap_or(0), f.u16().unwrap_or(0));
            let (cookie, length) = (f.u64().unwrap_or(0), u64::from(f.u32().unwrap_or(0)));
            chunk(reader, shared, agreement, Chunk { flags, kind, cookie, length }).await
        }
        (EXTENDED_REPLY_MAGIC, Replies::Extended) => {
            let mut head = [0; 28];
            fill(reader, &mut head, shared).await?;
            let mut f = Fields(&head);
            let (flags, kind) = (f.u16().unwrap_or(0), f.u16().unwrap_or(0));
            let (cookie, _offset) = (f.u64().unwrap_or(0), f.u64());
            let length = f.u64().unwrap_or(0);
            chunk(reader, shared, agreement, Chunk { flags, kind, cookie, length }).await
        }
        (magic, _) => Err(Fault::Protocol(format!("a reply with the magic number {magic:#010x}"))),
    }
}

struct Chunk {
    flags: u16,
    kind: u16,
    cookie: u64,
    length: u64,
}

async fn simple_reply(
    reader: &mut Reader,
    shared: &Shared,
    agreement: &Agreement,
) -> Result<(), Fault> {
    let mut head = [0; 12];
    fill(reader, &mut head, shared).await?;
    let mut f = Fields(&head);
    let (errno, cookie) = (f.u32().unwrap_or(0), f.u64().unwrap_or(0));
    let _working = Working::on(shared);
    let mut entry = take(shared, cookie)?;
    if errno != 0 {
        entry.error = Some((errno, String::new()));
    } else if entry.command == Command::BlockStatus
        || (entry.command == Command::Read && agreement.replies == Replies::Structured)
    {
        let fault = Fault::Protocol("a simple reply where a structured one is due".into());
        return Err(refuse(entry, fault));
    } else if entry.command == Command::Read {
        let (offset, length) = (entry.offset, entry.length);
        if let Err(fault) = data(reader, shared, &mut entry, offset, length).await {
            return Err(refuse(entry, fault));
        }
    }
    shared.moved(usize::try_from(PROGRESS).unwrap_or(0));
    entry.finish();
    Ok(())
}

async fn chunk(
    reader: &mut Reader,
    shared: &Shared,
    agreement: &Agreement,
    chunk: Chunk,
) -> Result<(), Fault> {
    let _working = Working::on(shared);
    let mut entry = take(shared, chunk.cookie)?;
    if let Err(fault) = chunk_body(reader, shared, agreement, &chunk, &mut entry).await {
        return Err(refuse(entry, fault));
    }
    if chunk.flags & REPLY_DONE != 0 {
        shared.moved(usize::try_from(PROGRESS).unwrap_or(0));
        entry.finish();
    } else {
        shared.pending().put_back(chunk.cookie, entry);
    }
    Ok(())
}

async fn chunk_body(
    reader: &mut Reader,
    shared: &Shared,
    agreement: &Agreement,
    chunk: &Chunk,
    entry: &mut Entry,
) -> Result<(), Fault> {
    let broken = |text: &str| Fault::Protocol(text.to_owned());
    entry.count_chunk().map_err(broken)?;
    match chunk.kind {
        CHUNK_NONE if chunk.length == 0 && chunk.flags & REPLY_DONE != 0 => Ok(()),
        CHUNK_DATA if chunk.length > 8 => {
            let offset = number(reader, shared).await?;
            data(reader, shared, entry, offset, chunk.length - 8).await
        }
        CHUNK_HOLE if chunk.length == 12 => {
            let mut body = [0; 12];
            fill(reader, &mut body, shared).await?;
            let mut f = Fields(&body);
            let (offset, length) = (f.u64().unwrap_or(0), f.u32().unwrap_or(0));
            let (start, end) = entry.claim(offset, u64::from(length)).map_err(broken)?;
            entry
                .buffer
                .get_mut(start..end)
                .ok_or_else(|| broken("a hole beyond the buffer"))?
                .fill(0);
            Ok(())
        }
        CHUNK_BLOCK_STATUS | CHUNK_BLOCK_STATUS_EXT => {
            if entry.command != Command::BlockStatus || chunk.length > MAX_EXTENTS_PAYLOAD {
                return Err(broken("extents nobody asked for, or too many"));
            }
            let payload = payload(reader, shared, chunk.length).await?;
            let wide = chunk.kind == CHUNK_BLOCK_STATUS_EXT;
            let (context, extents) = parse_block_status(&payload, wide).map_err(broken)?;
            if Some(context) != agreement.allocation || !entry.extents.is_empty() {
                return Err(broken("extents of a context nobody asked for"));
            }
            entry.extents = extents;
            Ok(())
        }
        kind if kind & CHUNK_ERROR != 0 => {
            if !(6..=MAX_ERROR_PAYLOAD).contains(&chunk.length) {
                return Err(broken("an error chunk of an impossible length"));
            }
            let payload = payload(reader, shared, chunk.length).await?;
            let mut f = Fields(&payload);
            let (errno, length) = (f.u32().unwrap_or(0), f.u16().unwrap_or(0));
            let message =
                f.0.get(..usize::from(length)).ok_or_else(|| broken("a torn error chunk"))?;
            // An errno of 0 is no success: the chunk says that something failed.
            let errno = if errno == 0 { 5 } else { errno };
            entry.error.get_or_insert((errno, clean(message)));
            Ok(())
        }
        kind => Err(broken(&format!("a chunk of type {kind} and {} bytes", chunk.length))),
    }
}

async fn data(
    reader: &mut Reader,
    shared: &Shared,
    entry: &mut Entry,
    offset: u64,
    length: u64,
) -> Result<(), Fault> {
    let broken = |text: &str| Fault::Protocol(text.to_owned());
    let (start, end) = entry.claim(offset, length).map_err(broken)?;
    let part = entry.buffer.get_mut(start..end).ok_or_else(|| broken("data beyond the buffer"))?;
    fill(reader, part, shared).await
}

async fn number(reader: &mut Reader, shared: &Shared) -> Result<u64, Fault> {
    let mut bytes = [0; 8];
    fill(reader, &mut bytes, shared).await?;
    Ok(u64::from_be_bytes(bytes))
}

/// A payload whose length was checked; memory grows with what arrives, not with what is announced.
async fn payload(reader: &mut Reader, shared: &Shared, length: u64) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < length {
        let step = usize::try_from((length - bytes.len() as u64).min(64 << 10)).unwrap_or(0);
        let start = bytes.len();
        bytes.resize(start + step, 0);
        fill(reader, &mut bytes[start..], shared).await?;
    }
    Ok(bytes)
}

async fn fill(reader: &mut Reader, mut buffer: &mut [u8], shared: &Shared) -> Result<(), Fault> {
    while !buffer.is_empty() {
        match reader.read(buffer).await {
            Ok(0) => return Err(Fault::Lost("the server closed it".into())),
            Ok(n) => {
                shared.moved(n);
                buffer = &mut buffer[n..];
            }
            Err(e) => return Err(Fault::Lost(e.to_string())),
        }
    }
    Ok(())
}

fn take(shared: &Shared, cookie: u64) -> Result<Entry, Fault> {
    shared.pending().take(cookie).ok_or_else(|| {
        Fault::Protocol(format!("a reply to a request that was not made ({cookie:#x})"))
    })
}

/// The entry is out of the table; it must get the fault too.
fn refuse(entry: Entry, fault: Fault) -> Fault {
    let error = fault.error(&entry.command.to_string());
    entry.fail(error);
    fault
}
