//! From extents to work: which chunks are read, which ranges are zeroed. Pure.
//!
//! A chunk is a fixed, aligned part of the disk. A chunk that is zero as a whole joins a zero range;
//! any other is one piece of work with the spans of it that must be read.

use crate::extent::Extent;
use std::ops::Range;

/// Sizes that shape the work, all powers of two.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Bytes of a chunk.
    pub chunk: u64,
    /// Zero ranges in a chunk shorter than this are read as if they were data.
    pub gap: u64,
    /// Spans begin and end at multiples of this.
    pub align: u64,
}

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Whole chunks of zeroes.
    Zero(Range<u64>),
    /// A chunk; what is in no span is zero.
    Chunk {
        /// Where.
        range: Range<u64>,
        /// What to read, in order and disjoint.
        spans: Vec<Range<u64>>,
    },
}

impl Piece {
    /// Where it is.
    pub fn range(&self) -> &Range<u64> {
        match self {
            Self::Zero(range) | Self::Chunk { range, .. } => range,
        }
    }
}

/// Plans one part of the disk. `extents` are in order, disjoint and inside `part`; what they do not
/// cover is data. `part` begins at a multiple of the chunk and ends at one or at the disk's end.
pub fn plan(part: Range<u64>, extents: &[Extent], shape: Shape) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut index = 0;
    let mut start = part.start;
    while start < part.end {
        let end = (start / shape.chunk + 1).saturating_mul(shape.chunk).min(part.end);
        while extents.get(index).is_some_and(|e| e.end <= start) {
            index += 1;
        }
        let spans = spans(start..end, &extents[index..], shape);
        match pieces.last_mut() {
            Some(Piece::Zero(range)) if spans.is_empty() && range.end == start => range.end = end,
            _ if spans.is_empty() => pieces.push(Piece::Zero(start..end)),
            _ => pieces.push(Piece::Chunk { range: start..end, spans }),
        }
        start = end;
    }
    pieces
}

/// The parts of a chunk that are not known to be zero.
fn spans(chunk: Range<u64>, extents: &[Extent], shape: Shape) -> Vec<Range<u64>> {
    let mut spans: Vec<Range<u64>> = Vec::new();
    let mut add = |from: u64, to: u64| {
        let start = (from / shape.align * shape.align).max(chunk.start);
        let end = to.checked_next_multiple_of(shape.align).unwrap_or(u64::MAX).min(chunk.end);
        match spans.last_mut() {
            Some(last) if start <= last.end || start - last.end < shape.gap => {
                last.end = last.end.max(end);
            }
            _ => spans.push(start..end),
        }
    };
    let mut at = chunk.start;
    for e in extents.iter().take_while(|e| e.start < chunk.end) {
        if e.zero {
            if e.start > at {
                add(at, e.start);
            }
            at = at.max(e.end);
        }
    }
    if at < chunk.end {
        add(at, chunk.end);
    }
    spans
}

/// Which parts of a chunk's bytes to write and which to zero: runs of zero blocks of `block` bytes
/// become holes. With `block` 0 everything is written.
pub fn split_zeroes(data: &[u8], block: usize) -> Vec<(Range<usize>, bool)> {
    let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
    if block == 0 {
        return vec![(0..data.len(), false)];
    }
    let mut start = 0;
    for piece in data.chunks(block) {
        let zero = is_zero(piece);
        let end = start + piece.len();
        match runs.last_mut() {
            Some((range, same)) if *same == zero => range.end = end,
            _ => runs.push((start..end, zero)),
        }
        start = end;
    }
    runs
}

/// Whether all bytes are zero; data is found out by its first bytes.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<64>();
    blocks.iter().all(|b| b.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|b| *b == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHAPE: Shape = Shape { chunk: 64, gap: 0, align: 1 };

    fn zero(start: u64, end: u64) -> Extent {
        Extent { start, end, zero: true }
    }

    #[test]
    fn zero_chunks_join_and_data_is_split_at_chunks() {
        let pieces = plan(0..200, &[zero(10, 150)], SHAPE);
        assert_eq!(
            pieces,
            [
                Piece::Chunk { range: 0..64, spans: std::iter::once(0..10).collect() },
                Piece::Zero(64..128),
                Piece::Chunk { range: 128..192, spans: std::iter::once(150..192).collect() },
                Piece::Chunk { range: 192..200, spans: std::iter::once(192..200).collect() },
            ]
        );
    }

    #[test]
    fn small_gaps_are_read_and_edges_rounded() {
        let shape = Shape { chunk: 64, gap: 16, align: 8 };
        let pieces = plan(0..64, &[zero(3, 13), zero(20, 50)], shape);
        assert_eq!(pieces, [Piece::Chunk { range: 0..64, spans: vec![0..24, 48..64] }]);
    }

    #[test]
    fn the_end_of_the_largest_disk_does_not_overflow() {
        let end = i64::MAX as u64;
        let start = end / 64 * 64;
        let shape = Shape { chunk: 64, gap: 16, align: 8 };
        assert_eq!(plan(start..end, &[zero(start, u64::MAX)], shape), [Piece::Zero(start..end)]);
    }

    proptest! {
        #[test]
        fn every_byte_that_may_be_data_is_read_once(
            marks in proptest::collection::vec((1_u64..70, any::<bool>()), 0..20),
            gap in 0_u32..6, align in 0_u32..5, tail in 0_u64..64,
        ) {
            let size = 448 + tail;
            let mut extents = Vec::new();
            let mut at = 0;
            for (length, is_zero) in marks {
                let end = (at + length).min(size);
                if at < end {
                    extents.push(Extent { start: at, end, zero: is_zero });
                }
                at = end;
            }
            let shape = Shape { chunk: 64, gap: 1 << gap, align: 1 << align };
            let pieces = plan(0..size, &extents, shape);
            let mut at = 0;
            for piece in &pieces {
                let range = piece.range();
                prop_assert_eq!(range.start, at);
                at = range.end;
                let spans = match piece {
                    Piece::Zero(_) => &[][..],
                    Piece::Chunk { range, spans } => {
                        prop_assert!(range.end - range.start <= 64);
                        prop_assert!(!spans.is_empty());
                        &spans[..]
                    }
                };
                prop_assert!(spans.windows(2).all(|w| w[0].end < w[1].start));
                for byte in range.clone() {
                    let read = spans.iter().any(|s| s.contains(&byte));
                    let known_zero = extents.iter().any(|e| e.zero && (e.start..e.end).contains(&byte));
                    prop_assert!(read || known_zero);
                }
            }
            prop_assert_eq!(at, size);
        }

        #[test]
        fn zero_runs_are_zero_and_cover_all(bytes in proptest::collection::vec(0_u8..2, 0..300), block in 1_usize..40) {
            let runs = split_zeroes(&bytes, block);
            let mut at = 0;
            for (range, zero) in runs {
                prop_assert_eq!(range.start, at);
                at = range.end;
                prop_assert!(!zero || bytes[range].iter().all(|b| *b == 0));
            }
            prop_assert_eq!(at, bytes.len());
        }
    }
}
