//! The binary tensor data extension, and compression.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use lantern::api::Listener;
use serde_json::{Value, json};

use super::{
    JSON_LENGTH, bytes, divided, failure, floats, infer, infer_binary, infer_with_length, multi,
    values,
};
use crate::support::{Answer, Model, TestServer};

/// An input whose data comes in binary form after the JSON.
fn behind(name: &str, size: usize) -> Value {
    json!({"name": name, "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": size}})
}

fn strings() -> Model {
    Model::new("linear")
        .named("strings")
        .artifact("strings.onnx")
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_lie_behind_the_json_in_their_order() {
    let server = TestServer::with(multi()).await;
    let (a, b) = (bytes(&[1.0, 2.0, 3.0]), bytes(&[0.5, 0.25, 4.0]));
    // The inputs are in another order than the model's.
    let request = json!({"inputs": [behind("b", 12), behind("a", 12)],
        "outputs": [{"name": "diff", "parameters": {"binary_data": true}},
                    {"name": "sum", "parameters": {"binary_data": false}}],
        "parameters": {"binary_data_output": true}});
    let answer = infer_binary(&server, "multi", &request, &[b, a].concat()).await;
    let (json, data) = divided(&answer);
    assert_eq!(
        json["outputs"][0]["parameters"],
        json!({"binary_data_size": 12})
    );
    assert!(json["outputs"][0].get("data").is_none());
    assert_eq!(json["outputs"][1]["data"], json!([1.5, 2.25, 7.0]));
    assert_eq!(values(data), [0.5, 1.75, -1.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_and_binary_inputs_mix() {
    let server = TestServer::with(multi()).await;
    let request = json!({"inputs": [
        floats("a", &json!([1, 3]), &json!([[1, 2, 3]])),
        behind("b", 12),
    ], "parameters": {"binary_data_output": true}});
    let answer = infer_binary(&server, "multi", &request, &bytes(&[1.0, 1.0, 1.0])).await;
    let (_, data) = divided(&answer);
    assert_eq!(values(data), [2.0, 3.0, 4.0, 0.0, 1.0, 2.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_as_long_as_the_body_is_all_json() {
    let server = TestServer::with(multi()).await;
    let answer = infer_binary(&server, "multi", &super::one_row(), b"").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header(JSON_LENGTH), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn strings_are_any_bytes() {
    let server = TestServer::with(strings()).await;
    let data = b"\x03\0\0\0a\0\xff\0\0\0\0".to_vec();
    let input = json!({"name": "bytes", "shape": [1, 2], "datatype": "BYTES",
        "parameters": {"binary_data_size": data.len()}});
    let mut request = json!({"inputs": [input], "parameters": {"binary_data_output": true}});
    let answer = infer_binary(&server, "strings", &request, &data).await;
    let (_, echoed) = divided(&answer);
    assert_eq!(echoed, data);
    request["parameters"] = json!({});
    let text = failure(
        &infer_binary(&server, "strings", &request, &data).await,
        400,
    );
    assert!(text.contains("no UTF-8"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_be_one_tensor_and_nothing_else() {
    let server = TestServer::builder()
        .model(Model::linear())
        .model(multi())
        .start()
        .await;
    let row = bytes(&[1.0; 16]);
    let answer = infer_with_length(&server, "linear", "0", row.clone()).await;
    let (json, data) = divided(&answer);
    assert_eq!(json["outputs"][0]["shape"], json!([1, 4]));
    assert_eq!(data.len(), 16);
    for (model, body) in [
        ("linear", row[1..].to_vec()),
        ("linear", [row.clone(), row.clone()].concat()),
        ("linear", Vec::new()),
        ("multi", row),
    ] {
        failure(&infer_with_length(&server, model, "0", body).await, 400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_headers_that_disagree_are_refused() {
    let server = TestServer::with(multi()).await;
    let request = json!({"inputs": [behind("a", 12), behind("b", 12)]});
    let data = bytes(&[1.0; 6]);
    for (data, says) in [
        (&data[..23], "input \"b\", expecting 1 additional bytes"),
        (&data[..11], "input \"a\", expecting 1 additional bytes"),
        (&[], "input \"a\", expecting 12 additional bytes"),
        (
            &[&data[..], b"x"].concat()[..],
            "unexpected additional input data: 1 bytes",
        ),
    ] {
        let text = failure(&infer_binary(&server, "multi", &request, data).await, 400);
        assert!(text.contains(says), "{text}");
    }
    let json = request.to_string();
    let body = [json.as_bytes(), &data].concat();
    let beyond = (body.len() + 1).to_string();
    for length in [
        "",
        "x",
        "-1",
        "1.5",
        "0x10",
        "2147483648",
        "99999999999999999999",
        &beyond,
    ] {
        let text = failure(
            &infer_with_length(&server, "multi", length, body.clone()).await,
            400,
        );
        assert!(text.contains(JSON_LENGTH), "{length}: {text}");
    }
    for length in [json.len() - 1, json.len() + 1] {
        let answer = infer_with_length(&server, "multi", &length.to_string(), body.clone()).await;
        failure(&answer, 400);
    }
    // Without the header the whole body is JSON.
    failure(
        &super::post(&server, "/v2/models/multi/infer", body).await,
        400,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_has_its_data_in_one_place() {
    let server = TestServer::with(multi()).await;
    let mut both = floats("a", &json!([1, 3]), &json!([1, 2, 3]));
    both["parameters"] = json!({"binary_data_size": 12});
    let neither = json!({"name": "a", "shape": [1, 3], "datatype": "FP32"});
    for (input, says) in [
        (both, "both"),
        (neither, "must have data"),
        (behind("a", 11), "takes 12 bytes, got 11"),
        (
            json!({"name": "a", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": -1}}),
            "binary_data_size",
        ),
        (
            json!({"name": "a", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": u64::MAX}}),
            "expecting",
        ),
        (
            json!({"name": "a", "shape": [1, 3], "datatype": "FP32",
            "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 12}}),
            "not supported",
        ),
    ] {
        let request = json!({"inputs": [input, behind("b", 12)]});
        let text = failure(
            &infer_binary(&server, "multi", &request, &bytes(&[1.0; 6])).await,
            400,
        );
        assert!(text.contains(says), "{text}");
    }
}

fn packed(coding: &str, body: &[u8]) -> Vec<u8> {
    if coding == "gzip" {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    } else {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }
}

fn unpacked(coding: &str, body: &[u8]) -> Vec<u8> {
    let mut unpacked = Vec::new();
    if coding == "gzip" {
        flate2::read::GzDecoder::new(body)
            .read_to_end(&mut unpacked)
            .unwrap();
    } else {
        flate2::read::ZlibDecoder::new(body)
            .read_to_end(&mut unpacked)
            .unwrap();
    }
    unpacked
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_are_those_of_unpacked_json_both_ways() {
    let server = TestServer::with(multi()).await;
    let json = json!({"inputs": [behind("a", 12), behind("b", 12)],
        "parameters": {"binary_data_output": true}})
    .to_string();
    let body = [json.as_bytes(), &bytes(&[1.0, 2.0, 3.0, 1.0, 1.0, 1.0])].concat();
    for coding in ["gzip", "deflate"] {
        let request = server
            .request(Listener::Inference, "POST", "/v2/models/multi/infer")
            .header("content-encoding", coding)
            .header("accept-encoding", coding)
            .header(JSON_LENGTH, json.len())
            .body(packed(coding, &body));
        let mut answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-encoding"), Some(coding));
        answer.body = unpacked(coding, &answer.body);
        let (_, data) = divided(&answer);
        assert_eq!(values(data), [2.0, 3.0, 4.0, 0.0, 1.0, 2.0]);
    }
    let plain = infer(&server, "multi", &super::one_row()).await;
    assert_eq!(plain.header("content-encoding"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_chunks_without_a_length_is_taken() {
    let server = TestServer::with(multi()).await;
    let json = json!({"inputs": [behind("a", 12), behind("b", 12)],
        "parameters": {"binary_data_output": true}})
    .to_string();
    let body = [json.as_bytes(), &bytes(&[1.0; 6])].concat();
    let chunks: Vec<_> = body
        .chunks(7)
        .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
        .collect();
    let request = server
        .request(Listener::Inference, "POST", "/v2/models/multi/infer")
        .header(JSON_LENGTH, json.len())
        .body(reqwest::Body::wrap_stream(futures_util::stream::iter(
            chunks,
        )));
    let answer = Answer::of(request.send().await.unwrap()).await;
    let (_, data) = divided(&answer);
    assert_eq!(values(data), [2.0, 2.0, 2.0, 0.0, 0.0, 0.0]);
}
