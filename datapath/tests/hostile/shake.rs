//! The server's half of the handshake, with a hook for wrong answers.

use crate::fake::Peer;
use crate::frames::{
    ACK, EXPORT_NAME, EXTENDED_HEADERS, FIXED_NEWSTYLE, GO, NO_ZEROES, SET_META_CONTEXT,
    STRUCTURED_REPLY, UNSUPPORTED, WRITABLE, context, greeting, info_blocks, info_export,
    option_reply,
};
use std::io;

/// Age of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum Age {
    /// Knows nothing but `EXPORT_NAME`.
    Old,
    /// Knows GO, and no structured replies.
    Simple,
    /// Structured replies.
    Structured,
    /// Extended headers.
    Extended,
}

/// What the server has to offer.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    pub age: Age,
    pub greeting: u16,
    pub size: u64,
    pub flags: u16,
    pub blocks: (u32, u32, u32),
    /// Id of `base:allocation`.
    pub context: Option<u32>,
}

impl Offer {
    pub fn new(age: Age, size: u64) -> Self {
        Self {
            age,
            greeting: FIXED_NEWSTYLE | NO_ZEROES,
            size,
            flags: WRITABLE,
            blocks: (1, 4096, 32 << 20),
            context: (age >= Age::Structured).then_some(7),
        }
    }
}

/// An answer to an option that a good server would not give.
#[derive(Debug, Clone)]
pub enum Answer {
    Once(Vec<u8>),
    ForEver(Vec<u8>),
}

/// A correct handshake, up to transmission.
pub async fn shake(peer: &mut Peer, offer: &Offer) -> io::Result<()> {
    shake_but(peer, offer, |_| None).await
}

/// The same, except for options that have another answer.
pub async fn shake_but(
    peer: &mut Peer,
    offer: &Offer,
    wrong: impl Fn(u32) -> Option<Answer>,
) -> io::Result<()> {
    peer.send(&greeting(offer.greeting)).await?;
    let client = u32::from_be_bytes(peer.take().await?);
    assert_eq!(client, u32::from(offer.greeting), "the client takes what the server offers");
    loop {
        let (option, data) = peer.option().await?;
        assert!(option == EXPORT_NAME || offer.greeting & FIXED_NEWSTYLE != 0);
        match wrong(option) {
            Some(Answer::Once(bytes)) => peer.send(&bytes).await?,
            Some(Answer::ForEver(bytes)) => peer.send_for_ever(&bytes).await?,
            None => {
                peer.send(&answer(offer, option, &data)).await?;
                if option == EXPORT_NAME || (option == GO && offer.age != Age::Old) {
                    return Ok(());
                }
            }
        }
    }
}

fn answer(offer: &Offer, option: u32, data: &[u8]) -> Vec<u8> {
    let ack = option_reply(option, ACK, &[]);
    match option {
        EXPORT_NAME => {
            let zeroes = if offer.greeting & NO_ZEROES == 0 { 124 } else { 0 };
            let answer = [offer.size.to_be_bytes().as_slice(), &offer.flags.to_be_bytes()].concat();
            [answer, vec![0; zeroes]].concat()
        }
        GO if offer.age > Age::Old => {
            let (min, preferred, max) = offer.blocks;
            let blocks = info_blocks(min, preferred, max);
            [info_export(offer.size, offer.flags), blocks, ack].concat()
        }
        STRUCTURED_REPLY if offer.age == Age::Structured => ack,
        EXTENDED_HEADERS if offer.age == Age::Extended => ack,
        SET_META_CONTEXT if offer.age >= Age::Structured => {
            let name = [15_u32.to_be_bytes().as_slice(), b"base:allocation"].concat();
            assert!(data.ends_with(&name), "it asks for base:allocation");
            [offer.context.map(context).unwrap_or_default(), ack].concat()
        }
        _ => option_reply(option, UNSUPPORTED, b"never heard of it"),
    }
}
