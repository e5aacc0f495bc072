//! Descriptions of versions.

use serde_json::Value;

use crate::support::{Answer, Model, TestServer};

/// Values that differ from run to run.
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
    let digest = &mut described[0]["lantern"]["archiveDigest"];
    assert_eq!(digest.as_str().unwrap().len(), 64);
    *digest = "[digest]".into();
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
    let document = server.management("OPTIONS", "/models/echo").await;
    assert_eq!(document.status, 200);
    assert_eq!(document.json()["openapi"], "3.0.1");
    assert!(document.json()["paths"]["/models/echo"]["get"].is_object());
}

/// A model in either hosting whose handler obeys `order` in `describe`.
async fn describing(order: &str, in_process: bool) -> Answer {
    let model = Model::new("hostile")
        .with(&format!("handler: {{describe: '{order}'}}"))
        .lantern("limits: {cpu: 100ms, memory: 16MiB}");
    let model = if in_process {
        model.in_process()
    } else {
        model
    };
    let server = TestServer::with(model).await;
    let answer = server
        .management("GET", "/models/hostile?customized=true")
        .await;
    assert_eq!(server.predict("hostile", "done").await.text(), "hostile");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handlers_own_description_is_the_customized_metadata() {
    for in_process in [false, true] {
        let order = r#"text {"z": 1, "a": {"deep": [null, "ä"]}}"#;
        let answer = describing(order, in_process).await;
        assert_eq!(answer.status, 200);
        let described = &answer.json()[0];
        assert_eq!(
            described["customizedMetadata"].to_string(),
            r#"{"z":1,"a":{"deep":[null,"ä"]}}"#,
            "in the handler's order"
        );
        assert!(described["modelName"] == "hostile" && described["workers"].is_array());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_description_that_is_no_object_is_an_empty_one() {
    for order in [
        "text not JSON",
        "text [1]",
        "text {\"x\": 1e999}",
        "deep 200",
        "deep 100000",
    ] {
        let answer = describing(order, false).await;
        assert_eq!(answer.status, 200, "{order}");
        assert_eq!(
            answer.json()[0]["customizedMetadata"],
            serde_json::json!({})
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_fails_to_describe_itself_says_so_and_serves_on() {
    for (order, in_process, status, says) in [
        (
            "trap",
            true,
            503,
            "The handler trapped (unreachable code) in describe; see the model\'s log",
        ),
        (
            "panic secret",
            false,
            503,
            "The handler panicked in describe; see the model\'s log",
        ),
        (
            "loop",
            true,
            500,
            "The handler used more than 100 ms of CPU time in describe",
        ),
        (
            "loop",
            false,
            500,
            "The handler used more than 100 ms of CPU time in describe",
        ),
        (
            "allocate",
            false,
            507,
            "The handler needed more than its 16777216 bytes of memory in describe",
        ),
        (
            "long 300000",
            true,
            503,
            "The handler\'s describe returned a text of 300008 bytes, the limit is 262144",
        ),
        ("internal why", false, 500, "why"),
    ] {
        let answer = describing(order, in_process).await;
        assert_eq!(
            (answer.status, answer.json()["message"].as_str()),
            (status, Some(says)),
            "{order}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handler_is_asked_of_one_version_alone() {
    let server = TestServer::with(Model::new("hostile").with("handler: {describe: trap}")).await;
    let all = server
        .management("GET", "/models/hostile/all?customized=true")
        .await;
    assert_eq!(all.status, 200);
    assert!(all.json()[0].get("customizedMetadata").is_none());
    let not = server
        .management("GET", "/models/hostile?customized=no")
        .await;
    assert!(not.json()[0].get("customizedMetadata").is_none());
    let one = server
        .management("GET", "/models/hostile/1.0?customized=TRUE")
        .await;
    assert_eq!(one.status, 503);
}
