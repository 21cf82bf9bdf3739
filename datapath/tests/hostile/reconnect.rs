//! A connection that breaks is replaced, and a server that comes back as another one is noticed.

use crate::disk::{Disk, PAGE, serve};
use crate::fake::Server;
use crate::frames::{STATUS, simple};
use crate::shake::{Age, Offer, shake};
use crate::{PATIENCE, assert_error, connect, options, read, timed};
use datapath::nbd::{NbdClient, NbdError};
use futures_util::future::join_all;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const SIZE: u64 = 64 * PAGE;

/// A server whose connection number `n` is this offer, for so many requests.
fn server(disk: &Disk, nth: fn(usize) -> (Offer, usize)) -> Server {
    let disk = disk.clone();
    Server::start(move |mut peer, number| {
        let disk = disk.clone();
        async move {
            let (offer, requests) = nth(number);
            serve(&mut peer, &offer, &disk, requests).await
        }
    })
}

#[test]
fn a_connection_that_was_dropped_is_replaced_as_often_as_it_takes() {
    timed(async {
        let disk = Disk::striped(SIZE, 3);
        let server = server(&disk, |_| (Offer::new(Age::Structured, SIZE), 3));
        let client = connect(&server).await.unwrap();
        let (mut good, mut lost) = (0, 0);
        for page in (0..64).cycle().take(200) {
            match read(&client, page * PAGE, 4096).await {
                Ok(data) => {
                    assert_eq!(data, disk.read(page * PAGE, PAGE));
                    good += 1;
                }
                Err(e) => {
                    assert!(matches!(e, NbdError::Lost(_)) && e.is_transient(), "{e:?}");
                    lost += 1;
                }
            }
        }
        assert!(good >= 100, "{good} reads worked, {lost} were lost");
        assert_eq!(client.reconnections(), server.accepted() as u64 - 1);
    });
}

#[test]
fn another_size_after_a_reconnection_is_refused() {
    timed(async {
        for age in [Age::Old, Age::Structured, Age::Extended] {
            let disk = Disk::striped(SIZE, 3);
            let first = move |n: usize| {
                let size = if n == 0 { SIZE } else { SIZE + PAGE };
                (Offer::new(age, size), if n == 0 { 1 } else { 100 })
            };
            let model = disk.clone();
            let server = Server::start(move |mut peer, n| {
                let (model, (offer, requests)) = (model.clone(), first(n));
                async move { serve(&mut peer, &offer, &model, requests).await }
            });
            let client = connect(&server).await.unwrap();
            read(&client, 0, 4096).await.unwrap();
            let e = loop {
                match read(&client, 0, 4096).await {
                    Err(NbdError::Lost(_)) => {}
                    other => break other.unwrap_err(),
                }
            };
            assert_error!(&e, NbdError::Changed { before: SIZE, now: 266_240 }, "266240");
            assert!(!e.is_transient(), "trying again would only find the same");
            let again = read(&client, 0, 4096).await.unwrap_err();
            assert_error!(again, NbdError::Changed { .. }, "266240");
        }
    });
}

/// Reads until it works; the errors on the way.
async fn until_it_works(client: &datapath::nbd::NbdClient) -> Vec<NbdError> {
    let mut errors = Vec::new();
    loop {
        match read(client, 0, 4096).await {
            Ok(_) => return errors,
            Err(e) => errors.push(e),
        }
    }
}

/// The second connection is taken and dropped again, as by a proxy whose server restarts.
async fn restarting(disk: Disk) -> (Vec<NbdError>, u64) {
    let server = Server::start(move |mut peer, n| {
        let disk = disk.clone();
        async move {
            match n {
                0 => serve(&mut peer, &Offer::new(Age::Structured, SIZE), &disk, 1).await,
                1 => Err(io::ErrorKind::ConnectionReset.into()),
                _ => serve(&mut peer, &Offer::new(Age::Structured, SIZE), &disk, 100).await,
            }
        }
    });
    let client = connect(&server).await.unwrap();
    read(&client, 0, 4096).await.unwrap();
    let errors = until_it_works(&client).await;
    (errors, client.reconnections())
}

