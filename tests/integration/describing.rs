//! Descriptions of versions.

use serde_json::Value;

use crate::support::{Model, TestServer};

/// What differs from run to run.
fn settle(described: &mut Value) {
    for worker in described[0]["workers"].as_array_mut().unwrap() {
        assert!(worker["memoryUsage"].as_u64().is_some() && worker["pid"].as_u64().unwrap() > 0);
        let started = worker["startTime"].as_str().unwrap();
        assert_eq!(
            (started.len(), &started[23..]),
            ("2026-11-20T15:21:30.949Z".len(), "Z")
        );
        worker["startTime"] = "[time]".into();
        worker["memoryUsage"] = "[bytes]".into();
        worker["pid"] = "[pid]".into();
        worker["id"] = "[id]".into();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_of_torchserve_is_there_in_its_order() {
    let server = TestServer::with(Model::linear()).await;
    let answer = server.management("GET", "/models/linear").await;
    assert_eq!(answer.status, 200);
    let mut described = answer.json();
    assert_eq!(described[0]["workers"][0]["id"], "9000");
    settle(&mut described);
    insta::assert_snapshot!(serde_json::to_string_pretty(&described).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn customized_metadata_is_there_if_asked_for() {
    let server = TestServer::with(Model::new("echo")).await;
    let described = server
        .management("GET", "/models/echo?customized=true")
        .await
        .json();
    assert_eq!(described[0]["customizedMetadata"], serde_json::json!({}));
    server
        .management("PUT", "/models/echo?min_worker=0&synchronous=true")
        .await;
    insta::assert_snapshot!(
        "no_worker_to_describe",
        server
            .management("GET", "/models/echo?customized=True")
            .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_models_and_versions_are_told_apart() {
    let server = TestServer::with(Model::new("echo")).await;
    assert_eq!(
        server.management("GET", "/models/x").await.json()["message"],
        "Model not found: x"
    );
    assert_eq!(
        server.management("GET", "/models/x/all").await.json()["message"],
        "Model not found: x"
    );
    let answer = server.management("GET", "/models/echo/7").await.json();
    assert_eq!(
        answer["message"],
        "Model version: 7 does not exist for model: echo"
    );
    insta::assert_snapshot!(
        "model_description",
        server.management("OPTIONS", "/models/echo").await.text()
    );
}
