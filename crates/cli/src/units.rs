//! Sizes and durations as people write them.

use std::time::Duration;

/// A number of bytes: `512M`, `1G`, `64KiB`, `1048576`. Units are powers of 1024.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size: write a number with K, M, G or T, as in 512M");
    let (number, unit) = split(text);
    let shift = match unit.trim_end_matches(['b', 'B']).trim_end_matches('i') {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is more than can be counted"))
}

/// A duration: `500ms`, `1s`, `1.5s`, `2m`, `1h`; a number alone is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration: write a number with ms, s, m or h, as in 30s");
    let (number, unit) = split(text);
    let seconds_per_unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * seconds_per_unit)
        .map_err(|_| format!("`{text}` is more than can be counted"))
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        let cases: [(&str, u64); 8] = [
            ("0", 0),
            ("4096", 4096),
            ("64K", 65536),
            ("64M", 64 << 20),
            ("1g", 1 << 30),
            ("2T", 2 << 40),
            ("1MiB", 1 << 20),
            ("3MB", 3 << 20),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in
            ["", "M", "1X", "-1", "1.5G", "1 G", "99999999999999999999", "18446744073709551615K", "1KK"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_units() {
        let cases = [
            ("500ms", 500_000),
            ("1s", 1_000_000),
            ("1.5s", 1_500_000),
            ("2m", 120_000_000),
            ("1h", 3_600_000_000),
            ("3", 3_000_000),
            ("7us", 7),
        ];
        for (text, us) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_micros(us)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in ["", "s", "-1s", "1d", "1 s", "1.2.3s", "nan", "inf", &format!("1{}h", "0".repeat(30))] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