#[test]
fn a_server_that_hangs_up_before_its_greeting_while_it_restarts_is_worth_another_try() {
    timed(async {
        let (errors, _) = restarting(Disk::striped(SIZE, 3)).await;
        assert!(errors.iter().all(NbdError::is_transient), "{errors:?}");
    });
}

#[test]
fn a_reconnection_is_counted_though_its_first_attempt_failed() {
    timed(async {
        let (errors, reconnections) = restarting(Disk::striped(SIZE, 3)).await;
        assert_eq!(reconnections, 1, "{errors:?}");
    });
}

#[test]
fn a_server_that_comes_back_without_extents_is_not_asked_for_them() {
    timed(async {
        for age in [Age::Simple, Age::Structured] {
            let disk = Disk::striped(SIZE, 3);
            let asked = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&asked);
            let server = Server::start(move |mut peer, n| {
                let (disk, seen) = (disk.clone(), Arc::clone(&seen));
                async move {
                    if n == 0 {
                        return serve(&mut peer, &Offer::new(Age::Structured, SIZE), &disk, 1)
                            .await;
                    }
                    shake(&mut peer, &Offer { context: None, ..Offer::new(age, SIZE) }).await?;
                    loop {
                        let request = peer.request(false).await?;
                        let status = request.command == STATUS;
                        seen.fetch_or(status, Ordering::Relaxed);
                        let refusal = simple(request.cookie, 22);
                        let answer = if status { refusal } else { disk.answer(age, &request) };
                        peer.send(&answer).await?;
                    }
                }
            });
            let client = connect(&server).await.unwrap();
            until_it_works(&client).await;
            // The second connection.
            while client.reconnections() == 0 {
                let _ = read(&client, 0, 4096).await;
            }
            let e = client.extents(0, SIZE).await.unwrap_err();
            assert!(!e.is_transient(), "asking again is in vain: {e:?}");
            assert!(!asked.load(Ordering::Relaxed), "asked without a context: {e:?}");
        }
    });
}

#[test]
fn requests_that_wait_for_one_new_connection_share_its_failure() {
    timed(async {
        let disk = Disk::striped(SIZE, 3);
        let server = Server::start(move |mut peer, n| {
            let disk = disk.clone();
            async move {
                if n > 0 {
                    return peer.hang().await;
                }
                serve(&mut peer, &Offer::new(Age::Structured, SIZE), &disk, 1).await
            }
        });
        let client = connect(&server).await.unwrap();
        read(&client, 0, 4096).await.unwrap();
        let start = Instant::now();
        let reads = (0..16).map(|page| read(&client, page * PAGE, 4096));
        assert!(join_all(reads).await.iter().all(Result::is_err));
        let took = start.elapsed();
        assert!(took < 5 * PATIENCE, "{took:?} for 16 requests and a patience of {PATIENCE:?}");
    });
}

/// A server that was restarted has lost what was written and not flushed. Nobody may go on as if nothing had been.
#[test]
fn a_target_that_was_restarted_is_noticed_even_when_nothing_was_under_way() {
    timed(async {
        let disk = Disk::striped(SIZE, 3);
        let server =
            server(&disk, |n| (Offer::new(Age::Structured, SIZE), if n == 0 { 1 } else { 100 }));
        let client =
            NbdClient::connect_for_writing(server.uri().parse().unwrap(), options()).await.unwrap();
        client.write(0, &[1; 4096]).await.unwrap();
        // The server hangs up; nothing is sent that could fail of itself.
        tokio::time::sleep(PATIENCE / 4).await;
        for _ in 0..3 {
            assert!(matches!(client.flush().await, Err(NbdError::Lost(_))));
            assert!(matches!(client.write(0, &[1; 4096]).await, Err(NbdError::Lost(_))));
        }
        client.reset().await;
        client.write(0, &[1; 4096]).await.unwrap();
        client.flush().await.unwrap();
    });
}
