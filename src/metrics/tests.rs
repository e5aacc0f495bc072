//! Scrapes and lines of metric logs, in each mode.

use parking_lot::Mutex;

use super::*;

fn names() -> (ModelName, Version) {
    (ModelName::new("m").unwrap(), Version::new("1.0").unwrap())
}

/// Metrics in `mode`, and the lines they write: of the server, of models.
fn logging(mode: Mode) -> (Metrics, [Arc<Mutex<Vec<String>>>; 2]) {
    let lines: [Arc<Mutex<Vec<String>>>; 2] = Default::default();
    let log = |lines: &Arc<Mutex<Vec<String>>>| {
        let lines = Arc::clone(lines);
        MetricLog::new(move |line| {
            let line = line.split("timestamp:").next().unwrap();
            lines.lock().push(line.replace(&host::name(), "vm"));
        })
    };
    let metrics = Metrics::new(&Config {
        mode,
        auto_detect: true,
        server_log: log(&lines[0]),
        model_log: log(&lines[1]),
        ..Config::default()
    });
    (metrics, lines)
}

fn metric(name: &str, kind: MetricKind) -> CustomMetric<'_> {
    CustomMetric {
        request_id: "id-1",
        ..custom::tests::metric(name, kind, 2.0)
    }
}

/// A request and what comes with it. The series are there as long as what is returned.
fn exercise(metrics: &Metrics) -> (ModelMetrics, Observer) {
    let (name, version) = names();
    let model = metrics.model(&name, &version, false);
    model.requested(false);
    model.answered(false, "id-1", &ObservedRequest::default());
    metrics.answered(Answered::Success);
    let observer = metrics.observer(&name, 10);
    observer
        .observe(&metric("Words", MetricKind::Counter))
        .unwrap();
    (model, observer)
}

#[test]
fn answers_are_counted_by_class() {
    let metrics = Metrics::default();
    for status in [200, 404, 500, 599, 304] {
        metrics.answered(Answered::of(status));
    }
    let text = metrics.scrape(Format::TorchServe, &["Requests5XX".to_owned()]);
    let sample = text.lines().find(|line| !line.starts_with('#')).unwrap();
    assert!(
        sample.starts_with("Requests5XX{Level=\"Host\",Hostname=\""),
        "{sample}"
    );
    assert!(sample.ends_with("\",} 3.0"), "{sample}");
    assert_eq!(text.lines().count(), 3);
}

