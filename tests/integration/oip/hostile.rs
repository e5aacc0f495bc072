//! Hostile and malformed requests.

use lantern::api::Listener;
use serde_json::json;

use super::{failure, infer, infer_binary, multi, one_row, post};
use crate::support::{Answer, TestServer};

const INFER: &str = "/v2/models/multi/infer";

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_no_requests_are_refused() {
    let server = TestServer::with(multi()).await;
    let deep = format!("{{\"inputs\": {}", "[".repeat(1_000_000));
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{}",
        r#"{"inputs": []}"#,
        r#"{"inputs": [{}]}"#,
        r#"{"inputs": "a"}"#,
        "\0\0\0\0",
        &"[".repeat(1_000_000),
        &deep,
    ] {
        failure(&post(&server, INFER, body.to_owned()).await, 400);
    }
    let answer = infer(&server, "multi", &one_row()).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn shapes_that_overflow_are_refused() {
    let server = TestServer::with(multi()).await;
    for shape in [
        json!([1u64 << 4, (1u64 << 60) + 2]),
        json!([1u64 << 2, (1u64 << 60) + 2]),
        json!([1u64 << 31, 1]),
        json!([-1, 3]),
        json!([0, 3]),
        json!([u64::MAX, u64::MAX]),
        json!(vec![1; 100_000]),
        json!([1, 3, 1]),
        json!([1, 4]),
        json!([]),
    ] {
        let mut request = one_row();
        request["inputs"][0]["shape"] = shape.clone();
        let text = failure(&infer(&server, "multi", &request).await, 400);
        assert!(text.len() < 500, "{text}");
        let input = json!({"name": "a", "datatype": "FP32", "shape": shape,
            "parameters": {"binary_data_size": 12}});
        let mut request = one_row();
        request["inputs"][0] = input;
        failure(
            &infer_binary(&server, "multi", &request, &[0; 12]).await,
            400,
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_that_are_not_the_models_are_refused() {
    let server = TestServer::with(multi()).await;
    for (change, says) in [
        (json!({"name": "c"}), "no input \"c\""),
        (json!({"name": "b"}), "came twice"),
        (json!({"datatype": "INT64"}), "expected a: fp32"),
        (json!({"datatype": "UINT64"}), "expected a: fp32"),
        (json!({"datatype": "UINT128"}), "must be one of"),
        (json!({"name": "x".repeat(100_000)}), "no input"),
    ] {
        let mut request = one_row();
        for (key, value) in change.as_object().unwrap() {
            request["inputs"][0][key] = value.clone();
        }
        let text = failure(&infer(&server, "multi", &request).await, 400);
        assert!(text.contains(says) && text.len() < 500, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_over_the_limit_are_refused_in_the_protocols_form() {
    let server = TestServer::builder().model(multi());
    let server = server
        .api(|api| api.max_request_size = 10_000)
        .start()
        .await;
    failure(&post(&server, INFER, vec![b' '; 10_001]).await, 413);
    // A kilobyte that decompresses to ten megabytes.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, &vec![b' '; 10 << 20]).unwrap();
    let bomb = encoder.finish().unwrap();
    for (coding, body, status) in [
        ("gzip", bomb.clone(), 413),
        ("gzip", bomb[..bomb.len() / 2].to_vec(), 413),
        ("gzip", b"no gzip".to_vec(), 400),
        ("deflate", b"no deflate".to_vec(), 400),
    ] {
        let request = server.request(Listener::Inference, "POST", INFER);
        let request = request.header("content-encoding", coding).body(body);
        let answer = Answer::of(request.send().await.unwrap()).await;
        failure(&answer, status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_tell_nothing_of_the_machine() {
    let server = TestServer::with(multi().in_process()).await;
    let mut broken = one_row();
    broken["inputs"][0]["shape"] = json!([2, 3]);
    for answer in [
        infer(&server, "multi", &broken).await,
        infer(&server, "../../etc/passwd", &one_row()).await,
        post(&server, "/v2/repository/models/..%2f..%2fetc/load", "").await,
        post(&server, INFER, "{\"inputs\": /tmp}").await,
    ] {
        let text = answer.text();
        for secret in ["/tmp/", "/root", "0x", "127.0.0.1", "src/"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_where_it_was() {
    let server = TestServer::with(multi()).await;
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4096
    };
    let large_shape =
        r#"{"inputs": [{"name": "a", "datatype": "FP64", "shape": [100000, 3], "data": [1]}]}"#;
    let nested = "[".repeat(100_000);
    let round = async |times: usize| {
        for _ in 0..times {
            failure(&post(&server, INFER, large_shape).await, 400);
            failure(&post(&server, INFER, nested.clone()).await, 400);
            failure(
                &infer_binary(&server, "multi", &one_row(), &[0; 1000]).await,
                400,
            );
        }
    };
    round(50).await;
    let before = resident();
    round(350).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes");
}
