//! The metrics listener.

use lantern::api::Listener;

use crate::support::{Answer, Model, ROW, TestServer};

async fn scrape(server: &TestServer, query: &str) -> Answer {
    let request = server.request(Listener::Metrics, "GET", &format!("/metrics{query}"));
    Answer::of(request.send().await.unwrap()).await
}

/// Families by name and type: values differ from run to run.
fn families(text: &str) -> String {
    let lines = text.lines().filter(|line| line.starts_with("# TYPE"));
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_family_is_announced_in_prometheus_format() {
    let server = TestServer::with(Model::linear()).await;
    let answer = scrape(&server, "").await;
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    insta::assert_snapshot!(families(answer.text()));
    for line in answer.text().lines().filter(|line| !line.starts_with('#')) {
        let (labels, value) = line.rsplit_once(' ').unwrap();
        assert!(labels.ends_with("\",}"), "{line}");
        assert!(value.contains('.') || value == "+Inf", "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_latencies_and_phases_are_counted() {
    let server = TestServer::with(Model::linear()).await;
    for path in ["linear", "linear", "linear/1.0"] {
        assert_eq!(server.predict(path, ROW).await.status, 200);
    }
    server.predict("nomodel", ROW).await;
    let unnamed = server
        .sample("ts_inference_requests_total{model_name=\"linear\",model_version=\"default\"")
        .await;
    let named = server
        .sample("ts_inference_requests_total{model_name=\"linear\",model_version=\"1.0\"")
        .await;
    assert_eq!((unnamed, named), (Some(2.0), Some(1.0)));
    assert_eq!(
        server
            .sample("ts_inference_requests_total{model_name=\"nomodel\"")
            .await,
        None
    );
    let latency = server
        .sample("ts_inference_latency_microseconds{model_name=\"linear\",model_version=\"1.0\"")
        .await;
    assert!(latency.unwrap() > 0.0);
    for phase in ["queue", "preprocess", "infer", "postprocess", "request"] {
        let count = server
            .sample(&format!(
                "lantern_{phase}_seconds_count{{model_name=\"linear\""
            ))
            .await;
        assert_eq!(count, Some(3.0), "{phase}");
    }
    assert_eq!(
        server
            .sample("lantern_batch_rows_sum{model_name=\"linear\"")
            .await,
        Some(3.0)
    );
    assert_eq!(
        server
            .sample("lantern_workers_ready{model_name=\"linear\"")
            .await,
        Some(1.0)
    );
    assert_eq!(
        server
            .sample("lantern_requests_in_flight{model_name=\"linear\"")
            .await,
        Some(0.0)
    );
    assert_eq!(server.sample("Requests4XX{").await, Some(1.0));
    assert!(server.sample_once_there("MemoryUsed{Level=\"Host\"").await > 0.0);
    assert!(
        server
            .sample("WorkerLoadTime{WorkerName=\"W-9000-linear_1.0\"")
            .await
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_can_be_chosen_by_name() {
    let server = TestServer::with(Model::linear()).await;
    let answer = scrape(
        &server,
        "?name[]=Requests2XX&name%5B%5D=Requests4XX&name[]=nothing",
    )
    .await;
    assert_eq!(
        families(answer.text()),
        "# TYPE Requests2XX counter\n# TYPE Requests4XX counter"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn in_mode_log_a_scrape_is_empty() {
    let server = TestServer::builder().set("metrics_mode=log").start().await;
    let answer = scrape(&server, "").await;
    assert_eq!(
        (
            answer.status,
            answer.text(),
            answer.header("content-length")
        ),
        (200, "", Some("0"))
    );
    let elsewhere = server
        .request(Listener::Metrics, "GET", "/elsewhere")
        .send()
        .await
        .unwrap();
    assert_eq!(elsewhere.status(), 404);
}
