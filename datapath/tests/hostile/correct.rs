//! Correct servers of every age are served correctly.

use crate::disk::{Disk, PAGE, pattern, server};
use crate::fake::Server;
use crate::frames::{FIXED_NEWSTYLE, MULTI_CONN, NO_ZEROES};
use crate::shake::{Age, Offer};
use crate::{connect, read, timed};
use datapath::extent::Extent;

const SIZE: u64 = 64 * PAGE;

/// Reads, writes, zeroes, flushes and asks for extents, and looks at the disk itself.
async fn everything_works(server: &Server, disk: &Disk, extents: bool) {
    let client = connect(server).await.unwrap();
    assert_eq!((client.size(), client.has_extents(), client.read_only()), (SIZE, extents, false));
    assert_eq!(read(&client, 0, 64 * 4096).await.unwrap(), disk.read(0, SIZE));
    assert_eq!(read(&client, 5000, 20_000).await.unwrap(), disk.read(5000, 20_000));
    assert_eq!(read(&client, SIZE - 1, 1).await.unwrap(), disk.read(SIZE - 1, 1));
    let data = pattern(77, 3 * PAGE);
    client.write(9 * PAGE, &data).await.unwrap();
    assert_eq!(disk.read(9 * PAGE, 3 * PAGE), data);
    client.zero(10 * PAGE, PAGE, false).await.unwrap().unwrap();
    client.zero(11 * PAGE, PAGE, true).await.unwrap().unwrap();
    assert_eq!(disk.read(10 * PAGE, 2 * PAGE), vec![0; 8192]);
    // The flag says: no hole.
    assert_eq!(disk.zeroed(), [(PAGE, 0), (PAGE, 1 << 1)]);
    client.flush().await.unwrap();
    if extents {
        let want: Vec<_> = disk.runs(4 * PAGE, SIZE - 4 * PAGE);
        let want = want.iter().map(|r| (r.offset, r.offset + r.length, r.zero));
        let got = client.extents(4 * PAGE, SIZE - 4 * PAGE).await.unwrap();
        assert!(want.eq(got.iter().map(|e| (e.start, e.end, e.zero))));
    }
    client.close().await;
    assert_eq!((server.accepted(), client.reconnections()), (1, 0));
}

fn works(offer: Offer, extents: bool) {
    timed(async move {
        let disk = Disk::striped(SIZE, 4);
        let server = server(offer, &disk);
        everything_works(&server, &disk, extents).await;
    });
}

#[test]
fn a_server_with_structured_replies_works() {
    works(Offer::new(Age::Structured, SIZE), true);
}

#[test]
fn a_server_with_extended_headers_works() {
    works(Offer::new(Age::Extended, SIZE), true);
}

#[test]
fn a_server_without_structured_replies_works() {
    works(Offer::new(Age::Simple, SIZE), false);
}

#[test]
fn a_server_that_only_knows_export_name_works() {
    works(Offer::new(Age::Old, SIZE), false);
}

#[test]
fn a_server_that_sends_124_zeroes_after_export_name_works() {
    works(Offer { greeting: FIXED_NEWSTYLE, ..Offer::new(Age::Old, SIZE) }, false);
}

#[test]
fn a_server_that_is_not_fixed_newstyle_works_with_and_without_zeroes() {
    works(Offer { greeting: 0, ..Offer::new(Age::Old, SIZE) }, false);
    works(Offer { greeting: NO_ZEROES, ..Offer::new(Age::Old, SIZE) }, false);
}

#[test]
fn a_server_without_the_allocation_context_is_read_without_extents() {
    works(Offer { context: None, ..Offer::new(Age::Structured, SIZE) }, false);
    works(Offer { context: None, ..Offer::new(Age::Extended, SIZE) }, false);
}

#[test]
fn block_sizes_and_the_largest_payload_are_kept_to() {
    timed(async {
        let disk = Disk::new(SIZE);
        let blocks = (512, 8192, 16384);
        let offer = Offer { blocks, ..Offer::new(Age::Structured, SIZE) };
        let server = server(offer, &disk);
        let client = connect(&server).await.unwrap();
        let export = *client.export();
        assert_eq!((export.min_block, export.preferred_block, export.max_payload), blocks);
        let data = pattern(0, SIZE);
        client.write(0, &data).await.unwrap();
        assert_eq!(disk.read(0, SIZE), data);
    });
}

#[test]
fn requests_longer_than_32_bits_work_with_extended_headers() {
    timed(async {
        const GIB: u64 = 1 << 30;
        let disk = Disk::new(64 * GIB);
        let server = server(Offer::new(Age::Extended, 64 * GIB), &disk);
        let client = connect(&server).await.unwrap();
        client.write(40 * GIB, &pattern(1, PAGE)).await.unwrap();
        client.write(9 * GIB, &pattern(2, PAGE)).await.unwrap();
        let extents = client.extents(0, 64 * GIB).await.unwrap();
        let part = |start, end, zero| Extent { start, end, zero };
        let want = [
            part(0, 9 * GIB, true),
            part(9 * GIB, 9 * GIB + PAGE, false),
            part(9 * GIB + PAGE, 40 * GIB, true),
            part(40 * GIB, 40 * GIB + PAGE, false),
            part(40 * GIB + PAGE, 64 * GIB, true),
        ];
        assert_eq!(extents, want);
        client.zero(GIB, 20 * GIB, false).await.unwrap().unwrap();
        assert_eq!(disk.zeroed(), [(20 * GIB, 0)]);
        assert_eq!(read(&client, 9 * GIB, 4096).await.unwrap(), [0; 4096]);
        assert_eq!(read(&client, 40 * GIB, 4096).await.unwrap(), pattern(1, PAGE));
    });
}

#[test]
fn more_connections_are_opened_only_when_the_server_allows_them_and_they_are_needed() {
    timed(async {
        let disk = Disk::striped(SIZE, 4);
        for (flags, most) in [(MULTI_CONN, 4), (0, 1)] {
            let mut offer = Offer::new(Age::Structured, SIZE);
            offer.flags |= flags;
            let server = server(offer, &disk);
            let client = connect(&server).await.unwrap();
            assert_eq!((client.connections(), server.accepted()), (most, 1));
            let reads = (0..64).map(|page| read(&client, page * PAGE, 4096));
            for (page, data) in (0..).zip(futures_util::future::join_all(reads).await) {
                assert_eq!(data.unwrap(), disk.read(page * PAGE, PAGE));
            }
            assert_eq!((server.accepted(), client.reconnections()), (most, 0));
        }
    });
}
