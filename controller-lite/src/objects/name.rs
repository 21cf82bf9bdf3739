//! Names that Kubernetes takes, made of names that it may not take.

use sha2::{Digest, Sha256};

/// The longest DNS label, and the longest value of a label.
pub const MAX: usize = 63;
/// Digits of the hash that ends a name which had to be cut.
const HASH_DIGITS: usize = 8;

/// The parts with dashes between them. Too long a name is cut, and ends with a hash of all of it,
/// so that two long names that begin alike stay different.
pub fn joined(parts: &[&str]) -> String {
    let whole = parts.join("-");
    let plain = whole.replace('.', "-");
    if plain == whole && whole.len() <= MAX {
        return whole;
    }
    let hash = digest(&whole, HASH_DIGITS);
    let mut cut: String = plain.chars().take(MAX - HASH_DIGITS - 1).collect();
    cut.truncate(cut.trim_end_matches('-').len());
    format!("{cut}-{hash}")
}

/// The first `digits` hexadecimal digits of a hash of `text`.
pub fn digest(text: &str, digits: usize) -> String {
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().flat_map(|byte| [byte >> 4, byte & 15]).take(digits).map(hex).collect()
}

fn hex(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_dot_does_not_make_two_names_one() {
        assert_ne!(joined(&["a.b", "c"]), joined(&["a-b", "c"]));
        assert_eq!(digest("", 8), "e3b0c442");
    }

    proptest! {
        #[test]
        fn joined_labels_are_labels(a in "[a-z0-9]([-.a-z0-9]{0,80}[a-z0-9])?", b in "[a-z0-9]{1,63}") {
            let name = joined(&[&a, &b, "disk", "7"]);
            prop_assert_eq!(v2v_args::rfc1123(&name), Some(name.clone()));
        }

        #[test]
        fn long_names_stay_different(a in "[a-z]{60}", b in "[a-z0-9]{1,60}", c in "[a-z0-9]{1,60}") {
            prop_assume!(b != c);
            prop_assert_ne!(joined(&[&a, &b]), joined(&[&a, &c]));
        }
    }
}
