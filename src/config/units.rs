//! Sizes and durations as people write them: `128MiB`, `250ms`.

use std::time::Duration;

const SIZES: [(&str, u64); 9] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1000),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
];

const DURATIONS: [(&str, u64); 6] = [
    ("us", 1),
    ("ms", 1000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("min", 60_000_000),
    ("h", 3_600_000_000),
];

/// The smallest number that is taken for bytes without being called so: a page of a handler's memory.
const SMALLEST: u64 = 65_536;

/// What a size must be.
pub const SIZE: &str = "a number of bytes such as 1048576, 128MiB or 2GB";

/// What a duration must be.
pub const DURATION: &str = "a duration with its unit, such as 500us, 250ms, 10s, 2min or 1h";

/// Bytes.
pub fn size(text: &str) -> Option<usize> {
    usize::try_from(scaled(text, &SIZES)?).ok()
}

/// What to ask whoever wrote a number so small that no size is meant by it, but one in another unit.
pub fn question(text: &str) -> Option<String> {
    let number: u64 = text.trim().parse().ok()?;
    let is_odd = number > 0 && number < SMALLEST;
    is_odd.then(|| {
        format!(
            "must have a unit: {number} what? Write {number}MiB, or {number}B if bytes are meant"
        )
    })
}

/// A duration. The unit is required: a bare number has meant seconds to some and milliseconds to others.
pub fn duration(text: &str) -> Option<Duration> {
    scaled(text, &DURATIONS).map(Duration::from_micros)
}

/// Bytes as [`size`] reads them, in the largest unit that has no fraction.
pub fn whole_size(bytes: usize) -> String {
    const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let is_whole = |bits: u32| bytes > 0 && bytes.trailing_zeros() >= bits;
    let unit = UNITS.iter().find(|(_, bits)| is_whole(*bits));
    unit.map_or_else(
        || bytes.to_string(),
        |(name, bits)| format!("{}{name}", bytes >> bits),
    )
}

/// Bytes for people to read.
pub fn show_size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10 / 1024;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..end].parse().ok()?;
    let unit = text[end..].trim().to_ascii_lowercase();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        assert_eq!(size("1024"), Some(1024));
        assert_eq!(size("128MiB"), Some(128 << 20));
        assert_eq!(size("2 GB"), Some(2_000_000_000));
        for bad in [
            "",
            "MiB",
            "-1",
            "1.5MiB",
            "1TiBs",
            "99999999999999999999",
            "18446744073709551615kib",
        ] {
            assert_eq!(size(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn small_numbers_without_a_unit_are_asked_about() {
        for (text, asks) in [
            ("256", true),
            ("65535", true),
            ("65536", false),
            ("256B", false),
            ("0", false),
            ("x", false),
        ] {
            assert_eq!(question(text).is_some(), asks, "{text}");
        }
        assert!(
            question("256").is_some_and(|question| question.contains("256 what? Write 256MiB"))
        );
    }

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("2min"), Some(Duration::from_mins(2)));
        assert_eq!(duration("1h"), Some(Duration::from_hours(1)));
        for bad in ["250", "ms", "1h30", "-5s", "∞"] {
            assert_eq!(duration(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn whole_sizes_are_read_as_they_are_shown() {
        for (bytes, shown) in [
            (0, "0"),
            (17, "17"),
            (1536, "1536"),
            (3 << 10, "3KiB"),
            (1536 << 20, "1536MiB"),
            (4 << 30, "4GiB"),
            (usize::MAX, "18446744073709551615"),
        ] {
            assert_eq!(whole_size(bytes), shown);
            assert_eq!(size(shown), Some(bytes), "{shown}");
        }
    }

    #[test]
    fn sizes_are_shown_with_one_decimal() {
        assert_eq!(show_size(17), "17 B");
        assert_eq!(show_size(1536), "1.5 KiB");
        assert_eq!(show_size(5 << 30), "5.0 GiB");
        assert!(show_size(u64::MAX).ends_with("TiB"));
    }
}
