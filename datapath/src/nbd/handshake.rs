//! The handshake: from a fresh stream to an export that takes requests.

use super::error::{NbdError, clean};
use super::stream::Duplex;
use super::tls;
use super::uri::NbdUri;
use super::wire::{
    self, Export, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, Fields, INFO_BLOCK_SIZE, INFO_EXPORT,
    MAX_OPTION_REPLIES, MAX_OPTION_REPLY, NBD_MAGIC, OLDSTYLE_MAGIC, OPTION_MAGIC,
    OPTION_REPLY_MAGIC, Opt, REP_ACK, REP_ERR_TLS_REQD, REP_ERR_UNSUP, REP_ERROR, REP_INFO,
    REP_META_CONTEXT,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How replies come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replies {
    /// Simple only.
    Simple,
    /// Structured.
    Structured,
    /// With extended headers.
    Extended,
}

/// What was agreed on.
#[derive(Debug, Clone, Copy)]
pub struct Agreement {
    /// The export.
    pub export: Export,
    /// Form of the replies.
    pub replies: Replies,
    /// Id of `base:allocation`, when the server has it.
    pub allocation: Option<u32>,
}

/// What the client would like, for tests and for servers that break on something.
#[derive(Debug, Clone, Copy)]
pub struct Wishes {
    /// Ask for extents.
    pub extents: bool,
}

const ALLOCATION: &[u8] = b"base:allocation";

/// Talks a server into transmission.
pub async fn handshake(
    mut stream: Box<dyn Duplex>,
    uri: &NbdUri,
    wishes: Wishes,
) -> Result<(Box<dyn Duplex>, Agreement), NbdError> {
    let flags = greet(&mut stream).await?;
    let fixed = flags & FLAG_FIXED_NEWSTYLE != 0;
    let no_zeroes = flags & FLAG_NO_ZEROES != 0;
    let client = u32::from(flags & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES));
    stream.write_all(&client.to_be_bytes()).await.map_err(lost)?;
    if let Some(settings) = &uri.tls {
        if !fixed {
            return Err(NbdError::Tls("the server is too old for TLS".into()));
        }
        start_tls(&mut stream).await?;
        stream = tls::upgrade(stream, settings, &uri.address).await?;
    }
    if !fixed {
        let export = export_name(&mut stream, &uri.export, no_zeroes).await?;
        return Ok((stream, Agreement { export, replies: Replies::Simple, allocation: None }));
    }
    let replies = ask_replies(&mut stream).await?;
    let mut allocation = None;
    if replies != Replies::Simple && wishes.extents {
        allocation = ask_allocation(&mut stream, &uri.export).await?;
    }
    if let Some(export) = go(&mut stream, &uri.export).await? {
        return Ok((stream, Agreement { export, replies, allocation }));
    }
    // EXPORT_NAME cannot confirm a context, so extents are not used after it.
    let export = export_name(&mut stream, &uri.export, no_zeroes).await?;
    Ok((stream, Agreement { export, replies, allocation: None }))
}

async fn greet(stream: &mut Box<dyn Duplex>) -> Result<u16, NbdError> {
    let mut hello = [0; 16];
    stream.read_exact(&mut hello).await.map_err(lost)?;
    let mut fields = Fields(&hello);
    if fields.u64() != Some(NBD_MAGIC) {
        return Err(NbdError::Handshake("this is not an NBD server (wrong magic number)".into()));
    }
    match fields.u64() {
        Some(OPTION_MAGIC) => {}
        Some(OLDSTYLE_MAGIC) => {
            return Err(NbdError::Handshake(
                "the server speaks the oldstyle protocol, which has no export names".into(),
            ));
        }
        _ => return Err(NbdError::Handshake("unknown kind of NBD server".into())),
    }
    let mut flags = [0; 2];
    stream.read_exact(&mut flags).await.map_err(lost)?;
    Ok(u16::from_be_bytes(flags))
}

