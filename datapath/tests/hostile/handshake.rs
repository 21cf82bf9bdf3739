//! Handshakes that go wrong.

use crate::fake::Server;
use crate::frames::{
    ACK, EXPORT_NAME, EXTENDED_HEADERS, GO, INFO, META_CONTEXT, SET_META_CONTEXT, STRUCTURED_REPLY,
    context, info_blocks, info_export, option_reply, option_reply_head,
};
use crate::shake::{Age, Answer, Offer, shake_but};
use crate::{assert_error, connect, timed};
use datapath::nbd::NbdError;

const SIZE: u64 = 1 << 20;

/// Sends this and nothing else; what the client makes of it.
async fn after_hello(hello: Vec<u8>) -> NbdError {
    let server = Server::start(move |mut peer, _| {
        let hello = hello.clone();
        async move {
            peer.send(&hello).await?;
            peer.hang().await
        }
    });
    connect(&server).await.unwrap_err()
}

/// A server that is right but for its answer to one option.
async fn after_answer(age: Age, option: u32, wrong: Answer) -> NbdError {
    let server = Server::start(move |mut peer, _| {
        let wrong = wrong.clone();
        async move {
            let offer = Offer::new(age, SIZE);
            shake_but(&mut peer, &offer, |o| (o == option).then(|| wrong.clone())).await?;
            peer.hang().await
        }
    });
    connect(&server).await.unwrap_err()
}

async fn after(option: u32, bytes: Vec<u8>) -> NbdError {
    after_answer(Age::Structured, option, Answer::Once(bytes)).await
}

async fn after_go(replies: &[Vec<u8>]) -> NbdError {
    after(GO, [replies.concat(), option_reply(GO, ACK, &[])].concat()).await
}

#[test]
fn what_is_no_nbd_server_is_named_so() {
    timed(async {
        let http = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
        assert_error!(after_hello(http).await, NbdError::Handshake(_), "not an NBD server");
        let odd = b"NBDMAGICIHAVEOPS\0\x03".to_vec();
        assert_error!(after_hello(odd).await, NbdError::Handshake(_), "unknown kind");
    });
}

#[test]
fn oldstyle_is_named_and_refused() {
    timed(async {
        let magic = 0x0000_4202_8186_1253_u64.to_be_bytes();
        let hello = [b"NBDMAGIC".as_slice(), &magic, &[0; 200]].concat();
        assert_error!(after_hello(hello).await, NbdError::Handshake(_), "oldstyle");
    });
}

#[test]
fn a_refusal_is_quoted() {
    timed(async {
        let no = option_reply(GO, 0x8000_0006, b"no disk\x07 of that\nname");
        let e = after(GO, no).await;
        assert_error!(e, NbdError::Refused { .. }, "no such export (no disk  of that name)");
        let tls = option_reply(EXTENDED_HEADERS, 0x8000_0005, b"");
        assert_error!(after(EXTENDED_HEADERS, tls).await, NbdError::Refused { .. }, "nbds://");
        let new = option_reply(GO, 0x8000_7777, b"");
        assert_error!(after(GO, new).await, NbdError::Refused { .. }, "unknown reason");
    });
}

#[test]
fn an_export_name_that_is_answered_by_hanging_up_is_no_export() {
    timed(async {
        let server = Server::start(|mut peer, _| async move {
            let hang_up = |o| (o == EXPORT_NAME).then(|| Answer::Once(vec![]));
            let offer = Offer::new(Age::Old, SIZE);
            let shaking = shake_but(&mut peer, &offer, hang_up);
            let patience = std::time::Duration::from_millis(100);
            let _ = tokio::time::timeout(patience, shaking).await;
            Ok(())
        });
        let e = connect(&server).await.unwrap_err();
        assert_error!(e, NbdError::Refused { .. }, "no such export");
    });
}

#[test]
fn option_replies_of_impossible_length_are_refused() {
    timed(async {
        for option in [EXTENDED_HEADERS, STRUCTURED_REPLY, SET_META_CONTEXT, GO] {
            for kind in [ACK, INFO, META_CONTEXT, 0x8000_0001, 0x8000_0006] {
                let head = option_reply_head(option, kind, u32::MAX);
                let e = after(option, head).await;
                assert_error!(e, NbdError::Protocol(_), "4294967295 bytes");
            }
        }
    });
}

