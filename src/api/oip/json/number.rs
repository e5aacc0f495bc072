//! Numbers as texts: each becomes the element that is nearest to it, without another type between them.
//!
//! JSON has no form for what is no finite number. Here, as for Triton and for Python's `json`, these are the literals
//! `NaN`, `Infinity` and `-Infinity`.

use std::cmp::Ordering;

use half::{bf16, f16};

pub(super) const NAN: &str = "NaN";
pub(super) const INFINITY: &str = "Infinity";
pub(super) const MINUS_INFINITY: &str = "-Infinity";

/// The whole number that `text` is, if `T` holds it.
pub(super) fn integer<T: TryFrom<i64> + TryFrom<i128>>(text: &str) -> Option<T> {
    if !begins_as_json(text.as_bytes()) {
        return None;
    }
    match text.parse::<i64>() {
        Ok(value) => T::try_from(value).ok(),
        // What is beyond even these 128 bits is beyond every dtype.
        Err(_) => T::try_from(text.parse::<i128>().ok()?).ok(),
    }
}

/// The nearest single; `None` for what is no number and for what is beyond the largest.
pub(super) fn single(text: &str) -> Option<f32> {
    match text {
        NAN => Some(f32::NAN),
        INFINITY => Some(f32::INFINITY),
        MINUS_INFINITY => Some(f32::NEG_INFINITY),
        _ if !begins_as_json(text.as_bytes()) => None,
        _ => text.parse().ok().filter(|value: &f32| value.is_finite()),
    }
}

/// The nearest double; `None` as of [`single`].
pub(super) fn double(text: &str) -> Option<f64> {
    match text {
        NAN => Some(f64::NAN),
        INFINITY => Some(f64::INFINITY),
        MINUS_INFINITY => Some(f64::NEG_INFINITY),
        _ if !begins_as_json(text.as_bytes()) => None,
        _ => text.parse().ok().filter(|value: &f64| value.is_finite()),
    }
}

/// The nearest half precision number; `None` as of [`single`].
pub(super) fn half(text: &str) -> Option<f16> {
    let value = Grid::HALF.nearest(text, double(text)?);
    let is_beyond = value.is_finite() && value.abs() > f16::MAX.to_f64();
    (!is_beyond).then(|| f16::from_f64(value))
}

/// The nearest brain floating point number; `None` as of [`single`].
pub(super) fn brain(text: &str) -> Option<bf16> {
    let value = Grid::BRAIN.nearest(text, double(text)?);
    let is_beyond = value.is_finite() && value.abs() > bf16::MAX.to_f64();
    (!is_beyond).then(|| bf16::from_f64(value))
}

/// Which doubles a narrower type has.
struct Grid {
    /// Bits behind the point.
    fraction: i32,
    /// The exponent below which numbers get no finer.
    lowest: i32,
}

impl Grid {
    const HALF: Self = Self {
        fraction: 10,
        lowest: -14,
    };
    const BRAIN: Self = Self {
        fraction: 7,
        lowest: -126,
    };

    /// The double of this grid that is nearest to `text`, whose nearest double of all is `value`; even where two are
    /// equally near. Rounding the double alone would be wrong where it lies between two of the grid and the text does not.
    fn nearest(&self, text: &str, value: f64) -> f64 {
        if !value.is_finite() {
            return value;
        }
        let step = power_of_two(exponent(value).max(self.lowest) - self.fraction);
        let steps = value.abs() / step;
        let order = if is_halfway(steps) {
            compare(text, value)
        } else {
            Ordering::Equal
        };
        let steps = match order {
            Ordering::Less => steps.floor(),
            Ordering::Equal => steps.round_ties_even(),
            Ordering::Greater => steps.ceil(),
        };
        (steps * step).copysign(value)
    }
}

#[expect(clippy::float_cmp, reason = "halves are exact")]
fn is_halfway(steps: f64) -> bool {
    steps.fract() == 0.5
}

/// How the size of the number in `text` compares with the size of `value`, exactly.
fn compare(text: &str, value: f64) -> Ordering {
    // More digits than any double halfway between two numbers of a grid has.
    let exact = format!("{:.160e}", value.abs());
    decimal(text).cmp(&decimal(&exact))
}

/// The power of ten of the first digit that is not zero, and the digits from there to the last that is not.
fn decimal(text: &str) -> (i64, Vec<u8>) {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let whole = whole.trim_start_matches('-');
    let digits = [whole, fraction].concat();
    let significant = digits.trim_start_matches('0');
    let zeros = digits.len() - significant.len();
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let places = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let first = exponent
        .saturating_add(places(whole.len()))
        .saturating_sub(places(zeros));
    (first, significant.trim_end_matches('0').into())
}

/// The exponent of a double; below those of all grids for subnormal ones and zero.
fn exponent(value: f64) -> i32 {
    let bits = (value.to_bits() >> 52) & 0x7ff;
    i32::try_from(bits).unwrap_or(0) - 1023
}

/// Of an exponent that normal doubles have.
fn power_of_two(exponent: i32) -> f64 {
    let bits = u64::try_from(exponent + 1023).unwrap_or(0);
    f64::from_bits(bits << 52)
}

