//! The text of a scrape, as TorchServe writes it: labels in the order of the family and a comma after each,
//! the last included; values always with a decimal point; help and type even for families without samples.

use std::fmt::Write as _;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

/// Kinds of families that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }

    fn of(family: &MetricFamily) -> Self {
        match family.get_field_type() {
            MetricType::COUNTER => Self::Counter,
            MetricType::HISTOGRAM => Self::Histogram,
            MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED => Self::Gauge,
        }
    }
}

/// A family with its samples at one moment.
pub(super) struct Family {
    name: String,
    help: String,
    kind: Kind,
    metrics: Vec<Metric>,
}

impl Family {
    /// Takes what a collector gathered. The library sorts labels by name: they get the order of `labels` back.
    pub(super) fn new<L: AsRef<str>>(mut family: MetricFamily, labels: &[L]) -> Self {
        let rank = |pair: &LabelPair| {
            let at = labels
                .iter()
                .position(|label| label.as_ref() == pair.name());
            at.unwrap_or(labels.len())
        };
        let mut metrics = family.take_metric();
        for metric in &mut metrics {
            metric.mut_label().sort_by_key(rank);
        }
        metrics.sort_by(|a, b| values(a).cmp(values(b)));
        Self {
            name: family.name().to_owned(),
            help: family.help().to_owned(),
            kind: Kind::of(&family),
            metrics,
        }
    }
}

fn values(metric: &Metric) -> impl Iterator<Item = &str> {
    metric.get_label().iter().map(LabelPair::value)
}

/// Writes `families`. With `names`, only samples of these names, and no family that is left without one.
pub(super) fn write(families: &[Family], names: &[String]) -> String {
    let mut text = String::with_capacity(16 << 10);
    for family in families {
        let samples = Samples::of(family, names);
        if !samples.text.is_empty() || names.is_empty() {
            let (name, kind) = (&family.name, family.kind.name());
            let _ = writeln!(text, "# HELP {name} {}", escape_help(&family.help));
            let _ = writeln!(text, "# TYPE {name} {kind}");
            text.push_str(&samples.text);
        }
    }
    text
}

/// The sample lines of one family.
struct Samples<'a> {
    text: String,
    names: &'a [String],
}

impl<'a> Samples<'a> {
    fn of(family: &Family, names: &'a [String]) -> Self {
        let mut samples = Self {
            text: String::new(),
            names,
        };
        for metric in &family.metrics {
            match family.kind {
                Kind::Counter => {
                    samples.push(&family.name, metric, None, metric.get_counter().get_value());
                }
                Kind::Gauge => {
                    samples.push(&family.name, metric, None, metric.get_gauge().get_value());
                }
                Kind::Histogram => samples.push_histogram(&family.name, metric),
            }
        }
        samples
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a count beyond 2^53 may be off by one"
    )]
    fn push_histogram(&mut self, name: &str, metric: &Metric) {
        let histogram = metric.get_histogram();
        let count = histogram.get_sample_count() as f64;
        let bucket = format!("{name}_bucket");
        for step in histogram.get_bucket() {
            let bound = step.upper_bound();
            self.push(&bucket, metric, Some(bound), step.cumulative_count() as f64);
        }
        self.push(&bucket, metric, Some(f64::INFINITY), count);
        self.push(&format!("{name}_count"), metric, None, count);
        self.push(
            &format!("{name}_sum"),
            metric,
            None,
            histogram.get_sample_sum(),
        );
    }

    fn push(&mut self, name: &str, metric: &Metric, bound: Option<f64>, value: f64) {
        if !self.names.is_empty() && !self.names.iter().any(|wanted| wanted == name) {
            return;
        }
        self.text.push_str(name);
        self.push_labels(metric, bound);
        let _ = writeln!(self.text, " {}", number(value));
    }

    fn push_labels(&mut self, metric: &Metric, bound: Option<f64>) {
        if metric.get_label().is_empty() && bound.is_none() {
            return;
        }
        self.text.push('{');
        for pair in metric.get_label() {
            let _ = write!(
                self.text,
                "{}=\"{}\",",
                pair.name(),
                escape_label(pair.value())
            );
        }
        if let Some(bound) = bound {
            let _ = write!(self.text, "le=\"{}\",", number(bound));
        }
        self.text.push('}');
    }
}

/// A number as Java prints a double: always with a decimal point, with an exponent from 10^7 on and below 10^-3.
fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        return format!("{value:?}");
    }
    let text = format!("{value:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

fn escape_label(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn escape_help(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use prometheus::core::Collector;
    use prometheus::{GaugeVec, HistogramOpts, HistogramVec, Opts};

    use super::*;

    fn gathered(collector: &impl Collector, labels: &[&str]) -> Vec<Family> {
        let families = collector.collect().into_iter();
        families.map(|family| Family::new(family, labels)).collect()
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
        let gauge = GaugeVec::new(Opts::new("g", "a\nb"), &["z", "a"]).unwrap();
        gauge.with_label_values(&["1\"\\\n", "2"]).set(3.0);
        insta::assert_snapshot!(write(&gathered(&gauge, &["z", "a"]), &[]), @r#"
        # HELP g a\nb
        # TYPE g gauge
        g{z="1\"\\\n",a="2",} 3.0
        "#);
    }

    #[test]
    fn histograms_are_cumulative_and_can_be_filtered_by_sample() {
        let opts = HistogramOpts::new("h", "help").buckets(vec![0.5, 1.0]);
        let histogram = HistogramVec::new(opts, &["m"]).unwrap();
        histogram.with_label_values(&["x"]).observe(0.75);
        let families = gathered(&histogram, &["m"]);
        insta::assert_snapshot!(write(&families, &[]), @r#"
        # HELP h help
        # TYPE h histogram
        h_bucket{m="x",le="0.5",} 0.0
        h_bucket{m="x",le="1.0",} 1.0
        h_bucket{m="x",le="+Inf",} 1.0
        h_count{m="x",} 1.0
        h_sum{m="x",} 0.75
        "#);
        let only = write(&families, &["h_sum".to_owned()]);
        assert_eq!(only.lines().count(), 3);
        assert_eq!(write(&families, &["h".to_owned()]), "");
    }

    #[test]
    fn families_without_samples_are_announced() {
        let gauge = GaugeVec::new(Opts::new("g", "help"), &["a"]).unwrap();
        let text = write(&gathered(&gauge, &["a"]), &[]);
        assert_eq!(text, "# HELP g help\n# TYPE g gauge\n");
    }
}
