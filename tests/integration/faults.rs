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
    let model = Model::fake().with("batchSize: 8").lantern("batching: on");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_sees_next_to_nothing_of_its_surroundings() {
    let server = TestServer::with(Model::new("ambient").in_process()).await;
    let answer = server.predict("ambient", "0").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sight = answer.json();
    assert_eq!(
        (&sight["arguments"], &sight["variables"]),
        (&0.into(), &0.into())
    );
    let step = sight["clock_step"].as_u64().unwrap();
    assert!(step == 0 || step >= 1000, "the clock is coarse: {step} ns");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_imports_what_it_may_not_does_not_load() {
    let server = TestServer::builder()
        .in_store(Model::new("forbidden"))
        .start()
        .await;
    let answer = server
        .management("POST", "/models?url=forbidden-1.0.mar")
        .await;
    assert!(answer.status >= 400, "{}", answer.text());
    let message = answer.json()["message"].to_string();
    assert!(message.contains("wasi:"), "{message}");
}
