//! Replies to reads and writes that break the protocol.

use crate::fake::{Peer, Server};
use crate::frames::{
    DATA, DONE, ERROR, HOLE, MORE, NONE, Request, announce, announce_extended, chunk, data_payload,
    done, error_payload, hole_payload, simple,
};
use crate::shake::{Age, Offer, shake};
use crate::{assert_error, connect, read, timed};
use datapath::nbd::NbdError;
use std::io;

const SIZE: u64 = 1 << 20;
const AT: u64 = 8192;
const LENGTH: usize = 4096;

/// A server that answers its first request with these bytes and then says no more.
fn answering(age: Age, reply: fn(&Request) -> Vec<u8>) -> Server {
    Server::start(move |mut peer, _| async move {
        shake(&mut peer, &Offer::new(age, SIZE)).await?;
        let request = peer.request(age == Age::Extended).await?;
        peer.send(&reply(&request)).await?;
        peer.hang().await
    })
}

/// What a read at `AT` comes to.
async fn read_from(age: Age, reply: fn(&Request) -> Vec<u8>) -> Result<Vec<u8>, NbdError> {
    let server = answering(age, reply);
    let client = connect(&server).await.unwrap();
    read(&client, AT, LENGTH).await
}

/// A structured reply that breaks the protocol, and a word of the error.
fn broken(word: &'static str, reply: fn(&Request) -> Vec<u8>) {
    broken_for(Age::Structured, word, reply);
}

fn broken_for(age: Age, word: &'static str, reply: fn(&Request) -> Vec<u8>) {
    timed(async move {
        let e = read_from(age, reply).await.unwrap_err();
        assert_error!(e, NbdError::Protocol(_), word);
    });
}

fn data(r: &Request, flags: u16, offset: u64, length: usize) -> Vec<u8> {
    chunk(r.cookie, flags, DATA, &data_payload(offset, &vec![9; length]))
}

fn hole(r: &Request, flags: u16, offset: u64, length: u32) -> Vec<u8> {
    chunk(r.cookie, flags, HOLE, &hole_payload(offset, length))
}

#[test]
fn a_reply_to_an_unknown_request_is_refused() {
    broken("not made", |r| done(r.cookie + 1));
    broken("not made", |r| simple(r.cookie + 1, 0));
}

#[test]
fn unknown_magic_numbers_are_refused() {
    broken("0x01010101", |_| vec![1; 64]);
}

#[test]
fn replies_of_a_kind_that_was_not_agreed_on_are_refused() {
    broken_for(Age::Simple, "0x668e33ef", |r| data(r, DONE, AT, LENGTH));
    broken("0x6e8a278c", |r| announce_extended(r, DONE, NONE, 0));
    broken_for(Age::Extended, "0x668e33ef", |r| data(r, DONE, AT, LENGTH));
    broken_for(Age::Extended, "0x67446698", |r| simple(r.cookie, 0));
}

#[test]
fn a_simple_reply_to_a_structured_read_is_refused() {
    broken("simple reply", |r| [simple(r.cookie, 0), vec![9; LENGTH]].concat());
}

#[test]
fn data_outside_the_request_is_refused() {
    broken("before the request", |r| data(r, DONE, AT - 1, 10));
    broken("before the request", |r| data(r, DONE, 0, LENGTH));
    broken("beyond the request", |r| data(r, DONE, AT + 4090, 10));
    broken("beyond the request", |r| data(r, DONE, AT, LENGTH + 1));
    broken("beyond the request", |r| data(r, DONE, u64::MAX, LENGTH));
    broken("beyond the request", |r| announce(r.cookie, DONE, DATA, u32::MAX).repeat(2));
}

#[test]
fn holes_outside_the_request_are_refused() {
    broken("before the request", |r| hole(r, DONE, AT - 1, 1));
    broken("beyond the request", |r| hole(r, DONE, AT, 4097));
    broken("beyond the request", |r| hole(r, DONE, AT + 1, u32::MAX));
    broken("beyond the request", |r| hole(r, DONE, AT, 0));
}

