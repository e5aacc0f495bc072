//! `InferenceAPIsService`: health and predictions.

use std::collections::BTreeMap;

use lantern::api::grpc::proto::inference::PredictionsRequest;
use tonic::Code;

use crate::support::{Model, ROW, TestServer, prediction, tensor};

#[tokio::test(flavor = "multi_thread")]
async fn ping_is_json_as_text() {
    let server = TestServer::with(Model::new("echo")).await;
    let pong = server.grpc_inference().ping(()).await.unwrap();
    assert_eq!(pong.into_inner().health, "{\n  \"status\": \"Healthy\"\n}");
    let broken = Model::linear().named("broken").artifact("broken.onnx");
    let builder = TestServer::builder().model(broken);
    let server = builder.set("lantern_ping=ready").start().await;
    let pong = server.grpc_inference().ping(()).await.unwrap();
    assert_eq!(
        pong.into_inner().health,
        "{\n  \"status\": \"Unhealthy\"\n}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prediction_is_what_rest_answers() {
    let server = TestServer::with(Model::linear()).await;
    let rest = server.predict("linear", ROW).await;
    let mut client = server.grpc_inference();
    let answer = client.predictions(prediction("linear", ROW)).await.unwrap();
    assert!(answer.metadata().get("x-request-id").is_some());
    assert_eq!(answer.into_inner().prediction, rest.body);
    let named = PredictionsRequest {
        model_version: "1.0".to_owned(),
        sequence_id: Some("s".to_owned()),
        ..prediction("linear", ROW)
    };
    let answer = client.predictions(named).await.unwrap().into_inner();
    assert_eq!(answer.prediction, rest.body);
    assert_eq!(answer.sequence_id.as_deref(), Some("s"));
    assert_eq!(answer.status, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_are_what_a_form_is_over_rest() {
    let server = TestServer::with(Model::new("echo")).await;
    let mut client = server.grpc_inference();
    for inputs in [
        &[("data", "d")][..],
        &[("body", "b")],
        &[("image", "i")],
        &[("data", "d"), ("target", "1")],
        &[("body", "b"), ("data", "d")],
        &[("a", "1"), ("b", "2")],
        &[],
    ] {
        let form = inputs
            .iter()
            .fold(reqwest::multipart::Form::new(), |form, (name, value)| {
                form.text(*name, *value)
            });
        let rest = server.request(
            lantern::api::Listener::Inference,
            "POST",
            "/predictions/echo",
        );
        let rest = rest.multipart(form).send().await.unwrap();
        let (status, rest) = (rest.status(), rest.bytes().await.unwrap());
        let input: BTreeMap<_, _> = inputs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec().into()))
            .collect();
        let request = PredictionsRequest {
            input,
            ..prediction("echo", "")
        };
        match client.predictions(request).await {
            Ok(answer) => assert_eq!(answer.into_inner().prediction, rest, "{inputs:?}"),
            // Both reach the handler, which finds no payload.
            Err(refused) => {
                assert_eq!(
                    (refused.code(), status.as_u16()),
                    (Code::InvalidArgument, 400)
                );
                assert!(
                    refused.message().starts_with("the form has no field"),
                    "{refused}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_models_and_versions_have_torchserves_code() {
    let server = TestServer::with(Model::new("echo")).await;
    let mut client = server.grpc_inference();
    let version = "Model version: 9.9 does not exist for model: echo";
    for (model, version, message) in [
        ("", "", "Parameter model_name is required."),
        ("nope", "", "Model not found: nope"),
        ("echo", "9.9", version),
    ] {
        let request = PredictionsRequest {
            model_version: version.to_owned(),
            ..prediction(model, "x")
        };
        let refused = client.predictions(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::Internal, "{refused}");
        assert_eq!(refused.message().lines().next(), Some(message));
    }
    assert_eq!(server.sample("Requests4XX{").await, Some(3.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handlers_status_becomes_a_code() {
    let server = TestServer::with(Model::new("hostile").artifact("linear.onnx")).await;
    let mut client = server.grpc_inference();
    for (status, expected) in [
        (200, Code::Ok),
        (202, Code::Ok),
        (400, Code::InvalidArgument),
        (401, Code::Unauthenticated),
        (403, Code::PermissionDenied),
        (404, Code::NotFound),
        (409, Code::Aborted),
        (413, Code::ResourceExhausted),
        (416, Code::OutOfRange),
        (418, Code::FailedPrecondition),
        (429, Code::ResourceExhausted),
        (499, Code::Cancelled),
        (500, Code::Internal),
        (501, Code::Unimplemented),
        (503, Code::Unavailable),
        (504, Code::DeadlineExceeded),
        (599, Code::Internal),
    ] {
        let request = prediction("hostile", format!("status {status}"));
        let (code, text) = match client.predictions(request).await {
            Ok(answer) => (Code::Ok, answer.into_inner().prediction.to_vec()),
            Err(refused) => (refused.code(), refused.message().as_bytes().to_vec()),
        };
        assert_eq!((code, &*text), (expected, &b"hostile"[..]), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handlers_failure_is_one_clients_error() {
    let server = TestServer::with(Model::new("hostile").artifact("linear.onnx")).await;
    let mut client = server.grpc_inference();
    for (act, expected) in [
        ("no such act", Code::InvalidArgument),
        ("trap", Code::Unavailable),
        ("panic", Code::Unavailable),
        ("postprocess/panic", Code::Unavailable),
        ("allocate", Code::Internal),
    ] {
        let rest = server.predict("hostile", act).await.json()["message"].clone();
        let refused = client.predictions(prediction("hostile", act)).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), expected, "{act}: {refused}");
        let message = rest.as_str().unwrap();
        assert_eq!(refused.message().lines().next(), message.lines().next());
        let honest = client.predictions(prediction("hostile", "carry 0")).await;
        assert!(honest.is_ok(), "after {act}: {honest:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_worker_and_a_full_queue_have_torchserves_code() {
    let empty = Model::new("echo").without_workers();
    let full = Model::fake().with("jobQueueSize: 1");
    let builder = TestServer::builder().model(full).in_store(empty.clone());
    let server = builder.start().await;
    let url = format!("/models?initial_workers=0&url={}", empty.url());
    assert_eq!(server.management("POST", &url).await.status, 200);
    let mut client = server.grpc_inference();
    let refused = client
        .predictions(prediction("echo", "x"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert!(
        refused
            .message()
            .starts_with("Model \"echo\" has no worker to serve")
    );
    server.gate().shut();
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let mut client = client.clone();
        asked.spawn(async move { client.predictions(prediction("fake", tensor(1.0))).await });
    }
    server.wait_for_held(1).await;
    // One runs; the other waits as soon as its request has come in, and a third finds the queue full.
    while pending(&server).await == 0 {}
    let third = client.predictions(prediction("fake", tensor(2.0)));
    let refused = third.await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert!(
        refused
            .message()
            .starts_with("Model \"fake\" has no worker to serve")
    );
    server.gate().open();
    for answer in asked.join_all().await {
        assert!(answer.is_ok(), "{answer:?}");
    }
}

/// Requests that wait for the model `fake`.
async fn pending(server: &TestServer) -> u64 {
    let described = server.management("GET", "/models/fake").await.json();
    described[0]["jobQueueStatus"]["pendingRequests"]
        .as_u64()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_over_the_limit_are_the_handlers_fault() {
    let model = Model::new("hostile").artifact("linear.onnx");
    for model in [model.clone(), model.in_process()] {
        let builder = TestServer::builder().set("max_response_size=1000");
        let server = builder.model(model).start().await;
        let mut client = server.grpc_inference();
        let fits = client.predictions(prediction("hostile", "body-bytes 1000"));
        assert_eq!(fits.await.unwrap().into_inner().prediction.len(), 1000);
        let over = client.predictions(prediction("hostile", "body-bytes 1001"));
        let refused = over.await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        let says =
            "a body of 1001 bytes, the limit is 1000 (max_response_size, lantern.limits.response)";
        assert!(refused.message().contains(says), "{refused}");
    }
}
