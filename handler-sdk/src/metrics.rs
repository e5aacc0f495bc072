//! The handler's own metrics, shown on the metrics endpoint with the model's labels.

pub use crate::bindings::lantern::handler::metrics::{Kind, Unit};
use crate::imports;

/// A sum that only grows.
///
/// ```
/// use handler_sdk::{metrics::{Counter, Unit}, testing::Host};
///
/// let host = Host::new();
/// let images = Counter::new("images", Unit::Count, &["format"]);
/// images.add(1.0, &["png"]);
/// assert_eq!(host.observations()[0].value, 1.0);
/// ```
#[derive(Debug)]
pub struct Counter(imports::Metric);

impl Counter {
    /// A counter with `label_names`. Create it in `init` and keep it.
    pub fn new(name: &str, unit: Unit, label_names: &[&str]) -> Self {
        Self(metric(name, Kind::Counter, unit, label_names))
    }

    /// Adds `value`, which is not negative. One label value per label name.
    pub fn add(&self, value: f64, label_values: &[&str]) {
        self.0.observe(value, &owned(label_values));
    }
}

/// A value that may go up and down: the last one that was set.
#[derive(Debug)]
pub struct Gauge(imports::Metric);

impl Gauge {
    /// A gauge with `label_names`. Create it in `init` and keep it.
    pub fn new(name: &str, unit: Unit, label_names: &[&str]) -> Self {
        Self(metric(name, Kind::Gauge, unit, label_names))
    }

    /// Sets `value`. One label value per label name.
    pub fn set(&self, value: f64, label_values: &[&str]) {
        self.0.observe(value, &owned(label_values));
    }
}

/// The distribution of values.
#[derive(Debug)]
pub struct Histogram(imports::Metric);

impl Histogram {
    /// A histogram with `label_names`. Create it in `init` and keep it.
    pub fn new(name: &str, unit: Unit, label_names: &[&str]) -> Self {
        Self(metric(name, Kind::Histogram, unit, label_names))
    }

    /// Counts `value`. One label value per label name.
    pub fn observe(&self, value: f64, label_values: &[&str]) {
        self.0.observe(value, &owned(label_values));
    }
}

fn metric(name: &str, kind: Kind, unit: Unit, label_names: &[&str]) -> imports::Metric {
    imports::Metric::new(name, kind, unit, &owned(label_names))
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Host;

    #[test]
    fn observations_keep_kind_unit_and_labels() {
        let host = Host::new();
        Gauge::new("temperature", Unit::None, &[]).set(-1.5, &[]);
        Histogram::new("decode", Unit::Milliseconds, &["format"]).observe(2.0, &["jpeg"]);
        let seen = host.observations();
        assert_eq!(
            (seen[0].kind, seen[0].value.to_bits()),
            (Kind::Gauge, (-1.5f64).to_bits())
        );
        assert_eq!(
            (seen[1].kind, seen[1].unit),
            (Kind::Histogram, Unit::Milliseconds)
        );
        assert_eq!(seen[1].labels, [("format".to_owned(), "jpeg".to_owned())]);
    }
}
