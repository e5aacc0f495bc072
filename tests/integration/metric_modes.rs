//! TorchServe's metric modes, `metrics.yaml` and handlers' own metrics, as `test_metrics.py` of TorchServe asks for them.

use std::path::PathBuf;

use lantern::api::Listener;
use tempfile::TempDir;

use crate::support::{Answer, Model, TestServer};

const LEGACY: [&str; 3] = [
    "ts_inference_requests_total",
    "ts_inference_latency_microseconds",
    "ts_queue_latency_microseconds",
];
const FRONT_END: [&str; 6] = [
    "Requests2XX",
    "Requests4XX",
    "Requests5XX",
    "QueueTime",
    "WorkerThreadTime",
    "WorkerLoadTime",
];
const SYSTEM: [&str; 10] = [
    "CPUUtilization",
    "MemoryUsed",
    "MemoryAvailable",
    "MemoryUtilization",
    "DiskUsage",
    "DiskUtilization",
    "DiskAvailable",
    "GPUMemoryUtilization",
    "GPUMemoryUsed",
    "GPUUtilization",
];
const MODEL: [&str; 8] = [
    "HandlerTime",
    "PredictionTime",
    "InferenceRequestCount",
    "InitializeCallCount",
    "PreprocessCallCount",
    "PostprocessCallCount",
    "RequestBatchSize",
    "SizeOfImage",
];
const DETECTED: [&str; 2] = ["HandlerMethodTime", "ExamplePercentMetric"];

