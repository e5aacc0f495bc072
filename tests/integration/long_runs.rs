//! Models whose runs were short until one is long: `slow.onnx`, whose input decides how long a run takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Model, TestServer};

/// Steps of a run that takes longer than every timeout here.
const ENDLESS: i64 = i64::MAX;
/// How long the run without end goes on.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long other requests may take: much more than they need on a busy machine, and much less than the long run takes.
const NOTICED: Duration = Duration::from_millis(1500);

fn steps(count: i64) -> String {
    json!({ "inputs": [{ "name": "steps", "dtype": "int64", "shape": [1, 1], "data": [count] }] })
        .to_string()
}

fn slow(workers: usize) -> Model {
    Model::new("passthrough")
        .named("slow")
        .artifact("slow.onnx")
        .without_workers()
        .with(&format!("minWorkers: {workers}"))
        .with(&format!("maxWorkers: {workers}"))
        .with(&format!("responseTimeout: {}", RESPONSE_TIMEOUT.as_secs()))
}

async fn quick(model: Model) -> Arc<TestServer> {
    let server = TestServer::with(model).await;
    for _ in 0..60 {
        let answer = server.predict("slow", steps(1)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    Arc::new(server)
}

/// The worker's id, from `describe`.
async fn worker(server: &TestServer) -> (String, u64) {
    let described = server.management("GET", "/models/slow").await.json();
    let worker = &described[0]["workers"][0];
    let id = worker["id"].as_str().unwrap().to_owned();
    (id, worker["pid"].as_u64().unwrap())
}

/// Asks for a run without end. While it is under way, what does not need its worker is answered; at its deadline it is
/// answered itself, and its worker is there for others, the same one as before.
async fn others_do_not_notice(model: Model, workers: usize) {
    let server = quick(model).await;
    let before = worker(&server).await;
    let asking = Arc::clone(&server);
    let long = tokio::spawn(async move { asking.predict("slow", steps(ENDLESS)).await });
    let mut longest = Duration::ZERO;
    while !long.is_finished() {
        let started = Instant::now();
        assert_eq!(server.inference("GET", "/ping").await.status, 200);
        let handler = "/models/slow?customized=true";
        assert_eq!(server.management("GET", handler).await.status, 200);
        if workers > 1 {
            let answer = server.predict("slow", steps(1)).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        longest = longest.max(started.elapsed());
    }
    assert!(!longest.is_zero(), "the run was not under way");
    assert!(longest < NOTICED, "a round took {longest:?}");
    let long = long.await.unwrap();
    assert_eq!(long.status, 504, "{}", long.text());
    let answer = server.predict("slow", steps(1)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(worker(&server).await, before);
    // Its run has ended, or the tokio runtime of the test would wait for it.
    let mut server = Arc::into_inner(server).unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_run_in_the_servers_process_is_not_noticed_by_others() {
    for workers in [1, 4] {
        others_do_not_notice(slow(workers), workers).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_run_in_a_worker_process_is_not_noticed_by_others() {
    for workers in [1, 4] {
        others_do_not_notice(slow(workers).in_process(), workers).await;
    }
}
