//! Why a model does not load: who is told what, in both hostings.

use lantern::api::Listener;
use lantern::api::grpc::proto::management::{DescribeModelRequest, RegisterModelRequest};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::onnx::Sum;
use crate::support::{Answer, Model, TestServer};

const REGISTER: &str = "/models?url=sum-1.0.mar&initial_workers=1&synchronous=true";

/// Models called `sum` in both hostings, and the directory of their file, which ONNX Runtime refuses.
fn refused() -> (TempDir, [Model; 2]) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("sum.onnx");
    std::fs::write(&file, Sum::of(1, 4).of_the_future().bytes()).unwrap();
    let file = file.into_os_string().into_string().unwrap().leak();
    let model = Model::new("passthrough").named("sum").artifact(file);
    (directory, [model.clone(), model.in_process()])
}

/// Asserts that a text says what ONNX Runtime said, what to do, and nothing of the machine.
fn assert_explains(text: &str) {
    for part in [
        "model \"sum\" version 1.0 does not load with the onnx backend: ",
        "IR version: 9999",
        "; check that onnxruntime.InferenceSession opens it in Python",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    for secret in ["/tmp", "/onnxruntime_src", ".cc:", "::", "\n"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

async fn described(server: &TestServer, path: &str) -> Vec<Value> {
    let answer = server.management("GET", path).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json().as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_reaches_whoever_registers_by_any_protocol() {
    let (_directory, models) = refused();
    for model in models {
        let server = TestServer::builder().in_store(model).start().await;
        let answer = server.management("POST", REGISTER).await;
        assert_eq!(answer.status, 500);
        assert_explains(answer.json()["message"].as_str().unwrap());
        let request = RegisterModelRequest {
            url: "sum-1.0.mar".to_owned(),
            initial_workers: Some(1),
            synchronous: true,
            ..RegisterModelRequest::default()
        };
        let status = server.grpc_management().register_model(request).await;
        let status = status.unwrap_err();
        // The type follows on a line of its own, as in TorchServe.
        assert_explains(status.message().lines().next().unwrap());
        let path = "/v2/repository/models/sum-1.0/load";
        let load = server.request(Listener::Inference, "POST", path);
        let answer = Answer::of(load.send().await.unwrap()).await;
        assert_eq!(answer.status, 500);
        let error = answer.json()["error"].to_string();
        assert_explains(&error.replace("sum-1.0", "sum").replace("\\\"", "\""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_registration_is_described_until_its_name_is_registered_again() {
    let (_directory, models) = refused();
    let [model, _] = models;
    let good = Model::new("echo").named("sum").version("2.0");
    let server = TestServer::builder().in_store(model).in_store(good);
    let server = server.start().await;
    assert_eq!(server.management("POST", REGISTER).await.status, 500);
    for path in ["/models/sum", "/models/sum/1.0", "/models/sum/all"] {
        let described = described(&server, path).await;
        assert_eq!(described.len(), 1, "{path}");
        assert_eq!(described[0]["modelVersion"], "1.0");
        assert_eq!(described[0]["minWorkers"], 1);
        assert_eq!(described[0]["workers"], json!([]));
        assert_eq!(described[0]["lantern"]["state"], "failed");
        assert_explains(described[0]["lantern"]["reason"].as_str().unwrap());
    }
    let request = DescribeModelRequest {
        model_name: "sum".to_owned(),
        ..DescribeModelRequest::default()
    };
    let answer = server.grpc_management().describe_model(request).await;
    assert!(
        answer
            .unwrap()
            .into_inner()
            .msg
            .contains("IR version: 9999")
    );
    let list = server.management("GET", "/models").await.json();
    assert_eq!(list["models"], json!([]));
    assert_eq!(server.predict("sum", "x").await.status, 404);
    let customized = "/models/sum?customized=true";
    assert_eq!(server.management("GET", customized).await.status, 503);

    let path = "/models?url=sum-2.0.mar&initial_workers=1&synchronous=true";
    assert_eq!(server.management("POST", path).await.status, 200);
    let all = described(&server, "/models/sum/all").await;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["modelVersion"], "2.0");

    // A failure of one version is shown beside those that serve, and goes when it is unregistered.
    assert_eq!(server.management("POST", REGISTER).await.status, 500);
    assert_eq!(
        described(&server, "/models/sum").await[0]["modelVersion"],
        "2.0"
    );
    assert_eq!(described(&server, "/models/sum/all").await.len(), 2);
    assert_eq!(
        server.management("DELETE", "/models/sum/1.0").await.status,
        200
    );
    assert_eq!(
        server.management("GET", "/models/sum/1.0").await.status,
        404
    );
}
