//! Checks that the same calls give the same counts over each protocol.

use std::collections::BTreeMap;

use lantern::api::Listener;
use lantern::api::grpc::proto::inference::PredictionsRequest;
use lantern::api::grpc::proto::open_inference::model_infer_request::InferInputTensor;
use lantern::api::grpc::proto::open_inference::{InferTensorContents, ModelInferRequest};

use crate::support::{Answer, Model, TestServer, prediction, tensor};

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

/// A server that has had no request yet.
async fn server() -> TestServer {
    TestServer::builder()
        .model(Model::fake().with("batchSize: 4"))
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

/// Two calls for the default version and one for a version, over REST.
async fn rest(server: &TestServer) {
    for path in [
        "/predictions/fake",
        "/predictions/fake",
        "/predictions/fake/1.0",
    ] {
        assert_eq!(post(server, path, &tensor(1.0)).await.status, 200);
    }
}

/// The same calls over gRPC.
async fn grpc(server: &TestServer) {
    let mut client = server.grpc_inference();
    for version in ["", "", "1.0"] {
        let request = PredictionsRequest {
            model_version: version.to_owned(),
            ..prediction("fake", tensor(1.0))
        };
        client.predictions(request).await.unwrap();
    }
}

/// The same calls as tensors, over REST.
async fn open_inference(server: &TestServer) {
    let body = r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}"#;
    for path in ["fake", "fake", "fake/versions/1.0"] {
        let answer = post(server, &format!("/v2/models/{path}/infer"), body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// The same calls as tensors, over gRPC.
async fn open_inference_grpc(server: &TestServer) {
    let mut client = server.grpc_open_inference();
    for version in ["", "", "1.0"] {
        let contents = InferTensorContents {
            fp32_contents: vec![1.0],
            ..InferTensorContents::default()
        };
        let input = InferInputTensor {
            name: "x".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, 1],
            contents: Some(contents),
            ..InferInputTensor::default()
        };
        let request = ModelInferRequest {
            model_name: "fake".to_owned(),
            model_version: version.to_owned(),
            inputs: vec![input],
            ..ModelInferRequest::default()
        };
        client.model_infer(request).await.unwrap();
    }
}

fn of<'a>(counts: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    let found = counts.iter().find(|(series, _)| series.starts_with(name));
    found.map(|(_, value)| value.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_protocol_counts_alike() {
    let (by_rest, by_grpc) = (server().await, server().await);
    let (by_tensors, by_grpc_tensors) = (server().await, server().await);
    rest(&by_rest).await;
    grpc(&by_grpc).await;
    open_inference(&by_tensors).await;
    open_inference_grpc(&by_grpc_tensors).await;
    let expected = counts(&by_rest).await;
    let unnamed = "ts_inference_requests_total{model_name=\"fake\",model_version=\"default\"";
    let named = "ts_inference_requests_total{model_name=\"fake\",model_version=\"1.0\"";
    assert_eq!(
        (of(&expected, unnamed), of(&expected, named)),
        (Some("2.0"), Some("1.0"))
    );
    assert_eq!(of(&expected, "lantern_request_seconds_count"), Some("3.0"));
    assert_eq!(of(&expected, "lantern_batch_rows_count"), Some("3.0"));
    assert_eq!(counts(&by_grpc).await, expected);
    assert_eq!(counts(&by_tensors).await, expected);
    assert_eq!(counts(&by_grpc_tensors).await, expected);
    for server in [&by_rest, &by_grpc, &by_tensors, &by_grpc_tensors] {
        // The scrape before this one was answered as well.
        assert_eq!(server.sample("Requests2XX{").await, Some(4.0));
        for metric in ["QueueTime{", "WorkerThreadTime{", "PredictionTime{"] {
            assert!(server.sample(metric).await.is_some(), "{metric}");
        }
        let latency = server
            .sample("ts_inference_latency_microseconds{model_name=\"fake\",model_version=\"1.0\"");
        assert!(latency.await.unwrap() > 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_count_alike() {
    let (by_rest, by_grpc) = (server().await, server().await);
    assert_eq!(post(&by_rest, "/predictions/fake", "[]").await.status, 400);
    let mut client = by_grpc.grpc_inference();
    client
        .predictions(prediction("fake", "[]"))
        .await
        .unwrap_err();
    let expected = counts(&by_rest).await;
    assert_eq!(of(&expected, "lantern_failed_requests_total"), Some("1.0"));
    assert_eq!(of(&expected, "lantern_request_seconds_count"), Some("0.0"));
    assert_eq!(counts(&by_grpc).await, expected);
    for server in [&by_rest, &by_grpc] {
        assert_eq!(server.sample("Requests4XX{").await, Some(1.0));
    }
}
