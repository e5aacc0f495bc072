//! The rules for a handler's own metrics: names, labels, values.
//!
//! They are checked where a handler makes a metric or observes a value, and again in the front where a worker process
//! reports one. Both ends use these functions, so the front refuses nothing that the worker process let through.

use super::{MetricKind, Observation};
use crate::error::truncated;

/// Most bytes of the name of a metric or a label.
const NAME_LIMIT: usize = 128;
/// Most labels of a metric.
const LABEL_LIMIT: usize = 8;
/// Most bytes of a label's value.
pub(super) const VALUE_LIMIT: usize = 128;
/// Units that the handler interface knows.
const UNITS: [&str; 5] = ["none", "milliseconds", "bytes", "count", "percent"];

/// The unit of that name.
pub fn unit_named(name: &str) -> Option<&'static str> {
    UNITS.into_iter().find(|unit| *unit == name)
}

impl Observation {
    /// Checks every rule. The error names the one that is broken.
    pub fn check(&self) -> Result<(), String> {
        check_names(&self.name, &self.label_names)?;
        check_values(
            self.kind,
            self.label_names.len(),
            self.value,
            &self.label_values,
        )
    }
}

/// Checks names by Prometheus' rules and the limits above.
pub(super) fn check_names(name: &str, labels: &[String]) -> Result<(), String> {
    if !is_name(name) {
        return Err(format!(
            "name {:?}; names are [a-zA-Z_][a-zA-Z0-9_]*, at most {NAME_LIMIT} bytes",
            truncated(name, NAME_LIMIT)
        ));
    }
    if labels.len() > LABEL_LIMIT {
        return Err(format!(
            "metric {name:?} has {} labels, at most {LABEL_LIMIT} are taken",
            labels.len()
        ));
    }
    let is_legal = |label: &String| is_name(label) && !label.starts_with("__") && label != "le";
    let is_first = |index: usize, label: &String| !labels[..index].contains(label);
    let mut counted = labels.iter().enumerate();
    if !counted.all(|(index, label)| is_legal(label) && is_first(index, label)) {
        return Err(format!(
            "metric {name:?} has labels that are not distinct legal names"
        ));
    }
    Ok(())
}

/// Checks an observed value, and that there is one label value for each of `labels` labels.
pub(super) fn check_values(
    kind: MetricKind,
    labels: usize,
    value: f64,
    label_values: &[String],
) -> Result<(), String> {
    let values = label_values.len();
    if labels != values {
        return Err(format!("{values} label values for {labels} labels"));
    }
    if let Some(long) = label_values.iter().find(|value| value.len() > VALUE_LIMIT) {
        return Err(format!(
            "a label's value has {} bytes, at most {VALUE_LIMIT} are taken",
            long.len()
        ));
    }
    if !value.is_finite() {
        return Err(format!("{value} is not a finite number"));
    }
    if kind == MetricKind::Counter && value < 0.0 {
        return Err(format!("a counter cannot grow by {value}"));
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let starts_well = bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    starts_well && name.len() <= NAME_LIMIT && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(labels: &[&str]) -> Vec<String> {
        labels.iter().map(|&label| label.to_owned()).collect()
    }

    #[test]
    fn names_and_labels_follow_the_rules() {
        assert_eq!(
            check_names("images_total", &labels(&["color", "size"])),
            Ok(())
        );
        let long = "a".repeat(NAME_LIMIT + 1);
        for (name, names) in [
            ("", &[][..]),
            ("1a", &[]),
            ("a b", &[]),
            ("a\n", &[]),
            ("a:b", &[]),
            (&long, &[]),
            ("ok", &["le"]),
            ("ok", &["__name__"]),
            ("ok", &["a", "a"]),
            ("ok", &["a", "b", "c", "d", "e", "f", "g", "h", "i"]),
        ] {
            assert!(
                check_names(name, &labels(names)).is_err(),
                "{name:?} {names:?}"
            );
        }
    }

    #[test]
    fn observations_are_finite_labeled_and_make_counters_grow() {
        let check =
            |value, values: &[&str]| check_values(MetricKind::Counter, 1, value, &labels(values));
        assert_eq!(check(1.0, &["x"]), Ok(()));
        assert_eq!(check(-0.0, &["x"]), Ok(()));
        assert_eq!(check(f64::MAX, &[&"x".repeat(VALUE_LIMIT)]), Ok(()));
        assert!(check(-1.0, &["x"]).is_err());
        assert!(check(f64::NAN, &["x"]).is_err());
        assert!(check(f64::INFINITY, &["x"]).is_err());
        assert!(check(1.0, &[]).is_err());
        assert!(check(1.0, &[&"x".repeat(VALUE_LIMIT + 1)]).is_err());
    }

    #[test]
    fn units_are_those_of_the_interface() {
        assert_eq!(unit_named("bytes"), Some("bytes"));
        assert_eq!(unit_named("furlongs"), None);
    }
}
