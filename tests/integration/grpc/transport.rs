//! Connections of gRPC: their end, their largest age, and TLS.

use std::time::Duration;
use tonic::Code;

use lantern::api::Listener;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::frames::{GOAWAY, PREFACE, frame_types, message};
use crate::support::{Model, TestServer, prediction, tensor};

#[tokio::test(flavor = "multi_thread")]
async fn calls_in_flight_are_answered_when_the_server_stops() {
    let mut server = TestServer::with(Model::fake()).await;
    let address = server.address(Listener::GrpcInference);
    server.gate().shut();
    let mut client = server.grpc_inference();
    let asked =
        tokio::spawn(async move { client.predictions(prediction("fake", tensor(1.0))).await });
    server.wait_for_held(1).await;
    let gate = server.gate().clone();
    let stopping = server.begin_stop();
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    gate.open();
    assert!(asked.await.unwrap().is_ok());
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_without_an_end_do_not_hold_up_the_end() {
    let mut server = TestServer::with(Model::new("echo")).await;
    let mut health = server.grpc_health(Listener::GrpcInference);
    let watch = HealthCheckRequest {
        service: "echo".to_owned(),
    };
    let mut watched = health.watch(watch).await.unwrap().into_inner();
    let first = watched.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    let mut request = prediction("echo", "x");
    request.sequence_id = Some("s".to_owned());
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let mut client = server.grpc_inference();
    let mut responses = client
        .stream_predictions2(requests)
        .await
        .unwrap()
        .into_inner();
    assert!(responses.message().await.unwrap().is_some());
    let stopped = tokio::time::timeout(Duration::from_secs(20), server.stop());
    let last = async {
        let last = watched.message().await.unwrap().unwrap();
        assert_eq!(last.status(), ServingStatus::NotServing);
        assert!(watched.message().await.unwrap().is_none());
        assert!(responses.message().await.unwrap().is_none());
    };
    let (stopped, ()) = tokio::join!(stopped, last);
    stopped.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_age_is_told_to_go_and_its_calls_are_answered() {
    let builder = TestServer::builder().model(Model::fake());
    let builder = builder.set("grpc_inference_max_connection_age_ms=200");
    let server = builder.start().await;
    server.gate().shut();
    let mut client = server.grpc_inference();
    let mut other = client.clone();
    let asked =
        tokio::spawn(async move { other.predictions(prediction("fake", tensor(1.0))).await });
    server.wait_for_held(1).await;
    // A connection that was made later is told to go: then the call's is old as well.
    let mut stream = server.connect(Listener::GrpcInference).await;
    stream.write_all(PREFACE).await.unwrap();
    let mut read = Vec::new();
    while !frame_types(&read).contains(&GOAWAY) {
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "{read:?}");
    }
    server.gate().open();
    assert!(asked.await.unwrap().is_ok());
    // The client makes another connection; one that is old before the call is on it is no failure of the server's.
    for attempt in 1.. {
        let answer = client.predictions(prediction("fake", tensor(1.0))).await;
        match answer {
            Ok(_) => break,
            Err(status) if status.code() == Code::Unavailable && attempt < 10 => {}
            Err(status) => panic!("{status}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_go_is_left() {
    let mut server = TestServer::with(Model::new("echo")).await;
    let mut stream = server.connect(Listener::GrpcInference).await;
    stream.write_all(PREFACE).await.unwrap();
    // The server's SETTINGS: it serves the connection. What it sends from now on is not answered.
    stream.read_u8().await.unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(20), server.stop()).await;
    stopped.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_outlast_the_grace_are_given_up() {
    let builder = TestServer::builder().model(Model::fake());
    let builder = builder
        .set("grpc_inference_max_connection_age_ms=50")
        .set("grpc_inference_max_connection_age_grace_ms=50");
    let server = builder.start().await;
    server.gate().shut();
    let mut client = server.grpc_inference();
    let asked = client.predictions(prediction("fake", tensor(1.0))).await;
    assert!(asked.is_err(), "{asked:?}");
    let cancelled = "lantern_cancelled_requests_total{model_name=\"fake\"";
    while server.sample(cancelled).await != Some(1.0) {
        tokio::task::yield_now().await;
    }
    server.gate().open();
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_where_it_is_asked_for() {
    let builder = TestServer::builder().model(Model::new("echo"));
    let server = builder.set("enable_grpc_ssl=true").start().await;
    let client = reqwest::Client::builder().danger_accept_invalid_certs(true);
    let address = server.address(Listener::GrpcInference);
    let url =
        format!("https://{address}/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping");
    let request = client.build().unwrap().post(url).body(message(0, b""));
    let answer = request
        .header("content-type", "application/grpc")
        .send()
        .await;
    let answer = answer.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    let body = answer.bytes().await.unwrap();
    assert!(body.ends_with(b"\"Healthy\"\n}"), "{body:?}");
    // A client without TLS gets no answer.
    assert!(frame_types(&server.bytes(Listener::GrpcInference, PREFACE).await).is_empty());
}
