//! Metadata of the server and of models.

use serde_json::json;

use super::{failure, get, infer, multi, one_row, post};
use crate::support::{Model, TestServer};

#[tokio::test(flavor = "multi_thread")]
async fn the_server_says_what_it_is_and_whether_it_serves() {
    let server = TestServer::with(multi()).await;
    for path in ["/v2", "/v2/"] {
        let metadata = get(&server, path).await.json();
        assert_eq!(metadata["name"], "lantern");
        assert_eq!(metadata["extensions"], metadata["extenstion"]);
        let extensions = metadata["extensions"].as_array().unwrap();
        assert!(extensions.contains(&json!("binary_tensor_data")));
    }
    assert_eq!(
        get(&server, "/v2/health/live").await.json(),
        json!({"live": true})
    );
    let ready = get(&server, "/v2/health/ready").await;
    assert_eq!((ready.status, ready.json()), (200, json!({"ready": true})));
}

#[tokio::test(flavor = "multi_thread")]
async fn models_say_what_they_take_and_give() {
    let server = TestServer::with(multi()).await;
    let float = |name| json!({"name": name, "datatype": "FP32", "shape": [-1, 3]});
    for path in ["/v2/models/multi", "/v2/models/multi/versions/1.0"] {
        assert_eq!(
            get(&server, path).await.json(),
            json!({"name": "multi", "versions": ["1.0"], "platform": "onnx_onnxv1",
                "inputs": [float("a"), float("b")], "outputs": [float("sum"), float("diff")]})
        );
    }
    failure(&get(&server, "/v2/models/nomodel").await, 404);
    failure(&get(&server, "/v2/models/multi/versions/7").await, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_is_true_of_each_version() {
    let broken = multi().named("broken").artifact("broken.onnx");
    let empty = multi()
        .named("empty")
        .without_workers()
        .with("minWorkers: 1");
    let server = TestServer::builder()
        .model(multi())
        .model(empty)
        .start()
        .await;
    let ready = get(&server, "/v2/models/multi/ready").await;
    assert_eq!(
        (ready.status, ready.json()),
        (200, json!({"name": "multi", "ready": true}))
    );
    assert_eq!(
        get(&server, "/v2/models/multi/versions/1.0/ready")
            .await
            .status,
        200
    );
    let scaled = server
        .management("PUT", "/models/empty?min_worker=0&synchronous=true")
        .await;
    assert_eq!(scaled.status, 200);
    let ready = get(&server, "/v2/models/empty/ready").await;
    assert_eq!(
        (ready.status, ready.json()["ready"].as_bool()),
        (503, Some(false))
    );
    // It is registered with no workers, so readiness does not depend on it.
    assert_eq!(get(&server, "/v2/health/ready").await.status, 200);
    failure(&get(&server, "/v2/models/nomodel/ready").await, 404);
    let server = TestServer::builder()
        .model(multi())
        .model(broken)
        .start()
        .await;
    assert_eq!(get(&server, "/v2/health/live").await.status, 200);
    assert_eq!(get(&server, "/v2/health/ready").await.status, 503);
    assert_eq!(get(&server, "/v2/models/broken/ready").await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_sizes_requests() {
    let server = TestServer::with(multi().with("batchSize: 8")).await;
    let config = get(&server, "/v2/models/multi/config").await.json();
    assert_eq!(config["max_batch_size"], 8);
    assert_eq!(config["backend"], "onnxruntime");
    assert_eq!(
        config["input"][0],
        json!({"name": "a", "data_type": "TYPE_FP32", "dims": [3]})
    );
    assert_eq!(config["dynamic_batching"]["priority_levels"], 3);
    assert_eq!(config["dynamic_batching"]["default_priority_level"], 2);
    failure(
        &get(&server, "/v2/models/multi/versions/7/config").await,
        404,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_count_exactly() {
    let server = TestServer::builder()
        .model(multi())
        .model(multi().named("other"))
        .start()
        .await;
    for _ in 0..3 {
        assert_eq!(infer(&server, "multi", &one_row()).await.status, 200);
    }
    infer(&server, "multi", &json!({"inputs": []})).await;
    for path in [
        "/v2/models/multi/stats",
        "/v2/models/multi/versions/1.0/stats",
    ] {
        let stats = get(&server, path).await.json();
        let stats = &stats["model_stats"][0];
        assert_eq!(
            (&stats["inference_count"], &stats["execution_count"]),
            (&json!(3), &json!(3))
        );
        let of_requests = &stats["inference_stats"];
        assert_eq!(of_requests["success"]["count"], 3);
        assert_eq!(of_requests["fail"]["count"], 1);
        assert_eq!(of_requests["cache_hit"], json!({"count": 0, "ns": 0}));
        let infer = of_requests["compute_infer"]["ns"].as_u64().unwrap();
        assert_eq!(
            stats["batch_stats"][0]["compute_infer"],
            json!({"count": 3, "ns": infer})
        );
        assert!(of_requests["success"]["ns"].as_u64().unwrap() > infer);
        assert!(stats["last_inference"].as_u64().unwrap() > 1_700_000_000_000);
    }
    let all = get(&server, "/v2/models/stats").await.json();
    assert_eq!(all["model_stats"].as_array().unwrap().len(), 2);
    failure(&get(&server, "/v2/models/nomodel/stats").await, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_the_protocols_form_on_all_its_paths() {
    let server = TestServer::with(multi()).await;
    failure(&get(&server, "/v2/nowhere").await, 404);
    failure(&get(&server, "/v2/models").await, 404);
    failure(&get(&server, "/v2/models/multi/infer").await, 405);
    failure(&post(&server, "/v2/health/live", "").await, 405);
    failure(&get(&server, "/v2/models/%zz").await, 400);
    assert!(get(&server, "/v2x").await.json().get("code").is_some());
    let server = TestServer::builder().model(Model::linear());
    let server = server.api(|api| api.oip = false).start().await;
    assert!(get(&server, "/v2").await.json().get("code").is_some());
    assert_eq!(get(&server, "/v2/health/ready").await.status, 404);
}
