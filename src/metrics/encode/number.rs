//! Numbers as text, always with a decimal point or an exponent, so that they read as floating point.

use std::fmt::Write as _;

/// Appends `value` as Java prints a double: with an exponent from 10^7 on and below 10^-3.
pub(in crate::metrics) fn push_java(text: &mut String, value: f64) {
    if !value.is_finite() {
        push_not_finite(text, value);
    } else if value == 0.0 || (1e-3..1e7).contains(&value.abs()) {
        let _ = write!(text, "{value:?}");
    } else {
        let (digits, exponent) = scientific(value);
        let point = if digits.contains('.') { "" } else { ".0" };
        let _ = write!(text, "{digits}{point}E{exponent}");
    }
}

/// Appends `value` as `OpenMetrics` asks for numbers in labels: with an exponent of at least two digits from 10^6 on and
/// below 10^-4.
pub(super) fn push_canonical(text: &mut String, value: f64) {
    if !value.is_finite() {
        push_not_finite(text, value);
    } else if value == 0.0 || (1e-4..1e6).contains(&value.abs()) {
        let _ = write!(text, "{value:?}");
    } else {
        let (digits, exponent) = scientific(value);
        let _ = write!(text, "{digits}e{exponent:+03}");
    }
}

fn push_not_finite(text: &mut String, value: f64) {
    text.push_str(match value {
        f64::INFINITY => "+Inf",
        f64::NEG_INFINITY => "-Inf",
        _ => "NaN",
    });
}

/// The fewest digits that mean `value`, one of them before the point, and the power of ten.
fn scientific(value: f64) -> (String, i32) {
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    (digits.to_owned(), exponent.parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<const N: usize>(push: fn(&mut String, f64), values: [f64; N]) -> [String; N] {
        values.map(|value| {
            let mut text = String::new();
            push(&mut text, value);
            text
        })
    }

    #[test]
    fn numbers_always_have_a_decimal_point() {
        let values = [0.0, 12.0, 7364.85, 1e7, 1.5e9, -3.0, 0.000_25, 0.001];
        assert_eq!(
            shown(push_java, values),
            [
                "0.0", "12.0", "7364.85", "1.0E7", "1.5E9", "-3.0", "2.5E-4", "0.001"
            ]
        );
        let others = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
        assert_eq!(shown(push_java, others), ["+Inf", "-Inf", "NaN"]);
    }

    #[test]
    fn canonical_numbers_are_those_of_openmetrics() {
        let values = [
            0.0, 120.0, 0.000_05, 0.000_1, 0.5, 100_000.0, 1e6, 1.25e10, -2e-300,
        ];
        assert_eq!(
            shown(push_canonical, values),
            [
                "0.0", "120.0", "5e-05", "0.0001", "0.5", "100000.0", "1e+06", "1.25e+10",
                "-2e-300"
            ]
        );
        let others = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
        assert_eq!(shown(push_canonical, others), ["+Inf", "-Inf", "NaN"]);
    }
}
