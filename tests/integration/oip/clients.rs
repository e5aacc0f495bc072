//! Unmodified clients of other projects. `make clients` installs them; without them these tests print that they are
//! skipped.

use std::path::PathBuf;
use std::process::Command;

use lantern::api::Listener;

use super::multi;
use crate::support::{Model, TestServer};

/// The Python of `make clients`.
#[allow(
    clippy::disallowed_methods,
    reason = "tests are told by the Makefile where the clients lie"
)]
fn python() -> Option<PathBuf> {
    let directory = std::env::var_os("LANTERN_CLIENTS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".runtime/clients"),
        PathBuf::from,
    );
    let python = directory.join("bin/python");
    if python.exists() {
        return Some(python);
    }
    eprintln!("SKIPPED: no clients; `make clients` installs them");
    let is_required = std::env::var_os("LANTERN_REQUIRE_CLIENTS").is_some();
    assert!(!is_required, "LANTERN_REQUIRE_CLIENTS is set");
    None
}

/// The models that the scripts use.
async fn server() -> TestServer {
    let raw = |name: &str, file| Model::new("linear").named(name).artifact(file);
    TestServer::builder()
        .model(multi().with("batchSize: 8"))
        .model(raw("dtypes", "dtypes.onnx"))
        .model(raw("unsigned", "unsigned.onnx"))
        .model(raw("strings", "strings.onnx"))
        .in_store(multi().named("shelf"))
        .start()
        .await
}

async fn run(script: &str, listeners: &[Listener]) {
    let Some(python) = python() else { return };
    let server = server().await;
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(script);
    let mut command = Command::new(python);
    command.arg("-B").arg(script);
    for listener in listeners {
        command.arg(server.address(*listener).to_string());
    }
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.unwrap().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_over_http() {
    run("http_client.py", &[Listener::Inference]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_asynchronous() {
    let listeners = [Listener::Inference, Listener::GrpcInference];
    run("aio_client.py", &listeners).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tritonclient_over_grpc() {
    run("grpc_client.py", &[Listener::GrpcInference]).await;
}