/// Each family of the server with its type, and the beginning of its one sample up to the host's name.
const SERVER_SAMPLES: [(&str, &str, &str); 14] = [
    ("Requests2XX", "counter", r#"{Level="Host",Hostname=""#),
    (
        "ts_inference_requests_total",
        "counter",
        r#"{model_name="counting",model_version="default",hostname=""#,
    ),
    (
        "ts_inference_latency_microseconds",
        "counter",
        r#"{model_name="counting",model_version="default",hostname=""#,
    ),
    (
        "ts_queue_latency_microseconds",
        "counter",
        r#"{model_name="counting",model_version="default",hostname=""#,
    ),
    ("QueueTime", "gauge", r#"{Level="Host",Hostname=""#),
    ("WorkerThreadTime", "gauge", r#"{Level="Host",Hostname=""#),
    (
        "WorkerLoadTime",
        "gauge",
        r#"{WorkerName="W-9000-counting_1.0",Level="Host",Hostname=""#,
    ),
    ("CPUUtilization", "gauge", r#"{Level="Host",Hostname=""#),
    ("MemoryUsed", "gauge", r#"{Level="Host",Hostname=""#),
    ("MemoryAvailable", "gauge", r#"{Level="Host",Hostname=""#),
    ("MemoryUtilization", "gauge", r#"{Level="Host",Hostname=""#),
    ("DiskUsage", "gauge", r#"{Level="Host",Hostname=""#),
    ("DiskUtilization", "gauge", r#"{Level="Host",Hostname=""#),
    ("DiskAvailable", "gauge", r#"{Level="Host",Hostname=""#),
];
/// The families of models likewise, with the dimensions that the example's file lists.
const MODEL_SAMPLES: [(&str, &str, &str); 8] = [
    (
        "HandlerTime",
        "gauge",
        r#"{ModelName="counting",Level="Model",Hostname=""#,
    ),
    (
        "PredictionTime",
        "gauge",
        r#"{ModelName="counting",Level="Model",Hostname=""#,
    ),
    ("InferenceRequestCount", "counter", r#"{Hostname=""#),
    (
        "InitializeCallCount",
        "counter",
        r#"{ModelName="counting",Level="Model",Hostname=""#,
    ),
    (
        "PreprocessCallCount",
        "counter",
        r#"{ModelName="counting",Hostname=""#,
    ),
    (
        "PostprocessCallCount",
        "counter",
        r#"{ModelName="counting",Level="Model",Hostname=""#,
    ),
    (
        "RequestBatchSize",
        "gauge",
        r#"{ModelName="counting",Hostname=""#,
    ),
    (
        "SizeOfImage",
        "gauge",
        r#"{ModelName="counting",Level="Model",Hostname=""#,
    ),
];

/// What TorchServe's example lists under `model_metrics`.
const LISTED: &str = "
model_metrics:
  counter:
    - {name: InferenceRequestCount, unit: count, dimensions: []}
    - {name: InitializeCallCount, unit: count, dimensions: [ModelName, Level]}
    - {name: PreprocessCallCount, unit: count, dimensions: [ModelName]}
    - {name: PostprocessCallCount, unit: count, dimensions: [ModelName, Level]}
  gauge:
    - {name: HandlerTime, unit: ms, dimensions: [ModelName, Level]}
    - {name: PredictionTime, unit: ms, dimensions: [ModelName, Level]}
    - {name: RequestBatchSize, unit: count, dimensions: [ModelName]}
    - {name: SizeOfImage, unit: kB, dimensions: [ModelName, Level]}
";

/// The model of TorchServe's example.
fn counting() -> Model {
    Model::new("counting").lantern("backend: fake")
}

/// A `metrics.yaml`: TorchServe's `ts_metrics`, and `models`.
struct MetricsFile {
    directory: TempDir,
}

impl MetricsFile {
    fn new(models: &str) -> Self {
        let default = include_str!("../../docs/metrics.yaml");
        let (server, _) = default.split_once("model_metrics:").unwrap();
        Self::of(&format!("{server}{models}"))
    }

    fn of(text: &str) -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("metrics.yaml"), text).unwrap();
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("metrics.yaml")
    }
}

/// A server of the example's model in a mode, with a file of metrics.
async fn server(mode: &str, file: &MetricsFile, settings: &[&str]) -> TestServer {
    let builder = TestServer::builder()
        .model(counting())
        .set(&format!("metrics_mode={mode}"))
        .set(&format!("metrics_config={}", file.path().display()));
    let builder = settings
        .iter()
        .fold(builder, |builder, one| builder.set(one));
    let server = builder.start().await;
    let answer = server.predict("counting", "0123456789").await;
    assert_eq!(answer.text(), "counted");
    server
}

async fn scrape(server: &TestServer) -> String {
    let request = server.request(Listener::Metrics, "GET", "/metrics");
    let answer = Answer::of(request.send().await.unwrap()).await;
    assert_eq!(answer.status, 200);
    answer.text().to_owned()
}

/// Whether `text` is `\d+\.\d+`.
fn is_decimal(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('.')
        .is_some_and(|(whole, part)| is_number(whole) && is_number(part))
}

/// Asserts that each family is announced once with its type and has one sample `NAME LABELS.+",} \d+.\d+`.
fn assert_samples(text: &str, expected: &[(&str, &str, &str)]) {
    for (name, kind, labels) in expected {
        let announced = format!("TYPE {name} {kind}");
        assert_eq!(text.matches(&announced).count(), 1, "{announced}");
        let head = format!("{name}{labels}");
        let samples: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with(&head))
            .collect();
        let [sample] = samples[..] else {
            panic!("one sample {head}: {samples:?}\n{text}");
        };
        let (_, value) = sample.split_once("\",} ").unwrap();
        assert!(is_decimal(value), "{sample}");
    }
}

fn assert_names(text: &str, names: &[&str], is_there: bool) {
    for name in names {
        assert_eq!(text.contains(name), is_there, "{name} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_mode_prometheus_scrapes_have_torchserves_patterns() {
    let file = MetricsFile::new(LISTED);
    let server = server("prometheus", &file, &[]).await;
    server.sample_once_there("DiskAvailable{").await;
    let text = scrape(&server).await;
    assert_names(&text, &LEGACY, true);
    assert_names(&text, &FRONT_END, true);
    assert_names(&text, &SYSTEM, true);
    assert_names(&text, &MODEL, true);
    assert_names(&text, &DETECTED, false);
    assert_samples(&text, &SERVER_SAMPLES);
    assert_samples(&text, &MODEL_SAMPLES);
    assert!(text.contains("SizeOfImage Torchserve prometheus gauge metric with unit: kB\n"));
    assert_eq!(server.server_metric_lines(), "");
    assert_eq!(server.model_metric_lines(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_that_are_not_listed_can_be_detected() {
    let file = MetricsFile::new("");
    let server = server("prometheus", &file, &["model_metrics_auto_detect=true"]).await;
    let text = scrape(&server).await;
    let detected = |name, kind, labels| assert_samples(&text, &[(name, kind, labels)]);
    let model = r#"{ModelName="counting",Level="Model",Hostname=""#;
    for (name, kind, _) in MODEL_SAMPLES {
        detected(name, kind, model);
    }
    let method = r#"{MethodName="preprocess",ModelName="counting",Level="Model",Hostname=""#;
    detected("HandlerMethodTime", "gauge", method);
    assert!(text.contains("TYPE ExamplePercentMetric histogram\n"));
    for suffix in ["sum", "count"] {
        let head = format!("ExamplePercentMetric_{suffix}{model}");
        assert_eq!(text.matches(&head).count(), 1, "{head}");
    }
    assert!(text.contains(
        "HELP HandlerMethodTime Torchserve prometheus gauge metric with unit: Milliseconds\n"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_mode_log_metrics_are_lines_and_scrapes_are_empty() {
    let file = MetricsFile::new(LISTED);
    let server = server("log", &file, &[]).await;
    assert_eq!(scrape(&server).await, "");
    let lines = server.server_metric_lines();
    assert_names(&lines, &LEGACY, true);
    assert_names(
        &lines,
        &[
            "Requests2XX",
            "QueueTime",
            "WorkerThreadTime",
            "WorkerLoadTime",
        ],
        true,
    );
    let start = "ts_inference_requests_total.Count:1.0|#model_name:counting,model_version:default|#hostname:";
    assert!(lines.lines().any(|line| line.starts_with(start)), "{lines}");
    let models = server.model_metric_lines();
    assert_names(&models, &MODEL, true);
    assert_names(&models, &DETECTED, false);
    let line = models
        .lines()
        .find(|line| line.starts_with("SizeOfImage"))
        .unwrap();
    assert!(
        line.starts_with("SizeOfImage.kB:0.009765625|#ModelName:counting,Level:Model|#hostname:"),
        "{line}"
    );
    assert!(
        line.contains(",requestID:") && line.contains(",timestamp:"),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn in_mode_log_the_machine_is_lines_unless_that_is_disabled() {
    let file = MetricsFile::new(LISTED);
    let enabled = server("log", &file, &[]).await;
    let measured = async {
        while !enabled
            .server_metric_lines()
            .contains("DiskAvailable.Gigabytes:")
        {
            tokio::task::yield_now().await;
        }
    };
    let limit = std::time::Duration::from_secs(20);
    tokio::time::timeout(limit, measured).await.unwrap();
    let disabled = server("log", &file, &["disable_system_metrics=true"]).await;
    assert_names(&disabled.server_metric_lines(), &SYSTEM, false);
    let shown = server("prometheus", &file, &["disable_system_metrics=true"]).await;
    let text = scrape(&shown).await;
    assert!(text.contains("# TYPE MemoryUsed gauge\n") && !text.contains("MemoryUsed{"));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_mode_legacy_three_counters_are_scraped_and_the_rest_is_lines() {
    let file = MetricsFile::new("");
    // TorchServe ignores the case of the mode.
    let server = server(" Legacy", &file, &["model_metrics_auto_detect=true"]).await;
    let text = scrape(&server).await;
    assert_samples(&text, &SERVER_SAMPLES[1..4]);
    let families = text.lines().filter(|line| line.starts_with("# TYPE"));
    assert_eq!(families.count(), 3);
    assert_names(&server.server_metric_lines(), &LEGACY, false);
    assert_names(
        &server.server_metric_lines(),
        &["Requests2XX", "QueueTime"],
        true,
    );
    assert_names(&server.model_metric_lines(), &MODEL, true);
    assert_names(&server.model_metric_lines(), &DETECTED, true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mode_that_is_none_means_log() {
    let server = server("loud", &MetricsFile::new(LISTED), &[]).await;
    assert_eq!(scrape(&server).await, "");
    assert_names(&server.server_metric_lines(), &LEGACY, true);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_listing_handlers_metrics_are_left_out() {
    let server = TestServer::with(counting()).await;
    server.predict("counting", "x").await;
    let text = scrape(&server).await;
    assert_names(&text, &MODEL[2..], false);
    assert!(text.contains("HandlerTime{ModelName=\"counting\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_wrong_leaves_torchserves_metrics_out_and_the_server_serves() {
    for text in [
        "ts_metrics: {counter: [{unit: Count}]}",
        "ts_metrics: [",
        "{{{{",
    ] {
        let server = server("prometheus", &MetricsFile::of(text), &[]).await;
        let text = scrape(&server).await;
        assert_names(&text, &LEGACY, false);
        assert_names(&text, &FRONT_END, false);
        assert!(text.contains("lantern_request_seconds_count{model_name=\"counting\""));
    }
    let gone = MetricsFile::new("");
    std::fs::remove_file(gone.path()).unwrap();
    let server = server("prometheus", &gone, &[]).await;
    assert_names(&scrape(&server).await, &LEGACY, false);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_listed_is_measured() {
    let text = "ts_metrics: {histogram: [{name: QueueTime, unit: Milliseconds, dimensions: [Level, Hostname]}]}";
    let server = server("prometheus", &MetricsFile::of(text), &[]).await;
    let text = scrape(&server).await;
    assert_names(&text, &LEGACY, false);
    assert_names(&text, &SYSTEM, false);
    assert!(
        text.contains("QueueTime_count{Level=\"Host\",Hostname="),
        "{text}"
    );
    assert!(!text.contains("WorkerThreadTime"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_the_operator_measures_the_machine() {
    let file = MetricsFile::new("");
    let line = "MemoryUsed.Megabytes:42.5|#Level:Host|#hostname:elsewhere,1";
    let command = format!("system_metrics_cmd=/bin/echo {line}");
    let server = server("prometheus", &file, &[&command]).await;
    let measured = server
        .sample_once_there("MemoryUsed{Level=\"Host\",Hostname=\"elsewhere\"")
        .await;
    assert_eq!(measured.to_bits(), 42.5f64.to_bits());
    assert_eq!(server.sample("MemoryAvailable{").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_process_measures_like_the_server() {
    let file = MetricsFile::new(LISTED);
    let server = TestServer::builder()
        .model(Model::new("counting").artifact("linear.onnx").in_process())
        .set("metrics_mode=log")
        .set(&format!("metrics_config={}", file.path().display()))
        .start()
        .await;
    // The model wants other inputs than the handler gives: what preprocess measured is measured all the same.
    server.predict("counting", "0123456789").await;
    let reported = async {
        while !server.model_metric_lines().contains("PreprocessCallCount") {
            tokio::task::yield_now().await;
        }
    };
    let limit = std::time::Duration::from_secs(20);
    tokio::time::timeout(limit, reported).await.unwrap();
    let lines = server.model_metric_lines();
    let line = lines
        .lines()
        .find(|line| line.starts_with("PreprocessCallCount"))
        .unwrap();
    assert!(
        line.contains("|#ModelName:counting|") && line.contains(",requestID:"),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn models_that_are_profiled_show_each_phase() {
    let server = TestServer::builder()
        .model(counting().with("handler: {profile: true}"))
        .set("model_metrics_auto_detect=true")
        .start()
        .await;
    server.predict("counting", "x").await;
    for phase in ["preprocess", "inference", "postprocess"] {
        let sample =
            format!("ts_handler_{phase}{{ModelName=\"counting\",Level=\"Model\",Hostname=");
        assert!(server.sample(&sample).await.is_some(), "{phase}");
    }
}
