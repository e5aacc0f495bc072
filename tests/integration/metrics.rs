//! The metrics listener.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use lantern::api::Listener;

use crate::support::{Answer, Model, ROW, TestServer};

async fn scrape(server: &TestServer, query: &str) -> Answer {
    let request = server.request(Listener::Metrics, "GET", &format!("/metrics{query}"));
    Answer::of(request.send().await.unwrap()).await
}

/// Families by name and type, without values, which differ from run to run.
fn families(text: &str) -> String {
    let lines = text.lines().filter(|line| line.starts_with("# TYPE"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether a sample is of no model and no host: of the process, or of everything that is in flight.
pub fn is_of_the_whole_server(line: &str) -> bool {
    [
        "process_",
        "lantern_bytes_in_flight ",
        "lantern_connections ",
        "lantern_tls_handshakes ",
        "lantern_tenants_file_refused ",
    ]
    .iter()
    .any(|start| line.starts_with(start))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_family_is_announced_in_prometheus_format() {
    let server = TestServer::with(Model::linear()).await;
    let answer = scrape(&server, "").await;
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    insta::assert_snapshot!(families(answer.text()));
    for line in answer.text().lines().filter(|line| !line.starts_with('#')) {
        let (labels, value) = line.rsplit_once(' ').unwrap();
        let has_labels = !is_of_the_whole_server(line);
        assert_eq!(labels.ends_with("\",}"), has_labels, "{line}");
        assert!(value.contains('.') || value == "+Inf", "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_latencies_and_phases_are_counted() {
    let server = TestServer::with(Model::linear()).await;
    for path in ["linear", "linear", "linear/1.0"] {
        assert_eq!(server.predict(path, ROW).await.status, 200);
    }
    server.predict("nomodel", ROW).await;
    let unnamed = server
        .sample("ts_inference_requests_total{model_name=\"linear\",model_version=\"default\"")
        .await;
    let named = server
        .sample("ts_inference_requests_total{model_name=\"linear\",model_version=\"1.0\"")
        .await;
    assert_eq!((unnamed, named), (Some(2.0), Some(1.0)));
    assert_eq!(
        server
            .sample("ts_inference_requests_total{model_name=\"nomodel\"")
            .await,
        None
    );
    let latency = server
        .sample("ts_inference_latency_microseconds{model_name=\"linear\",model_version=\"1.0\"")
        .await;
    assert!(latency.unwrap() > 0.0);
    for phase in ["queue", "preprocess", "infer", "postprocess", "request"] {
        let count = server
            .sample(&format!(
                "lantern_{phase}_seconds_count{{model_name=\"linear\""
            ))
            .await;
        assert_eq!(count, Some(3.0), "{phase}");
    }
    assert_eq!(
        server
            .sample("lantern_batch_rows_sum{model_name=\"linear\"")
            .await,
        Some(3.0)
    );
    assert_eq!(
        server
            .sample("lantern_workers_ready{model_name=\"linear\"")
            .await,
        Some(1.0)
    );
    assert_eq!(
        server
            .sample("lantern_requests_in_flight{model_name=\"linear\"")
            .await,
        Some(0.0)
    );
    assert_eq!(server.sample("Requests4XX{").await, Some(1.0));
    assert!(server.sample_once_there("MemoryUsed{Level=\"Host\"").await > 0.0);
    assert!(
        server
            .sample("WorkerLoadTime{WorkerName=\"W-9000-linear_1.0\"")
            .await
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_can_be_chosen_by_name() {
    let server = TestServer::with(Model::linear()).await;
    let answer = scrape(
        &server,
        "?name[]=Requests2XX&name%5B%5D=Requests4XX&name[]=nothing",
    )
    .await;
    assert_eq!(
        families(answer.text()),
        "# TYPE Requests2XX counter\n# TYPE Requests4XX counter"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_gets_openmetrics_with_the_same_series() {
    let server = TestServer::with(Model::linear()).await;
    assert_eq!(server.predict("linear", ROW).await.status, 200);
    let text = scrape(
        &server,
        "?name[]=ts_inference_requests_total&name[]=lantern_infer_seconds_count",
    )
    .await;
    let request = server.request(Listener::Metrics, "GET", "/metrics");
    let accept =
        "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let answer = Answer::of(request.header("accept", accept).send().await.unwrap()).await;
    assert_eq!(
        answer.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(answer.text().ends_with("\n# EOF\n"));
    assert!(answer.text().contains(
        "# TYPE lantern_infer_seconds histogram\n# UNIT lantern_infer_seconds seconds\n"
    ));
    let samples: Vec<_> = text
        .text()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert_eq!(samples.len(), 3, "{samples:?}");
    for sample in samples {
        let sample = sample.replace(",} ", "} ");
        assert!(answer.text().contains(&format!("\n{sample}\n")), "{sample}");
    }
}

/// The lines of a scrape of the metrics whose names are ours to choose.
fn ours(text: &str) -> Vec<&str> {
    let is_ours = |line: &&str| {
        let name = line
            .trim_start_matches("# HELP ")
            .trim_start_matches("# TYPE ");
        name.starts_with("lantern_") || name.starts_with("process_")
    };
    text.lines().filter(is_ours).collect()
}

/// What `promtool check metrics` complains about.
#[tokio::test(flavor = "multi_thread")]
async fn names_and_help_of_our_metrics_follow_prometheus_conventions() {
    let server = TestServer::with(Model::linear()).await;
    let answer = scrape(&server, "").await;
    let heads = ours(answer.text())
        .into_iter()
        .filter_map(|line| line.strip_prefix("# "));
    let heads: Vec<_> = heads
        .map(|head| head.splitn(3, ' ').collect::<Vec<_>>())
        .collect();
    assert_eq!(heads.len(), 2 * (20 + 5 + 7), "{heads:?}");
    for head in heads.chunks(2) {
        let [[_, name, help], [_, _, kind]] = [&head[0][..], &head[1][..]] else {
            panic!("{head:?} lacks a help text or a type");
        };
        assert!(!help.is_empty(), "{name}");
        assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
            "{name}"
        );
        assert_eq!(name.ends_with("_total"), *kind == "counter", "{name}");
        let wrong = "ms|milliseconds|microseconds|kb|mb|kilobytes|megabytes|counter|gauge|histogram|count|sum|bucket";
        for word in name.split('_') {
            assert!(
                wrong.split('|').all(|wrong| wrong != word),
                "{name} has {word}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_nothing_wrong_with_our_metrics() {
    let server = TestServer::with(Model::linear()).await;
    assert_eq!(server.predict("linear", ROW).await.status, 200);
    let answer = scrape(&server, "").await;
    let ours = ours(answer.text());
    assert!(ours.len() > 100, "{ours:?}");
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]);
    promtool
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let Ok(mut promtool) = promtool.spawn() else {
        eprintln!("SKIPPED: promtool is not installed");
        return;
    };
    let mut input = promtool.stdin.take().unwrap();
    input
        .write_all(format!("{}\n", ours.join("\n")).as_bytes())
        .unwrap();
    drop(input);
    let checked = promtool.wait_with_output().unwrap();
    let complaints = [checked.stdout, checked.stderr].concat();
    let complaints = String::from_utf8_lossy(&complaints);
    assert!(
        checked.status.success() && complaints.is_empty(),
        "{complaints}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn in_mode_log_a_scrape_is_empty() {
    let server = TestServer::builder().set("metrics_mode=log").start().await;
    let answer = scrape(&server, "").await;
    assert_eq!(
        (
            answer.status,
            answer.text(),
            answer.header("content-length")
        ),
        (200, "", Some("0"))
    );
    let elsewhere = server
        .request(Listener::Metrics, "GET", "/elsewhere")
        .send()
        .await
        .unwrap();
    assert_eq!(elsewhere.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_verb_and_further_segments_are_a_scrape() {
    let server = TestServer::builder().start().await;
    for (method, path) in [
        ("GET", "/metrics"),
        ("POST", "/metrics"),
        ("DELETE", "/metrics/"),
        ("PUT", "/metrics/a/b"),
    ] {
        let request = server.request(Listener::Metrics, method, path);
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!(answer.status, 200, "{method} {path}");
        assert!(answer.text().contains("# TYPE Requests2XX counter"));
        let kind = answer.header("content-type");
        assert_eq!(kind, Some("text/plain; version=0.0.4; charset=utf-8"));
        assert!(answer.header("x-request-id").is_some());
        assert_eq!(answer.header("pragma"), Some("no-cache"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_needs_no_token() {
    let server = TestServer::builder()
        .set("disable_token_authorization=false")
        .start()
        .await;
    assert_eq!(scrape(&server, "").await.status, 200);
    let request = server.request(Listener::Metrics, "GET", "/metrics");
    let request = request.header("authorization", "Bearer wrong");
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_are_not_found_and_options_describe_the_listener() {
    let server = TestServer::builder().start().await;
    let ask = async |method, path| {
        let request = server.request(Listener::Metrics, method, path);
        Answer::of(request.send().await.unwrap()).await
    };
    for path in ["/metric", "/ping", "/models"] {
        let answer = ask("GET", path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.json()["type"], "ResourceNotFoundException");
    }
    let document = ask("OPTIONS", "/").await;
    assert_eq!(document.status, 200);
    assert_eq!(
        document.json()["paths"]["/metrics"]["get"]["operationId"],
        "metrics"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_there_is_no_listener_and_predictions_go_on() {
    let server = TestServer::builder()
        .model(Model::linear())
        .set("enable_metrics_api=false")
        .start()
        .await;
    assert!(!server.listens(Listener::Metrics));
    assert_eq!(server.predict("linear", ROW).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_a_worker_count_and_for_unknown_models_do_not() {
    let server = TestServer::builder()
        .in_store(Model::linear().without_workers())
        .start()
        .await;
    let registered = server
        .management("POST", "/models?url=linear-1.0.mar")
        .await;
    assert_eq!(registered.status, 200, "{}", registered.text());
    assert_eq!(server.predict("linear", ROW).await.status, 503);
    assert_eq!(server.predict("unknown", ROW).await.status, 404);
    let requests = "ts_inference_requests_total{model_name=\"linear\",model_version=\"default\"";
    assert_eq!(server.sample(requests).await, Some(1.0));
    assert_eq!(
        server.sample("lantern_rejected_requests_total{").await,
        Some(1.0)
    );
    assert_eq!(
        server
            .sample("ts_inference_requests_total{model_name=\"unknown\"")
            .await,
        None
    );
}

/// A row of a table of `docs/metrics.md` that has metrics: name, type, unit, labels, meaning.
fn documented() -> BTreeMap<&'static str, [&'static str; 3]> {
    let page = include_str!("../../docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.map(|row| row.split(" | ").collect::<Vec<_>>());
    let metrics = cells.filter(|cells| cells.len() == 5);
    metrics
        .map(|cells| {
            (
                cells[0].trim_end_matches('`'),
                [cells[1], cells[2], cells[3]],
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_metrics_lists_each_with_its_type_unit_and_labels() {
    let server = TestServer::with(Model::linear()).await;
    assert_eq!(server.predict("linear", ROW).await.status, 200);
    server.sample_once_there("DiskAvailable{").await;
    let answer = scrape(&server, "").await;
    let mut documented = documented();
    let mut help = "";
    for line in answer.text().lines() {
        if line.starts_with("# HELP") {
            help = line;
        }
        let Some(family) = line.strip_prefix("# TYPE ") else {
            continue;
        };
        let (name, kind) = family.split_once(' ').unwrap();
        let row = documented.remove(name);
        let [shown_kind, unit, labels] =
            row.unwrap_or_else(|| panic!("docs/metrics.md lacks {name}"));
        assert_eq!(shown_kind, kind, "{name}");
        let is_torchserves = !name.starts_with("lantern_") && !name.starts_with("process_");
        assert!(
            !is_torchserves || help.ends_with(&format!("with unit: {unit}")),
            "{name} {unit}"
        );
        let sample = answer.text().lines().find(|line| {
            line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name}_count{{"))
        });
        if let Some(sample) = sample {
            assert_eq!(label_names(sample), labels.replace('`', ""), "{name}");
        }
    }
    assert!(
        documented.is_empty(),
        "docs/metrics.md lists {documented:?}"
    );
}

/// The names of a sample's labels, as the page lists them.
fn label_names(sample: &str) -> String {
    let labels = sample.split(['{', '}']).nth(1).unwrap();
    let pairs = labels.trim_end_matches(',').split("\",");
    let names = pairs.map(|pair| pair.split('=').next().unwrap());
    names.collect::<Vec<_>>().join(", ")
}
