//! Points in time as certificates state them. Pure but for [`Moment::now`].

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

const DAY_S: i64 = 86_400;
const HOUR_S: i64 = 3_600;

/// Seconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub i64);

impl Moment {
    /// By the clock of this machine.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }

    /// A time in a certificate.
    pub fn of_asn1(time: &Asn1TimeRef) -> Result<Self, ErrorStack> {
        let since = Asn1Time::from_unix(0)?.diff(time)?;
        Ok(Self(i64::from(since.days) * DAY_S + i64::from(since.secs)))
    }

    /// `3 days ago`, `in 5 hours`; seen from `now`.
    pub fn relative(self, now: Self) -> String {
        let seconds = now.0.saturating_sub(self.0);
        let amount = match seconds.abs() {
            s if s >= 2 * DAY_S => format!("{} days", s / DAY_S),
            s if s >= 2 * HOUR_S => format!("{} hours", s / HOUR_S),
            s if s >= 2 * 60 => format!("{} minutes", s / 60),
            _ => "a minute".to_owned(),
        };
        if seconds < 0 { format!("in {amount}") } else { format!("{amount} ago") }
    }

    /// RFC 3339.
    pub fn rfc3339(self) -> String {
        self.to_string().replacen(' ', "T", 1).replace(" UTC", "Z")
    }
}

/// `2026-11-24 15:37:41 UTC`.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0.div_euclid(DAY_S));
        let s = self.0.rem_euclid(DAY_S);
        let (hour, minute, second) = (s / HOUR_S, s % HOUR_S / 60, s % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

/// Year, month and day from days since 1970. The year begins in March, so that the leap day is its
/// last (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA_DAYS: i64 = 146_097;
    let days = days.saturating_add(719_468);
    let (era, of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_795_534_661, "2026-11-24 15:37:41 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(Moment(seconds).to_string(), text);
        }
        assert_eq!(Moment(1_795_534_661).rfc3339(), "2026-11-24T15:37:41Z");
    }

    #[test]
    fn distances_are_told_in_one_unit() {
        let now = Moment(10_000_000);
        assert_eq!(Moment(now.0 - 12 * DAY_S - 5).relative(now), "12 days ago");
        assert_eq!(Moment(now.0 + 5 * HOUR_S).relative(now), "in 5 hours");
        assert_eq!(Moment(now.0 - 90).relative(now), "a minute ago");
    }

    proptest! {
        #[test]
        fn as_openssl_tells_it(seconds in 0..253_402_300_799_i64) {
            let time = Asn1Time::from_unix(seconds).unwrap();
            let moment = Moment::of_asn1(&time).unwrap();
            prop_assert_eq!(moment.0, seconds);
            let text = moment.to_string();
            let digits: String = text.chars().filter(char::is_ascii_digit).collect();
            prop_assert_eq!(Asn1Time::from_str_x509(&format!("{digits}Z")).unwrap().compare(&time).unwrap(), std::cmp::Ordering::Equal);
        }
    }
}
