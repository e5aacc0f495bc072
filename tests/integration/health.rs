//! Health and readiness: a model that is loading is healthy, one that has had no worker for too long is not, and a model
//! that does not load does not affect others.

use std::time::{Duration, Instant};

use lantern::api::Listener;
use lantern::backend::fake::{FakeBackend, Outcome};
use serde_json::json;

use crate::support::{Model, TestServer, tensor};

/// The default of `maxRetryTimeoutInSec`.
const WINDOW: Duration = Duration::from_mins(5);

async fn health(server: &TestServer) -> (u16, String) {
    asked(server, "/ping").await
}

async fn asked(server: &TestServer, path: &str) -> (u16, String) {
    let answer = server.inference("GET", path).await;
    let status = answer.json()["status"].as_str().unwrap().to_owned();
    (answer.status, status)
}

fn healthy() -> (u16, String) {
    (200, "Healthy".to_owned())
}

fn unhealthy() -> (u16, String) {
    (500, "Unhealthy".to_owned())
}

/// Whether `/ping` is healthy after a time in which nothing happens.
fn is_healthy_in(server: &TestServer, while_: Duration) -> bool {
    server.catalog().is_healthy_at(Instant::now() + while_)
}

/// Asserts that `/ping` is healthy while a version is being restarted, and unhealthy once the retry window is over.
async fn assert_patience(server: &TestServer, window: Duration) {
    assert_eq!(health(server).await, healthy());
    // The window began before now, and not long ago.
    assert!(is_healthy_in(
        server,
        window.saturating_sub(Duration::from_mins(1))
    ));
    assert!(!is_healthy_in(server, window));
}

fn broken() -> Model {
    Model::new("linear").named("broken").artifact("broken.onnx")
}

