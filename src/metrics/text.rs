//! The text of a scrape, as TorchServe writes it: labels in the order of the family and a comma after each,
//! the last included; values always with a decimal point; help and type even for families without samples.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::cell::{Cell, Histogram};
use super::family::Family;

/// Samples that are wanted, by name.
pub(super) enum Filter<'a> {
    /// All.
    All,
    /// Only these.
    Only(HashSet<&'a str>),
}

impl<'a> Filter<'a> {
    /// Samples called one of `names`; all, if there are none.
    pub(super) fn new(names: &'a [String]) -> Self {
        if names.is_empty() {
            return Self::All;
        }
        Self::Only(names.iter().map(String::as_str).collect())
    }

    fn wants(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
        }
    }
}

/// Writes `family` behind `text`. A family of which no sample is wanted leaves no trace.
pub(super) fn write(text: &mut String, family: &Family, filter: &Filter<'_>) {
    let (name, kind) = (&family.definition().name, family.definition().kind);
    let begin = text.len();
    let help = escape_help(&family.definition().help);
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
    let head = text.len();
    let samples = Samples::new(text, name, filter);
    if let Some(mut samples) = samples {
        for (labels, cell) in family.series() {
            samples.push_series(&labels, &cell);
        }
    }
    if text.len() == head && matches!(filter, Filter::Only(_)) {
        text.truncate(begin);
    }
}

/// The sample lines of one family. A histogram has three names.
struct Samples<'t> {
    text: &'t mut String,
    plain: Option<String>,
    bucket: Option<String>,
    count: Option<String>,
    sum: Option<String>,
}

impl<'t> Samples<'t> {
    /// `None` if no sample of the family is wanted.
    fn new(text: &'t mut String, name: &str, filter: &Filter<'_>) -> Option<Self> {
        let wanted =
            |suffix: &str| Some(format!("{name}{suffix}")).filter(|name| filter.wants(name));
        let samples = Self {
            text,
            plain: wanted(""),
            bucket: wanted("_bucket"),
            count: wanted("_count"),
            sum: wanted("_sum"),
        };
        let names = [
            &samples.plain,
            &samples.bucket,
            &samples.count,
            &samples.sum,
        ];
        names.iter().any(|name| name.is_some()).then_some(samples)
    }

    fn push_series(&mut self, labels: &str, cell: &Cell) {
        match cell {
            Cell::Counter(counter) => push(self.text, self.plain.as_ref(), labels, counter.value()),
            Cell::Gauge(gauge) => push(self.text, self.plain.as_ref(), labels, gauge.value()),
            Cell::Histogram(histogram) => self.push_histogram(labels, histogram),
        }
    }

    fn push_histogram(&mut self, labels: &str, histogram: &Histogram) {
        let observed = histogram.observed();
        let count = observed.buckets.last().map_or(0, |(_, count)| *count);
        if let Some(name) = &self.bucket {
            for (bound, count) in observed.buckets {
                let _ = write!(self.text, "{name}{{{labels}le=\"");
                push_number(self.text, bound);
                self.text.push_str("\",} ");
                push_number(self.text, float(count));
                self.text.push('\n');
            }
        }
        push(self.text, self.count.as_ref(), labels, float(count));
        push(self.text, self.sum.as_ref(), labels, observed.sum);
    }
}

fn push(text: &mut String, name: Option<&String>, labels: &str, value: f64) {
    let Some(name) = name else {
        return;
    };
    text.push_str(name);
    if !labels.is_empty() {
        let _ = write!(text, "{{{labels}}}");
    }
    text.push(' ');
    push_number(text, value);
    text.push('\n');
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a count beyond 2^53 may be off by one"
)]
fn float(count: u64) -> f64 {
    count as f64
}

/// A number as Java prints a double: always with a decimal point, with an exponent from 10^7 on and below 10^-3.
pub(super) fn push_number(text: &mut String, value: f64) {
    if value.is_nan() {
        text.push_str("NaN");
    } else if value.is_infinite() {
        text.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else if value == 0.0 || (1e-3..1e7).contains(&value.abs()) {
        let _ = write!(text, "{value:?}");
    } else {
        push_exponential(text, value);
    }
}

fn push_exponential(text: &mut String, value: f64) {
    let shortest = format!("{value:E}");
    match shortest.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => {
            let _ = write!(text, "{digits}.0E{exponent}");
        }
        _ => text.push_str(&shortest),
    }
}

fn escape_help(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Kind;
    use super::super::cell::Shards;
    use super::super::family::{Definition, Hold};
    use super::*;

    fn family(name: &str, kind: Kind, labels: &[&str]) -> Family {
        let definition = Definition {
            name: name.to_owned(),
            help: "a\nb".to_owned(),
            kind,
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
            bounds: Arc::from([0.5, 1.0]),
        };
        Family::new(definition, Shards::for_threads(1))
    }

    fn scrape(family: &Family, names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut text = String::new();
        write(&mut text, family, &Filter::new(&names));
        text
    }

    fn number(value: f64) -> String {
        let mut text = String::new();
        push_number(&mut text, value);
        text
    }

    #[test]
    fn numbers_always_have_a_decimal_point() {
        let shown = [0.0, 12.0, 7364.85, 1e7, 1.5e9, -3.0, 0.000_25, 0.001].map(number);
        assert_eq!(
            shown,
            [
                "0.0", "12.0", "7364.85", "1.0E7", "1.5E9", "-3.0", "2.5E-4", "0.001"
            ]
        );
        assert_eq!([f64::INFINITY, f64::NAN].map(number), ["+Inf", "NaN"]);
    }

    #[test]
    fn labels_keep_the_order_of_the_family_and_end_with_a_comma() {
        let gauge = family("g", Kind::Gauge, &["z", "a"]);
        gauge.bind(&["1\"\\\n", "2"], Hold::Kept).update(3.0);
        insta::assert_snapshot!(scrape(&gauge, &[]), @r#"
        # HELP g a\nb
        # TYPE g gauge
        g{z="1\"\\\n",a="2",} 3.0
        "#);
    }

    #[test]
    fn a_sample_without_labels_has_no_braces() {
        let counter = family("c", Kind::Counter, &[]);
        counter.bind(&[], Hold::Kept).update(3.0);
        assert!(scrape(&counter, &[]).ends_with("\nc 3.0\n"));
    }

    #[test]
    fn histograms_are_cumulative_and_can_be_filtered_by_sample() {
        let histogram = family("h", Kind::Histogram, &["m"]);
        histogram.bind(&["x"], Hold::Kept).update(0.75);
        insta::assert_snapshot!(scrape(&histogram, &[]), @r#"
        # HELP h a\nb
        # TYPE h histogram
        h_bucket{m="x",le="0.5",} 0.0
        h_bucket{m="x",le="1.0",} 1.0
        h_bucket{m="x",le="+Inf",} 1.0
        h_count{m="x",} 1.0
        h_sum{m="x",} 0.75
        "#);
        assert_eq!(scrape(&histogram, &["h_sum"]).lines().count(), 3);
        assert_eq!(scrape(&histogram, &["h"]), "");
    }

    #[test]
    fn families_without_samples_are_announced() {
        let gauge = family("g", Kind::Gauge, &["a"]);
        assert_eq!(scrape(&gauge, &[]), "# HELP g a\\nb\n# TYPE g gauge\n");
        assert_eq!(scrape(&gauge, &["g"]), "");
    }
}
