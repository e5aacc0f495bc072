//! Server reflection, in both versions.

use lantern::api::Listener;
use prost::Message as _;
use prost_types::FileDescriptorProto;
use tokio_stream::once;
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::TestServer;

const INFERENCE: &str = "org.pytorch.serve.grpc.inference.InferenceAPIsService";
const MANAGEMENT: &str = "org.pytorch.serve.grpc.management.ManagementAPIsService";

/// The answer to one request of version 1.
async fn ask(
    server: &TestServer,
    listener: Listener,
    question: v1::server_reflection_request::MessageRequest,
) -> v1::server_reflection_response::MessageResponse {
    let channel = server.channel(listener);
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel);
    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(question),
    };
    let answers = client.server_reflection_info(once(request)).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    answer.message_response.unwrap()
}

async fn services(server: &TestServer, listener: Listener) -> Vec<String> {
    use v1::server_reflection_request::MessageRequest::ListServices;
    use v1::server_reflection_response::MessageResponse::ListServicesResponse;
    let ListServicesResponse(listed) = ask(server, listener, ListServices(String::new())).await
    else {
        panic!("not a list");
    };
    listed.service.into_iter().map(|one| one.name).collect()
}

async fn file(server: &TestServer, symbol: &str) -> FileDescriptorProto {
    use v1::server_reflection_request::MessageRequest::FileContainingSymbol;
    use v1::server_reflection_response::MessageResponse::FileDescriptorResponse;
    let question = FileContainingSymbol(symbol.to_owned());
    let FileDescriptorResponse(found) = ask(server, Listener::GrpcInference, question).await else {
        panic!("no file");
    };
    FileDescriptorProto::decode(&*found.file_descriptor_proto[0]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_listener_lists_its_services() {
    let server = TestServer::builder().start().await;
    let inference = services(&server, Listener::GrpcInference).await;
    let management = services(&server, Listener::GrpcManagement).await;
    for (names, own, others) in [
        (&inference, INFERENCE, MANAGEMENT),
        (&management, MANAGEMENT, INFERENCE),
    ] {
        assert!(names.iter().any(|name| name == own), "{names:?}");
        assert!(!names.iter().any(|name| name == others), "{names:?}");
        for name in [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
        ] {
            assert!(names.iter().any(|one| one == name), "{names:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_are_those_of_the_proto_files() {
    let server = TestServer::builder().start().await;
    let inference = file(&server, INFERENCE).await;
    assert_eq!(inference.package(), "org.pytorch.serve.grpc.inference");
    let methods: Vec<_> = inference.service[0]
        .method
        .iter()
        .map(prost_types::MethodDescriptorProto::name)
        .collect();
    assert_eq!(
        methods,
        [
            "Ping",
            "Predictions",
            "StreamPredictions",
            "StreamPredictions2"
        ]
    );
    assert_eq!(
        inference.dependency,
        ["google/protobuf/empty.proto", "google/rpc/status.proto"]
    );
    // Both packages are made from one file.
    for package in ["inference", "org.pytorch.serve.grpc.openinference"] {
        let file = file(&server, &format!("{package}.ModelInferRequest")).await;
        assert_eq!(file.package(), package);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn older_clients_are_answered_alike() {
    use v1alpha::server_reflection_request::MessageRequest::ListServices;
    use v1alpha::server_reflection_response::MessageResponse::ListServicesResponse;
    let server = TestServer::builder().start().await;
    let channel = server.channel(Listener::GrpcInference);
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(ListServices(String::new())),
    };
    let answers = client.server_reflection_info(once(request)).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(ListServicesResponse(listed)) = answer.message_response else {
        panic!("not a list");
    };
    assert!(listed.service.iter().any(|one| one.name == INFERENCE));
}