async fn state(server: &TestServer, model: &str) -> serde_json::Value {
    let path = format!("/models/{model}");
    let request = server.request(Listener::Management, "GET", &path);
    let described: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
    described[0]["lantern"]["state"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_models_is_healthy() {
    for requires in ["all", "any", "none"] {
        let setting = format!("lantern_ready_requires={requires}");
        let server = TestServer::builder().set(&setting).start().await;
        assert_eq!(health(&server).await, healthy());
        assert_eq!(
            asked(&server, "/health/live").await,
            (200, "Live".to_owned())
        );
        assert_eq!(
            asked(&server, "/health/ready").await,
            (200, "Ready".to_owned())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_loads_or_has_no_workers_is_healthy() {
    let builder = TestServer::builder().in_store(Model::new("echo").in_process());
    let server = builder.start().await;
    let register = "/models?url=echo-1.0.mar&initial_workers=1&synchronous=false";
    assert_eq!(server.management("POST", register).await.status, 202);
    assert_eq!(health(&server).await, healthy());
    let scale = "/models/echo?min_worker=0&synchronous=true";
    assert_eq!(server.management("PUT", scale).await.status, 200);
    assert_eq!(health(&server).await, healthy());
    assert!(is_healthy_in(&server, 2 * WINDOW));
    assert_eq!(asked(&server, "/health/ready").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_load_is_one_failed_model_in_both_hosts() {
    for model in [broken(), broken().in_process()] {
        for (requires, ready) in [("all", 503), ("any", 200), ("none", 200)] {
            let setting = format!("lantern_ready_requires={requires}");
            let builder = TestServer::builder()
                .model(Model::new("mirror"))
                .set(&setting);
            let server = builder.model(model.clone()).start().await;
            assert_patience(&server, WINDOW).await;
            assert_eq!(asked(&server, "/health/ready").await.0, ready, "{requires}");
            assert_eq!(state(&server, "broken").await, "failed");
            let sample = |model| format!("lantern_load_failed{{model_name=\"{model}\"");
            assert_eq!(server.sample(&sample("broken")).await, Some(1.0));
            assert_eq!(server.sample(&sample("mirror")).await, Some(0.0));
            assert_eq!(server.predict("mirror", "hi").await.status, 200);
            let gone = server.management("DELETE", "/models/broken").await;
            assert_eq!(gone.status, 200, "{}", gone.text());
            assert!(is_healthy_in(&server, 2 * WINDOW));
            assert_eq!(asked(&server, "/health/ready").await.0, 200);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_serves_is_not_ready_where_one_is_required() {
    let builder = TestServer::builder().model(broken());
    let server = builder.set("lantern_ready_requires=any").start().await;
    assert_eq!(
        asked(&server, "/health/ready").await,
        (503, "Not ready".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_patience_with_a_model_is_its_own_and_begins_with_the_first_failure() {
    let server = TestServer::with(broken().with("maxRetryTimeoutInSec: 1000")).await;
    assert_patience(&server, Duration::from_secs(1000)).await;
    let before = Instant::now() + Duration::from_secs(1000);
    // A second attempt that fails does not start the window again.
    let scaled = "/models/broken?min_worker=1&synchronous=true";
    assert_eq!(server.management("PUT", scaled).await.status, 500);
    assert!(!server.catalog().is_healthy_at(before));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_may_follow_readiness() {
    let builder = TestServer::builder()
        .model(Model::new("mirror"))
        .model(broken());
    let server = builder.set("lantern_ping=ready").start().await;
    assert_eq!(health(&server).await, unhealthy());
    assert_eq!(asked(&server, "/health/live").await.0, 200);
    assert_eq!(
        server.management("DELETE", "/models/broken").await.status,
        200
    );
    assert_eq!(health(&server).await, healthy());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_process_that_dies_is_no_reason_to_worry_yet() {
    let server = TestServer::with(Model::new("echo").in_process()).await;
    assert!(is_healthy_in(&server, 2 * WINDOW), "it has a worker");
    lose_process(&server).await;
    while state(&server, "echo").await != "unhealthy" {
        assert_eq!(health(&server).await, healthy());
        tokio::task::yield_now().await;
    }
    assert_patience(&server, WINDOW).await;
    assert_eq!(asked(&server, "/health/ready").await.0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_lost_is_no_reason_to_worry_yet() {
    let bad: f32 = 666.0;
    let fake = FakeBackend::new().with_mark(bad.to_le_bytes(), Outcome::Fatal);
    let builder = TestServer::builder().fake(fake).model(Model::fake());
    let server = builder.start().await;
    assert_ne!(server.predict("fake", tensor(bad)).await.status, 200);
    while asked(&server, "/health/ready").await.0 == 200 {
        tokio::task::yield_now().await;
    }
    assert_patience(&server, WINDOW).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_whose_workers_are_dead_is_not_healthy() {
    let model = Model::new("echo").in_process();
    let builder = TestServer::builder().model(Model::new("mirror"));
    let server = builder
        .model(model.with("maxRetryTimeoutInSec: 1"))
        .start()
        .await;
    assert_eq!(health(&server).await, healthy());
    lose_process(&server).await;
    while health(&server).await == healthy() {
        tokio::task::yield_now().await;
    }
    assert_eq!(health(&server).await, unhealthy());
    let refused = server.predict("echo", "hi").await;
    assert_eq!(
        (refused.status, refused.json()["type"].as_str()),
        (503, Some("ServiceUnavailableException"))
    );
    assert_eq!(
        server.predict("mirror", "hi").await.status,
        200,
        "others serve on"
    );
    assert_eq!(state(&server, "echo").await, "unhealthy");
    let gone = server.management("DELETE", "/models/echo").await;
    assert_eq!(gone.status, 200, "{}", gone.text());
    assert_eq!(health(&server).await, healthy(), "what is gone is not ill");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_never_loaded_is_not_healthy_when_its_time_is_up() {
    for model in [broken(), broken().in_process()] {
        let server = TestServer::with(model.with("maxRetryTimeoutInSec: 1")).await;
        while health(&server).await == healthy() {
            tokio::task::yield_now().await;
        }
        assert_eq!(health(&server).await, unhealthy());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_need_no_token_and_take_get_alone() {
    let builder = TestServer::builder().set("disable_token_authorization=false");
    let server = builder.start().await;
    for path in ["/health/live", "/health/ready", "/health/live/"] {
        assert_eq!(asked(&server, path).await.0, 200, "{path}");
        let posted = server.inference("POST", path).await;
        assert_eq!(
            (posted.status, posted.json()["code"].clone()),
            (405, json!(405))
        );
    }
    assert_eq!(server.inference("HEAD", "/health/ready").await.status, 200);
}

/// Kills the process of `echo`, and makes every new one fail.
async fn lose_process(server: &TestServer) {
    server.lose_archives();
    let described = server.management("GET", "/models/echo").await.json();
    kill(described[0]["workers"][0]["pid"].as_u64().unwrap());
}

fn kill(pid: u64) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
