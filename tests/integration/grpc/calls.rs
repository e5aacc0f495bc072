//! Deadlines, cancellation, log lines and metrics of gRPC calls.

use lantern::api::Listener;
use prost::Message as _;
use tonic::codec::CompressionEncoding;

use crate::support::frames::message;
use crate::support::{Model, ROW, TestServer, prediction, tensor};

const PREDICTIONS: &str = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions";
const GRPC: (&str, &str) = ("content-type", "application/grpc");

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_of_the_client_reaches_the_job() {
    let server = TestServer::with(Model::fake()).await;
    server.gate().shut();
    let mut client = server.grpc_inference();
    let first =
        tokio::spawn(async move { client.predictions(prediction("fake", tensor(1.0))).await });
    server.wait_for_held(1).await;
    // The second request waits behind the first, and has expired when the worker is free.
    let body = message(0, &prediction("fake", tensor(2.0)).encode_to_vec());
    let headers = [GRPC, ("grpc-timeout", "50m")];
    let late = server.call(Listener::GrpcInference, PREDICTIONS, &headers, body);
    let late = late.await.unwrap();
    assert_eq!(late.code(), Some(4), "{late:?}");
    let expired = "lantern_expired_requests_total{model_name=\"fake\"";
    assert_eq!(server.sample(expired).await, Some(1.0));
    server.gate().open();
    assert!(first.await.unwrap().is_ok());
    let third = server
        .grpc_inference()
        .predictions(prediction("fake", tensor(3.0)))
        .await;
    assert!(third.is_ok());
    assert_eq!(server.fake_runs(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_is_not_computed() {
    let server = TestServer::with(Model::fake()).await;
    server.gate().shut();
    let mut client = server.grpc_inference();
    let mut clone = client.clone();
    let first =
        tokio::spawn(async move { clone.predictions(prediction("fake", tensor(1.0))).await });
    server.wait_for_held(1).await;
    let mut clone = client.clone();
    let waiting = "lantern_requests_in_flight{model_name=\"fake\"";
    let given_up =
        tokio::spawn(async move { clone.predictions(prediction("fake", tensor(2.0))).await });
    while server.sample(waiting).await != Some(2.0) {
        tokio::task::yield_now().await;
    }
    given_up.abort();
    let cancelled = "lantern_cancelled_requests_total{model_name=\"fake\"";
    while server.sample(cancelled).await != Some(1.0) {
        tokio::task::yield_now().await;
    }
    server.gate().open();
    assert!(first.await.unwrap().is_ok());
    let third = client.predictions(prediction("fake", tensor(3.0))).await;
    assert!(third.is_ok());
    assert_eq!(server.fake_runs(), 2);
    assert!(server.access_log().contains("Predictions HTTP/2.0\" 1 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_leaves_the_line_that_torchserve_writes() {
    let server = TestServer::with(Model::new("echo")).await;
    let mut client = server.grpc_inference();
    client.ping(()).await.unwrap();
    client
        .predictions(prediction("nope", ""))
        .await
        .unwrap_err();
    let log = server.access_log();
    let lines: Vec<_> = log.lines().collect();
    let service = "org.pytorch.serve.grpc.inference.InferenceAPIsService";
    for (line, expected) in lines.iter().zip([("Ping", 0), ("Predictions", 13)]) {
        let (method, code) = expected;
        assert!(line.starts_with("/127.0.0.1:"), "{line}");
        let written = format!("\"gRPC {service}/{method} HTTP/2.0\" {code} ");
        assert!(line.contains(&written), "{line}");
    }
    assert_eq!(lines.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_calls_as_they_count_requests() {
    let server = TestServer::with(Model::linear()).await;
    assert_eq!(server.predict("linear", ROW).await.status, 200);
    let names = [
        "ts_inference_requests_total{model_name=\"linear\",model_version=\"default\"",
        "ts_inference_latency_microseconds{model_name=\"linear\",model_version=\"default\"",
        "lantern_request_seconds_count{model_name=\"linear\"",
        "lantern_infer_seconds_count{model_name=\"linear\"",
    ];
    let mut before = Vec::new();
    for name in names {
        before.push(server.sample(name).await);
    }
    let ok = server.sample("Requests2XX{").await.unwrap();
    let mut client = server.grpc_inference();
    client.predictions(prediction("linear", ROW)).await.unwrap();
    client
        .predictions(prediction("nope", ROW))
        .await
        .unwrap_err();
    // The count is two: the prediction, and the scrape before it.
    assert_eq!(server.sample("Requests2XX{").await, Some(ok + 2.0));
    assert_eq!(server.sample("Requests4XX{").await, Some(1.0));
    for (name, before) in names.iter().zip(before) {
        let after = server.sample(name).await;
        assert!(
            before.is_some() && after > before,
            "{name}: {before:?} {after:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_messages_are_read() {
    let server = TestServer::with(Model::new("echo")).await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let mut client = server
            .grpc_inference()
            .send_compressed(encoding)
            .accept_compressed(encoding);
        let data = "compress me ".repeat(1000);
        let answer = client.predictions(prediction("echo", data.clone())).await;
        assert_eq!(&*answer.unwrap().into_inner().prediction, data.as_bytes());
    }
}
