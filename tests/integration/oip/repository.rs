//! Loading and unloading models through the protocol.

use serde_json::{Value, json};

use super::{failure, get, infer, multi, one_row, post};
use crate::support::TestServer;

async fn index(server: &TestServer, request: &str) -> Value {
    let answer = post(server, "/v2/repository/index", request.to_owned()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_loaded_from_the_store_and_unloaded() {
    // The archive of a model "shelf" is called shelf-1.0.mar: that is the name it has here.
    let server = TestServer::builder()
        .model(multi())
        .in_store(multi().named("shelf"));
    let server = server.start().await;
    let ready = json!({"name": "multi", "version": "1.0", "state": "READY", "reason": ""});
    let stored = json!({"name": "shelf-1.0", "state": "UNAVAILABLE", "reason": "unloaded"});
    assert_eq!(index(&server, "").await, json!([ready, stored]));
    assert_eq!(index(&server, r#"{"ready": true}"#).await, json!([ready]));
    let loaded = post(&server, "/v2/repository/models/shelf-1.0/load", "").await;
    assert_eq!((loaded.status, loaded.text()), (200, ""));
    assert_eq!(infer(&server, "shelf-1.0", &one_row()).await.status, 200);
    // Loading a model that is loaded already changes nothing.
    let again = post(&server, "/v2/repository/models/shelf-1.0/load", "{}").await;
    assert_eq!(again.status, 200);
    let request = r#"{"parameters": {"unload_dependents": false}}"#;
    let unloaded = post(&server, "/v2/repository/models/shelf-1.0/unload", request).await;
    assert_eq!((unloaded.status, unloaded.text()), (200, ""));
    assert_eq!(index(&server, "").await, json!([ready, stored]));
    failure(&get(&server, "/v2/models/shelf-1.0").await, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_workers_is_loaded_by_giving_it_some() {
    let server = TestServer::with(multi()).await;
    server
        .management("PUT", "/models/multi?min_worker=0&synchronous=true")
        .await;
    assert_eq!(index(&server, "").await[0]["state"], "UNAVAILABLE");
    let loaded = post(&server, "/v2/repository/models/multi/load", "").await;
    assert_eq!(loaded.status, 200, "{}", loaded.text());
    assert_eq!(infer(&server, "multi", &one_row()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_an_archive_of_the_store_is_loaded() {
    let server = TestServer::builder().in_store(multi()).start().await;
    for model in [
        "nomodel",
        "..",
        "%2e%2e%2fetc",
        "multi-1.0.mar",
        "%20",
        "a%00b",
    ] {
        let path = format!("/v2/repository/models/{model}/load");
        let answer = post(&server, &path, "").await;
        failure(&answer, 404);
    }
    for parameters in [
        json!({"config": "{}"}),
        json!({"file:1/model.onnx": "AAAA"}),
        json!({"file:../../x": "AAAA", "config": "{}"}),
    ] {
        let request = json!({"parameters": parameters}).to_string();
        let answer = post(&server, "/v2/repository/models/multi-1.0/load", request).await;
        let text = failure(&answer, 400);
        assert!(text.contains("not supported"), "{text}");
    }
    failure(
        &post(&server, "/v2/repository/models/nomodel/unload", "").await,
        404,
    );
    let deep = "[".repeat(1_000_000);
    for path in ["index", "models/x/load", "models/x/unload"] {
        let path = format!("/v2/repository/{path}");
        for body in [
            "{",
            "[]",
            "7",
            deep.as_str(),
            r#"{"ready": 1, "parameters": 2}"#,
        ] {
            failure(&post(&server, &path, body.to_owned()).await, 400);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn models_come_and_go_only_where_that_is_enabled() {
    let server = TestServer::builder().model(multi());
    let server = server.api(|api| api.enable_model_api = false).start().await;
    failure(
        &post(&server, "/v2/repository/models/multi/load", "").await,
        405,
    );
    failure(
        &post(&server, "/v2/repository/models/multi/unload", "").await,
        405,
    );
    assert_eq!(index(&server, "").await[0]["state"], "READY");
}