#[test]
fn the_same_data_twice_is_refused() {
    broken("twice", |r| [data(r, MORE, AT, 100), data(r, DONE, AT + 99, 100)].concat());
    broken("twice", |r| [data(r, MORE, AT + 50, 100), data(r, DONE, AT, 51)].concat());
    broken("twice", |r| [data(r, MORE, AT, 4096), data(r, DONE, AT, 4096)].concat());
    broken("twice", |r| [data(r, MORE, AT, 4096), hole(r, DONE, AT + 4095, 1)].concat());
    broken("twice", |r| [hole(r, MORE, AT, 4096), hole(r, DONE, AT, 4096)].concat());
    broken("twice", |r| [hole(r, MORE, AT + 10, 10), data(r, DONE, AT, 4096)].concat());
}

#[test]
fn missing_parts_at_the_end_are_an_error() {
    broken("0 bytes instead of 4096 at 8192", |r| done(r.cookie));
    broken("4095 bytes instead", |r| data(r, DONE, AT, 4095));
    broken("10 bytes instead", |r| [hole(r, MORE, AT + 9, 10), done(r.cookie)].concat());
    let ext = |r: &Request| announce_extended(r, DONE, NONE, 0);
    broken_for(Age::Extended, "0 bytes instead", ext);
}

#[test]
fn chunks_of_impossible_length_or_type_are_refused() {
    broken("type 1 and 8 bytes", |r| data(r, MORE, AT, 0));
    broken("type 1 and 0 bytes", |r| announce(r.cookie, MORE, DATA, 0));
    broken("type 2 and 11 bytes", |r| announce(r.cookie, MORE, HOLE, 11));
    broken("type 2 and 4294967295 bytes", |r| announce(r.cookie, MORE, HOLE, u32::MAX));
    broken("type 0 and 1 bytes", |r| announce(r.cookie, DONE, NONE, 1));
    broken("type 0 and 0 bytes", |r| announce(r.cookie, MORE, NONE, 0));
    broken("type 99 and 4 bytes", |r| announce(r.cookie, MORE, 99, 4));
    broken("nobody asked for", |r| announce(r.cookie, DONE, 5, 12));
    broken_for(Age::Extended, "beyond", |r| {
        [announce_extended(r, DONE, DATA, u64::MAX), data_payload(AT, &[])].concat()
    });
    broken_for(Age::Extended, "nobody asked for", |r| announce_extended(r, DONE, 6, u64::MAX));
    broken_for(Age::Extended, "impossible length", |r| announce_extended(r, DONE, ERROR, u64::MAX));
}

#[test]
fn error_chunks_that_make_no_sense_are_refused() {
    let torn = |r: &Request| chunk(r.cookie, DONE, ERROR, &error_payload(5, 10, "short"));
    broken("torn error", torn);
    broken("impossible length", |r| chunk(r.cookie, DONE, ERROR, &[0, 0, 0, 5, 0]));
    broken("impossible length", |r| announce(r.cookie, DONE, ERROR, 0));
    broken("impossible length", |r| announce(r.cookie, DONE, ERROR, u32::MAX));
}

#[test]
fn endless_chunks_without_progress_end() {
    timed(async {
        let error = |r: &Request| chunk(r.cookie, MORE, ERROR, &error_payload(5, 0, ""));
        let server = Server::start(move |mut peer, _| async move {
            shake(&mut peer, &Offer::new(Age::Structured, SIZE)).await?;
            let request = peer.request(false).await?;
            peer.send_for_ever(&error(&request)).await
        });
        let client = connect(&server).await.unwrap();
        let e = read(&client, AT, LENGTH).await.unwrap_err();
        assert_error!(e, NbdError::Protocol(_), "endless");
    });
}

/// The server answers with an error; the connection lives on.
fn failed(age: Age, word: &'static str, errno: u32, reply: fn(&Request) -> Vec<u8>) {
    timed(async move {
        let e = read_from(age, reply).await.unwrap_err();
        assert!(matches!(&e, NbdError::Server { errno: n, .. } if *n == errno), "{e:?}");
        assert!(e.to_string().contains(word) && !e.breaks_connection(), "{e}");
    });
}

