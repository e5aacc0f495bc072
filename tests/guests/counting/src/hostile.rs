//! Metrics that break every rule.

use handler_sdk::metrics::{Counter, Gauge, Histogram, Unit};

/// More series than any model may have.
const MANY: usize = 2000;

/// Observes all of them.
pub fn measure() {
    names();
    values();
    labels();
    series();
}

/// Names that belong to the server, or that are not legal.
fn names() {
    for name in [
        "Requests2XX",
        "QueueTime",
        "PredictionTime",
        "ts_inference_requests_total",
        "lantern_request_seconds",
        "a b",
        "a\nFake 1.0",
        "",
        "9lives",
        "ünïcode",
    ] {
        Gauge::new(name, Unit::Count, &[]).set(666.0, &[]);
    }
}

/// Values that cannot be counted.
fn values() {
    let counter = Counter::new("HostileCounter", Unit::Count, &[]);
    let histogram = Histogram::new("HostileHistogram", Unit::Count, &[]);
    for value in [1.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        counter.add(value, &[]);
        histogram.observe(value, &[]);
    }
}

/// Label values with quotes and line breaks, and labels that only the server may set.
fn labels() {
    let gauge = Gauge::new(
        "HostileLabels",
        Unit::None,
        &["text", "ModelName", "Hostname"],
    );
    for text in [
        "quote\"} 1.0",
        "break\nFake{} 666.0",
        "back\\slash\\",
        "carriage\rreturn",
        "\u{1b}[2J\u{0}",
        "\u{1F980} \u{202e}",
    ] {
        gauge.set(1.0, &[text, "another-model", "another-host"]);
    }
    gauge.set(1.0, &["too few"]);
    Gauge::new("HostileLabelName", Unit::None, &["a\"b"]).set(1.0, &["x"]);
    Gauge::new("HostileBucket", Unit::None, &["le"]).set(1.0, &["x"]);
}

/// More series than there may be.
fn series() {
    let counter = Counter::new("HostileSeries", Unit::Count, &["number"]);
    for number in 0..MANY {
        counter.add(1.0, &[&number.to_string()]);
    }
}
