//! `grpc.health.v1.Health`, on both listeners.

use lantern::api::Listener;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::{Model, TestServer};

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_and_models_are_told_apart() {
    let builder = TestServer::builder().model(Model::new("echo"));
    let server = builder
        .model(Model::new("echo").named("broken").artifact("broken.onnx"))
        .start()
        .await;
    let mut client = server.grpc_health(Listener::GrpcManagement);
    for (service, expected) in [
        ("echo", ServingStatus::Serving),
        ("echo/1.0", ServingStatus::Serving),
        ("broken", ServingStatus::NotServing),
        ("grpc.health.v1.Health", ServingStatus::NotServing),
        ("", ServingStatus::NotServing),
        (
            "org.pytorch.serve.grpc.management.ManagementAPIsService",
            ServingStatus::Serving,
        ),
    ] {
        let answer = client.check(of(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), expected, "{service}");
    }
    for unknown in ["nope", "echo/2.0", "echo/", "/"] {
        let refused = client.check(of(unknown)).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{unknown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_every_change() {
    let model = Model::new("echo");
    let url = format!("/models?initial_workers=1&url={}", model.url());
    let server = TestServer::builder().in_store(model).start().await;
    let mut client = server.grpc_health(Listener::GrpcInference);
    let mut watched = client.watch(of("echo")).await.unwrap().into_inner();
    let first = watched.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);
    assert_eq!(server.management("POST", &url).await.status, 200);
    loop {
        // A model that is loading may be seen before it is ready.
        match watched.message().await.unwrap().unwrap().status() {
            ServingStatus::Serving => break,
            other => assert_eq!(other, ServingStatus::NotServing),
        }
    }
    let scaled = "/models/echo?min_worker=0&synchronous=true";
    assert_eq!(server.management("PUT", scaled).await.status, 200);
    let empty = watched.message().await.unwrap().unwrap();
    assert_eq!(empty.status(), ServingStatus::NotServing);
    assert_eq!(
        server.management("DELETE", "/models/echo").await.status,
        200
    );
    let gone = watched.message().await.unwrap().unwrap();
    assert_eq!(gone.status(), ServingStatus::ServiceUnknown);
}
