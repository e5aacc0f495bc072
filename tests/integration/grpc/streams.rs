//! Predictions in streams.

use lantern::api::grpc::proto::inference::{PredictionResponse, PredictionsRequest};
use lantern::api::grpc::proto::rpc::ErrorInfo;
use prost::Message as _;
use tokio_stream::{StreamExt as _, iter, pending};
use tonic::{Code, Streaming};

use crate::support::{Model, TestServer, prediction};

fn of_sequence(model: &str, id: &str, data: &str) -> PredictionsRequest {
    PredictionsRequest {
        sequence_id: Some(id.to_owned()),
        ..prediction(model, data)
    }
}

async fn all(mut responses: Streaming<PredictionResponse>) -> Vec<PredictionResponse> {
    let mut all = Vec::new();
    while let Some(response) = responses.message().await.unwrap() {
        all.push(response);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_answers_once_streams_one_message() {
    let server = TestServer::with(Model::new("echo")).await;
    let mut client = server.grpc_inference();
    let responses = client.stream_predictions(prediction("echo", "hello"));
    let responses = all(responses.await.unwrap().into_inner()).await;
    assert_eq!(responses.len(), 1);
    assert_eq!(&*responses[0].prediction, b"hello");
    let refused = client.stream_predictions(prediction("nope", "")).await;
    assert_eq!(refused.unwrap_err().code(), Code::Internal);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_a_sequence_is_answered_in_order_after_a_half_close() {
    let server = TestServer::with(Model::new("echo")).await;
    let mut client = server.grpc_inference();
    let requests: Vec<_> = (0..50)
        .map(|number| of_sequence("echo", &format!("s{}", number % 2), &number.to_string()))
        .collect();
    let responses = client.stream_predictions2(iter(requests)).await.unwrap();
    let responses = all(responses.into_inner()).await;
    let answers: Vec<_> = responses
        .iter()
        .map(|response| String::from_utf8(response.prediction.to_vec()).unwrap())
        .collect();
    let expected: Vec<_> = (0..50).map(|number: i32| number.to_string()).collect();
    assert_eq!(answers, expected);
    assert_eq!(responses[1].sequence_id.as_deref(), Some("s1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_sequence_is_refused_in_a_message() {
    let server = TestServer::with(Model::new("echo")).await;
    let mut client = server.grpc_inference();
    let answered = of_sequence("echo", "s", "x");
    // The client keeps its side open: the stream ends all the same.
    let requests = iter([answered, prediction("echo", "x")]).chain(pending());
    let responses = client.stream_predictions2(requests).await.unwrap();
    let responses = all(responses.into_inner()).await;
    assert_eq!(responses.len(), 2);
    let failure = responses[1].status.as_ref().unwrap();
    assert_eq!(failure.code, 13);
    assert_eq!(failure.message, "Parameter sequenceId is required.");
    let detail = &failure.details[0];
    assert_eq!(detail.type_url, "type.googleapis.com/google.rpc.ErrorInfo");
    let info = ErrorInfo::decode(detail.value.as_slice()).unwrap();
    assert_eq!(info.reason, "BadRequestException.()");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_after_failures() {
    let model = Model::new("hostile").artifact("linear.onnx");
    let server = TestServer::with(model).await;
    let mut client = server.grpc_inference();
    let requests = [
        of_sequence("hostile", "s", "panic"),
        of_sequence("nope", "s", ""),
        of_sequence("hostile", "s", "status 404"),
        of_sequence("hostile", "s", "done"),
    ];
    let responses = client.stream_predictions2(iter(requests)).await.unwrap();
    let responses = all(responses.into_inner()).await;
    let codes: Vec<_> = responses
        .iter()
        .map(|response| response.status.as_ref().map(|status| status.code))
        .collect();
    assert_eq!(codes, [Some(14), Some(13), Some(5), None]);
    assert_eq!(&*responses[3].prediction, b"hostile");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_ends_the_stream() {
    let builder = TestServer::builder().api(|api| api.max_request_size = 1000);
    let server = builder.model(Model::new("echo")).start().await;
    let mut client = server.grpc_inference();
    let requests = [
        of_sequence("echo", "s", "x"),
        of_sequence("echo", "s", &"x".repeat(2000)),
    ];
    let responses = client.stream_predictions2(iter(requests)).await.unwrap();
    let mut responses = responses.into_inner();
    assert!(responses.message().await.unwrap().is_some());
    let refused = responses.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
}
