//! Models with many inputs: they are served, or refused at registration with the limit that they exceed.

use lantern::tensor::MAX_RANK;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::onnx::Sum;
use crate::support::{Answer, Model, TestServer};

/// A server with the model in both hostings, and the directory of its file.
fn both(sum: &Sum) -> (TempDir, [Model; 2]) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("sum.onnx");
    std::fs::write(&file, sum.bytes()).unwrap();
    let file = file.into_os_string().into_string().unwrap().leak();
    let model = Model::new("passthrough").named("sum").artifact(file);
    (directory, [model.clone(), model.in_process()])
}

/// A one for each input, as the handler takes them, and as clients of the Open Inference Protocol send them.
fn ones(sum: &Sum, dtype: &str, name: &str) -> Value {
    let one = |input: &String| json!({"name": input, dtype: name, "shape": [1, 1], "data": [1.0]});
    json!({"inputs": sum.names().iter().map(one).collect::<Vec<_>>()})
}

async fn infer(server: &TestServer, request: &Value) -> Answer {
    let path = "/v2/models/sum/infer";
    let request = server
        .request(lantern::api::Listener::Inference, "POST", path)
        .body(request.to_string());
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_inputs_are_served_to_handlers_and_clients() {
    let sum = Sum::of(1000, 20);
    let (_directory, models) = both(&sum);
    for model in models {
        let server = TestServer::with(model).await;
        let answer = infer(&server, &ones(&sum, "datatype", "FP32")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["outputs"][0]["data"], json!([1000.0]));
        let request = ones(&sum, "dtype", "fp32").to_string();
        let answer = server.predict("sum", request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["outputs"][0]["data"], json!([1000.0]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_is_refused_when_it_is_registered() {
    for (sum, says) in [
        (Sum::of(3000, 4), "3000 inputs"),
        (
            Sum::of(2, 1025),
            "a name of 1025 bytes, names have at most 1024",
        ),
        (Sum::of(1000, 1000), "bytes, 983040 are served"),
        (Sum::of(2, 4).rank(MAX_RANK + 1), " axes"),
    ] {
        let (_directory, models) = both(&sum);
        for model in models {
            let server = TestServer::builder().in_store(model).start().await;
            let path = "/models?url=sum-1.0.mar&initial_workers=1&synchronous=true";
            let answer = server.management("POST", path).await;
            assert_eq!(answer.status, 500, "{}", answer.text());
            let message = answer.json()["message"].to_string();
            assert!(message.contains("cannot be served"), "{message}");
            assert!(message.contains(says), "{message}");
            assert_eq!(server.predict("sum", "{}").await.status, 404);
        }
    }
}
