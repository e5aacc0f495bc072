//! `ManagementAPIsService`.

use lantern::api::grpc::proto::management::{RegisterModelRequest, UnregisterModelRequest};
use tonic::Code;

use crate::support::{Model, TestServer};

#[tokio::test(flavor = "multi_thread")]
async fn models_come_and_go() {
    let model = Model::new("echo");
    let url = model.url();
    let server = TestServer::builder().in_store(model).start().await;
    let mut client = server.grpc_management();
    let register = RegisterModelRequest {
        url,
        initial_workers: Some(1),
        synchronous: true,
        ..RegisterModelRequest::default()
    };
    let answer = client.register_model(register.clone()).await.unwrap();
    assert_eq!(
        answer.into_inner().msg,
        "Model \"echo\" Version: 1.0 registered with 1 initial workers"
    );
    let refused = client.register_model(register).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    let unregister = UnregisterModelRequest {
        model_name: "echo".to_owned(),
        ..UnregisterModelRequest::default()
    };
    let answer = client.unregister_model(unregister.clone()).await.unwrap();
    assert_eq!(answer.into_inner().msg, "Model \"echo\" unregistered");
    let refused = client.unregister_model(unregister).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
}
