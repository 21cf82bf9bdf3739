//! Sizes and rates as people write them.

use std::fmt;

/// Bytes, written `4096`, `64K`, `1.5GiB`, `200MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Why a text is no size. Names the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}; write it like {example}")]
pub struct UnitError {
    text: String,
    what: &'static str,
    example: &'static str,
}

impl std::str::FromStr for Size {
    type Err = UnitError;

    /// `K`, `M`, `G`, `T`, `P` and `KiB` … are powers of 1024, `kB`, `MB` … of 1000.
    fn from_str(text: &str) -> Result<Self, UnitError> {
        size(text.trim()).map(Self).ok_or_else(|| UnitError {
            text: text.to_owned(),
            what: "size",
            example: "65536, 64K, 32MiB or 1.5GB",
        })
    }
}

fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let (letter, base) = match unit.strip_suffix('b') {
        Some(u) => match u.strip_suffix('i') {
            Some(u) => (u, 1024_u64),
            None => (u, 1000),
        },
        None => (unit.as_str(), 1024),
    };
    let power = match letter {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let factor = base.checked_pow(power)?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let value = number.parse::<f64>().ok().filter(|v| v.is_finite())?;
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let bytes = (value * factor as f64).round() as u64;
    (bytes < 1 << 62).then_some(bytes)
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] =
            [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match UNITS.iter().find(|(_, n)| self.0 >= *n) {
            Some((name, n)) => {
                #[allow(clippy::cast_precision_loss)] // one decimal is shown
                let value = self.0 as f64 / *n as f64;
                write!(f, "{value:.1} {name}")
            }
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// Bytes per second, written `200MiB/s`; `0`, `none` and `unlimited` are no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub Option<std::num::NonZeroU64>);

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self(None);
}

impl std::str::FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let trimmed = text.trim();
        if matches!(trimmed, "none" | "unlimited") {
            return Ok(Self::UNLIMITED);
        }
        let amount = trimmed.strip_suffix("/s").or_else(|| trimmed.strip_suffix("ps"));
        size(amount.unwrap_or(trimmed)).map(|n| Self(std::num::NonZeroU64::new(n))).ok_or_else(
            || UnitError {
                text: text.to_owned(),
                what: "rate",
                example: "200MiB/s, 1.5GB/s, or 0 for no limit",
            },
        )
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("unlimited"),
            Some(n) => write!(f, "{}/s", Size(n.get())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_as_people_mean_them() {
        for (text, bytes) in [
            ("4096", 4096),
            ("64K", 65536),
            ("64KiB", 65536),
            ("1kB", 1000),
            ("1.5GiB", 1_610_612_736),
            ("2 MB", 2_000_000),
            ("8b", 8),
        ] {
            assert_eq!(text.parse::<Size>(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "x", "-1", "1Q", "1..5M", "99999999999T", "nan", "1e9"] {
            let e = text.parse::<Size>().unwrap_err().to_string();
            assert!(e.contains(&format!("{text:?}")), "{e}");
        }
    }

    #[test]
    fn rates_have_an_off_position() {
        assert_eq!("0".parse::<Rate>(), Ok(Rate::UNLIMITED));
        assert_eq!("unlimited\n".parse::<Rate>(), Ok(Rate::UNLIMITED));
        assert_eq!("200MiB/s".parse::<Rate>().unwrap().to_string(), "200.0 MiB/s");
        assert!("fast".parse::<Rate>().is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = (text.parse::<Size>(), text.parse::<Rate>());
        }
    }
}