/// Whether `text` begins as JSON's numbers do. The parsers of the standard library refuse all else that is no number,
/// but take `+1`, `01`, `.5`, `1.` and words.
fn begins_as_json(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let is_other = |byte: &u8| !byte.is_ascii_digit();
    let whole = text.iter().position(is_other).unwrap_or(text.len());
    let has_fraction = match &text[whole..] {
        [b'.', next, ..] => next.is_ascii_digit(),
        rest => rest != b".",
    };
    has_fraction && (whole == 1 || (whole > 1 && text[0] != b'0'))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::cast_possible_truncation,
        clippy::float_cmp
    )]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_json_calls_a_number_is_one() {
        for text in ["0", "-0", "10", "0.5", "-1.25e-3", "1E+5", "1e05", "9e0"] {
            assert!(double(text).is_some(), "{text}");
        }
        for text in [
            "",
            "-",
            "+1",
            "01",
            "-01",
            ".5",
            "1.",
            "1.e3",
            "1e",
            "1e+",
            "0x10",
            "1_0",
            "inf",
            "nan",
            "infinity",
            "+Infinity",
            "Inf",
            "-NaN",
            "NAN",
            "null",
            "true",
            "1 2",
            "١",
        ] {
            assert_eq!(double(text), None, "{text}");
            assert_eq!(single(text), None, "{text}");
            assert_eq!(half(text), None, "{text}");
            assert_eq!(integer::<i64>(text), None, "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_exact_or_refused() {
        assert_eq!(integer("18446744073709551615"), Some(u64::MAX));
        assert_eq!(integer::<u64>("18446744073709551616"), None);
        assert_eq!(integer("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(integer::<i64>("9223372036854775808"), None);
        assert_eq!(integer("9007199254740993"), Some(9_007_199_254_740_993i64));
        assert_eq!(integer("-0"), Some(0u8));
        for text in ["1.0", "1e2", "-1", "65536", "1e400", &"9".repeat(1000)] {
            assert_eq!(integer::<u16>(text), None, "{text}");
        }
    }

    #[test]
    fn the_nearest_single_is_that_of_the_text() {
        // By way of a double this would be the even neighbor, 1.
        let just_above_half = "1.00000005960464477539062500000000001";
        assert_eq!(just_above_half.parse::<f64>().unwrap() as f32, 1.0);
        assert_eq!(single(just_above_half), Some(1.0 + f32::EPSILON));
    }

    #[test]
    fn the_nearest_half_and_brain_are_those_of_the_text() {
        let bits = |text| half(text).unwrap().to_bits();
        assert_eq!(
            bits("1.00048828125"),
            0x3c00,
            "halfway goes to the even one"
        );
        assert_eq!(
            bits("1.00146484375"),
            0x3c02,
            "halfway goes to the even one"
        );
        assert_eq!(bits("1.0004882812500000000000000001"), 0x3c01);
        assert_eq!(bits("0.00042498111724853515625"), 3830, "halfway");
        assert_eq!(
            bits("0.00042498111724853516"),
            3831,
            "the shortest text of it"
        );
        assert_eq!(bits("-1.0014648437499999999999999999"), 0xbc01);
        // Half's own conversion loses what is in a double's low bits.
        assert_eq!(bits("1.000488281250001"), 0x3c01);
        assert_eq!(bits("-65519.999"), 0xfbff);
        assert_eq!([half("65520"), half("-65520"), half("1e5")], [None; 3]);
        assert_eq!(bits("2.98023223876953125e-8"), 0, "half of the smallest");
        assert_eq!(bits("2.98023223876953125000001e-8"), 1);
        assert_eq!(bits("-1e-400"), 0x8000);
        let bits = |text| brain(text).unwrap().to_bits();
        assert_eq!(bits("1.00390625"), 0x3f80, "halfway goes to the even one");
        assert_eq!(bits("1.00390625000000000000000000001"), 0x3f81);
        assert_eq!(bits("4.59e-41"), 0);
        assert_eq!(bits("4.6e-41"), 1);
        assert_eq!([brain("3.4e38"), brain("-1e39"), brain("1e999")], [None; 3]);
    }

    #[test]
    fn what_is_beyond_the_largest_is_none_and_infinity_is_itself() {
        assert_eq!([single("1e39"), single("-3.5e38")], [None; 2]);
        assert_eq!(
            [double("1e309"), double("-1e999999999999999999999")],
            [None; 2]
        );
        assert_eq!(single("-Infinity"), Some(f32::NEG_INFINITY));
        assert_eq!(half("Infinity"), Some(f16::INFINITY));
        assert!(brain("NaN").unwrap().is_nan() && double("NaN").unwrap().is_nan());
    }

    proptest! {
        /// Whatever lies between two neighbors goes to the nearer one.
        #[test]
        fn between_two_halves_the_nearer_wins(bits in 0u16..0x7bff, part in 0u32..=1000) {
            let (low, high) = (f16::from_bits(bits).to_f64(), f16::from_bits(bits + 1).to_f64());
            let value = low + (high - low) * f64::from(part) / 1000.0;
            // Every digit: the shortest text of a double may lie on the other side of the middle.
            let found = half(&format!("{value:.60}")).unwrap().to_bits();
            let expected = match part.cmp(&500) {
                Ordering::Less => bits,
                Ordering::Equal => bits + bits % 2,
                Ordering::Greater => bits + 1,
            };
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn numbers_are_those_of_the_general_parser(text in r"[+-]?[0-9]{0,3}(\.[0-9]{0,5})?([eE][+-]?[0-9]{0,2})?") {
            let is_json = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            prop_assert_eq!(double(&text).is_some(), is_json);
        }
    }
}