#[test]
fn errors_of_the_server_are_told_with_their_text() {
    let structured = Age::Structured;
    failed(structured, "EIO): bad  sector", 5, |r| {
        chunk(r.cookie, DONE, ERROR, &error_payload(5, 11, "bad\x1b\nsector"))
    });
    failed(structured, "4096 bytes at 8192", 22, |r| simple(r.cookie, 22));
    failed(Age::Simple, "ESHUTDOWN", 108, |r| simple(r.cookie, 108));
    failed(structured, "unknown error", 12345, |r| {
        chunk(r.cookie, DONE, 0x80ff, &error_payload(12345, 0, ""))
    });
    // An error with its place (type 2), after part of the data, and the end in a chunk of its own.
    failed(structured, "EIO): here", 5, |r| {
        let place = [error_payload(5, 4, "here"), (AT + 100).to_be_bytes().to_vec()].concat();
        let error = chunk(r.cookie, MORE, 0x8002, &place);
        [data(r, MORE, AT, 100), error, done(r.cookie)].concat()
    });
    // The first of two errors counts.
    failed(structured, "EIO", 5, |r| {
        let error = |errno| chunk(r.cookie, MORE, ERROR, &error_payload(errno, 0, ""));
        [error(5), error(22), done(r.cookie)].concat()
    });
}

#[test]
fn an_error_chunk_with_error_number_zero_is_a_failure_all_the_same() {
    failed(Age::Structured, "EIO", 5, |r| {
        let error = chunk(r.cookie, MORE, ERROR, &error_payload(0, 0, ""));
        [error, data(r, DONE, AT, LENGTH)].concat()
    });
}

async fn twice(peer: &mut Peer) -> io::Result<()> {
    shake(peer, &Offer::new(Age::Structured, SIZE)).await?;
    let first = peer.request(false).await?;
    let _second = peer.request(false).await?;
    peer.send(&data(&first, DONE, first.offset, LENGTH).repeat(2)).await?;
    peer.hang().await
}

#[test]
fn the_reply_to_one_request_twice_is_refused() {
    timed(async {
        let server = Server::start(|mut peer, _| async move { twice(&mut peer).await });
        let client = connect(&server).await.unwrap();
        let (first, second) = tokio::join!(read(&client, 0, LENGTH), read(&client, AT, LENGTH));
        assert_eq!(first.unwrap(), [9; LENGTH]);
        assert_error!(second.unwrap_err(), NbdError::Protocol(_), "not made");
    });
}

#[test]
fn every_request_in_flight_gets_the_fault() {
    timed(async {
        let server = Server::start(|mut peer, _| async move {
            shake(&mut peer, &Offer::new(Age::Structured, SIZE)).await?;
            for _ in 0..8 {
                peer.request(false).await?;
            }
            peer.send(&[7; 4]).await?;
            peer.hang().await
        });
        let client = connect(&server).await.unwrap();
        let reads = (0..8).map(|_| read(&client, AT, LENGTH));
        for result in futures_util::future::join_all(reads).await {
            assert_error!(result.unwrap_err(), NbdError::Protocol(_), "0x07070707");
        }
    });
}

fn data_there(r: &Request) -> Vec<u8> {
    data(r, DONE, AT, LENGTH)
}

fn hole_there(r: &Request) -> Vec<u8> {
    hole(r, DONE, AT, 4096)
}

#[test]
fn a_write_is_not_answered_with_data() {
    timed(async {
        for reply in [data_there as fn(&Request) -> Vec<u8>, hole_there] {
            let server = answering(Age::Structured, reply);
            let client = connect(&server).await.unwrap();
            let e = client.write(AT, &[1; LENGTH]).await.unwrap_err();
            assert_error!(e, NbdError::Protocol(_), "no read");
        }
    });
}

#[test]
fn a_request_outside_the_export_is_not_sent() {
    timed(async {
        let server = answering(Age::Structured, |r| done(r.cookie));
        let client = connect(&server).await.unwrap();
        for offset in [SIZE, SIZE - 1, u64::MAX] {
            let e = read(&client, offset, LENGTH).await.unwrap_err();
            assert_error!(e, NbdError::OutOfRange { .. }, "1048576 bytes");
        }
    });
}
