//! The same calls leave the same counts, whatever the protocol they came by.

use std::collections::BTreeMap;

use lantern::api::Listener;

use crate::support::{Answer, Model, TestServer, tensor};

/// Samples of one model that are counts, with the calls of one protocol behind them. Times differ from run to run.
async fn counts(server: &TestServer) -> BTreeMap<String, String> {
    let request = server.request(Listener::Metrics, "GET", "/metrics");
    let answer = Answer::of(request.send().await.unwrap()).await;
    let is_count = |name: &str| {
        name.starts_with("ts_inference_requests_total{")
            || name.starts_with("lantern_")
                && (name.contains("_total{") || name.contains("_count{"))
            || name.starts_with("lantern_batch_rows_")
    };
    let samples = answer
        .text()
        .lines()
        .filter_map(|line| line.rsplit_once(' '));
    samples
        .filter(|(name, _)| is_count(name) && name.contains("model_name=\"fake\""))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A server that nobody has asked anything yet.
async fn server() -> TestServer {
    TestServer::builder()
        .model(Model::fake().with("batchSize: 4"))
        .set("ts_open_inference_protocol=true")
        .start()
        .await
}

async fn post(server: &TestServer, path: &str, body: &str) -> Answer {
    let request = server.request(Listener::Inference, "POST", path);
    let request = request
        .header("content-type", "application/json")
        .body(body.to_owned());
    Answer::of(request.send().await.unwrap()).await
}

/// Two calls for the default version, one for a version, one that is answered with a failure.
async fn rest() -> BTreeMap<String, String> {
    let server = server().await;
    for path in [
        "/predictions/fake",
        "/predictions/fake",
        "/predictions/fake/1.0",
    ] {
        assert_eq!(post(&server, path, &tensor(1.0)).await.status, 200);
    }
    assert!(post(&server, "/predictions/fake", "[]").await.status >= 400);
    counts(&server).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_counts_what_was_asked() {
    let counts = rest().await;
    let of = |name: &str| {
        let found = counts.iter().find(|(series, _)| series.starts_with(name));
        found.map(|(_, value)| value.as_str())
    };
    let unnamed = "ts_inference_requests_total{model_name=\"fake\",model_version=\"default\"";
    let named = "ts_inference_requests_total{model_name=\"fake\",model_version=\"1.0\"";
    assert_eq!((of(unnamed), of(named)), (Some("3.0"), Some("1.0")));
    assert_eq!(of("lantern_request_seconds_count"), Some("3.0"));
    assert_eq!(of("lantern_batch_rows_count"), Some("3.0"));
    assert_eq!(of("lantern_failed_requests_total"), Some("1.0"));
    assert_eq!(of("lantern_rejected_requests_total"), Some("0.0"));
}
