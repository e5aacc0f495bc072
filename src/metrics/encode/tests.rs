//! What the encoders write of families.

use std::sync::Arc;

use prometheus::core::Collector as _;

use super::super::MetricKind;
use super::super::family::{Definition, Family, Hold};
use super::super::shards::Shards;
use super::*;

fn family(name: &str, kind: MetricKind, labels: &[&str]) -> Family {
    let definition = Definition {
        name: name.to_owned(),
        help: "a\n\"b\"".to_owned(),
        kind,
        labels: labels.iter().map(|&label| label.to_owned()).collect(),
        bounds: Arc::from([0.000_05, 1.0]),
    };
    Family::new(definition, Shards::for_threads(1)).unwrap()
}

/// What an encoder for samples of these names writes of `families`, which are in the order of their names.
fn encoded(dialect: &'static Dialect, families: &[&Family], names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let families: Vec<_> = families
        .iter()
        .flat_map(|family| family.collect())
        .collect();
    let mut text = Vec::new();
    let encoder = TextEncoder::new(dialect, Filter::new(&names));
    encoder.encode(&families, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn torchserve(family: &Family, names: &[&str]) -> String {
    encoded(&torchserve::DIALECT, &[family], names)
}

fn openmetrics(families: &[&Family]) -> String {
    encoded(&openmetrics::DIALECT, families, &[])
}

#[test]
fn labels_keep_the_order_of_the_family_and_end_with_a_comma() {
    let gauge = family("g", MetricKind::Gauge, &["z", "a"]);
    gauge.bind(&["1\"\\\n", "2"], Hold::Kept).update(3.0);
    insta::assert_snapshot!(torchserve(&gauge, &[]), @r#"
    # HELP g a\n"b"
    # TYPE g gauge
    g{z="1\"\\\n",a="2",} 3.0
    "#);
}

#[test]
fn quotes_breaks_and_backslashes_stay_within_their_value() {
    let gauge = family("g", MetricKind::Gauge, &["a"]);
    let _cell = gauge.bind(&["x\"} 1\n# \\ü\u{1F980}"], Hold::WhileUsed);
    for text in [torchserve(&gauge, &[]), openmetrics(&[&gauge])] {
        let sample = text.lines().find(|line| line.starts_with("g{")).unwrap();
        assert!(
            sample.starts_with("g{a=\"x\\\"} 1\\n# \\\\ü\u{1F980}\""),
            "{sample}"
        );
    }
}

#[test]
fn a_sample_without_labels_has_no_braces() {
    let counter = family("c", MetricKind::Counter, &[]);
    counter.bind(&[], Hold::Kept).update(3.0);
    assert!(torchserve(&counter, &[]).ends_with("\nc 3.0\n"));
    assert!(openmetrics(&[&counter]).ends_with("\nc 3.0\n# EOF\n"));
}

#[test]
fn histograms_are_cumulative_and_can_be_filtered_by_sample() {
    let histogram = family("h", MetricKind::Histogram, &["m"]);
    histogram.bind(&["x"], Hold::Kept).update(0.75);
    insta::assert_snapshot!(torchserve(&histogram, &[]), @r#"
    # HELP h a\n"b"
    # TYPE h histogram
    h_bucket{m="x",le="5.0E-5",} 0.0
    h_bucket{m="x",le="1.0",} 1.0
    h_bucket{m="x",le="+Inf",} 1.0
    h_count{m="x",} 1.0
    h_sum{m="x",} 0.75
    "#);
    assert_eq!(torchserve(&histogram, &["h_sum"]).lines().count(), 3);
    assert_eq!(torchserve(&histogram, &["h"]), "");
}

#[test]
fn families_without_samples_are_announced() {
    let gauge = family("g", MetricKind::Gauge, &["a"]);
    let head = "# HELP g a\\n\"b\"\n# TYPE g gauge\n";
    assert_eq!(torchserve(&gauge, &[]), head);
    assert_eq!(torchserve(&gauge, &["g"]), "");
}

#[test]
fn openmetrics_has_types_units_and_an_end() {
    let histogram = family("h_seconds", MetricKind::Histogram, &["m"]);
    histogram.bind(&["x"], Hold::Kept).update(0.75);
    let counter = family("c_total", MetricKind::Counter, &["m", "n"]);
    counter.bind(&["x", "y"], Hold::Kept).update(3.0);
    insta::assert_snapshot!(openmetrics(&[&counter, &histogram]), @r#"
    # TYPE c counter
    # HELP c a\n\"b\"
    c_total{m="x",n="y"} 3.0
    # TYPE h_seconds histogram
    # UNIT h_seconds seconds
    # HELP h_seconds a\n\"b\"
    h_seconds_bucket{m="x",le="5e-05"} 0.0
    h_seconds_bucket{m="x",le="1.0"} 1.0
    h_seconds_bucket{m="x",le="+Inf"} 1.0
    h_seconds_count{m="x"} 1.0
    h_seconds_sum{m="x"} 0.75
    # EOF
    "#);
}

#[test]
fn no_two_families_of_openmetrics_share_a_name_and_no_sample_is_renamed() {
    let gauge = family("a", MetricKind::Gauge, &[]);
    let counters = ["a_total", "b", "b_total", "seconds", "seconds_total"];
    let counters = counters.map(|name| family(name, MetricKind::Counter, &[]));
    let mut families = vec![&gauge];
    families.extend(&counters);
    for family in &families {
        family.bind(&[], Hold::Kept).update(1.0);
    }
    let text = openmetrics(&families);
    let lines = text.lines().filter(|line| !line.starts_with("# HELP"));
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r"
    # TYPE a gauge
    a 1.0
    # TYPE a_total unknown
    a_total 1.0
    # TYPE b unknown
    b 1.0
    # TYPE b_total unknown
    b_total 1.0
    # TYPE seconds unknown
    seconds 1.0
    # TYPE seconds_total unknown
    seconds_total 1.0
    # EOF
    ");
}
