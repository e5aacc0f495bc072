//! Handlers' own metrics: what is taken, refused and shown.

use super::*;
use crate::metrics::{Format, Metrics};

fn detecting() -> Metrics {
    Metrics::new(&Config {
        auto_detect: true,
        ..Config::default()
    })
}

/// Metrics that list `listed` under `model_metrics`.
fn listing(name: &str, kind: MetricKind, labels: &[&str]) -> Metrics {
    let mut cfg = Config::default();
    cfg.listing.model.push(ListedMetric {
        name: name.to_owned(),
        kind,
        unit: "kB".to_owned(),
        labels: labels.iter().map(|&label| label.to_owned()).collect(),
    });
    Metrics::new(&cfg)
}

pub(in crate::metrics) const fn metric(
    name: &str,
    kind: MetricKind,
    value: f64,
) -> CustomMetric<'_> {
    CustomMetric {
        name,
        kind,
        unit: "Count",
        label_names: &[],
        label_values: &[],
        value,
        request_id: "",
    }
}

fn observer(metrics: &Metrics) -> Observer {
    metrics.observer(&ModelName::new("m").unwrap(), 3)
}

fn owned<const N: usize>(texts: [&str; N]) -> [String; N] {
    texts.map(str::to_owned)
}

fn scrape(metrics: &Metrics, name: &str) -> String {
    let host = format!("Hostname=\"{}\"", crate::metrics::host::name());
    metrics
        .scrape(Format::TorchServe, &[name.to_owned()])
        .replace(&host, "Hostname=\"vm\"")
}

