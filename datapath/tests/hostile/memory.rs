//! Lengths that are only announced take no memory.

use crate::fake::Server;
use crate::frames::{
    BLOCK_STATUS, BLOCK_STATUS_EXT, DATA, DONE, ERROR, Request, STATUS, announce,
    announce_extended, data_payload,
};
use crate::shake::{Age, Offer, shake};
use crate::{connect, read, timed};

const SIZE: u64 = 1 << 40;

/// KiB of a line of `/proc/self/status`.
fn kib(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse().unwrap()
}

fn headers(age: Age, r: &Request) -> Vec<Vec<u8>> {
    if age == Age::Extended {
        let kinds = [DATA, BLOCK_STATUS, BLOCK_STATUS_EXT, ERROR];
        return [1 << 32, u64::MAX]
            .iter()
            .flat_map(|n| kinds.map(|kind| announce_extended(r, DONE, kind, *n)))
            .collect();
    }
    [DATA, BLOCK_STATUS, ERROR].map(|kind| announce(r.cookie, DONE, kind, u32::MAX)).to_vec()
}

/// Answers a request with the header number `which`, and a little of what it announces.
fn announcing(age: Age, which: usize) -> Server {
    Server::start(move |mut peer, _| async move {
        shake(&mut peer, &Offer::new(age, SIZE)).await?;
        let request = peer.request(age == Age::Extended).await?;
        peer.send(&headers(age, &request)[which]).await?;
        // The context's id or the data's offset, then something.
        let start = if request.command == STATUS { vec![0, 0, 0, 7] } else { data_payload(0, &[]) };
        peer.send(&[start, vec![1; 1000]].concat()).await?;
        peer.hang().await
    })
}

#[test]
fn four_gib_that_are_announced_are_not_allocated() {
    timed(async {
        // Both: untouched memory counts as peak of the address space only.
        let before = (kib("VmHWM"), kib("VmPeak"));
        for (age, count) in [(Age::Structured, 3), (Age::Extended, 8)] {
            for which in 0..count {
                let server = announcing(age, which);
                let client = connect(&server).await.unwrap();
                assert!(read(&client, 0, 4096).await.is_err());
                let server = announcing(age, which);
                let client = connect(&server).await.unwrap();
                assert!(client.extents(0, 1 << 20).await.is_err());
            }
        }
        let grown = (kib("VmHWM") - before.0, kib("VmPeak") - before.1);
        assert!(grown.0 < 64 << 10, "{} KiB more were in use", grown.0);
        // Threads of other tests take 64 MiB of address space each.
        assert!(grown.1 < 3 << 20, "{} KiB more were asked for", grown.1);
    });
}

#[test]
fn extents_that_are_announced_and_drip_take_no_memory_in_advance() {
    timed(async {
        let before = kib("VmHWM");
        let mut clients = Vec::new();
        for _ in 0..16 {
            let server = Server::start(|mut peer, _| async move {
                shake(&mut peer, &Offer::new(Age::Structured, SIZE)).await?;
                let request = peer.request(false).await?;
                peer.send(&announce(request.cookie, DONE, BLOCK_STATUS, 16 << 20)).await?;
                peer.send(&[0, 0, 0, 7, 0, 0]).await?;
                peer.hang().await
            });
            let client = connect(&server).await.unwrap();
            clients.push(async move {
                let _server = server;
                client.extents(0, 1 << 20).await
            });
        }
        for result in futures_util::future::join_all(clients).await {
            assert!(result.is_err());
        }
        let grown = kib("VmHWM") - before;
        assert!(grown < 64 << 10, "{grown} KiB more were in use");
    });
}
