//! Sizes, durations and users as people write them, on the command line and in template files.

use std::time::Duration;

use lg_control::User;

/// Why a text is not the value that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// Not a number of bytes.
    #[error("`{text}` is not a size: write a number with K, M, G or T, as in 512M")]
    NotASize {
        /// What was written.
        text: String,
    },
    /// Not a length of time.
    #[error("`{text}` is not a duration: write a number with ms, s, m or h, as in 30s")]
    NotADuration {
        /// What was written.
        text: String,
    },
    /// A size or duration beyond what there are numbers for.
    #[error("`{text}` is more than can be counted")]
    TooMuch {
        /// What was written.
        text: String,
    },
    /// Not the number of a user or a group.
    #[error("`{text}` is not a user or group number")]
    NotAUser {
        /// What was written.
        text: String,
    },
}

/// A number of bytes: `512M`, `1G`, `64KiB`, `1048576`. Units are powers of 1024.
///
/// # Errors
/// When it is not one.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let wrong = || UnitError::NotASize { text: text.to_owned() };
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
    number.checked_mul(1 << shift).ok_or_else(|| UnitError::TooMuch { text: text.to_owned() })
}

/// A number of bytes as [`parse_size`] reads it, with the largest unit that says it exactly.
pub fn format_size(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    let fits = units.iter().find(|(shift, _)| bytes != 0 && bytes.is_multiple_of(1 << shift));
    fits.map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

/// A duration: `500ms`, `1s`, `1.5s`, `2m`, `1h`; a number alone is seconds.
///
/// # Errors
/// When it is not one.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let wrong = || UnitError::NotADuration { text: text.to_owned() };
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
        .map_err(|_| UnitError::TooMuch { text: text.to_owned() })
}

/// A duration as [`parse_duration`] reads it.
pub fn format_duration(duration: Duration) -> String {
    match duration.as_nanos() {
        ns if ns.is_multiple_of(1_000_000_000) => format!("{}s", duration.as_secs()),
        ns if ns.is_multiple_of(1_000_000) => format!("{}ms", duration.as_millis()),
        ns if ns.is_multiple_of(1_000) => format!("{}us", duration.as_micros()),
        _ => format!("{}.{:09}s", duration.as_secs(), duration.subsec_nanos()),
    }
}

/// A user and a group by number: `1000:100`; a number alone is both.
///
/// # Errors
/// When it is not one.
pub fn parse_user(text: &str) -> Result<User, UnitError> {
    let number = |text: &str| text.parse().map_err(|_| UnitError::NotAUser { text: text.to_owned() });
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    Ok(User { uid: number(uid)?, gid: number(gid)? })
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

    #[test]
    fn what_is_written_is_read_again() {
        for bytes in [0, 1, 1023, 1024, 3 << 20, (3 << 20) + 1, 5 << 30, 2 << 40, u64::MAX] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes), "{bytes}");
        }
        assert_eq!(format_size(512 << 20), "512M");
        for ns in [0, 1, 1_000, 1_500_000, 1_000_000_000, 1_500_000_000, 60_000_000_001] {
            let duration = Duration::from_nanos(ns);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration), "{ns}");
        }
        assert_eq!(format_duration(Duration::from_millis(1500)), "1500ms");
    }
}
