//! ONNX models that attack whoever runs them: their own process pays, within its limits, and others are answered.

use crate::support::{Answer, Model, ROW, TestServer};

/// What an attacking model may take.
const MEMORY: &str = "limits: {processMemory: 512MiB}";

/// A model of `tests/fixtures/attack` that takes rows.
fn attacking(file: &'static str) -> Model {
    Model::new("linear")
        .named("attacker")
        .artifact(file)
        .in_process()
        .lantern(MEMORY)
}

/// A server with the attacking model in its store, and a neighbor in a process of its own.
async fn server(attacker: Model) -> TestServer {
    let neighbor = Model::linear().named("neighbor").in_process();
    TestServer::builder()
        .model(neighbor)
        .in_store(attacker)
        .start()
        .await
}

async fn register(server: &TestServer) -> Answer {
    let path = "/models?url=attacker-1.0.mar&initial_workers=1&synchronous=true";
    server.management("POST", path).await
}

async fn neighbor_answers(server: &TestServer) {
    let answer = server.predict("neighbor", ROW).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// No text of the server's names a path or an address.
fn is_discreet(answer: &Answer) {
    for secret in ["/tmp", "/root", ".cc:", "0x"] {
        assert!(!answer.text().contains(secret), "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_without_end_is_given_up_at_the_deadline() {
    let server = server(attacking("attack/endless.onnx").with("responseTimeout: 1")).await;
    let registered = register(&server).await;
    assert_eq!(registered.status, 200, "{}", registered.text());
    for _ in 0..2 {
        let (answer, ()) = tokio::join!(server.predict("attacker", ROW), neighbor_answers(&server));
        assert_eq!(answer.status, 504, "{}", answer.text());
        is_discreet(&answer);
    }
    neighbor_answers(&server).await;
}

/// The server runs a model once before clients do.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_whose_first_run_does_not_end_is_not_registered() {
    let attacker = attacking("attack/endless_on_zeros.onnx").with("startupTimeout: 2");
    let server = server(attacker).await;
    let (registered, ()) = tokio::join!(register(&server), neighbor_answers(&server));
    assert_eq!(registered.status, 500, "{}", registered.text());
    let text = registered.text();
    assert!(text.contains("within its startup timeout of 2 s"), "{text}");
    is_discreet(&registered);
    neighbor_answers(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_collects_without_end_has_no_more_than_its_memory() {
    let server = server(attacking("attack/collects.onnx")).await;
    let registered = register(&server).await;
    assert_eq!(registered.status, 200, "{}", registered.text());
    let (answer, ()) = tokio::join!(server.predict("attacker", ROW), neighbor_answers(&server));
    // The wall has the run get no more; without it the server ends the process.
    assert!([503, 507].contains(&answer.status), "{}", answer.text());
    is_discreet(&answer);
    neighbor_answers(&server).await;
}

/// A file of a few kilobytes that grows while it is loaded.
async fn is_refused_or_ended(file: &'static str) {
    let server = server(attacking(file).with("startupTimeout: 2")).await;
    let (answer, ()) = tokio::join!(register(&server), neighbor_answers(&server));
    is_discreet(&answer);
    if answer.status == 200 {
        // It was loaded within its limits, so it may be asked.
        server.predict("attacker", ROW).await;
    }
    neighbor_answers(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_conditions_are_loaded_within_limits_or_not_at_all() {
    is_refused_or_ended("attack/conditions.onnx").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_double_are_loaded_within_limits_or_not_at_all() {
    is_refused_or_ended("attack/functions.onnx").await;
}