async fn send_option(stream: &mut Box<dyn Duplex>, opt: Opt, data: &[u8]) -> Result<(), NbdError> {
    let length = u32::try_from(data.len())
        .map_err(|_| NbdError::Handshake("an option's data is too long".into()))?;
    let mut out = Vec::with_capacity(16 + data.len());
    out.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
    out.extend_from_slice(&(opt as u32).to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(data);
    stream.write_all(&out).await.map_err(lost)?;
    stream.flush().await.map_err(lost)
}

/// One reply to an option: its kind and data.
async fn option_reply(stream: &mut Box<dyn Duplex>, opt: Opt) -> Result<(u32, Vec<u8>), NbdError> {
    let mut header = [0; 20];
    stream.read_exact(&mut header).await.map_err(lost)?;
    let mut fields = Fields(&header);
    let (magic, of) = (fields.u64(), fields.u32());
    let (kind, length) = (fields.u32().unwrap_or(0), fields.u32().unwrap_or(0));
    if magic != Some(OPTION_REPLY_MAGIC) {
        return Err(NbdError::Protocol("an option reply has the wrong magic number".into()));
    }
    if of != Some(opt as u32) {
        return Err(NbdError::Protocol(format!("a reply to an option that was not {opt:?}")));
    }
    if length > MAX_OPTION_REPLY {
        return Err(NbdError::Protocol(format!("a reply of {length} bytes to {opt:?}")));
    }
    let mut data = vec![0; length as usize];
    stream.read_exact(&mut data).await.map_err(lost)?;
    Ok((kind, data))
}

fn refused(what: &str, kind: u32, data: &[u8]) -> NbdError {
    let reason = match kind & !REP_ERROR {
        1 => "it does not know this option",
        2 => "its policy forbids it",
        3 => "it calls the request invalid",
        4 => "its platform cannot do it",
        5 => "it wants TLS (use nbds://)",
        6 => "it has no such export",
        7 => "it is shutting down",
        8 => "it wants block sizes to be negotiated",
        9 => "the request is too big for it",
        10 => "it wants extended headers",
        _ => "unknown reason",
    };
    let text = clean(data);
    let reason = if text.is_empty() { reason.to_owned() } else { format!("{reason} ({text})") };
    NbdError::Refused { what: what.to_owned(), reason, passing: matches!(kind & !REP_ERROR, 6 | 7) }
}

async fn start_tls(stream: &mut Box<dyn Duplex>) -> Result<(), NbdError> {
    send_option(stream, Opt::StartTls, &[]).await?;
    match option_reply(stream, Opt::StartTls).await? {
        (REP_ACK, _) => Ok(()),
        (kind, data) if kind & REP_ERROR != 0 => Err(refused("TLS", kind, &data)),
        _ => Err(NbdError::Protocol("an unexpected reply to STARTTLS".into())),
    }
}

/// Whether the server says yes to an option without data.
async fn accepts(stream: &mut Box<dyn Duplex>, opt: Opt) -> Result<bool, NbdError> {
    send_option(stream, opt, &[]).await?;
    match option_reply(stream, opt).await? {
        (REP_ACK, _) => Ok(true),
        (REP_ERR_TLS_REQD, data) => Err(refused("a plain connection", REP_ERR_TLS_REQD, &data)),
        (kind, _) if kind & REP_ERROR != 0 => Ok(false),
        _ => Err(NbdError::Protocol(format!("an unexpected reply to {opt:?}"))),
    }
}

async fn ask_replies(stream: &mut Box<dyn Duplex>) -> Result<Replies, NbdError> {
    if accepts(stream, Opt::ExtendedHeaders).await? {
        return Ok(Replies::Extended);
    }
    let structured = accepts(stream, Opt::StructuredReply).await?;
    Ok(if structured { Replies::Structured } else { Replies::Simple })
}

fn name_field(name: &str) -> Vec<u8> {
    // A name is at most 4096 bytes long (checked by the URI's parser).
    let length = u32::try_from(name.len()).unwrap_or(0);
    let mut data = length.to_be_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    data
}

async fn ask_allocation(stream: &mut Box<dyn Duplex>, name: &str) -> Result<Option<u32>, NbdError> {
    let mut data = name_field(name);
    data.extend_from_slice(&1_u32.to_be_bytes());
    data.extend_from_slice(&15_u32.to_be_bytes());
    data.extend_from_slice(ALLOCATION);
    send_option(stream, Opt::SetMetaContext, &data).await?;
    let mut id = None;
    for _ in 0..MAX_OPTION_REPLIES {
        let (kind, data) = option_reply(stream, Opt::SetMetaContext).await?;
        match kind {
            REP_ACK => return Ok(id),
            REP_META_CONTEXT => {
                let mut fields = Fields(&data);
                let context = fields.u32();
                if fields.0 != ALLOCATION || id.is_some() {
                    return Err(NbdError::Protocol("a metadata context nobody asked for".into()));
                }
                id = context;
            }
            // The copy works without extents.
            _ if kind & REP_ERROR != 0 => return Ok(None),
            _ => return Err(NbdError::Protocol("an unexpected reply to SET_META_CONTEXT".into())),
        }
    }
    Err(NbdError::Protocol("endless replies to SET_META_CONTEXT".into()))
}

/// `None` when the server does not know GO.
async fn go(stream: &mut Box<dyn Duplex>, name: &str) -> Result<Option<Export>, NbdError> {
    let mut data = name_field(name);
    data.extend_from_slice(&1_u16.to_be_bytes());
    data.extend_from_slice(&INFO_BLOCK_SIZE.to_be_bytes());
    send_option(stream, Opt::Go, &data).await?;
    let mut export: Option<Export> = None;
    let mut sizes = None;
    for _ in 0..MAX_OPTION_REPLIES {
        let (kind, data) = option_reply(stream, Opt::Go).await?;
        match kind {
            REP_ACK => return finish_go(export, sizes).map(Some),
            REP_INFO => read_info(&data, &mut export, &mut sizes).map_err(protocol)?,
            REP_ERR_UNSUP => return Ok(None),
            _ if kind & REP_ERROR != 0 => {
                return Err(refused(&format!("the export {name:?}"), kind, &data));
            }
            _ => return Err(NbdError::Protocol("an unexpected reply to GO".into())),
        }
    }
    Err(NbdError::Protocol("endless replies to GO".into()))
}

fn read_info(
    data: &[u8],
    export: &mut Option<Export>,
    sizes: &mut Option<(u32, u32, u32)>,
) -> Result<(), &'static str> {
    let mut fields = Fields(data);
    let short = "an information reply is too short";
    match fields.u16().ok_or(short)? {
        INFO_EXPORT => {
            let (size, flags) = fields.u64().zip(fields.u16()).ok_or(short)?;
            *export = Some(Export::new(size, flags)?);
        }
        INFO_BLOCK_SIZE => {
            let ((min, preferred), max) =
                fields.u32().zip(fields.u32()).zip(fields.u32()).ok_or(short)?;
            wire::check_block_sizes(min, preferred, max)?;
            *sizes = Some((min, preferred, max));
        }
        _ => {}
    }
    Ok(())
}

