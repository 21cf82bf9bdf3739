//! Block status replies that break the protocol.

use crate::fake::Server;
use crate::frames::{
    BLOCK_STATUS, BLOCK_STATUS_EXT, DATA, DONE, ERROR, MORE, Request, announce, announce_extended,
    chunk, data_payload, done, error_payload, simple, status_payload, wide_status_payload,
};
use crate::shake::{Age, Offer, shake};
use crate::{assert_error, connect, timed};
use datapath::extent::Extent;
use datapath::nbd::NbdError;

const SIZE: u64 = 1 << 20;

/// What asking for the extents of the disk comes to.
async fn extents_from(
    age: Age,
    reply: impl Fn(&Request) -> Vec<u8> + Copy + Send + 'static,
) -> Result<Vec<Extent>, NbdError> {
    let server = Server::start(move |mut peer, _| async move {
        shake(&mut peer, &Offer::new(age, SIZE)).await?;
        let request = peer.request(age == Age::Extended).await?;
        peer.send(&reply(&request)).await?;
        peer.hang().await
    });
    let client = connect(&server).await.unwrap();
    client.extents(0, SIZE).await
}

fn broken(word: &'static str, reply: fn(&Request) -> Vec<u8>) {
    timed(async move {
        let e = extents_from(Age::Structured, reply).await.unwrap_err();
        assert_error!(e, NbdError::Protocol(_), word);
    });
}

fn broken_wide(word: &'static str, payload: fn() -> Vec<u8>) {
    timed(async move {
        let reply = move |r: &Request| {
            let payload = payload();
            let head = announce_extended(r, DONE, BLOCK_STATUS_EXT, payload.len() as u64);
            [head, payload].concat()
        };
        let e = extents_from(Age::Extended, reply).await.unwrap_err();
        assert_error!(e, NbdError::Protocol(_), word);
    });
}

fn status(r: &Request, flags: u16, context: u32, extents: &[(u32, u32)]) -> Vec<u8> {
    chunk(r.cookie, flags, BLOCK_STATUS, &status_payload(context, extents))
}

#[test]
fn extents_of_another_context_are_refused() {
    broken("context nobody asked for", |r| status(r, DONE, 8, &[(4096, 0)]));
    broken_wide("context nobody asked for", || wide_status_payload(8, 1, &[(4096, 0)]));
}

#[test]
fn extents_that_come_twice_are_refused() {
    broken("nobody asked for", |r| status(r, MORE, 7, &[(4096, 0)]).repeat(2));
}

#[test]
fn extents_of_length_zero_are_refused() {
    broken("length 0", |r| status(r, DONE, 7, &[(0, 0)]));
    broken("length 0", |r| status(r, DONE, 7, &[(4096, 0), (0, 3), (4096, 0)]));
    broken_wide("length 0", || wide_status_payload(7, 2, &[(4096, 0), (0, 0)]));
}

#[test]
fn no_extents_at_all_are_refused() {
    broken("broken length", |r| status(r, DONE, 7, &[]));
    broken("too short", |r| chunk(r.cookie, DONE, BLOCK_STATUS, &[0, 0]));
    broken("too short", |r| chunk(r.cookie, DONE, BLOCK_STATUS, &[]));
    broken("without extents", |r| done(r.cookie));
    broken_wide("too short", || vec![0, 0, 0, 7, 0]);
    broken_wide("broken length", || wide_status_payload(7, 0, &[]));
}

#[test]
fn torn_extents_are_refused() {
    broken("broken length", |r| chunk(r.cookie, DONE, BLOCK_STATUS, &[0, 0, 0, 7, 0, 0, 0, 1, 0]));
    broken_wide("broken length", || wide_status_payload(7, 1, &[(9, 0)])[..20].to_vec());
    broken_wide("contradicts", || wide_status_payload(7, 2, &[(4096, 0)]));
    broken_wide("contradicts", || wide_status_payload(7, u32::MAX, &[(4096, 0)]));
}

#[test]
fn extents_of_impossible_number_are_refused() {
    broken("too many", |r| announce(r.cookie, DONE, BLOCK_STATUS, u32::MAX));
    timed(async {
        let announce = |r: &Request| announce_extended(r, DONE, BLOCK_STATUS_EXT, u64::MAX);
        let e = extents_from(Age::Extended, announce).await.unwrap_err();
        assert_error!(e, NbdError::Protocol(_), "too many");
    });
}

#[test]
fn data_or_a_simple_reply_instead_of_extents_is_refused() {
    broken("no read", |r| chunk(r.cookie, DONE, DATA, &data_payload(0, &[1; 512])));
    broken("simple reply", |r| simple(r.cookie, 0));
}

#[test]
fn an_error_instead_of_extents_is_told() {
    timed(async {
        let error = |r: &Request| chunk(r.cookie, DONE, ERROR, &error_payload(95, 2, "no"));
        let e = extents_from(Age::Structured, error).await.unwrap_err();
        assert_error!(e, NbdError::Server { errno: 95, .. }, "ENOTSUP): no");
        let e = extents_from(Age::Structured, |r| simple(r.cookie, 22)).await.unwrap_err();
        assert_error!(e, NbdError::Server { errno: 22, .. }, "EINVAL");
    });
}

#[test]
fn extents_may_reach_beyond_the_request_or_end_early() {
    timed(async {
        let beyond = |r: &Request| status(r, DONE, 7, &[(4096, 3), (u32::MAX, 0), (u32::MAX, 3)]);
        let part = |start, end, zero| Extent { start, end, zero };
        let got = extents_from(Age::Structured, beyond).await.unwrap();
        assert_eq!(got, [part(0, 4096, true), part(4096, SIZE, false)]);
        let early = |r: &Request| status(r, DONE, 7, &[(512, 1), (512, 0), (512, 2)]);
        let got = extents_from(Age::Structured, early).await.unwrap();
        assert_eq!(got, [part(0, 1024, false), part(1024, 1536, true)]);
        let huge = |r: &Request| {
            let payload = wide_status_payload(7, 2, &[(u64::MAX, 0), (u64::MAX, 2)]);
            let head = announce_extended(r, DONE, BLOCK_STATUS_EXT, payload.len() as u64);
            [head, payload].concat()
        };
        let got = extents_from(Age::Extended, huge).await.unwrap();
        assert_eq!(got, [part(0, SIZE, false)]);
    });
}

#[test]
fn endless_chunks_end_however_long_the_asked_range_is() {
    timed(async {
        for length in [1 << 20, 1 << 30, 1 << 40] {
            let server = Server::start(move |mut peer, _| async move {
                shake(&mut peer, &Offer::new(Age::Extended, length)).await?;
                let request = peer.request(true).await?;
                let error = error_payload(5, 0, "");
                let head = announce_extended(&request, MORE, ERROR, error.len() as u64);
                peer.send_for_ever(&[head, error].concat()).await
            });
            let client = connect(&server).await.unwrap();
            let ask = client.extents(0, length);
            let limit = std::time::Duration::from_secs(4);
            let Ok(result) = tokio::time::timeout(limit, ask).await else {
                panic!("errors without end for a question about {length} bytes");
            };
            assert_error!(result.unwrap_err(), NbdError::Protocol(_), "endless");
        }
    });
}
