//! Names of models: any that is taken goes through every call and leads nowhere else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use lantern::api::Listener;
use lantern::model::ModelName;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::support::{Answer, Model, Place, TestServer, prediction};

/// Names that somebody has, or that somebody tries.
const NAMES: [&str; 22] = [
    "plain",
    "a b",
    " a ",
    "a+b",
    "a%2Fb",
    "a%20b",
    "a&b=c;d",
    "a?b#c",
    "übung",
    "模型",
    "🔥",
    "a\"b\\c",
    "a,b|#hostname:c",
    "$$HOME$$",
    "a{b}",
    "...",
    "-rf",
    "~",
    "a:predictor",
    "all",
    "metrics",
    "'; DROP TABLE models; --",
];

/// `text` as a segment of a path, or as a value in a query.
fn encoded(text: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escaped).collect()
}

/// As Prometheus' text format has a label's value.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// Every path below `directory`.
fn files(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        found.insert(entry.path().display().to_string());
        found.extend(files(&entry.path()));
    }
    found
}

async fn ask(server: &TestServer, listener: Listener, method: &str, path: &str) -> Answer {
    let request = server.request(listener, method, path).body("hi");
    Answer::of(request.send().await.unwrap()).await
}

/// Registers, describes, asks and unregisters one name.
async fn round(server: &TestServer, name: &str) {
    let (path, management) = (encoded(name), Listener::Management);
    let register = format!("/models?url=echo-1.0.mar&model_name={path}&initial_workers=1");
    let registered = ask(server, management, "POST", &register).await;
    assert_eq!(registered.status, 200, "{name:?}: {}", registered.text());
    let says = format!("Model \"{name}\" Version: 1.0 registered with 1 initial workers");
    assert_eq!(registered.json()["status"], says);
    let described = ask(server, management, "GET", &format!("/models/{path}")).await;
    assert_eq!(described.json()[0]["modelName"], name);
    let listed = ask(server, management, "GET", "/models").await.json();
    let listed = listed["models"].as_array().unwrap().iter();
    assert!(
        listed.clone().any(|model| model["modelName"] == name),
        "{name:?}"
    );
    let predicted = ask(
        server,
        Listener::Inference,
        "POST",
        &format!("/predictions/{path}"),
    )
    .await;
    assert_eq!(
        (predicted.status, predicted.text()),
        (200, "hi"),
        "{name:?}"
    );
    let over_grpc = server
        .grpc_inference()
        .predictions(prediction(name, "hi"))
        .await;
    assert_eq!(over_grpc.unwrap().into_inner().prediction, "hi");
    let sample = format!(
        "ts_inference_requests_total{{model_name=\"{}\",model_version=\"default\",",
        label(name)
    );
    assert_eq!(server.sample(&sample).await, Some(2.0), "{name:?}");
    let gone = ask(server, management, "DELETE", &format!("/models/{path}")).await;
    assert_eq!(gone.status, 200, "{name:?}: {}", gone.text());
    let unknown = ask(server, management, "GET", &format!("/models/{path}")).await;
    assert_eq!(
        unknown.json()["message"],
        format!("Model not found: {name}")
    );
}

/// Names of any characters, as far as they are taken.
fn any_names(count: usize) -> BTreeSet<String> {
    let mut runner = TestRunner::deterministic();
    let names = "\\PC{1,12}".prop_filter("taken", |name| ModelName::new(name).is_ok());
    let tree = |_| names.new_tree(&mut runner).unwrap().current();
    (0..count).map(tree).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_name_that_is_taken_goes_through_every_call() {
    let echo = Model::new("echo").without_workers();
    let server = TestServer::builder().in_store(echo).start().await;
    let before = files(&server.store());
    for name in NAMES.map(str::to_owned).into_iter().chain(any_names(40)) {
        round(&server, &name).await;
    }
    assert_eq!(files(&server.store()), before);
    let log = server.access_log();
    assert!(
        log.lines().all(|line| line.starts_with("/127.0.0.1:")),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_process_serves_any_name() {
    let model = Model::linear().in_process().without_workers();
    let server = TestServer::builder().in_store(model).start().await;
    for name in ["a b", "模型", "-rf", "a,b"] {
        let path = encoded(name);
        let register = format!("/models?url=linear-1.0.mar&model_name={path}&initial_workers=1");
        let registered = server.management("POST", &register).await;
        assert_eq!(registered.status, 200, "{}", registered.text());
        let answer = server.predict(&path, crate::support::ROW).await;
        assert_eq!(answer.status, 200, "{name:?}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_would_lead_elsewhere_are_refused_with_the_rule() {
    let echo = Model::new("echo").without_workers();
    let server = TestServer::builder().in_store(echo).start().await;
    let before = files(server.directory());
    let long = "n".repeat(256);
    for name in [
        ".",
        "..",
        " ",
        "a/b",
        "../a",
        "a\nb",
        "a\0",
        "a\u{7f}",
        "a\u{2028}b",
        "a\u{202e}b",
        &long,
    ] {
        let register = format!("/models?url=echo-1.0.mar&model_name={}", encoded(name));
        let refused = server.management("POST", &register).await;
        assert_eq!(refused.status, 400, "{name:?}");
        let message = refused.json()["message"].as_str().unwrap().to_owned();
        let rule =
            "must be 1 to 255 bytes of text, not of blanks alone, without '/', control characters";
        assert!(
            message.starts_with("model name ") && message.contains(rule),
            "{message}"
        );
        assert!(!message.contains(char::is_control), "{message}");
    }
    assert_eq!(files(server.directory()), before);
    let models = server.management("GET", "/models").await.json();
    assert_eq!(models, json!({"models": []}));
}

#[tokio::test]
async fn any_name_is_restored_from_a_snapshot() {
    let place = Place::new(&[Model::new("echo").without_workers()]);
    let life = place.settled(&[]).await;
    for name in NAMES {
        let register = format!("/models?url=echo-1.0.mar&model_name={}", encoded(name));
        assert_eq!(life.ask("POST", &register).await.0, 200, "{name:?}");
    }
    life.end(rustix::process::Signal::TERM).await;
    let mut life = place.start(&[]).await;
    life.read_until(&format!("of {} models loaded", NAMES.len()))
        .await;
    let (_, listed) = life.ask("GET", "/models").await;
    let listed = listed["models"].as_array().unwrap().iter();
    let listed: BTreeSet<_> = listed
        .filter_map(|model| model["modelName"].as_str())
        .collect();
    assert_eq!(listed, BTreeSet::from(NAMES));
}

#[tokio::test]
async fn a_name_may_be_given_at_the_start() {
    let place = Place::new(&[Model::new("echo").named("file name").without_workers()]);
    let mut life = place
        .start(&[
            "--models",
            "über mich=file name-1.0.mar",
            "file name-1.0.mar",
        ])
        .await;
    life.read_until("2 of 2 models loaded").await;
    let (_, listed) = life.ask("GET", "/models").await;
    let names: Vec<&Value> = (0..2)
        .map(|index| &listed["models"][index]["modelName"])
        .collect();
    assert_eq!(names, ["file name", "über mich"]);
}
