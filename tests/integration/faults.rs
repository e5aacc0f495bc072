//! Handlers that misbehave: each is an error to that one client, and the next request is served.

use crate::support::{Model, TestServer, tensor};
use lantern::backend::fake::{FakeBackend, Outcome};

const HONEST: &str = "carry 0";

async fn hostile() -> TestServer {
    TestServer::with(Model::new("hostile").artifact("linear.onnx")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_misdeed_is_one_clients_error() {
    let server = hostile().await;
    let mut answers = Vec::new();
    for act in [
        "trap",
        "panic",
        "loop",
        "allocate",
        "recurse",
        "postprocess/trap",
        "postprocess/panic",
    ] {
        let answer = server.predict("hostile", act).await;
        let message = answer.json();
        answers.push(format!(
            "{act:20} {} {} {}",
            answer.status, message["type"], message["message"]
        ));
        assert_eq!(
            server.predict("hostile", HONEST).await.status,
            200,
            "after {act}"
        );
    }
    insta::assert_snapshot!(answers.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_row_fails_alone() {
    let bad: f32 = 666.0;
    let fake = FakeBackend::new().with_mark(bad.to_le_bytes(), Outcome::Fail);
    let model = Model::fake().settings(|settings| settings.batch_size = 8);
    let server = std::sync::Arc::new(TestServer::builder().fake(fake).model(model).start().await);
    server.gate().shut();
    let mut asked = tokio::task::JoinSet::new();
    for value in [1.0, bad, 2.0] {
        let server = std::sync::Arc::clone(&server);
        asked.spawn(async move { (value.to_bits(), server.predict("fake", tensor(value)).await) });
    }
    server.wait_for_held(1).await;
    server.gate().open();
    for (value, answer) in asked.join_all().await {
        let expected = if value == bad.to_bits() { 503 } else { 200 };
        assert_eq!(answer.status, expected, "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_show_no_paths_and_no_host_texts() {
    let server = hostile().await;
    for act in ["trap", "panic", "unknown-act", "postprocess/trap"] {
        let text = server.predict("hostile", act).await.text().to_owned();
        for secret in ["/tmp", "/root", "handler.wasm", "wasmtime", "0x", ".rs:"] {
            assert!(!text.contains(secret), "{act}: {text}");
        }
    }
}
