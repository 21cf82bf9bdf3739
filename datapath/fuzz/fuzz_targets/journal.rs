//! The bytes are a journal, or (byte 0 is odd) its records, which get the right head and check
//! sums. Proves that none makes the parser panic, that every range found lies on the disk, that
//! good records up to the first bad one are found and nothing else is, and that a journal cut short
//! tells no more than the whole.

#![no_main]

use arbitrary::Unstructured;
use datapath::journal::{Found, Identity, parse};
use datapath::ranges::RangeSet;
use libfuzzer_sys::fuzz_target;
use xxhash_rust::xxh3::xxh3_64;

const SIZE: u64 = 1 << 40;

fn identity(size: u64) -> Identity {
    Identity::new("file 1:2".into(), "device 3".into(), size)
}

fn found(text: &[u8], size: u64) -> Option<RangeSet> {
    match parse(text, &identity(size)) {
        Found::Durable(ranges) => {
            assert!(ranges.iter().all(|r| r.start < r.end && r.end <= size), "beyond the disk");
            Some(ranges)
        }
        Found::Void(why) => {
            assert!(!why.is_empty());
            None
        }
        Found::Nothing => panic!("bytes are not nothing"),
    }
}

fn cut_tells_no_more(text: &[u8], size: u64, cut: usize) {
    // A bad head may become a good one when its end is cut off; then no ranges follow it.
    let whole = found(text, size).unwrap_or_default();
    if let Some(part) = found(&text[..cut.min(text.len())], size) {
        assert!(part.iter().all(|r| whole.contains(&r)), "a cut added a range");
    }
}

fn made(bytes: &[u8]) -> arbitrary::Result<()> {
    let mut u = Unstructured::new(bytes);
    let cut: u16 = u.arbitrary()?;
    let size: u64 = u.arbitrary()?;
    let mut text = serde_json::to_vec(&identity(size)).expect("a head");
    text.push(b'\n');
    let mut expected = RangeSet::default();
    let mut intact = true;
    while !u.is_empty() {
        let form: u8 = u.arbitrary()?;
        let (start, end): (u64, u64) = match form & 3 {
            0 => (u.arbitrary()?, u.arbitrary()?),
            _ => {
                let start = u64::from(u.arbitrary::<u16>()?);
                (start, start + u64::from(u.arbitrary::<u16>()?))
            }
        };
        let range = format!("{start} {end}");
        let damage = u64::from(form >> 7);
        text.extend(format!("{range} {:016x}\n", xxh3_64(range.as_bytes()) ^ damage).as_bytes());
        intact &= damage == 0 && start < end && end <= size;
        if intact {
            expected.add(start..end);
        }
    }
    assert_eq!(found(&text, size), Some(expected));
    cut_tells_no_more(&text, size, text.len().saturating_sub(cut.into()));
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((form, rest)) if form & 1 != 0 => {
            let _ = made(rest);
        }
        Some((form, rest)) => cut_tells_no_more(rest, SIZE, usize::from(*form) * rest.len() / 256),
        None => {}
    }
});
