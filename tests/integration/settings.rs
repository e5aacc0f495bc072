//! Settings of a model whose effect a client sees.

use lantern::api::Listener;
use lantern::api::grpc::proto::open_inference::model_infer_request::InferInputTensor;
use lantern::api::grpc::proto::open_inference::{InferTensorContents, ModelInferRequest};
use serde_json::json;

use crate::support::{Answer, Model, TestServer, tensor};

#[tokio::test(flavor = "multi_thread")]
async fn with_job_tickets_a_request_is_let_in_only_while_a_worker_is_idle() {
    let server = TestServer::with(Model::fake().with("useJobTicket: true")).await;
    assert_eq!(server.predict("fake", tensor(1.0)).await.status, 200);
    server.gate().shut();
    let request = server
        .request(Listener::Inference, "POST", "/predictions/fake")
        .header("content-type", "application/json")
        .body(tensor(1.0));
    let first = tokio::spawn(request.send());
    server.wait_for_held(1).await;
    for _ in 0..2 {
        let refused = server.predict("fake", tensor(1.0)).await;
        assert_eq!(refused.status, 503, "{refused}");
    }
    server.gate().open();
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert_eq!(server.predict("fake", tensor(1.0)).await.status, 200);
    let described = server.management("GET", "/models/fake").await.to_string();
    assert!(described.contains("\"useJobTicket\": true"), "{described}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_beyond_the_limit_is_an_error_that_names_it() {
    for model in [Model::new("echo"), Model::new("echo").in_process()] {
        let builder = TestServer::builder().set("max_response_size=100");
        let server = builder.model(model).start().await;
        let small = server.predict("echo", "x".repeat(10)).await;
        assert_eq!(small.status, 200, "{small}");
        let large = server.predict("echo", "x".repeat(1000)).await.to_string();
        assert!(
            large.contains("the limit is 100 (max_response_size"),
            "{large}"
        );
        assert_eq!(server.predict("echo", "x").await.status, 200);
    }
}

/// Of `rows` rows of 16 numbers the model makes 16 bytes each.
fn rows(rows: i64) -> ModelInferRequest {
    let count = usize::try_from(rows * 16).unwrap();
    ModelInferRequest {
        model_name: "linear".to_owned(),
        inputs: vec![InferInputTensor {
            name: "x".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![rows, 16],
            contents: Some(InferTensorContents {
                fp32_contents: vec![1.0; count],
                ..InferTensorContents::default()
            }),
            ..InferInputTensor::default()
        }],
        ..ModelInferRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tensors_beyond_the_limit_are_an_error_that_names_it() {
    let says = "The model's outputs have 112 bytes, the limit is 100 (max_response_size, lantern.limits.response)";
    for model in [Model::linear(), Model::linear().in_process()] {
        let builder = TestServer::builder().set("max_response_size=100");
        let server = builder.model(model).start().await;
        for (count, status) in [(6, 200), (7, 500)] {
            let data = vec![1; count * 16];
            let input =
                json!({"name": "x", "datatype": "FP32", "shape": [count, 16], "data": data});
            let request = server
                .request(Listener::Inference, "POST", "/v2/models/linear/infer")
                .json(&json!({"inputs": [input]}));
            let answer = Answer::of(request.send().await.unwrap()).await;
            assert_eq!(answer.status, status, "{answer}");
            assert_eq!(answer.to_string().contains(says), status == 500, "{answer}");
        }
        let mut client = server.grpc_open_inference();
        client.model_infer(rows(6)).await.unwrap();
        let refused = client.model_infer(rows(7)).await.unwrap_err();
        assert_eq!(refused.message(), says);
    }
}

const YEAR: u32 = 31_536_000;

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_asks_for_a_year_is_served_with_what_the_operator_allows() {
    for (set, expected) in [
        ("lantern_max_timeout=1h", 3600),
        ("lantern_max_timeout=3min", 180),
    ] {
        let model = Model::new("echo")
            .with(&format!("responseTimeout: {YEAR}"))
            .with(&format!("startupTimeout: {YEAR}"))
            .with(&format!("maxRetryTimeoutInSec: {YEAR}"));
        let builder = TestServer::builder().set(set);
        let server = builder.model(model).start().await;
        assert_eq!(server.predict("echo", "x").await.status, 200);
        let described = server.management("GET", "/models/echo").await.json();
        assert_eq!(described[0]["responseTimeout"], expected);
        assert_eq!(described[0]["startupTimeout"], expected);
        assert_eq!(described[0]["maxRetryTimeoutInSec"], expected.max(300));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_asks_for_a_year_is_served_with_what_the_operator_allows() {
    let builder = TestServer::builder().in_store(Model::new("echo").without_workers());
    let server = builder.set("default_response_timeout=4000").start().await;
    let path = format!(
        "/models?url=echo-1.0.mar&response_timeout={YEAR}&startup_timeout={YEAR}&max_batch_delay={YEAR}"
    );
    let added = server.management("POST", &path).await;
    assert_eq!(added.status, 200, "{}", added.text());
    let described = server.management("GET", "/models/echo").await.json();
    assert_eq!(described[0]["responseTimeout"], 4000, "the operator's own");
    assert_eq!(described[0]["startupTimeout"], 3600);
    assert_eq!(described[0]["maxBatchDelay"], 3_600_000);
}
