//! Structured replies in many chunks, in any order, mixed with those of other requests.

use crate::disk::{Disk, PAGE, Run, frame};
use crate::fake::{Peer, Server};
use crate::frames::{DONE, NONE, Request};
use crate::shake::{Age, Offer, shake};
use crate::{connect, read, timed};
use futures_util::future::join_all;
use std::io;

const SIZE: u64 = 64 * PAGE;

/// Random numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i + 1));
        }
    }
}

/// The runs of a read, cut further; holes of one page and more.
fn cut(runs: Vec<Run>, dice: &mut Dice) -> Vec<Run> {
    let mut pieces = Vec::new();
    for Run { mut offset, mut length, zero } in runs {
        while length > 0 {
            let piece = (1 + dice.below(9000) as u64).min(length);
            pieces.push(Run { offset, length: piece, zero });
            offset += piece;
            length -= piece;
        }
    }
    pieces
}

/// Takes so many reads, then sends all their chunks in random order; each reply's end comes last of it.
async fn mixed(peer: &mut Peer, age: Age, disk: &Disk, reads: usize, seed: u64) -> io::Result<()> {
    shake(peer, &Offer::new(age, SIZE)).await?;
    let mut dice = Dice(seed);
    let mut requests: Vec<(Request, Vec<Run>)> = Vec::new();
    for _ in 0..reads {
        let request = peer.request(age == Age::Extended).await?;
        let mut pieces = cut(disk.runs(request.offset, request.length), &mut dice);
        dice.shuffle(&mut pieces);
        requests.push((request, pieces));
    }
    while !requests.is_empty() {
        let which = dice.below(requests.len());
        let (request, pieces) = &mut requests[which];
        if let Some(run) = pieces.pop() {
            peer.send(&disk.piece(age, request, run)).await?;
        } else {
            peer.send(&frame(age, request, DONE, NONE, &[])).await?;
            requests.remove(which);
        }
    }
    peer.hang().await
}

fn all_reads_get_their_data(age: Age) {
    const READS: u64 = 9;
    timed(async move {
        let disk = Disk::striped(SIZE, 3);
        for seed in 0..20 {
            let model = disk.clone();
            let server = Server::start(move |mut peer, _| {
                let model = model.clone();
                async move { mixed(&mut peer, age, &model, 9, seed).await }
            });
            let client = connect(&server).await.unwrap();
            let range = |i: u64| (i * 6 * PAGE + i, 10 * PAGE + 13);
            let reads = (0..READS).map(|i| read(&client, range(i).0, 10 * 4096 + 13));
            for (i, data) in (0..).zip(join_all(reads).await) {
                assert_eq!(data.unwrap(), disk.read(range(i).0, range(i).1), "seed {seed}");
            }
        }
    });
}

#[test]
fn structured_chunks_may_come_in_any_order_and_mixed_with_other_replies() {
    all_reads_get_their_data(Age::Structured);
}

#[test]
fn extended_chunks_may_come_in_any_order_and_mixed_with_other_replies() {
    all_reads_get_their_data(Age::Extended);
}
