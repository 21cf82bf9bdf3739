//! The bytes are the shape of a plan and a server's block status payload. Proves that the pieces
//! planned from any such answer cover the part of the disk once and in order, and that every byte
//! in no span is in an extent that the server called zero; also at the end of the largest disk,
//! where sums may overflow.

#![no_main]

use arbitrary::Unstructured;
use datapath::extent::Extent;
use datapath::nbd::wire::{Descriptor, STATE_ZERO, parse_block_status};
use datapath::plan::{Piece, Shape, plan};
use datapath::ranges::RangeSet;
use libfuzzer_sys::fuzz_target;
use std::ops::Range;

const MOST_CHUNKS: u64 = 512;

/// As in `NbdClient::extents`, but `clip` may be off: a plan must stand extents beyond its part.
fn extents(told: &[Descriptor], part: &Range<u64>, clip: bool) -> Vec<Extent> {
    let mut extents = Vec::new();
    let mut at = part.start;
    for d in told {
        if at >= part.end {
            break;
        }
        let end = at.saturating_add(d.length);
        let end = if clip { end.min(part.end) } else { end };
        extents.push(Extent { start: at, end, zero: d.flags & STATE_ZERO != 0 });
        at = end;
    }
    extents
}

fn check(bytes: &[u8]) -> arbitrary::Result<()> {
    let mut u = Unstructured::new(bytes);
    let switches: u8 = u.arbitrary()?;
    let (wide, clip) = (switches & 1 != 0, switches & 2 != 0);
    let shift = 6 + u32::from(u.arbitrary::<u8>()? % 20);
    let chunk = 1 << shift;
    let gap = u64::from(u.arbitrary::<u16>()?);
    let align = 1 << (u32::from(u.arbitrary::<u8>()?) % (shift + 1));
    let shape = Shape { chunk, gap, align };
    let size = match u.arbitrary::<u8>()? % 3 {
        0 => i64::MAX as u64,
        1 => u64::from(u.arbitrary::<u32>()?),
        _ => u.arbitrary::<u64>()? >> 1,
    };
    let length = (1 + u64::from(u.arbitrary::<u16>()?) % MOST_CHUNKS) * chunk;
    let start = if switches & 4 != 0 { size.saturating_sub(length) / chunk * chunk } else { 0 };
    let part = start..(start + length).min(size);
    let payload = u.take_rest();

    let told = parse_block_status(payload, wide).map(|(_, told)| told).unwrap_or_default();
    assert!(told.iter().all(|d| d.length > 0), "an extent of length 0");
    let extents = extents(&told, &part, clip);
    let mut zero = RangeSet::default();
    extents.iter().filter(|e| e.zero).for_each(|e| zero.add(e.start..e.end));

    let mut at = part.start;
    let must_be_zero = |range: Range<u64>| {
        assert!(zero.contains(&range), "{range:?} is neither zero nor read");
    };
    for piece in plan(part.clone(), &extents, shape) {
        assert_eq!(piece.range().start, at, "pieces must follow each other");
        at = piece.range().end;
        match piece {
            Piece::Zero(range) => must_be_zero(range),
            Piece::Chunk { range, spans } => {
                assert!(range.end - range.start <= chunk && !spans.is_empty());
                let mut done = range.start;
                for span in spans {
                    assert!(done <= span.start && span.start < span.end && span.end <= range.end);
                    assert!(span.start % align == 0);
                    assert!(span.end % align == 0 || span.end == part.end);
                    must_be_zero(done..span.start);
                    done = span.end;
                }
                must_be_zero(done..range.end);
            }
        }
    }
    assert_eq!(at, part.end.max(part.start), "a part of the disk was left out");
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let _ = check(bytes);
});
