//! `InferenceAPIsService`: health and predictions.

use lantern::api::grpc::proto::inference::PredictionsRequest;
use tonic::Code;

use crate::support::{Model, ROW, TestServer, prediction};

#[tokio::test(flavor = "multi_thread")]
async fn ping_is_json_as_text() {
    let server = TestServer::with(Model::new("echo")).await;
    let pong = server.grpc_inference().ping(()).await.unwrap();
    assert_eq!(pong.into_inner().health, "{\n  \"status\": \"Healthy\"\n}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prediction_is_what_rest_answers() {
    let server = TestServer::with(Model::linear()).await;
    let rest = server.predict("linear", ROW).await;
    let mut client = server.grpc_inference();
    let answer = client.predictions(prediction("linear", ROW)).await.unwrap();
    assert!(answer.metadata().get("x-request-id").is_some());
    assert_eq!(answer.into_inner().prediction, rest.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_models_and_versions_have_torchserves_code() {
    let server = TestServer::with(Model::new("echo")).await;
    let mut client = server.grpc_inference();
    for (model, version, message) in [
        ("", "", "Parameter model_name is required."),
        ("nope", "", "Model not found: nope"),
        (
            "echo",
            "9.9",
            "Model version: 9.9 does not exist for model: echo",
        ),
    ] {
        let request = PredictionsRequest {
            model_version: version.to_owned(),
            ..prediction(model, "x")
        };
        let refused = client.predictions(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::Internal, "{refused}");
        assert_eq!(refused.message().lines().next(), Some(message));
    }
}
