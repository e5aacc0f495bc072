//! Inference with JSON.

use serde_json::json;

use super::{failure, floats, get, infer, multi, one_row, post};
use crate::support::{Model, TestServer};

#[tokio::test(flavor = "multi_thread")]
async fn tensors_go_straight_to_the_model_in_both_hosts() {
    for model in [multi(), multi().in_process()] {
        let server = TestServer::with(model).await;
        let mut request = one_row();
        request["id"] = json!("r-7");
        let answer = infer(&server, "multi", &request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(
            answer.json(),
            json!({"model_name": "multi", "model_version": "1.0", "id": "r-7", "outputs": [
                {"name": "sum", "datatype": "FP32", "shape": [1, 3], "data": [1.5, 2.25, 7.0]},
                {"name": "diff", "datatype": "FP32", "shape": [1, 3], "data": [0.5, 1.75, -1.0]},
            ]})
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_addressed_and_ids_come_back_as_they_were() {
    let server = TestServer::with(multi()).await;
    let path = "/v2/models/multi/versions/1.0/infer";
    let answer = post(&server, path, one_row().to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.json().get("id").is_none());
    let mut request = one_row();
    request["id"] = json!("");
    assert_eq!(infer(&server, "multi", &request).await.json()["id"], "");
    let unknown = post(
        &server,
        "/v2/models/multi/versions/2/infer",
        one_row().to_string(),
    )
    .await;
    failure(&unknown, 404);
    let unknown = infer(&server, "nomodel", &one_row()).await;
    assert_eq!(failure(&unknown, 404), "Model not found: nomodel");
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_come_as_they_were_asked_for() {
    let server = TestServer::with(multi()).await;
    let mut request = one_row();
    request["outputs"] =
        json!([{"name": "diff"}, {"name": "sum", "parameters": {"classification": 2}}]);
    let answer = infer(&server, "multi", &request).await.json();
    assert_eq!(answer["outputs"][0]["name"], "diff");
    assert_eq!(
        answer["outputs"][1],
        json!({"name": "sum", "datatype": "BYTES", "shape": [1, 2], "data": ["7.000000:2", "2.250000:1"]})
    );
    for (outputs, says) in [
        (
            json!([{"name": "diff"}, {"name": "diff"}]),
            "asked for twice",
        ),
        (json!([{"name": "product"}]), "no output \"product\""),
        (
            json!([{"name": "sum", "parameters": {"classification": -1}}]),
            "classification",
        ),
        (
            json!([{"name": "sum", "parameters": {"shared_memory_region": "r"}}]),
            "not supported",
        ),
    ] {
        request["outputs"] = outputs;
        let text = failure(&infer(&server, "multi", &request).await, 400);
        assert!(text.contains(says), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_any_kind_are_batched_together() {
    let model = Model::fake().with("batchSize: 4").lantern("batching: on");
    let server = TestServer::builder().model(model).start().await;
    server.gate().shut();
    let row = |value: f32| json!({"inputs": [floats("x", &json!([1, 1]), &json!([value]))]});
    let rows = [1.0, 2.0, 3.0].map(row);
    let behind_the_first = async |row| {
        server.wait_for_held(1).await;
        infer(&server, "fake", row).await
    };
    let (first, second, third, ()) = tokio::join!(
        infer(&server, "fake", &rows[0]),
        behind_the_first(&rows[1]),
        behind_the_first(&rows[2]),
        async {
            server.wait_for_held(1).await;
            while server.sample("lantern_requests_in_flight").await != Some(3.0) {
                tokio::task::yield_now().await;
            }
            server.gate().open();
        },
    );
    for (answer, value) in [(first, 1.0), (second, 2.0), (third, 3.0)] {
        assert_eq!(answer.json()["outputs"][0]["data"], json!([value]));
    }
    let stats = get(&server, "/v2/models/fake/stats").await.json();
    let stats = &stats["model_stats"][0];
    assert_eq!(stats["inference_count"], 3);
    assert_eq!(stats["execution_count"], 2);
    let sizes = stats["batch_stats"].as_array().unwrap().iter();
    let sizes: Vec<_> = sizes
        .map(|batch| batch["batch_size"].as_u64().unwrap())
        .collect();
    assert_eq!(sizes, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_may_have_its_handler_take_tensors() {
    let server = TestServer::with(Model::fake().lantern("oip: handler")).await;
    let request = json!({"inputs": [floats("x", &json!([1, 2]), &json!([1.5, 2]))]});
    let answer = infer(&server, "fake", &request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    // The handler's JSON has its own names of dtypes, so it becomes one output as a whole.
    let outputs = answer.json()["outputs"].clone();
    assert_eq!(
        (&outputs[0]["name"], &outputs[0]["datatype"]),
        (&json!("response"), &json!("BYTES"))
    );
    let text = outputs[0]["data"][0].as_str().unwrap();
    assert!(text.contains(r#""data":[1.5,2.0]"#), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_without_a_model_takes_tensors() {
    let server = TestServer::with(Model::new("echo")).await;
    let request = json!({"inputs": [floats("x", &json!([1]), &json!([1]))]});
    let answer = infer(&server, "echo", &request).await;
    // The echo handler answers with bytes, and the content type says so.
    let text = failure(&answer, 400);
    assert!(!text.is_empty());
}
