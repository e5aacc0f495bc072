//! Draining: no request that was accepted is lost when the server ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lantern::api::Listener;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::{Model, ROW, TestServer, tensor};

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_answered_and_new_connections_refused() {
    let mut server = TestServer::with(Model::fake()).await;
    let address = server.address(Listener::Inference);
    server.gate().shut();
    let body = tensor(1.0);
    let request = format!(
        "POST /predictions/fake HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = server.connect(Listener::Inference).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    server.wait_for_held(1).await;
    let gate = server.gate().clone();
    let stopping = server.begin_stop();
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    gate.open();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_every_accepted_request_is_answered() {
    for model in [Model::linear(), Model::linear().in_process()] {
        let mut server = TestServer::with(model).await;
        let address = server.address(Listener::Inference);
        let request = Arc::new(format!(
            "POST /predictions/linear HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{ROW}",
            ROW.len()
        ));
        let (answered, mut answers) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..8 {
            let (request, answered) = (Arc::clone(&request), answered.clone());
            tokio::spawn(async move {
                // Each connection that is accepted carries one request, sent at once.
                while let Ok(mut stream) = TcpStream::connect(address).await {
                    let mut answer = String::new();
                    let sent = stream.write_all(request.as_bytes()).await;
                    let read = stream.read_to_string(&mut answer).await;
                    let _ = answered.send((sent.is_ok() && read.is_ok(), answer));
                }
            });
        }
        drop(answered);
        for _ in 0..100 {
            assert!(answers.recv().await.unwrap().1.starts_with("HTTP/1.1 200"));
        }
        server.stop().await;
        while let Some((complete, answer)) = answers.recv().await {
            assert!(
                complete && answer.starts_with("HTTP/1.1 200"),
                "{complete} {answer:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_hold_up_the_end() {
    let mut server = TestServer::with(Model::new("echo")).await;
    let mut stream = server.connect(Listener::Inference).await;
    server.stop().await;
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).await.unwrap(), 0);
}

/// What probes are told: over REST of the server and of a model, over gRPC of the server.
async fn probed(server: &TestServer) -> (u16, u16, u16, ServingStatus) {
    let mut status = Vec::new();
    for path in ["/health/ready", "/v2/health/ready", "/v2/models/fake/ready"] {
        status.push(server.inference("GET", path).await.status);
    }
    let mut health = server.grpc_health(Listener::GrpcInference);
    let checked = health.check(HealthCheckRequest::default()).await.unwrap();
    let of_server = checked.into_inner().status();
    (status[0], status[1], status[2], of_server)
}

#[tokio::test(flavor = "multi_thread")]
async fn before_it_drains_the_server_is_not_ready_and_serves_on() {
    let builder = TestServer::builder().set("lantern_drain_delay=3600");
    let mut server = builder.model(Model::fake()).start().await;
    let serving = (200, 200, 200, ServingStatus::Serving);
    assert_eq!(probed(&server).await, serving);
    let stopping = server.begin_stop();
    while server.inference("GET", "/health/ready").await.status == 200 {
        tokio::task::yield_now().await;
    }
    let (ready, _, model, of_server) = probed(&server).await;
    assert_eq!((ready, of_server), (503, ServingStatus::NotServing));
    assert_ne!(model, 200);
    assert_eq!(server.inference("GET", "/health/live").await.status, 200);
    assert_eq!(server.inference("GET", "/ping").await.status, 200);
    for _ in 0..3 {
        let answer = server.predict("fake", tensor(1.0)).await;
        assert_eq!(answer.status, 200, "{answer}");
    }
    assert!(!stopping.is_finished());
    stopping.abort();
}

#[tokio::test]
async fn after_the_delay_it_drains() {
    let builder = TestServer::builder().set("lantern_drain_delay=3600");
    let mut server = builder.start().await;
    let address = server.address(Listener::Inference);
    tokio::time::pause();
    let since = tokio::time::Instant::now();
    server.stop().await;
    assert!(since.elapsed() >= Duration::from_hours(1));
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_does_not_end_is_waited_for_as_long_as_the_drain_timeout_says() {
    // The fake backend of the program holds a row that starts so, that of this process whatever comes while its gate is shut.
    let stuck =
        json!({"inputs": [{"name": "x", "dtype": "uint8", "shape": [1, 5], "data": b"stuck"}]});
    let fake = Model::fake().with("responseTimeout: 600");
    for model in [fake.clone(), fake.in_process()] {
        let builder = TestServer::builder().set("lantern_drain_timeout=1");
        let mut server = builder.model(model).start().await;
        server.gate().shut();
        let request = server.request(Listener::Inference, "POST", "/predictions/fake");
        let asked = tokio::spawn(request.json(&stuck).send());
        while server.sample("lantern_requests_in_flight{").await != Some(1.0) {
            tokio::task::yield_now().await;
        }
        let since = Instant::now();
        server.stop().await;
        assert!(since.elapsed() < Duration::from_secs(30));
        asked.abort();
        server.gate().open();
    }
}
