//! Health tells the truth: what loads is healthy, what is dead for good is not.

use lantern::api::Listener;

use crate::support::{Model, TestServer};

async fn health(server: &TestServer) -> (u16, String) {
    let answer = server.inference("GET", "/ping").await;
    let status = answer.json()["status"].as_str().unwrap().to_owned();
    (answer.status, status)
}

fn healthy() -> (u16, String) {
    (200, "Healthy".to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_models_is_healthy() {
    let server = TestServer::builder().start().await;
    assert_eq!(health(&server).await, healthy());
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
    server.lose_handlers();
    let described = server.management("GET", "/models/echo").await.json();
    let pid = described[0]["workers"][0]["pid"].as_u64().unwrap();
    kill(pid);
    while health(&server).await == healthy() {
        tokio::task::yield_now().await;
    }
    assert_eq!(health(&server).await, (500, "Unhealthy".to_owned()));
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
    let description = server.request(Listener::Management, "GET", "/models/echo");
    let described: serde_json::Value = description.send().await.unwrap().json().await.unwrap();
    assert_eq!(described[0]["lantern"]["state"], "unhealthy", "{described}");
    let gone = server.management("DELETE", "/models/echo").await;
    assert_eq!(gone.status, 200, "{}", gone.text());
    assert_eq!(health(&server).await, healthy(), "what is gone is not ill");
}

fn kill(pid: u64) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
