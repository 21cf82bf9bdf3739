//! The bytes are what a hostile NBD server does (see `script`). Proves that the client comes to an
//! end with every server, in bounded time and memory and without a panic, that a read it calls good
//! filled its whole buffer, and that extents it hands out are never empty. The clock is tokio's
//! paused one: waiting is free.

#![no_main]

mod script;

use bytes::BytesMut;
use datapath::nbd::NbdUri;
use datapath::nbd::connection::Connection;
use datapath::nbd::handshake::Wishes;
use datapath::nbd::wire::Command;
use libfuzzer_sys::fuzz_target;
use script::{Script, Step, UNSENT, requests, script};
use std::sync::LazyLock;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(1);
/// A client that waits longer waits for ever: at most some 300 KiB are sent, and every 4 KiB of
/// them and every reply may renew its patience, which is ten times as long for some requests.
const FOR_EVER: Duration = Duration::from_secs(5_000);

static URI: LazyLock<NbdUri> = LazyLock::new(|| "nbd://h/disk".parse().expect("a good URI"));

async fn serve(end: DuplexStream, script: Script) {
    let (mut requests, mut replies) = tokio::io::split(end);
    let send = async {
        for step in script.steps {
            match step {
                Step::Send(bytes) if replies.write_all(&bytes).await.is_err() => break,
                Step::Send(_) => {}
                Step::Wait(time) => sleep(time).await,
            }
        }
        if !script.open {
            let _ = replies.shutdown().await;
        }
    };
    let swallow = async {
        if script.deaf {
            // About the client's part of a handshake.
            let _ = requests.read_exact(&mut [0; 120]).await;
            return;
        }
        let mut bytes = [0; 4096];
        while !matches!(requests.read(&mut bytes).await, Ok(0) | Err(_)) {}
    };
    tokio::join!(send, swallow);
    std::future::pending::<()>().await;
}

async fn ask(connection: &Connection, (command, offset, length): (Command, u64, u64)) {
    match command {
        Command::Read => {
            let buffer = BytesMut::from(&vec![UNSENT; length as usize][..]);
            if let Ok(data) = connection.read(offset, buffer).await {
                assert_eq!(data.len() as u64, length, "a read of another length");
                assert!(!data.contains(&UNSENT), "a good read left a part of its buffer");
            }
        }
        Command::Write => drop(connection.write(offset, &vec![7; length as usize]).await),
        Command::WriteZeroes => drop(connection.write_zeroes(offset, length, 0).await),
        Command::BlockStatus => {
            if let Ok(extents) = connection.block_status(offset, length).await {
                assert!(!extents.is_empty() && extents.iter().all(|e| e.length > 0));
            }
        }
        Command::Flush | Command::Disconnect => drop(connection.flush().await),
    }
}

async fn client(end: DuplexStream, hasty: bool) {
    let opened = Connection::over(Box::new(end), &URI, Wishes { extents: true }, PATIENCE).await;
    let Ok(connection) = opened else { return };
    let asks = requests(connection.agreement().export.size).map(|r| ask(&connection, r));
    let [a, b, c, d, e, f, g, h] = asks;
    let patience = if hasty { PATIENCE * 3 / 4 } else { FOR_EVER * 2 };
    let hasty = async { drop(timeout(patience, async { tokio::join!(b, c, d) }).await) };
    tokio::join!(a, hasty, e, f, g, h);
    // Whatever happened, a later request ends too.
    ask(&connection, (Command::Read, 0, 1)).await;
    connection.disconnect().await;
}

fuzz_target!(|bytes: &[u8]| {
    let script = script(bytes);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (ours, theirs) = tokio::io::duplex(if script.narrow { 61 } else { 2 << 20 });
        let hasty = script.hasty;
        let server = tokio::spawn(serve(theirs, script));
        let ended = timeout(FOR_EVER, client(ours, hasty)).await;
        server.abort();
        assert!(ended.is_ok(), "the client waits for ever");
    });
});
