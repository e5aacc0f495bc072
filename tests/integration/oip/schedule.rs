//! Priority and timeout.

use serde_json::{Value, json};

use super::{failure, floats, infer};
use crate::support::{Model, TestServer};

fn row(parameters: &Value) -> Value {
    json!({"inputs": [floats("x", &json!([1, 1]), &json!([1]))], "parameters": parameters})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_longer_than_it_would_is_not_run() {
    let server = TestServer::builder().model(Model::fake()).start().await;
    server.gate().shut();
    let (patient, impatient) = (row(&json!({})), row(&json!({"timeout": 1})));
    let (first, second, ()) = tokio::join!(
        infer(&server, "fake", &patient),
        async {
            server.wait_for_held(1).await;
            infer(&server, "fake", &impatient).await
        },
        async {
            server.wait_for_held(1).await;
            while server.sample("lantern_requests_in_flight").await != Some(2.0) {
                tokio::task::yield_now().await;
            }
            server.gate().open();
        },
    );
    assert_eq!(first.status, 200);
    let text = failure(&second, 504);
    assert!(text.contains("deadline passed"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reserved_parameters_are_checked() {
    let server = TestServer::builder().model(Model::fake()).start().await;
    for (parameters, status) in [
        (json!({"priority": 0}), 200),
        (json!({"priority": 1, "timeout": 60_000_000}), 200),
        (json!({"priority": 3}), 200),
        (json!({"my_own": "x", "another": 0.5}), 200),
        (json!({"sequence_id": 0, "sequence_start": false}), 200),
        (json!({"priority": 4}), 400),
        (json!({"priority": -1}), 400),
        (json!({"priority": "1"}), 400),
        (json!({"timeout": -5}), 400),
        (json!({"sequence_id": 42}), 400),
        (json!({"triton_final_response": true}), 400),
        (json!({"headers": "x"}), 400),
        (json!({"binary_data_output": 1}), 400),
    ] {
        let answer = infer(&server, "fake", &row(&parameters)).await;
        assert_eq!(answer.status, status, "{parameters}: {}", answer.text());
    }
}
