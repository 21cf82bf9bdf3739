//! What the hostile server does, made from the fuzzer's bytes.
//!
//! Byte 0 is a set of switches (`MADE` …). Without `MADE` the rest is sent as it is. With it there
//! follow mode, size and block sizes of a good handshake, and then steps: a tag, and what the tag
//! needs.

use arbitrary::Unstructured;
use datapath::nbd::wire::{
    CHUNK_BLOCK_STATUS, CHUNK_BLOCK_STATUS_EXT, CHUNK_DATA, CHUNK_ERROR, CHUNK_HOLE, CHUNK_NONE,
    Command, EXTENDED_REPLY_MAGIC, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, INFO_BLOCK_SIZE,
    INFO_EXPORT, NBD_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, Opt, REP_ACK, REP_ERR_UNSUP,
    REP_INFO, REP_META_CONTEXT, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC,
};
use std::time::Duration;

/// The handshake is well-formed.
const MADE: u8 = 1;
/// The server's end is not shut when all was sent.
const OPEN: u8 = 2;
/// The stream takes few bytes at a time.
const NARROW: u8 = 4;
/// The server stops reading after the handshake.
const DEAF: u8 = 8;
/// The client gives up some requests.
const HASTY: u8 = 16;

/// Never sent: a buffer that still has it after a good read was not filled.
pub const UNSENT: u8 = 0xaa;
const MOST_SENT: usize = 256 << 10;

pub enum Step {
    Send(Vec<u8>),
    Wait(Duration),
}

pub struct Script {
    pub steps: Vec<Step>,
    pub open: bool,
    pub narrow: bool,
    pub deaf: bool,
    pub hasty: bool,
}

/// What the client asks for, in the order of the cookies from 1 on.
pub fn requests(size: u64) -> [(Command, u64, u64); 8] {
    let tail = size.min(16_384);
    [
        (Command::Read, 0, 512.min(size)),
        (Command::BlockStatus, 0, size.min(1 << 31)),
        (Command::Read, size - tail, tail),
        (Command::Write, size / 2, 1000.min(size / 2)),
        (Command::Read, size / 2, 4096.min(size / 2)),
        (Command::WriteZeroes, size / 4, (size / 4).min(1 << 30)),
        (Command::Flush, 0, 0),
        (Command::BlockStatus, size - tail, tail),
    ]
}

#[derive(Clone, Copy)]
enum Mode {
    Simple,
    Structured,
    Extended,
    Ancient,
    NoGo,
}

pub fn script(bytes: &[u8]) -> Script {
    let (switches, rest) = bytes.split_first().map_or((0, bytes), |(s, rest)| (*s, rest));
    let on = |bit| switches & bit != 0;
    let mut steps = if on(MADE) { made(rest) } else { vec![Step::Send(rest.to_vec())] };
    for step in &mut steps {
        if let Step::Send(bytes) = step {
            bytes.iter_mut().filter(|b| **b == UNSENT).for_each(|b| *b ^= 1);
        }
    }
    Script { steps, open: on(OPEN), narrow: on(NARROW), deaf: on(DEAF), hasty: on(HASTY) }
}

fn made(bytes: &[u8]) -> Vec<Step> {
    let mut u = Unstructured::new(bytes);
    let mode = [Mode::Simple, Mode::Structured, Mode::Extended, Mode::Ancient, Mode::NoGo]
        [usize::from(number::<u8>(&mut u) % 5)];
    let size = match number::<u8>(&mut u) % 4 {
        0 => 1 << 20,
        1 => u64::from(number::<u16>(&mut u)),
        2 => i64::MAX as u64,
        _ => number::<u64>(&mut u),
    };
    let asked = requests(size.min(i64::MAX as u64));
    let mut steps = vec![Step::Send(handshake(&mut u, mode, size))];
    let mut sent = 0;
    while !u.is_empty() && sent < MOST_SENT {
        let step = match number::<u8>(&mut u) % 8 {
            0 => Step::Wait(Duration::from_millis(number::<u16>(&mut u).into())),
            1 => {
                let length = usize::from(number::<u8>(&mut u)).min(u.len());
                Step::Send(u.bytes(length).unwrap_or_default().to_vec())
            }
            2 => Step::Send(simple(&mut u, &asked)),
            _ => Step::Send(match mode {
                Mode::Simple | Mode::Ancient => simple(&mut u, &asked),
                Mode::Structured | Mode::NoGo => chunk(&mut u, &asked, false),
                Mode::Extended => chunk(&mut u, &asked, true),
            }),
        };
        if let Step::Send(bytes) = &step {
            sent += bytes.len();
        }
        steps.push(step);
    }
    steps
}

fn number<'a, T: arbitrary::Arbitrary<'a> + Default>(u: &mut Unstructured<'a>) -> T {
    u.arbitrary().unwrap_or_default()
}

