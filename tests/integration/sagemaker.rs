//! What `SageMaker` asks of a container.

use lantern::api::{Listener, SageMaker};

use crate::support::{Answer, Builder, Model, TestServer};

const HEALTHY: &str = "{\n\t\"Status\": \"Healthy\"\n}\n";

fn container(multi_model: bool) -> Builder {
    let mode = SageMaker {
        multi_model,
        concurrent_transforms: 3,
    };
    let builder = TestServer::builder().in_store(Model::new("echo"));
    builder.api(|api| api.sagemaker = Some(mode))
}

async fn load(server: &TestServer) -> Answer {
    let body = r#"{"model_name": "mine", "url": "echo-1.0.mar", "initial_workers": 1}"#;
    let request = server.request(Listener::Management, "POST", "/models");
    let request = request.header("content-type", "application/json");
    Answer::of(request.body(body).send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ping_waits_for_the_first_worker() {
    let server = container(false).start().await;
    let ping = || server.inference("GET", "/ping");
    let waiting = ping().await;
    assert_eq!(
        (waiting.status, waiting.text()),
        (503, "Models are not loaded")
    );
    assert_eq!(load(&server).await.status, 200);
    assert_eq!((ping().await.status, ping().await.text()), (200, HEALTHY));
    assert_eq!(
        server.management("DELETE", "/models/mine").await.status,
        200
    );
    assert_eq!(ping().await.text(), HEALTHY, "once loaded is enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_come_and_go_on_a_multi_model_endpoint() {
    let server = container(true).start().await;
    assert_eq!(server.inference("GET", "/ping").await.text(), HEALTHY);
    let models = server.management("GET", "/models").await.json();
    assert_eq!(models["models"], serde_json::json!([]));
    assert_eq!(load(&server).await.status, 200);
    let again = load(&server).await;
    assert_eq!(
        (again.status, again.json()["type"].as_str()),
        (409, Some("ConflictStatusException"))
    );
    let described = server.management("GET", "/models/mine").await.json();
    assert_eq!(described[0]["modelName"], "mine");
    let invoke = server.request(Listener::Inference, "POST", "/models/mine/invoke");
    let invoked = Answer::of(invoke.body("hi").send().await.unwrap()).await;
    assert_eq!((invoked.status, invoked.text()), (200, "hi"));
    assert_eq!(
        server.management("DELETE", "/models/mine").await.status,
        200
    );
    let gone = server.inference("POST", "/models/mine/invoke").await;
    assert_eq!(
        (gone.status, gone.json()["message"].as_str()),
        (404, Some("Model not found: mine"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn execution_parameters_tell_the_limits() {
    let builder = container(false).api(|api| api.max_request_size = 20 << 20);
    let server = builder.start().await;
    let answer = server.inference("GET", "/execution-parameters").await;
    let expected = serde_json::json!({
        "MaxConcurrentTransforms": 3,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": 20,
    });
    assert_eq!((answer.status, answer.json()), (200, expected));
    assert_eq!(
        server
            .inference("POST", "/execution-parameters")
            .await
            .status,
        405
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn elsewhere_ping_is_torchserves() {
    let server = TestServer::builder().start().await;
    assert_eq!(
        server.inference("GET", "/ping").await.json()["status"],
        "Healthy"
    );
    assert_eq!(
        server
            .inference("GET", "/execution-parameters")
            .await
            .status,
        404
    );
}
