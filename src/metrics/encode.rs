//! The two formats of a scrape, as encoders of what a registry gathers.
//!
//! Both keep the labels of a series in the order of its family. What they have in common is here; what differs is a
//! [`Dialect`].

use std::collections::HashSet;
use std::io::Write;

use prometheus::Encoder;
use prometheus::proto::{Histogram, LabelPair, Metric, MetricFamily, MetricType};

pub(super) mod number;
pub(super) mod openmetrics;
pub(super) mod torchserve;

/// What differs between the formats.
pub(super) struct Dialect {
    pub(super) content_type: &'static str,
    /// Appends the lines before the samples of a family, which is one of several that are sorted by name.
    push_head: fn(&mut String, &MetricFamily, &[MetricFamily]),
    push_number: fn(&mut String, f64),
    /// Whether a comma follows the last label of a sample.
    has_last_comma: bool,
    /// What follows the last family.
    end: &'static str,
}

/// The samples that a client wants, by name.
pub(super) enum Filter<'a> {
    /// All of them.
    All,
    /// Only those with one of these names.
    Only(HashSet<&'a str>),
}

impl<'a> Filter<'a> {
    /// Wants samples called one of `names`; all, if there are none.
    pub(super) fn new(names: &'a [String]) -> Self {
        if names.is_empty() {
            return Self::All;
        }
        Self::Only(names.iter().map(String::as_str).collect())
    }

    /// Whether it wants samples of the family called `name`.
    pub(super) fn wants_of(&self, name: &str) -> bool {
        let mut suffixes = ["", "_bucket", "_count", "_sum"].into_iter();
        suffixes.any(|suffix| self.wants(&format!("{name}{suffix}")))
    }

    fn wants(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
        }
    }
}

/// Writes families in one dialect. A family of which the filter wants no sample is left out.
pub(super) struct TextEncoder<'a> {
    dialect: &'static Dialect,
    filter: Filter<'a>,
}

impl<'a> TextEncoder<'a> {
    pub(super) const fn new(dialect: &'static Dialect, filter: Filter<'a>) -> Self {
        Self { dialect, filter }
    }

    /// Appends one of `all` families to `text`, which is empty.
    fn push_family(&self, text: &mut String, family: &MetricFamily, all: &[MetricFamily]) {
        (self.dialect.push_head)(text, family, all);
        let head = text.len();
        let mut samples = Samples {
            encoder: self,
            family: family.name(),
            labels: String::new(),
            text,
        };
        for metric in family.get_metric() {
            samples.push_metric(metric, family.get_field_type());
        }
        if text.len() == head && matches!(self.filter, Filter::Only(_)) {
            text.clear();
        }
    }
}

impl Encoder for TextEncoder<'_> {
    fn encode<W: Write>(&self, all: &[MetricFamily], writer: &mut W) -> prometheus::Result<()> {
        let mut text = String::new();
        for family in all {
            self.push_family(&mut text, family, all);
            writer.write_all(text.as_bytes())?;
            text.clear();
        }
        Ok(writer.write_all(self.dialect.end.as_bytes())?)
    }

    fn format_type(&self) -> &str {
        self.dialect.content_type
    }
}

/// Appends the samples of one family to a text.
struct Samples<'a> {
    encoder: &'a TextEncoder<'a>,
    family: &'a str,
    /// Of the series that is written: `a="x",b="y",`, with a comma after the last label as well.
    labels: String,
    text: &'a mut String,
}

impl Samples<'_> {
    fn push_metric(&mut self, metric: &Metric, kind: MetricType) {
        self.set_labels(metric.get_label());
        match kind {
            MetricType::COUNTER => self.push("", None, metric.get_counter().get_value()),
            MetricType::GAUGE => self.push("", None, metric.get_gauge().get_value()),
            MetricType::HISTOGRAM => self.push_histogram(metric.get_histogram()),
            // No collector here makes these.
            MetricType::SUMMARY | MetricType::UNTYPED => {}
        }
    }

    fn set_labels(&mut self, labels: &[LabelPair]) {
        self.labels.clear();
        for label in labels {
            self.labels.extend([label.name(), "=\""]);
            push_escaped(&mut self.labels, label.value(), true);
            self.labels.push_str("\",");
        }
    }

    /// An exemplar would follow each bucket. `MetricFamily` has none, so that it would have to come from the cell.
    fn push_histogram(&mut self, histogram: &Histogram) {
        for bucket in histogram.get_bucket() {
            let count = float(bucket.cumulative_count());
            self.push("_bucket", Some(bucket.upper_bound()), count);
        }
        let count = float(histogram.get_sample_count());
        self.push("_bucket", Some(f64::INFINITY), count);
        self.push("_count", None, count);
        self.push("_sum", None, histogram.get_sample_sum());
    }

    /// Appends the line of a sample, if it is wanted; `bound` is the upper bound of a bucket.
    fn push(&mut self, suffix: &str, bound: Option<f64>, value: f64) {
        let (dialect, begin) = (self.encoder.dialect, self.text.len());
        self.text.extend([self.family, suffix]);
        if !self.encoder.filter.wants(&self.text[begin..]) {
            return self.text.truncate(begin);
        }
        if bound.is_some() || !self.labels.is_empty() {
            self.text.extend(["{", &self.labels]);
            if let Some(bound) = bound {
                self.text.push_str("le=\"");
                (dialect.push_number)(self.text, bound);
                self.text.push_str("\",");
            }
            if !dialect.has_last_comma {
                self.text.pop();
            }
            self.text.push('}');
        }
        self.text.push(' ');
        (dialect.push_number)(self.text, value);
        self.text.push('\n');
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a count beyond 2^53 may be off by one"
)]
const fn float(count: u64) -> f64 {
    count as f64
}

/// Appends `value` with backslashes before backslashes, before quotes if it is `quoted`, and for line breaks.
fn push_escaped(text: &mut String, value: &str, quoted: bool) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quoted => text.push_str("\\\""),
            other => text.push(other),
        }
    }
}

/// The word for a family's kind. The collectors here make counters, gauges and histograms.
fn kind_name(family: &MetricFamily) -> &'static str {
    match family.get_field_type() {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY => "summary",
        MetricType::UNTYPED => "untyped",
    }
}

#[cfg(test)]
mod tests;
