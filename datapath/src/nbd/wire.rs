//! The NBD protocol's numbers and layouts: pure, no I/O. Source: the protocol's `doc/proto.md`.

/// First eight bytes of every server.
pub const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second eight bytes of a newstyle server, and the start of every option.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Second eight bytes of an oldstyle server.
pub const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;
/// Start of every reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Start of a compact request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Start of an extended request.
pub const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
/// Start of a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Start of a structured reply chunk.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
/// Start of an extended reply chunk.
pub const EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// Handshake flag: options other than `EXPORT_NAME` may be used. The client's flag has the same bit.
pub const FLAG_FIXED_NEWSTYLE: u16 = 1;
/// Handshake flag: no 124 zero bytes after `EXPORT_NAME`.
pub const FLAG_NO_ZEROES: u16 = 2;

/// Options of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Opt {
    /// Enter transmission; cannot fail politely.
    ExportName = 1,
    /// Upgrade to TLS.
    StartTls = 5,
    /// Enter transmission, with information.
    Go = 7,
    /// Structured replies.
    StructuredReply = 8,
    /// Select metadata contexts.
    SetMetaContext = 10,
    /// 64-bit requests and replies.
    ExtendedHeaders = 11,
}

/// Option replies.
pub const REP_ACK: u32 = 1;
/// Information for `Opt::Go`.
pub const REP_INFO: u32 = 3;
/// A metadata context.
pub const REP_META_CONTEXT: u32 = 4;
/// Bit of every error reply.
pub const REP_ERROR: u32 = 1 << 31;
/// The option is unknown to the server.
pub const REP_ERR_UNSUP: u32 = REP_ERROR | 1;
/// The server wants TLS first.
pub const REP_ERR_TLS_REQD: u32 = REP_ERROR | 5;

/// Information types of `REP_INFO`.
pub const INFO_EXPORT: u16 = 0;
/// Block sizes.
pub const INFO_BLOCK_SIZE: u16 = 3;

/// Export flag: nothing may be written.
pub const EXPORT_READ_ONLY: u16 = 1 << 1;
/// Export flag: FLUSH works.
pub const EXPORT_FLUSH: u16 = 1 << 2;
/// Export flag: `WRITE_ZEROES` works.
pub const EXPORT_WRITE_ZEROES: u16 = 1 << 6;
/// Export flag: a flush on one connection covers all of them.
pub const EXPORT_MULTI_CONN: u16 = 1 << 8;

/// Commands of the transmission phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Command {
    /// Read data.
    Read = 0,
    /// Write data.
    Write = 1,
    /// Disconnect politely; has no reply.
    Disconnect = 2,
    /// Make all completed writes durable.
    Flush = 3,
    /// Write zeroes without sending them.
    WriteZeroes = 6,
    /// Ask for extents.
    BlockStatus = 7,
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Disconnect => "disconnect",
            Self::Flush => "flush",
            Self::WriteZeroes => "write zeroes",
            Self::BlockStatus => "block status",
        })
    }
}

/// Command flag: zeroes must not become a hole.
pub const CMD_NO_HOLE: u16 = 1 << 1;
/// Command flag of extended writes: the length is that of a payload.
pub const CMD_PAYLOAD_LEN: u16 = 1 << 5;

/// Reply flag: last chunk of this reply.
pub const REPLY_DONE: u16 = 1;
/// Chunk types.
pub const CHUNK_NONE: u16 = 0;
/// Data at an offset.
pub const CHUNK_DATA: u16 = 1;
/// Zeroes at an offset.
pub const CHUNK_HOLE: u16 = 2;
/// Extents with 32-bit lengths.
pub const CHUNK_BLOCK_STATUS: u16 = 5;
/// Extents with 64-bit lengths.
pub const CHUNK_BLOCK_STATUS_EXT: u16 = 6;
/// Bit of every error chunk.
pub const CHUNK_ERROR: u16 = 1 << 15;

/// `base:allocation`: not allocated. Says nothing about the content.
pub const STATE_HOLE: u64 = 1;
/// `base:allocation`: reads as zeroes.
pub const STATE_ZERO: u64 = 2;

/// Largest payload that a server must accept when it names no limit.
pub const DEFAULT_MAX_PAYLOAD: u32 = 32 << 20;
/// Longest answer to an option that is read. Names and messages are at most 4096 bytes long.
pub const MAX_OPTION_REPLY: u32 = 64 << 10;
/// Most replies to one option.
pub const MAX_OPTION_REPLIES: usize = 128;
/// Longest text of an error chunk that is read.
pub const MAX_ERROR_PAYLOAD: u64 = 8 << 10;
/// Longest list of extents that is read; nbdkit sends at most a million of 8 bytes.
pub const MAX_EXTENTS_PAYLOAD: u64 = 16 << 20;
/// Longest name of an export.
pub const MAX_NAME: usize = 4096;

/// A request's header, of 28 bytes, or 32 with extended headers.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// What to do.
    pub command: Command,
    /// `CMD_…`.
    pub flags: u16,
    /// Comes back in the reply.
    pub cookie: u64,
    /// Bytes from the start of the export.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

impl Request {
    /// The header's bytes. `None` when the length does not fit a compact header.
    pub fn encode(&self, extended: bool) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(32);
        let magic = if extended { EXTENDED_REQUEST_MAGIC } else { REQUEST_MAGIC };
        out.extend_from_slice(&magic.to_be_bytes());
        out.extend_from_slice(&self.flags.to_be_bytes());
        out.extend_from_slice(&(self.command as u16).to_be_bytes());
        out.extend_from_slice(&self.cookie.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        if extended {
            out.extend_from_slice(&self.length.to_be_bytes());
        } else {
            out.extend_from_slice(&u32::try_from(self.length).ok()?.to_be_bytes());
        }
        Some(out)
    }
}

