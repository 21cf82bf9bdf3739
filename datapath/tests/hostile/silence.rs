//! Servers that hang up, fall silent or drip, after every byte of a whole session.

use crate::disk::{Disk, PAGE, serve};
use crate::fake::{Fault, Server};
use crate::frames::{DATA, announce, data_payload};
use crate::shake::{Age, Offer, shake};
use crate::{PATIENCE, assert_error, connect, read, timed};
use datapath::nbd::NbdError;
use futures_util::future::join_all;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

const SIZE: u64 = 4 * PAGE;
/// So many faulty servers at once: they mostly wait.
const BATCH: usize = 40;
/// A session that is not over by then hangs; extents are waited for ten times as long as data.
const HANG: Duration = Duration::from_secs(6);

/// A session: handshake, a read across data and hole, and extents if the server has them.
/// `None` when it hangs. Also how many bytes the server sent.
async fn session(age: Age, fault: Fault) -> (Option<Result<(), NbdError>>, usize) {
    let disk = Disk::striped(SIZE, 1);
    let sent = Arc::new(AtomicUsize::new(0));
    let (model, total) = (disk.clone(), Arc::clone(&sent));
    let server = Server::start(move |mut peer, _| {
        let (model, total) = (model.clone(), Arc::clone(&total));
        async move {
            peer.fault = fault;
            let requests = if age >= Age::Structured { 2 } else { 1 };
            let served = serve(&mut peer, &Offer::new(age, SIZE), &model, requests).await;
            total.store(peer.sent, Ordering::Relaxed);
            if served.is_ok() { peer.hang().await } else { served }
        }
    });
    let result = tokio::time::timeout(HANG, talk(&server, &disk)).await.ok();
    // The server's task may still have to run.
    tokio::time::sleep(Duration::from_millis(5)).await;
    (result, sent.load(Ordering::Relaxed))
}

async fn talk(server: &Server, disk: &Disk) -> Result<(), NbdError> {
    let client = connect(server).await?;
    let (offset, length) = (PAGE - 20, 40);
    assert_eq!(read(&client, offset, 40).await?, disk.read(offset, length));
    if client.has_extents() {
        let extents = client.extents(0, SIZE).await?;
        assert_eq!(extents.len(), disk.runs(0, SIZE).len());
    }
    Ok(())
}

/// Length of a session where nothing goes wrong.
async fn whole(age: Age) -> usize {
    let (result, sent) = session(age, Fault::Never).await;
    result.unwrap().unwrap();
    assert!(sent > 60, "{sent}");
    sent
}

/// Runs a session for each place of the fault; `check` gets the place and the error.
async fn at_every_byte(age: Age, fault: fn(usize) -> Fault, check: fn(usize, &NbdError)) {
    let total = whole(age).await;
    for start in (0..total).step_by(BATCH) {
        let places = start..(start + BATCH).min(total);
        let sessions = places.clone().map(|place| session(age, fault(place)));
        let mut hung = Vec::new();
        for (place, (result, _)) in places.zip(join_all(sessions).await) {
            match result {
                Some(Ok(())) => {
                    // Extents may drip for 3 s, which is 60 bytes, after the end of a read.
                    let dripped = matches!(fault(0), Fault::Drip(_)) && total - place < 80;
                    assert!(dripped, "no error after {place} of {total} bytes");
                }
                Some(Err(e)) => check(place, &e),
                None => hung.push(place),
            }
        }
        assert!(hung.is_empty(), "it hangs after {hung:?} of {total} bytes");
    }
    session(age, fault(total)).await.0.unwrap().unwrap();
}

fn lost(place: usize, e: &NbdError) {
    match e {
        NbdError::Handshake(text) => assert!(place < 16 && text.contains("greeting"), "{text}"),
        NbdError::Refused { reason, .. } => assert!(reason.contains("closed"), "{place}: {reason}"),
        // "it was closed" would be a reader that ended without saying why.
        e => {
            assert_error!(e, NbdError::Lost(_), "lost");
            assert!(!e.to_string().contains("it was closed"), "{place}: {e}");
        }
    }
}

fn stalled(place: usize, e: &NbdError) {
    let wanted = matches!(e, NbdError::Stalled { .. }) && e.to_string().contains("stalled");
    assert!(wanted, "after {place} bytes: {e:?}");
}

#[test]
fn a_server_that_hangs_up_after_any_byte_is_lost_structured() {
    timed(at_every_byte(Age::Structured, Fault::Close, lost));
}

#[test]
fn a_server_that_hangs_up_after_any_byte_is_lost_extended() {
    timed(at_every_byte(Age::Extended, Fault::Close, lost));
}

