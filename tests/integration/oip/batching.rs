//! Requests that arrive together are stacked where that changes no answer, and run by themselves where it would.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{floats, infer};
use crate::support::{Model, TestServer};

/// Models whose requests must not be stacked.
const MIXING: [&str; 4] = [
    "mixing/transpose.onnx",
    "mixing/detections.onnx",
    "mixing/softmax_over_rows.onnx",
    "mixing/running_sum.onnx",
];

/// Sends two requests so that they share a run if the server stacks them at all.
fn eager(artifact: &'static str) -> Model {
    Model::new("passthrough")
        .named("m")
        .artifact(artifact)
        .with("batchSize: 2")
        .with("maxBatchDelay: 50")
        .lantern("waitForFullBatches: true")
}

fn hosted(model: &Model) -> [Model; 2] {
    [model.clone(), model.clone().in_process()]
}

fn row(values: &[f32]) -> Value {
    json!({"inputs": [floats("x", &json!([1, values.len()]), &json!(values))]})
}

async fn outputs(server: &TestServer, request: &Value) -> Value {
    let answer = infer(server, "m", request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["outputs"].clone()
}

async fn batching(server: &TestServer) -> String {
    let described = server.management("GET", "/models/m").await.json();
    described[0]["lantern"]["batching"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_rows_of_somebody_else() {
    let requests = [row(&[1.0, 2.0]), row(&[10.0, 20.0]), row(&[0.1, 0.9])];
    for artifact in MIXING {
        for model in hosted(&eager(artifact)) {
            let server = TestServer::with(model).await;
            let mut own = Vec::new();
            for request in &requests {
                own.push(outputs(&server, request).await);
            }
            for _ in 0..4 {
                let together = requests.iter().map(|request| outputs(&server, request));
                assert_eq!(join_all(together).await, own, "{artifact}");
            }
            let batching = batching(&server).await;
            assert!(batching.starts_with("off ("), "{artifact}: {batching}");
            let gauge = server.sample("lantern_batching{model_name=\"m\"").await;
            assert_eq!(gauge, Some(0.0));
        }
    }
}

/// Batches are waited for, and these are full with fewer rows than `batchSize`: else nobody would be answered before the test is ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_full_with_as_many_elements_as_it_may_have() {
    let model = Model::new("passthrough")
        .named("m")
        .artifact("linear.onnx")
        .with("batchSize: 8")
        .with("maxBatchDelay: 600000")
        .with("responseTimeout: 600")
        .lantern("waitForFullBatches: true")
        .lantern("batching: on")
        .lantern("maxBatchElements: 47");
    for model in hosted(&model) {
        let server = TestServer::with(model).await;
        let requests = [1.0, 2.0].map(|value| row(&[value; 16]));
        let answers = join_all(requests.iter().map(|request| outputs(&server, request))).await;
        assert_ne!(answers[0], answers[1]);
        assert_eq!(answers[0][0]["shape"][0], 1, "{answers:?}");
        let wide = json!({"inputs": [floats("x", &json!([3, 16]), &json!(vec![1.0; 48]))]});
        let answer = outputs(&server, &wide).await;
        assert_eq!(answer[0]["shape"][0], 3, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cases_that_were_found_have_their_own_answers() {
    let data = |outputs: &Value| outputs[0]["data"].clone();
    let server = TestServer::with(eager("mixing/transpose.onnx").in_process()).await;
    let requests = [row(&[1.0, 2.0]), row(&[10.0, 20.0])];
    let answers = join_all(requests.iter().map(|request| outputs(&server, request))).await;
    assert_eq!(answers[0][0]["shape"], json!([2, 1]));
    assert_eq!(
        [data(&answers[0]), data(&answers[1])],
        [json!([1.0, 2.0]), json!([10.0, 20.0])]
    );
    let server = TestServer::with(eager("mixing/detections.onnx")).await;
    let requests = [row(&[0.1, 0.1, 0.8]), row(&[0.9, 0.1, 0.1])];
    let answers = join_all(requests.iter().map(|request| outputs(&server, request))).await;
    assert_eq!(
        [data(&answers[0]), data(&answers[1])],
        [json!([0, 2]), json!([0, 0])]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_a_model_that_keeps_rows_apart_share_runs() {
    let linear = |value: f32| {
        let values = vec![value; 16];
        json!({"inputs": [floats("x", &json!([1, 16]), &json!(values))]})
    };
    for model in hosted(&eager("linear.onnx")) {
        let server = TestServer::with(model).await;
        assert_eq!(
            batching(&server).await,
            "on (samples gave the same alone and stacked)"
        );
        let requests = [linear(1.0), linear(2.0)];
        join_all(requests.iter().map(|request| outputs(&server, request))).await;
        let full = "lantern_batch_rows_sum{model_name=\"m\"";
        let rows = server.sample_once_there(full).await;
        assert!(rows > 3.5, "two rows for each of two requests, not {rows}");
        assert_eq!(
            server.sample("lantern_batching{model_name=\"m\"").await,
            Some(1.0)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_may_say_off() {
    let off = eager("linear.onnx").lantern("batching: off");
    let server = TestServer::with(off).await;
    assert_eq!(batching(&server).await, "off (as lantern.batching says)");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_stacked_is_not_refused() {
    let series =
        |values: &[f32]| json!({"inputs": [floats("x", &json!([values.len()]), &json!(values))]});
    for model in hosted(
        &Model::new("passthrough")
            .named("m")
            .artifact("sum_of_series.onnx"),
    ) {
        let server = TestServer::with(model).await;
        let answer = outputs(&server, &series(&[1.0, 2.0])).await;
        assert_eq!(
            (&answer[0]["shape"], &answer[0]["data"]),
            (&json!([]), &json!([3.0]))
        );
        let nothing = outputs(&server, &series(&[])).await;
        assert_eq!(nothing[0]["data"], json!([0.0]));
    }
    for model in hosted(
        &Model::new("passthrough")
            .named("m")
            .artifact("two_axes.onnx"),
    ) {
        let server = TestServer::with(model).await;
        let x = floats("x", &json!([2, 2]), &json!([1, 2, 3, 4]));
        let request = json!({"inputs": [x, floats("s", &json!([3]), &json!([1, 2, 3]))]});
        let answer = infer(&server, "m", &request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}