fn option_reply(out: &mut Vec<u8>, opt: Opt, kind: u32, data: &[u8]) {
    out.extend(OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend((opt as u32).to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend((data.len() as u32).to_be_bytes());
    out.extend(data);
}

fn handshake(u: &mut Unstructured<'_>, mode: Mode, size: u64) -> Vec<u8> {
    let export = |out: &mut Vec<u8>| {
        out.extend(size.to_be_bytes());
        out.extend(0x014d_u16.to_be_bytes());
    };
    let mut out = Vec::new();
    out.extend(NBD_MAGIC.to_be_bytes());
    out.extend(OPTION_MAGIC.to_be_bytes());
    if matches!(mode, Mode::Ancient) {
        out.extend([0, 0]);
        export(&mut out);
        out.extend([0; 124]);
        return out;
    }
    out.extend((FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes());
    let extended = matches!(mode, Mode::Extended);
    let answer = |yes| if yes { REP_ACK } else { REP_ERR_UNSUP };
    option_reply(&mut out, Opt::ExtendedHeaders, answer(extended), &[]);
    if !extended {
        let structured = !matches!(mode, Mode::Simple);
        option_reply(&mut out, Opt::StructuredReply, answer(structured), b"as you like");
    }
    if !matches!(mode, Mode::Simple) {
        let context = [&1_u32.to_be_bytes()[..], b"base:allocation"].concat();
        option_reply(&mut out, Opt::SetMetaContext, REP_META_CONTEXT, &context);
        option_reply(&mut out, Opt::SetMetaContext, REP_ACK, &[]);
    }
    if matches!(mode, Mode::NoGo) {
        option_reply(&mut out, Opt::Go, REP_ERR_UNSUP, &[]);
        export(&mut out);
        return out;
    }
    let mut info = INFO_EXPORT.to_be_bytes().to_vec();
    export(&mut info);
    option_reply(&mut out, Opt::Go, REP_INFO, &info);
    let blocks = number::<u8>(u);
    if blocks != 0 {
        let mut info = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
        for size in [1 << (blocks % 18), 4096_u32 << (blocks / 18), u32::MAX] {
            info.extend(size.to_be_bytes());
        }
        option_reply(&mut out, Opt::Go, REP_INFO, &info);
    }
    option_reply(&mut out, Opt::Go, REP_ACK, &[]);
    out
}

/// A cookie from 0 to 8 (0 is none of ours), and what was asked with it.
fn cookie(u: &mut Unstructured<'_>, asked: &[(Command, u64, u64)]) -> (u64, (Command, u64, u64)) {
    let cookie = number::<u8>(u) % 9;
    let of = asked.get(usize::from(cookie).wrapping_sub(1)).or(asked.first());
    (cookie.into(), of.copied().unwrap_or((Command::Flush, 0, 0)))
}

fn simple(u: &mut Unstructured<'_>, asked: &[(Command, u64, u64)]) -> Vec<u8> {
    let (cookie, (command, _, length)) = cookie(u, asked);
    let errno = u32::from(number::<u8>(u) & 0x7f);
    let mut out = SIMPLE_REPLY_MAGIC.to_be_bytes().to_vec();
    out.extend(errno.to_be_bytes());
    out.extend(cookie.to_be_bytes());
    if command == Command::Read && errno == 0 {
        out.resize(out.len() + length as usize, 1);
    }
    out
}

fn chunk(u: &mut Unstructured<'_>, asked: &[(Command, u64, u64)], extended: bool) -> Vec<u8> {
    /// The chunk concerns all that was asked for.
    const WHOLE: u8 = 1;
    /// The announced length is another than the payload's.
    const LIE: u8 = 2;

    let (cookie, (_, mut offset, mut length)) = cookie(u, asked);
    let flags = number::<u8>(u);
    let kind = match number::<u8>(u) % 8 {
        0 => CHUNK_NONE,
        1 => CHUNK_DATA,
        2 => CHUNK_HOLE,
        3 => CHUNK_BLOCK_STATUS,
        4 => CHUNK_BLOCK_STATUS_EXT,
        5 => CHUNK_ERROR | 1,
        6 => CHUNK_ERROR | 2,
        _ => number::<u16>(u),
    };
    let form = number::<u8>(u);
    if form & WHOLE == 0 {
        offset = offset.wrapping_add_signed(i64::from(number::<i16>(u)));
        length = number::<u16>(u).into();
    }
    let mut body = Vec::new();
    match kind {
        CHUNK_DATA => {
            body.extend(offset.to_be_bytes());
            body.resize(8 + length.min(32_768) as usize, 2);
        }
        CHUNK_HOLE => {
            body.extend(offset.to_be_bytes());
            body.extend((length as u32).to_be_bytes());
        }
        CHUNK_BLOCK_STATUS | CHUNK_BLOCK_STATUS_EXT => {
            let wide = kind == CHUNK_BLOCK_STATUS_EXT;
            let count = u32::from(form >> 4);
            body.extend((1 + u32::from(form & 8 != 0)).to_be_bytes());
            if wide {
                body.extend((count + u32::from(form & 4 != 0)).to_be_bytes());
            }
            for _ in 0..count {
                let (length, state) = (number::<u64>(u), u64::from(number::<u8>(u)));
                if wide {
                    body.extend(length.to_be_bytes());
                    body.extend(state.to_be_bytes());
                } else {
                    body.extend((length as u32).to_be_bytes());
                    body.extend((state as u32).to_be_bytes());
                }
            }
        }
        kind if kind & CHUNK_ERROR != 0 => {
            let text = usize::from(number::<u8>(u)).min(u.len());
            body.extend(u32::from(form).to_be_bytes());
            body.extend((text as u16).to_be_bytes());
            body.extend(u.bytes(text).unwrap_or_default());
            if kind == CHUNK_ERROR | 2 {
                body.extend(offset.to_be_bytes());
            }
        }
        _ => {}
    }
    let announced = if form & LIE == 0 { body.len() as u64 } else { number::<u64>(u) };
    let magic = if extended { EXTENDED_REPLY_MAGIC } else { STRUCTURED_REPLY_MAGIC };
    let mut out = magic.to_be_bytes().to_vec();
    out.extend(u16::from(flags).to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(cookie.to_be_bytes());
    if extended {
        out.extend(offset.to_be_bytes());
        out.extend(announced.to_be_bytes());
    } else {
        out.extend((announced as u32).to_be_bytes());
    }
    out.extend(body);
    out
}
