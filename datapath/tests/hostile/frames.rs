//! The protocol's bytes as a server sends them, from `doc/proto.md` of the NBD project.

pub const EXPORT_NAME: u32 = 1;
pub const GO: u32 = 7;
pub const STRUCTURED_REPLY: u32 = 8;
pub const SET_META_CONTEXT: u32 = 10;
pub const EXTENDED_HEADERS: u32 = 11;

pub const ACK: u32 = 1;
pub const INFO: u32 = 3;
pub const META_CONTEXT: u32 = 4;
pub const UNSUPPORTED: u32 = 0x8000_0001;

pub const FIXED_NEWSTYLE: u16 = 1;
pub const NO_ZEROES: u16 = 2;

/// Flags are sent, flushes and zeroes are known.
pub const WRITABLE: u16 = 1 | 1 << 2 | 1 << 6;
pub const MULTI_CONN: u16 = 1 << 8;

pub const READ: u16 = 0;
pub const WRITE: u16 = 1;
pub const DISCONNECT: u16 = 2;
pub const FLUSH: u16 = 3;
pub const ZERO: u16 = 6;
pub const STATUS: u16 = 7;

pub const DONE: u16 = 1;
pub const MORE: u16 = 0;

pub const NONE: u16 = 0;
pub const DATA: u16 = 1;
pub const HOLE: u16 = 2;
pub const BLOCK_STATUS: u16 = 5;
pub const BLOCK_STATUS_EXT: u16 = 6;
pub const ERROR: u16 = 0x8001;

/// A request as it arrived; `payload` is that of a write.
#[derive(Debug, Clone)]
pub struct Request {
    pub flags: u16,
    pub command: u16,
    pub cookie: u64,
    pub offset: u64,
    pub length: u64,
    pub payload: Vec<u8>,
}

pub fn greeting(flags: u16) -> Vec<u8> {
    [b"NBDMAGICIHAVEOPT".as_slice(), &flags.to_be_bytes()].concat()
}

pub fn option_reply_head(option: u32, kind: u32, length: u32) -> Vec<u8> {
    let magic = 0x0003_e889_0455_65a9_u64.to_be_bytes();
    let words = [option, kind, length].map(u32::to_be_bytes).concat();
    [magic.as_slice(), &words].concat()
}

pub fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    [option_reply_head(option, kind, length), data.to_vec()].concat()
}

pub fn info_export(size: u64, flags: u16) -> Vec<u8> {
    let data = [[0, 0].as_slice(), &size.to_be_bytes(), &flags.to_be_bytes()].concat();
    option_reply(GO, INFO, &data)
}

pub fn info_blocks(min: u32, preferred: u32, max: u32) -> Vec<u8> {
    let sizes = [min, preferred, max].map(u32::to_be_bytes).concat();
    option_reply(GO, INFO, &[[0, 3].as_slice(), &sizes].concat())
}

pub fn context(id: u32) -> Vec<u8> {
    let data = [id.to_be_bytes().as_slice(), b"base:allocation"].concat();
    option_reply(SET_META_CONTEXT, META_CONTEXT, &data)
}

pub fn simple(cookie: u64, errno: u32) -> Vec<u8> {
    let magic = 0x6744_6698_u32.to_be_bytes();
    [magic.as_slice(), &errno.to_be_bytes(), &cookie.to_be_bytes()].concat()
}

/// A structured chunk's header that announces a payload.
pub fn announce(cookie: u64, flags: u16, kind: u16, length: u32) -> Vec<u8> {
    let magic = 0x668e_33ef_u32.to_be_bytes();
    let words = [flags, kind].map(u16::to_be_bytes).concat();
    [magic.as_slice(), &words, &cookie.to_be_bytes(), &length.to_be_bytes()].concat()
}

/// The same with extended headers.
pub fn announce_extended(request: &Request, flags: u16, kind: u16, length: u64) -> Vec<u8> {
    let magic = 0x6e8a_278c_u32.to_be_bytes();
    let words = [flags, kind].map(u16::to_be_bytes).concat();
    let numbers = [request.cookie, request.offset, length].map(u64::to_be_bytes).concat();
    [magic.as_slice(), &words, &numbers].concat()
}

pub fn chunk(cookie: u64, flags: u16, kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [announce(cookie, flags, kind, length), payload.to_vec()].concat()
}

pub fn done(cookie: u64) -> Vec<u8> {
    chunk(cookie, DONE, NONE, &[])
}

pub fn data_payload(offset: u64, data: &[u8]) -> Vec<u8> {
    [offset.to_be_bytes().as_slice(), data].concat()
}

pub fn hole_payload(offset: u64, length: u32) -> Vec<u8> {
    [offset.to_be_bytes().as_slice(), &length.to_be_bytes()].concat()
}

/// An error's payload; `announced` is what the message's length claims.
pub fn error_payload(errno: u32, announced: u16, message: &str) -> Vec<u8> {
    [errno.to_be_bytes().as_slice(), &announced.to_be_bytes(), message.as_bytes()].concat()
}

pub fn status_payload(context: u32, extents: &[(u32, u32)]) -> Vec<u8> {
    let pairs = extents.iter().flat_map(|&(l, f)| [l, f]).flat_map(u32::to_be_bytes);
    context.to_be_bytes().into_iter().chain(pairs).collect()
}

pub fn wide_status_payload(context: u32, count: u32, extents: &[(u64, u64)]) -> Vec<u8> {
    let pairs = extents.iter().flat_map(|&(l, f)| [l, f]).flat_map(u64::to_be_bytes);
    [context, count].map(u32::to_be_bytes).concat().into_iter().chain(pairs).collect()
}