#[test]
fn in_mode_log_everything_is_a_line() {
    let (metrics, [server, model]) = logging(Mode::Log);
    let _bound = exercise(&metrics);
    insta::assert_snapshot!(server.lock().join("\n"), @r"
    ts_inference_requests_total.Count:1.0|#model_name:m,model_version:default|#hostname:vm,
    ts_inference_latency_microseconds.Microseconds:0.0|#model_name:m,model_version:default|#hostname:vm,
    ts_queue_latency_microseconds.Microseconds:0.0|#model_name:m,model_version:default|#hostname:vm,
    QueueTime.Milliseconds:0.0|#Level:Host|#hostname:vm,
    WorkerThreadTime.Milliseconds:0.0|#Level:Host|#hostname:vm,
    Requests2XX.Count:1.0|#Level:Host|#hostname:vm,
    ");
    insta::assert_snapshot!(model.lock().join("\n"), @r"
    HandlerTime.ms:0.0|#ModelName:m,Level:Model|#hostname:vm,requestID:id-1,
    PredictionTime.ms:0.0|#ModelName:m,Level:Model|#hostname:vm,requestID:id-1,
    Words.Count:2.0|#ModelName:m,Level:Model|#hostname:vm,requestID:id-1,
    ");
    assert_eq!(metrics.scrape(Format::TorchServe, &[]), "");
}

#[test]
fn in_mode_legacy_three_counters_are_scraped_and_the_rest_is_lines() {
    let (metrics, [server, model]) = logging(Mode::Legacy);
    let _bound = exercise(&metrics);
    let text = metrics.scrape(Format::TorchServe, &[]);
    let families = text.lines().filter(|line| line.starts_with("# TYPE"));
    insta::assert_snapshot!(families.collect::<Vec<_>>().join("\n"), @r"
    # TYPE ts_inference_latency_microseconds counter
    # TYPE ts_inference_requests_total counter
    # TYPE ts_queue_latency_microseconds counter
    ");
    let lines = server.lock().join("\n");
    assert!(
        !lines.contains("ts_") && lines.contains("QueueTime"),
        "{lines}"
    );
    assert_eq!(model.lock().len(), 3);
}

#[test]
fn in_mode_prometheus_nothing_is_a_line() {
    let (metrics, [server, model]) = logging(Mode::Prometheus);
    let _bound = exercise(&metrics);
    assert!(server.lock().is_empty() && model.lock().is_empty());
    assert!(
        metrics
            .scrape(Format::TorchServe, &[])
            .contains("PredictionTime{ModelName=\"m\"")
    );
}

#[test]
fn the_version_label_is_default_where_none_was_named() {
    let metrics = Metrics::default();
    let (name, version) = names();
    let bound = metrics.model(&name, &version, false);
    bound.requested(false);
    bound.requested(true);
    let text = metrics.scrape(
        Format::TorchServe,
        &["ts_inference_requests_total".to_owned()],
    );
    assert!(text.contains("{model_name=\"m\",model_version=\"default\",hostname="));
    assert!(text.contains("{model_name=\"m\",model_version=\"1.0\",hostname="));
}

#[test]
fn a_listing_changes_kinds_units_and_labels_of_what_the_server_measures() {
    let mut cfg = Config::default();
    for listed in &mut cfg.listing.ts {
        match listed.name.as_str() {
            "QueueTime" => listed.kind = MetricKind::Histogram,
            "Requests2XX" => listed.labels[0] = "Layer".to_owned(),
            "WorkerThreadTime" => listed.labels.truncate(1),
            _ => {}
        }
    }
    let metrics = Metrics::new(&cfg);
    let (name, version) = names();
    metrics
        .model(&name, &version, false)
        .answered(true, "", &ObservedRequest::default());
    metrics.answered(Answered::Success);
    let text = metrics.scrape(Format::TorchServe, &[]);
    assert!(text.contains("QueueTime_bucket{Level=\"Host\","), "{text}");
    assert!(text.contains("Requests2XX{Layer=\"Host\","), "{text}");
    assert!(!text.contains("WorkerThreadTime{"), "{text}");
}

#[test]
fn a_filter_of_ten_thousand_names_is_a_filter() {
    let metrics = Metrics::default();
    metrics.answered(Answered::Success);
    let mut names: Vec<String> = (0..10_000).map(|n| format!("name{n}")).collect();
    names.push("Requests2XX".to_owned());
    assert_eq!(
        metrics.scrape(Format::TorchServe, &names).lines().count(),
        3
    );
}

#[test]
fn histograms_have_torchserves_buckets() {
    let metrics = Metrics::new(&Config {
        auto_detect: true,
        ..Config::default()
    });
    let observer = metrics.observer(&names().0, 10);
    observer
        .observe(&metric("Percent", MetricKind::Histogram))
        .unwrap();
    let text = metrics.scrape(Format::TorchServe, &["Percent_bucket".to_owned()]);
    let bounds = text.lines().filter_map(|line| line.split("le=\"").nth(1));
    let shown: Vec<_> = bounds.filter_map(|rest| rest.split('"').next()).collect();
    let expected =
        "0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, +Inf";
    assert_eq!(shown.join(", "), expected);
}

#[test]
fn label_values_that_read_the_same_in_a_row_are_different_series() {
    let metrics = Metrics::default();
    let bind = |(name, version)| {
        let (name, version) = (
            ModelName::new(name).unwrap(),
            Version::new(version).unwrap(),
        );
        metrics.model(&name, &version, false)
    };
    let [one, other] = [("a", "11"), ("a1", "1")].map(bind);
    one.ended(Outcome::Failed);
    other.ended(Outcome::Expired);
    for format in [Format::TorchServe, Format::OpenMetrics] {
        let text = metrics.scrape(format, &["lantern_failed_requests_total".to_owned()]);
        let samples: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("lantern"))
            .collect();
        assert_eq!(samples.len(), 2, "{text}");
        assert!(
            samples[0].contains("{model_name=\"a\",model_version=\"11\"")
                && samples[0].ends_with(" 1.0")
        );
        assert!(
            samples[1].contains("{model_name=\"a1\",model_version=\"1\"")
                && samples[1].ends_with(" 0.0")
        );
    }
}

#[test]
fn the_process_is_measured_unless_a_handler_has_the_name() {
    let metrics = Metrics::new(&Config {
        auto_detect: true,
        ..Config::default()
    });
    let shown = |name: &str| metrics.scrape(Format::TorchServe, &[name.to_owned()]);
    assert!(shown("process_threads").contains(" gauge\nprocess_threads "));
    let observer = metrics.observer(&names().0, 10);
    observer
        .observe(&metric("process_threads", MetricKind::Counter))
        .unwrap();
    let threads = shown("process_threads");
    assert!(
        threads.contains(" counter\nprocess_threads{ModelName=\"m\""),
        "{threads}"
    );
    assert_eq!(threads.lines().count(), 3, "{threads}");
    assert!(shown("process_open_fds").contains("\nprocess_open_fds "));
}

#[test]
fn the_process_is_measured_unless_the_operator_lists_the_name() {
    let mut cfg = Config::default();
    cfg.listing.ts[0].name = "process_open_fds".to_owned();
    let text = Metrics::new(&cfg).scrape(Format::TorchServe, &[]);
    assert!(text.contains("# TYPE process_open_fds counter\n"), "{text}");
    assert!(!text.contains("\nprocess_open_fds "), "{text}");
}