#[test]
fn a_server_that_hangs_up_after_any_byte_is_lost_simple() {
    timed(at_every_byte(Age::Simple, Fault::Close, lost));
}

#[test]
fn a_server_that_hangs_up_after_any_byte_is_lost_export_name() {
    timed(at_every_byte(Age::Old, Fault::Close, lost));
}

#[test]
fn a_server_that_falls_silent_after_any_byte_has_stalled_structured() {
    timed(at_every_byte(Age::Structured, Fault::Hang, stalled));
}

#[test]
fn a_server_that_falls_silent_after_any_byte_has_stalled_extended() {
    timed(at_every_byte(Age::Extended, Fault::Hang, stalled));
}

#[test]
fn a_server_that_falls_silent_after_any_byte_has_stalled_simple() {
    timed(at_every_byte(Age::Simple, Fault::Hang, stalled));
}

#[test]
fn a_server_that_falls_silent_after_any_byte_has_stalled_export_name() {
    timed(at_every_byte(Age::Old, Fault::Hang, stalled));
}

#[test]
fn a_server_that_drips_from_any_byte_on_has_stalled() {
    timed(at_every_byte(Age::Structured, Fault::Drip, stalled));
}

#[test]
fn an_old_server_that_drips_from_any_byte_on_has_stalled() {
    timed(at_every_byte(Age::Old, Fault::Drip, stalled));
}

#[test]
fn a_payload_that_drips_has_stalled_and_does_not_hold_up_for_long() {
    timed(async {
        let server = Server::start(|mut peer, _| async move {
            shake(&mut peer, &Offer::new(Age::Structured, SIZE)).await?;
            let cookie = peer.request(false).await?.cookie;
            peer.send(&announce(cookie, 1, DATA, 8 + 4096)).await?;
            peer.fault = Fault::Drip(0);
            peer.send(&data_payload(0, &[1; 4096])).await
        });
        let client = connect(&server).await.unwrap();
        let start = Instant::now();
        let reading = tokio::time::timeout(HANG, read(&client, 0, 4096)).await;
        let e = reading.unwrap_or_else(|_| panic!("it hangs in the payload")).unwrap_err();
        assert_error!(e, NbdError::Stalled { .. }, "read");
        assert!(start.elapsed() < 5 * PATIENCE, "{:?}", start.elapsed());
    });
}

#[test]
fn a_server_that_takes_no_more_requests_has_stalled() {
    timed(async {
        let server = Server::start(|mut peer, _| async move {
            shake(&mut peer, &Offer::new(Age::Structured, 1 << 30)).await?;
            peer.hang().await
        });
        let client = connect(&server).await.unwrap();
        // More than a socket's buffer holds.
        let e = client.write(0, &vec![1; 8 << 20]).await.unwrap_err();
        assert_error!(e, NbdError::Stalled { .. }, "write");
    });
}

#[test]
fn a_long_write_that_is_taken_slowly_has_not_stalled() {
    const LENGTH: usize = 4 << 20;
    timed(async {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let client = tokio::spawn(async move {
            let uri = "nbd://nowhere".parse().unwrap();
            let wishes = datapath::nbd::handshake::Wishes { extents: false };
            let over = datapath::nbd::connection::Connection::over;
            let client = over(Box::new(ours), &uri, wishes, PATIENCE).await.unwrap();
            client.write(0, &vec![1; LENGTH]).await
        });
        let (read, mut write) = tokio::io::split(theirs);
        tokio::io::AsyncWriteExt::write_all(&mut write, &old_server(1 << 30)).await.unwrap();
        // Four bytes of flags, an option of 16, a request of 28: then 256 KiB every 100 ms.
        let mut read = read.take(48 + LENGTH as u64);
        let mut head = [0; 48];
        read.read_exact(&mut head).await.unwrap();
        let mut part = vec![0; 256 << 10];
        for _ in 0..LENGTH / part.len() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if read.read_exact(&mut part).await.is_err() {
                break;
            }
        }
        let cookie = u64::from_be_bytes(head[28..36].try_into().unwrap());
        let reply = crate::frames::simple(cookie, 0);
        let _ = tokio::io::AsyncWriteExt::write_all(&mut write, &reply).await;
        let result = client.await.unwrap();
        assert!(result.is_ok(), "256 KiB every 100 ms is no silence: {result:?}");
    });
}

/// All that a server says that knows only `EXPORT_NAME` and is not asked first.
fn old_server(size: u64) -> Vec<u8> {
    let greeting = crate::frames::greeting(crate::frames::NO_ZEROES);
    [greeting, size.to_be_bytes().to_vec(), vec![0, 1]].concat()
}
