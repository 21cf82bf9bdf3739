//! Sets of byte ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of bytes, as disjoint ranges that never touch. Memory grows with the number of gaps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    /// Adds a range; what it overlaps or touches becomes one range with it.
    pub fn add(&mut self, range: Range<u64>) {
        let Range { mut start, mut end } = range;
        if start >= end {
            return;
        }
        if let Some((&s, &e)) = self.0.range(..=start).next_back() {
            if e >= end {
                return;
            }
            if e >= start {
                start = s;
            }
        }
        while let Some((&s, &e)) = self.0.range(start..=end).next() {
            end = end.max(e);
            self.0.remove(&s);
        }
        self.0.insert(start, end);
    }

    /// Adds all ranges of another set.
    pub fn add_all(&mut self, other: &Self) {
        for range in other.iter() {
            self.add(range);
        }
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(&s, &e)| s..e)
    }

    /// Bytes in the set.
    pub fn bytes(&self) -> u64 {
        self.iter().map(|r| r.end - r.start).sum()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the whole range is in the set.
    pub fn contains(&self, range: &Range<u64>) -> bool {
        range.is_empty()
            || self.0.range(..=range.start).next_back().is_some_and(|(_, &e)| e >= range.end)
    }

    /// The first part of `within` that is missing, `None` when nothing is.
    pub fn first_gap(&self, within: Range<u64>) -> Option<Range<u64>> {
        let mut start = within.start;
        if let Some((_, &e)) = self.0.range(..=start).next_back() {
            start = start.max(e);
        }
        if start >= within.end {
            return None;
        }
        let end = self.0.range(start..within.end).next().map_or(within.end, |(&s, _)| s);
        Some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_set_of_bytes(adds in proptest::collection::vec((0_u64..100, 0_u64..30), 0..40), from in 0_u64..130, len in 0_u64..40) {
            let mut set = RangeSet::default();
            let mut bytes = [false; 200];
            for (start, length) in adds {
                set.add(start..start + length);
                for b in start..start + length {
                    bytes[usize::try_from(b).unwrap()] = true;
                }
            }
            prop_assert_eq!(set.bytes(), bytes.iter().filter(|b| **b).count() as u64);
            let ranges: Vec<_> = set.iter().collect();
            prop_assert!(ranges.windows(2).all(|w| w[0].end < w[1].start));
            let part = from..from + len;
            let missing: Vec<u64> = part.clone().filter(|b| !bytes[usize::try_from(*b).unwrap()]).collect();
            prop_assert_eq!(set.contains(&part), missing.is_empty());
            match set.first_gap(part) {
                None => prop_assert!(missing.is_empty()),
                Some(gap) => {
                    prop_assert_eq!(Some(&gap.start), missing.first());
                    prop_assert!(gap.clone().all(|b| missing.contains(&b)));
                    prop_assert!(!missing.contains(&gap.end));
                }
            }
        }
    }
}
