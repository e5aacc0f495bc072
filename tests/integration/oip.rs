//! Open Inference Protocol, by requests as its clients send them.

mod batching;
mod binary;
mod clients;
mod compound;
mod grpc;
mod hostile;
mod metadata;
mod numbers;
mod repository;
mod rest;
mod schedule;

use lantern::api::Listener;
use serde_json::{Value, json};

use crate::support::{Answer, Model, TestServer};

/// The header that gives the number of bytes of a body that are JSON.
const JSON_LENGTH: &str = "inference-header-content-length";

/// `multi.onnx`: inputs `a` and `b`, outputs `sum` and `diff`, fp32 of three columns.
pub(crate) fn multi() -> Model {
    Model::new("linear").named("multi").artifact("multi.onnx")
}

/// An fp32 tensor in JSON.
fn floats(name: &str, shape: &Value, data: &Value) -> Value {
    json!({"name": name, "shape": shape, "datatype": "FP32", "data": data})
}

/// Inputs of `multi`, one row each.
fn one_row() -> Value {
    json!({"inputs": [
        floats("a", &json!([1, 3]), &json!([1, 2, 3])),
        floats("b", &json!([1, 3]), &json!([0.5, 0.25, 4])),
    ]})
}

/// The little-endian bytes of fp32 numbers.
pub(crate) fn bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// The fp32 numbers in little-endian bytes.
pub(crate) fn values(bytes: &[u8]) -> Vec<f32> {
    let (chunks, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    chunks
        .iter()
        .map(|chunk| f32::from_le_bytes(*chunk))
        .collect()
}

async fn get(server: &TestServer, path: &str) -> Answer {
    server.inference("GET", path).await
}

async fn post(server: &TestServer, path: &str, body: impl Into<reqwest::Body>) -> Answer {
    let request = server.request(Listener::Inference, "POST", path).body(body);
    Answer::of(request.send().await.unwrap()).await
}

async fn infer(server: &TestServer, model: &str, request: &Value) -> Answer {
    post(
        server,
        &format!("/v2/models/{model}/infer"),
        request.to_string(),
    )
    .await
}

/// A request with its tensors in binary form after its JSON.
pub(crate) async fn infer_binary(
    server: &TestServer,
    model: &str,
    request: &Value,
    data: &[u8],
) -> Answer {
    let json = request.to_string();
    let length = json.len().to_string();
    let body = [json.as_bytes(), data].concat();
    infer_with_length(server, model, &length, body).await
}

/// A request whose header gives any value for the length of the JSON.
async fn infer_with_length(
    server: &TestServer,
    model: &str,
    length: &str,
    body: Vec<u8>,
) -> Answer {
    let path = format!("/v2/models/{model}/infer");
    let request = server.request(Listener::Inference, "POST", &path);
    let request = request.header(JSON_LENGTH, length).body(body);
    Answer::of(request.send().await.unwrap()).await
}

/// The JSON of an answer, and the binary data after it.
pub(crate) fn divided(answer: &Answer) -> (Value, &[u8]) {
    let length: usize = answer.header(JSON_LENGTH).unwrap().parse().unwrap();
    let (json, data) = answer.body.split_at(length);
    assert_eq!(
        answer.header("content-type"),
        Some("application/octet-stream")
    );
    (serde_json::from_slice(json).unwrap(), data)
}

/// Asserts that an answer is a failure in the protocol's form, and returns its text.
fn failure(answer: &Answer, status: u16) -> String {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body = answer.json();
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    body["error"].as_str().unwrap().to_owned()
}
