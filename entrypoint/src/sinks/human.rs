//! Numbers and strings as a person reads them, for the terminal and for plain progress lines.

/// Bytes in binary units with one decimal: `512 B`, `1.5 GiB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[allow(clippy::cast_precision_loss)] // one decimal is shown
    let mut value = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        // Not 1024.0: what would be shown as `1024.0 KiB` is 1.0 MiB.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

/// A rate in bytes per second: `120.0 MiB/s`.
pub fn human_rate(bytes_per_second: f64) -> String {
    // The cast saturates, and turns NaN into 0.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = bytes_per_second as u64;
    format!("{}/s", human_bytes(whole))
}

/// Seconds in the two largest units: `42s`, `3m 05s`, `2h 07m`, `3d 04h`.
pub fn human_duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days}d {:02}h", hours % 24),
        () if hours > 0 => format!("{hours}h {:02}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m {:02}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

/// Whole percent, rounded down, so that 100% means finished.
pub fn human_percent(percent: f64) -> String {
    format!("{}%", percent.floor())
}

/// The text without control characters: names come from the source, and an escape sequence in a
/// VM's name must not reach the operator's terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_decimal_and_never_four_digits_before_it() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (3 << 30, "3.0 GiB"),
            (1023 << 30, "1023.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn durations_have_two_units() {
        let cases = [
            (0, "0s"),
            (59, "59s"),
            (65, "1m 05s"),
            (3599, "59m 59s"),
            (7620, "2h 07m"),
            (273_600, "3d 04h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human_duration(seconds), text);
        }
    }

    #[test]
    fn rates_and_percent_survive_odd_numbers() {
        assert_eq!(human_rate(125_829_120.0), "120.0 MiB/s");
        assert_eq!(human_rate(f64::NAN), "0 B/s");
        assert_eq!(human_percent(99.99), "99%");
        assert_eq!(human_percent(100.0), "100%");
    }

    #[test]
    fn escape_sequences_are_defused() {
        assert_eq!(printable("web\u{1b}[2J\n01"), "web\u{fffd}[2J\u{fffd}01");
    }
}