#[test]
fn a_detected_metric_carries_its_model() {
    let metrics = detecting();
    let model = observer(&metrics);
    let (names, values) = (owned(["format"]), owned(["png"]));
    let observed = CustomMetric {
        label_names: &names,
        label_values: &values,
        ..metric("Images", MetricKind::Counter, 2.0)
    };
    model.observe(&observed).unwrap();
    model.observe(&observed).unwrap();
    insta::assert_snapshot!(scrape(&metrics, "Images"), @r#"
    # HELP Images Torchserve prometheus counter metric with unit: Count
    # TYPE Images counter
    Images{format="png",ModelName="m",Level="Model",Hostname="vm",} 4.0
    "#);
}

#[test]
fn a_listed_metric_has_the_labels_and_the_unit_of_the_listing() {
    let metrics = listing(
        "SizeOfImage",
        MetricKind::Gauge,
        &["Method", "ModelName", "Hostname"],
    );
    let model = observer(&metrics);
    let (names, values) = (owned(["Method", "Level"]), owned(["pre", "Error"]));
    let observed = CustomMetric {
        label_names: &names,
        label_values: &values,
        ..metric("SizeOfImage", MetricKind::Gauge, 0.25)
    };
    model.observe(&observed).unwrap();
    insta::assert_snapshot!(scrape(&metrics, "SizeOfImage"), @r#"
    # HELP SizeOfImage Torchserve prometheus gauge metric with unit: kB
    # TYPE SizeOfImage gauge
    SizeOfImage{Method="pre",ModelName="m",Hostname="vm",} 0.25
    "#);
}

#[test]
fn what_is_not_listed_is_left_out_unless_it_may_be_detected() {
    let metrics = Metrics::default();
    let error = observer(&metrics).observe(&metric("Words", MetricKind::Counter, 1.0));
    assert_eq!(error, Err(CustomMetricError::Unlisted("Words".to_owned())));
    assert!(!metrics.scrape(Format::TorchServe, &[]).contains("Words"));
}

#[test]
fn labels_that_are_not_the_listings_are_refused() {
    let metrics = listing("Words", MetricKind::Counter, &["Method", "Hostname"]);
    let model = observer(&metrics);
    let error = model
        .observe(&metric("Words", MetricKind::Counter, 1.0))
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("[METRICS]Failed to update metric with name:Words: "),
        "{text}"
    );
    let (names, values) = (owned(["Method", "Other"]), owned(["a", "b"]));
    let observed = CustomMetric {
        label_names: &names,
        label_values: &values,
        ..metric("Words", MetricKind::Counter, 1.0)
    };
    assert!(matches!(
        observer(&metrics).observe(&observed),
        Err(CustomMetricError::Labels { .. })
    ));
}

#[test]
fn a_handler_does_not_speak_for_another_model_or_host() {
    let metrics = detecting();
    let model = observer(&metrics);
    let names = owned(["ModelName", "Hostname", "Level"]);
    let values = owned(["other", "elsewhere", "Error"]);
    let observed = CustomMetric {
        label_names: &names,
        label_values: &values,
        ..metric("Faults", MetricKind::Counter, 1.0)
    };
    model.observe(&observed).unwrap();
    let text = scrape(&metrics, "Faults");
    assert!(
        text.contains("Faults{ModelName=\"m\",Level=\"Error\",Hostname=\"vm\",} 1.0"),
        "{text}"
    );
}

#[test]
fn names_of_the_server_are_refused() {
    let metrics = detecting();
    let model = observer(&metrics);
    for name in [
        "Requests2XX",
        "ts_x",
        "lantern_request_seconds",
        "GPUUtilization",
        "PredictionTime",
        "QueueTime",
    ] {
        let error = model.observe(&metric(name, MetricKind::Gauge, 1.0));
        assert_eq!(error, Err(CustomMetricError::Reserved(name.to_owned())));
    }
}

#[test]
fn a_metric_keeps_its_kind_and_labels() {
    let metrics = detecting();
    let (one, other) = (observer(&metrics), observer(&metrics));
    one.observe(&metric("a", MetricKind::Gauge, 1.0)).unwrap();
    let kind = other.observe(&metric("a", MetricKind::Counter, 1.0));
    assert!(
        matches!(kind, Err(CustomMetricError::Kind { .. })),
        "{kind:?}"
    );
    let (names, values) = (owned(["x"]), owned(["y"]));
    let labels = other.observe(&CustomMetric {
        label_names: &names,
        label_values: &values,
        ..metric("a", MetricKind::Gauge, 1.0)
    });
    assert!(
        matches!(labels, Err(CustomMetricError::Labels { .. })),
        "{labels:?}"
    );
}

#[test]
fn values_that_cannot_be_counted_are_refused() {
    let metrics = detecting();
    let model = observer(&metrics);
    for (kind, value) in [
        (MetricKind::Counter, -1.0),
        (MetricKind::Counter, f64::NAN),
        (MetricKind::Gauge, f64::INFINITY),
        (MetricKind::Histogram, f64::NAN),
    ] {
        let error = model.observe(&metric(kind.name(), kind, value));
        assert!(
            matches!(error, Err(CustomMetricError::Value { .. })),
            "{error:?}"
        );
    }
    let few = owned(["only a name"]);
    let error = model.observe(&CustomMetric {
        label_names: &few,
        ..metric("few", MetricKind::Gauge, 1.0)
    });
    assert!(
        matches!(error, Err(CustomMetricError::Labels { .. })),
        "{error:?}"
    );
}

#[test]
fn series_are_limited_and_those_there_are_go_on() {
    let metrics = detecting();
    let model = observer(&metrics);
    let names = owned(["n"]);
    let observe = |value: &str| {
        let values = owned([value]);
        model.observe(&CustomMetric {
            label_names: &names,
            label_values: &values,
            ..metric("many", MetricKind::Counter, 1.0)
        })
    };
    for value in ["1", "2", "3"] {
        observe(value).unwrap();
    }
    let error = observe("4");
    assert!(
        matches!(error, Err(CustomMetricError::TooMany { limit: 3, .. })),
        "{error:?}"
    );
    observe("3").unwrap();
    assert!(
        scrape(&metrics, "many")
            .ends_with("n=\"3\",ModelName=\"m\",Level=\"Model\",Hostname=\"vm\",} 2.0\n")
    );
}

#[test]
fn metrics_go_with_the_last_handler_that_makes_them() {
    let metrics = detecting();
    let (one, other) = (observer(&metrics), observer(&metrics));
    for model in [&one, &other] {
        model
            .observe(&metric("Words", MetricKind::Counter, 1.0))
            .unwrap();
    }
    drop(one);
    assert!(scrape(&metrics, "Words").ends_with(" 2.0\n"));
    drop(other);
    assert!(!metrics.scrape(Format::TorchServe, &[]).contains("Words"));
    // Free for another kind.
    observer(&metrics)
        .observe(&metric("Words", MetricKind::Gauge, 1.0))
        .unwrap();
}

#[test]
fn where_nobody_can_scrape_nothing_is_taken_and_nothing_is_wrong() {
    let metrics = Metrics::new(&Config {
        has_scrapes: false,
        auto_detect: true,
        ..Config::default()
    });
    let model = observer(&metrics);
    model
        .observe(&metric("Words", MetricKind::Counter, 1.0))
        .unwrap();
    model
        .observe(&metric("ts_x", MetricKind::Counter, -1.0))
        .unwrap();
    assert_eq!(metrics.scrape(Format::TorchServe, &[]), "");
}