/// Reads big-endian numbers from the front of a slice; `None` when it is too short.
#[derive(Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
}

/// One answer about allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// Bytes, never 0.
    pub length: u64,
    /// `STATE_…`.
    pub flags: u64,
}

/// Parses the payload of a block status chunk: the context's id and its extents.
pub fn parse_block_status(
    payload: &[u8],
    wide: bool,
) -> Result<(u32, Vec<Descriptor>), &'static str> {
    let mut fields = Fields(payload);
    let context = fields.u32().ok_or("block status chunk is too short")?;
    let announced = if wide {
        Some(fields.u32().ok_or("extended block status chunk is too short")?)
    } else {
        None
    };
    let unit = if wide { 16 } else { 8 };
    if fields.0.is_empty() || !fields.0.len().is_multiple_of(unit) {
        return Err("block status chunk has a broken length");
    }
    let count = fields.0.len() / unit;
    if announced.is_some_and(|n| n as usize != count) {
        return Err("extended block status chunk contradicts its own count");
    }
    let mut extents = Vec::with_capacity(count);
    for _ in 0..count {
        let pair = if wide {
            fields.u64().zip(fields.u64())
        } else {
            fields.u32().map(u64::from).zip(fields.u32().map(u64::from))
        };
        match pair {
            Some((0, _)) | None => return Err("block status has an extent of length 0"),
            Some((length, flags)) => extents.push(Descriptor { length, flags }),
        }
    }
    Ok((context, extents))
}

/// Export information that `Opt::Go` or `Opt::ExportName` gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Export {
    /// Bytes.
    pub size: u64,
    /// `EXPORT_…`.
    pub flags: u16,
    /// What requests must be aligned to.
    pub min_block: u32,
    /// What requests should be aligned to.
    pub preferred_block: u32,
    /// Longest payload.
    pub max_payload: u32,
}

impl Export {
    /// An export whose server said nothing of block sizes.
    pub fn new(size: u64, flags: u16) -> Result<Self, &'static str> {
        if i64::try_from(size).is_err() {
            return Err("the export's size is not below 2^63");
        }
        Ok(Self {
            size,
            flags,
            min_block: 1,
            preferred_block: 4096,
            max_payload: DEFAULT_MAX_PAYLOAD,
        })
    }

    /// Whether the flag is set.
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// Checks block sizes as the protocol demands.
pub fn check_block_sizes(min: u32, preferred: u32, max: u32) -> Result<(), &'static str> {
    if !min.is_power_of_two() || min > 64 << 10 {
        return Err("minimum block size is not a power of two up to 64 KiB");
    }
    if !preferred.is_power_of_two() || preferred < min || preferred > 32 << 20 {
        return Err("preferred block size is not a power of two from the minimum to 32 MiB");
    }
    if max < min || (max != u32::MAX && !max.is_multiple_of(min)) {
        return Err("maximum block size is not a multiple of the minimum");
    }
    Ok(())
}

/// What an error number of the protocol means.
pub fn errno_text(errno: u32) -> &'static str {
    match errno {
        1 => "operation not permitted (EPERM)",
        5 => "input/output error (EIO)",
        12 => "out of memory (ENOMEM)",
        22 => "invalid argument (EINVAL)",
        28 => "no space left (ENOSPC)",
        75 => "value too large (EOVERFLOW)",
        95 => "not supported (ENOTSUP)",
        108 => "the server is shutting down (ESHUTDOWN)",
        _ => "unknown error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_have_the_layout_of_the_protocol() {
        let r = Request { command: Command::Write, flags: 1, cookie: 2, offset: 3, length: 4 };
        let compact = r.encode(false).unwrap();
        assert_eq!(compact.len(), 28);
        assert_eq!(&compact[..8], [0x25, 0x60, 0x95, 0x13, 0, 1, 0, 1]);
        assert_eq!(r.encode(true).unwrap().len(), 32);
        let long = Request { length: 1 << 32, ..r };
        assert!(long.encode(false).is_none() && long.encode(true).is_some());
    }

    #[test]
    fn extents_of_length_zero_and_torn_lists_are_refused() {
        assert!(parse_block_status(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], false).is_err());
        assert!(parse_block_status(&[0, 0, 0, 1], false).is_err());
        assert!(parse_block_status(&[0, 0, 0, 1, 0, 0, 0, 9, 0], false).is_err());
        let ok = parse_block_status(&[0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 3], false).unwrap();
        assert_eq!(ok, (1, vec![Descriptor { length: 9, flags: 3 }]));
    }

    #[test]
    fn block_sizes_follow_the_protocol() {
        assert!(check_block_sizes(1, 4096, u32::MAX).is_ok());
        assert!(check_block_sizes(512, 4096, 1 << 20).is_ok());
        assert!(check_block_sizes(0, 4096, 1 << 20).is_err());
        assert!(check_block_sizes(4096, 512, 1 << 20).is_err());
        assert!(check_block_sizes(4096, 4096, 5000).is_err());
    }

    proptest! {
        #[test]
        fn any_block_status_payload_is_parsed_or_refused(bytes: Vec<u8>, wide: bool) {
            if let Ok((_, extents)) = parse_block_status(&bytes, wide) {
                prop_assert!(extents.iter().all(|e| e.length > 0));
                prop_assert!(extents.len() * 8 <= bytes.len());
            }
        }
    }
}
