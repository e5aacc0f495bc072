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
