//! Registration, scaling, default versions, unregistration, lists.

use std::collections::HashSet;
use std::time::Duration;

use lantern::api::Listener;
use serde_json::json;

use crate::support::{Answer, Model, ROW, TestServer, tensor};

async fn store() -> TestServer {
    let builder = TestServer::builder()
        .in_store(Model::new("echo"))
        .in_store(Model::new("echo").version("2.0"))
        .in_store(Model::new("echo").named("idle").without_workers())
        .in_store(Model::new("linear").named("broken").artifact("broken.onnx"));
    builder.start().await
}

async fn register(server: &TestServer, query: &str) -> Answer {
    server.management("POST", &format!("/models?{query}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_model_predicts() {
    let server = store().await;
    insta::assert_snapshot!(
        "registered",
        register(&server, "url=echo-1.0.mar&initial_workers=1").await
    );
    assert_eq!(server.predict("echo", "hi").await.text(), "hi");
    insta::assert_snapshot!(
        "conflict",
        register(&server, "url=echo-1.0.mar&initial_workers=1").await
    );
    insta::assert_snapshot!(
        "registered_without_workers",
        register(&server, "url=idle-1.0.mar").await
    );
    insta::assert_snapshot!("no_worker", server.predict("idle", "hi").await);
    let ping = server.inference("GET", "/ping").await;
    assert_eq!(
        ping.status, 200,
        "a model without workers by request is no reason to worry"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn registration_may_be_asynchronous_and_in_json() {
    let server = store().await;
    let request = server.request(Listener::Management, "POST", "/models?url=ignored");
    let body = json!({ "url": "echo-1.0.mar", "initial_workers": "1", "synchronous": false });
    let answer = Answer::of(request.json(&body).send().await.unwrap()).await;
    insta::assert_snapshot!("registration_under_way", answer);
    // Requests wait for the workers that were asked for.
    assert_eq!(server.predict("echo", "hi").await.text(), "hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_load_is_taken_back_with_the_reason() {
    let server = store().await;
    let answer = register(&server, "url=broken-1.0.mar&initial_workers=1").await;
    assert_eq!(answer.status, 500);
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("Failed to start workers for model broken version: 1.0: "),
        "{message}"
    );
    let described = server.management("GET", "/models/broken").await.json();
    assert_eq!(described[0]["lantern"]["state"], "failed");
    let listed = server.management("GET", "/models").await;
    assert!(!listed.text().contains("broken"), "{}", listed.text());
    assert_eq!(server.inference("GET", "/ping").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_fails_at_startup_is_one_failed_model() {
    let broken = Model::new("linear").named("broken").artifact("broken.onnx");
    let server = TestServer::builder()
        .model(Model::linear())
        .model(broken)
        .set("lantern_ping=ready")
        .start()
        .await;
    assert_eq!(server.predict("linear", ROW).await.status, 200);
    let described = server.management("GET", "/models/broken").await.json();
    assert_eq!(described[0]["lantern"]["state"], "failed");
    assert!(described[0]["lantern"]["reason"].is_string());
    insta::assert_snapshot!("unhealthy", server.inference("GET", "/ping").await);
    assert_eq!(server.predict("broken", ROW).await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_registrations_say_what_is_wrong() {
    let server = store().await;
    let mut answers = Vec::new();
    for query in [
        "",
        "url=",
        "url=nowhere.mar",
        "url=x&runtime=java",
        "url=x&batch_size=0",
        "url=x&max_batch_delay=-1",
        "url=x&initial_workers=1000000",
    ] {
        let answer = register(&server, query).await;
        answers.push(format!(
            "{query:30} {} {}",
            answer.status,
            answer.json()["message"]
        ));
    }
    for body in ["", "{", "[]", "{\"url\": null}"] {
        let request = server
            .request(Listener::Management, "POST", "/models")
            .body(body);
        let request = request.header("content-type", "application/json; charset=utf-8");
        let answer = Answer::of(request.send().await.unwrap()).await;
        answers.push(format!(
            "{body:30} {} {}",
            answer.status,
            answer.json()["message"]
        ));
    }
    insta::assert_snapshot!(answers.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_model_api_models_neither_come_nor_go() {
    let server = TestServer::builder()
        .api(|api| api.enable_model_api = false)
        .model(Model::new("echo"))
        .start()
        .await;
    insta::assert_snapshot!("model_api_disabled", register(&server, "url=x").await);
    assert_eq!(
        server.management("DELETE", "/models/nomodel").await.status,
        405
    );
    assert_eq!(server.management("GET", "/models/echo").await.status, 200);
    assert_eq!(server.management("PATCH", "/models").await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_live_side_by_side_and_the_default_can_change() {
    let server = store().await;
    for version in ["1.0", "2.0"] {
        assert_eq!(
            register(
                &server,
                &format!("url=echo-{version}.mar&initial_workers=1")
            )
            .await
            .status,
            200
        );
    }
    insta::assert_snapshot!(
        "default_cannot_go",
        server.management("DELETE", "/models/echo").await
    );
    assert_eq!(
        server.management("DELETE", "/models/echo/1.0").await.status,
        403
    );
    insta::assert_snapshot!(
        "set_default",
        server
            .management("PUT", "/models/echo/2.0/set-default")
            .await
    );
    insta::assert_snapshot!(
        "set_default_unknown",
        server
            .management("PUT", "/models/echo/3.0/set-default")
            .await
    );
    assert_eq!(
        server
            .management("PUT", "/models/nomodel/3.0/set-default")
            .await
            .status,
        404
    );
    let described = server.management("GET", "/models/echo").await.json();
    assert_eq!(described[0]["modelVersion"], "2.0");
    let all = server.management("GET", "/models/echo/all").await.json();
    assert_eq!(all.as_array().unwrap().len(), 2);
    insta::assert_snapshot!(
        "unregistered",
        server.management("DELETE", "/models/echo/1.0").await
    );
    assert_eq!(server.predict("echo/1.0", "hi").await.status, 404);
    assert_eq!(server.predict("echo", "hi").await.status, 200);
    assert_eq!(
        server.management("DELETE", "/models/echo").await.status,
        200
    );
    insta::assert_snapshot!(
        "unregister_unknown",
        server.management("DELETE", "/models/echo").await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_scale_up_down_and_to_nothing() {
    for model in [Model::linear(), Model::linear().in_process()] {
        let server = TestServer::with(model).await;
        // Workers that stop finish their batch first, so that the last of them is seen for a moment.
        let workers = async |expected: usize| {
            loop {
                let described = server.management("GET", "/models/linear").await.json();
                let workers = described[0]["workers"].as_array().unwrap().clone();
                let ids: HashSet<_> = workers
                    .iter()
                    .map(|worker| worker["id"].to_string())
                    .collect();
                assert_eq!(ids.len(), workers.len());
                if ids.len() == expected {
                    return;
                }
            }
        };
        workers(1).await;
        let scaled = server
            .management("PUT", "/models/linear?min_worker=3&synchronous=true")
            .await;
        insta::assert_snapshot!("scaled", scaled);
        workers(3).await;
        let scaled = server
            .management(
                "PUT",
                "/models/linear/1.0?min_worker=1&max_worker=2&synchronous=true",
            )
            .await;
        insta::assert_snapshot!("scaled_a_version", scaled);
        workers(2).await;
        assert_eq!(server.predict("linear", ROW).await.status, 200);
        assert_eq!(
            server
                .management("PUT", "/models/linear?min_worker=0&synchronous=TRUE")
                .await
                .status,
            200
        );
        workers(0).await;
        assert_eq!(server.predict("linear", ROW).await.status, 503);
        assert_eq!(
            server
                .management("PUT", "/models/linear?synchronous=true")
                .await
                .status,
            200
        );
        workers(1).await;
        assert_eq!(server.predict("linear", ROW).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_scalings_change_nothing() {
    let server = TestServer::with(Model::new("echo")).await;
    insta::assert_snapshot!(
        "scaling_under_way",
        server.management("PUT", "/models/echo?min_worker=1").await
    );
    let mut answers = Vec::new();
    for query in [
        "min_worker=2&max_worker=1",
        "max_worker=-1",
        "min_worker=-1&max_worker=1",
        "min_worker=100000",
    ] {
        let answer = server
            .management("PUT", &format!("/models/echo?{query}"))
            .await;
        answers.push(format!(
            "{query:30} {} {} {}",
            answer.status,
            answer.json()["type"],
            answer.json()["message"]
        ));
    }
    insta::assert_snapshot!("bad_scalings", answers.join("\n"));
    assert_eq!(
        server
            .management("PUT", "/models/nomodel?min_worker=1")
            .await
            .status,
        404
    );
    assert_eq!(
        server
            .management("PUT", "/models/echo?model_version=7")
            .await
            .status,
        404
    );
    let described = server.management("GET", "/models/echo").await.json();
    assert_eq!(described[0]["minWorkers"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages() {
    let empty = TestServer::builder().start().await;
    insta::assert_snapshot!("empty_list", empty.management("GET", "/models").await);
    let server = TestServer::builder()
        .model(Model::new("echo").named("b"))
        .model(Model::new("echo").named("a"))
        .start()
        .await;
    let page = async |query: &str| server.management("GET", &format!("/models{query}")).await;
    insta::assert_snapshot!("page", page("?limit=1").await.text());
    assert_eq!(
        page("?limit=1&next_page_token=1").await.json()["nextPageToken"],
        "2"
    );
    assert_eq!(
        page("?limit=0").await.json(),
        json!({ "nextPageToken": "0", "models": [] })
    );
    for all in [
        "",
        "?limit=101",
        "?limit=-1",
        "?limit=x",
        "?limit=",
        "?next_page_token=-3",
    ] {
        assert_eq!(
            page(all).await.json()["models"].as_array().unwrap().len(),
            2,
            "{all}"
        );
    }
    assert_eq!(
        page("?next_page_token=9223372036854775807").await.json(),
        json!({ "models": [] })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unregistering_waits_for_requests_in_flight() {
    let server = std::sync::Arc::new(TestServer::with(Model::fake()).await);
    server.gate().shut();
    let asked = std::sync::Arc::clone(&server);
    let request = tokio::spawn(async move { asked.predict("fake", tensor(1.0)).await.status });
    server.wait_for_held(1).await;
    let asked = std::sync::Arc::clone(&server);
    let unregistered =
        tokio::spawn(async move { asked.management("DELETE", "/models/fake").await.status });
    while server.management("GET", "/models/fake").await.json()[0]["lantern"]["state"] != "draining"
    {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.predict("fake", tensor(2.0)).await.status, 503);
    server.gate().open();
    assert_eq!(
        (request.await.unwrap(), unregistered.await.unwrap()),
        (200, 200)
    );
    assert_eq!(server.predict("fake", tensor(2.0)).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn unregistering_that_takes_too_long_leaves_the_model() {
    let builder = TestServer::builder()
        .model(Model::fake())
        .unregister_timeout(Duration::from_millis(20));
    let server = std::sync::Arc::new(builder.start().await);
    server.gate().shut();
    let asked = std::sync::Arc::clone(&server);
    let request = tokio::spawn(async move { asked.predict("fake", tensor(1.0)).await.status });
    server.wait_for_held(1).await;
    insta::assert_snapshot!(
        "unregister_timeout",
        server.management("DELETE", "/models/fake").await
    );
    server.gate().open();
    assert_eq!(request.await.unwrap(), 200);
    assert_eq!(server.predict("fake", tensor(1.0)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_body_that_is_said_to_be_json_is_no_body() {
    let server = TestServer::builder()
        .in_store(Model::new("echo"))
        .start()
        .await;
    let ask = async |method: &str, path: &str| {
        let request = server.request(Listener::Management, method, path);
        let request = request.header("content-type", "application/json");
        Answer::of(request.send().await.unwrap()).await
    };
    let registered = ask("POST", "/models?url=echo-1.0.mar&initial_workers=1").await;
    assert_eq!(registered.status, 200, "{}", registered.text());
    let scaled = ask("PUT", "/models/echo?min_worker=1&synchronous=true").await;
    assert_eq!(scaled.status, 200, "{}", scaled.text());
    let nothing = ask("POST", "/models").await;
    assert_eq!(nothing.json()["message"], "Parameter url is required.");
    // As `curl -d` sends it.
    let unlabelled = server.request(Listener::Management, "POST", "/models");
    let unlabelled = unlabelled.header("content-type", "application/x-www-form-urlencoded");
    let unlabelled = unlabelled.body("{\"url\": \"linear.mar\"}");
    let unlabelled = Answer::of(unlabelled.send().await.unwrap()).await;
    assert_eq!(
        unlabelled.json()["message"],
        "Parameter url is required. The body looks like JSON: send it with the header Content-Type: application/json"
    );
    let predicted = server.request(Listener::Inference, "POST", "/predictions/echo");
    let predicted = predicted.header("content-type", "application/json");
    let predicted = Answer::of(predicted.send().await.unwrap()).await;
    assert_eq!((predicted.status, predicted.body.len()), (200, 0));
    assert_eq!(ask("DELETE", "/models/echo").await.status, 200);
}