fn finish_go(export: Option<Export>, sizes: Option<(u32, u32, u32)>) -> Result<Export, NbdError> {
    let mut export =
        export.ok_or_else(|| NbdError::Protocol("GO without the export's size".into()))?;
    if let Some((min, preferred, max)) = sizes {
        (export.min_block, export.preferred_block, export.max_payload) = (min, preferred, max);
    }
    Ok(export)
}

async fn export_name(
    stream: &mut Box<dyn Duplex>,
    name: &str,
    no_zeroes: bool,
) -> Result<Export, NbdError> {
    send_option(stream, Opt::ExportName, name.as_bytes()).await?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).await.map_err(|_| NbdError::Refused {
        what: format!("the export {name:?}"),
        reason: "it closed the connection, so it has probably no such export".into(),
        passing: true,
    })?;
    if !no_zeroes {
        let mut zeroes = [0; 124];
        stream.read_exact(&mut zeroes).await.map_err(lost)?;
    }
    let mut fields = Fields(&answer);
    Export::new(fields.u64().unwrap_or(0), fields.u16().unwrap_or(0)).map_err(protocol)
}

fn protocol(text: &'static str) -> NbdError {
    NbdError::Protocol(text.into())
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn lost(e: std::io::Error) -> NbdError {
    NbdError::Lost(format!("during the handshake: {e}"))
}