#[test]
fn option_replies_that_do_not_fit_their_option_are_refused() {
    timed(async {
        for option in [EXTENDED_HEADERS, STRUCTURED_REPLY, SET_META_CONTEXT, GO] {
            let other = option_reply(option + 1, ACK, &[]);
            assert_error!(
                after(option, other).await,
                NbdError::Protocol(_),
                "a reply to an option"
            );
            let mut magic = option_reply(option, ACK, &[]);
            magic[0] ^= 1;
            assert_error!(after(option, magic).await, NbdError::Protocol(_), "magic");
            let strange = option_reply(option, 77, &[]);
            assert_error!(after(option, strange).await, NbdError::Protocol(_), "unexpected reply");
        }
    });
}

#[test]
fn endless_replies_to_an_option_end() {
    timed(async {
        for reply in [info_export(SIZE, 1), option_reply(GO, INFO, &[0, 99])] {
            let e = after_answer(Age::Structured, GO, Answer::ForEver(reply)).await;
            assert_error!(e, NbdError::Protocol(_), "endless");
        }
        let contexts = Answer::ForEver(context(1));
        let e = after_answer(Age::Structured, SET_META_CONTEXT, contexts).await;
        assert_error!(e, NbdError::Protocol(_), "context");
    });
}

#[test]
fn a_context_nobody_asked_for_is_refused() {
    timed(async {
        let other = [1_u32.to_be_bytes().as_slice(), b"qemu:dirty-bitmap:x"].concat();
        for data in [other.as_slice(), &[0, 0], &[]] {
            let reply = option_reply(SET_META_CONTEXT, META_CONTEXT, data);
            assert_error!(after(SET_META_CONTEXT, reply).await, NbdError::Protocol(_), "context");
        }
    });
}

#[test]
fn an_impossible_export_size_is_refused() {
    timed(async {
        for size in [1 << 63, u64::MAX] {
            let e = after_go(&[info_export(size, 1)]).await;
            assert_error!(e, NbdError::Protocol(_), "2^63");
            let name = [size.to_be_bytes().as_slice(), &[0, 1]].concat();
            let e = after_answer(Age::Old, EXPORT_NAME, Answer::Once(name)).await;
            assert_error!(e, NbdError::Protocol(_), "2^63");
        }
        assert_error!(after_go(&[]).await, NbdError::Protocol(_), "without the export's size");
    });
}

#[test]
fn torn_information_is_refused() {
    timed(async {
        for data in [&[][..], &[0], &[0, 0], &[0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9], &[0, 3, 0, 0]] {
            let e = after_go(&[option_reply(GO, INFO, data)]).await;
            assert_error!(e, NbdError::Protocol(_), "too short");
        }
    });
}

#[test]
fn impossible_block_sizes_are_refused() {
    timed(async {
        for (min, preferred, max, word) in [
            (0, 4096, 1 << 20, "minimum"),
            (1, 0, 1 << 20, "preferred"),
            (1, 4096, 0, "maximum"),
            (3, 4096, 1 << 20, "minimum"),
            (1 << 17, 1 << 17, 1 << 20, "minimum"),
            (512, 5000, 1 << 20, "preferred"),
            (4096, 512, 1 << 20, "preferred"),
            (512, 512, 1000, "maximum"),
            (4096, 4096, 512, "maximum"),
            (u32::MAX, u32::MAX, u32::MAX, "minimum"),
        ] {
            let e = after_go(&[info_export(SIZE, 1), info_blocks(min, preferred, max)]).await;
            assert_error!(e, NbdError::Protocol(_), word);
        }
    });
}

#[test]
fn a_server_that_is_not_there_is_a_failed_connection() {
    timed(async {
        let server = Server::start(|_, _| async { Ok(()) });
        let uri: datapath::nbd::NbdUri = format!("{}-gone", server.uri()).parse().unwrap();
        let e = datapath::nbd::NbdClient::connect(uri, crate::options()).await.unwrap_err();
        assert_error!(e, NbdError::Connect { .. }, "cannot connect");
    });
}
