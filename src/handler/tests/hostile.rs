//! Misbehaving handlers: each misdeed gives its own error, and the next request is answered.

use super::fixture::{Fixture, raw};
use super::*;

/// A hostile guest with lower limits than in service, so that the tests are quick.
fn hostile() -> Fixture {
    let mut fixture = Fixture::new("hostile");
    fixture.limits.cpu = Duration::from_millis(100);
    fixture.limits.memory = 16 << 20;
    fixture.limits.output = 4 << 20;
    fixture.limits.response = 1 << 20;
    fixture.limits.host_calls = 10_000;
    fixture
}

async fn refusal(handler: &Handler, order: &str) -> Error {
    match handler.preprocess(&raw(order)).await {
        Ok(step) => panic!("{order}: {step:?}"),
        Err(error) => error,
    }
}

async fn still_answers(handler: &Handler) {
    let step = handler.preprocess(&raw("done")).await.unwrap();
    assert!(matches!(step, Step::Done(response) if response.body().as_ref() == b"hostile"));
}

/// Sends each order, and expects an error of that kind with that text in its message.
async fn each_is_refused(orders: &[(&str, Kind, &str)]) {
    let handler = hostile().load().await.unwrap();
    for (order, kind, says) in orders {
        let error = refusal(&handler, order).await;
        assert_eq!(error.kind(), *kind, "{order}: {error}");
        assert!(error.message().contains(says), "{order}: {error}");
        still_answers(&handler).await;
    }
}

#[tokio::test]
async fn faults_end_the_call_and_nothing_else() {
    each_is_refused(&[
        (
            "trap",
            Kind::HandlerTrapped,
            "the handler trapped (unreachable code) in preprocess",
        ),
        (
            "panic secret",
            Kind::HandlerPanicked,
            "the handler panicked",
        ),
        (
            "exit",
            Kind::HandlerTrapped,
            "the handler called exit in preprocess",
        ),
        (
            "loop",
            Kind::HandlerTimedOut,
            "more than 100 ms of CPU time in preprocess",
        ),
        (
            "allocate",
            Kind::HandlerOutOfMemory,
            "more than its 16777216 bytes of memory",
        ),
        (
            "recurse",
            Kind::HandlerTrapped,
            "memory access out of bounds",
        ),
        (
            "calls 20000",
            Kind::HandlerTrapped,
            "made more than 10000 calls to the host",
        ),
        (
            "handles 5000",
            Kind::HandlerTrapped,
            "holds more than 1024 metrics",
        ),
    ])
    .await;
}

#[tokio::test]
async fn broken_tensors_are_refused() {
    each_is_refused(&[
        ("no-tensors", Kind::HandlerOutput, "0 inputs"),
        ("same-name", Kind::HandlerOutput, "two inputs named \"x\""),
        ("many-tensors 1025", Kind::HandlerOutput, "1025 inputs"),
        ("shape", Kind::HandlerOutput, "takes 64 bytes, got 60"),
        (
            "overflow",
            Kind::HandlerOutput,
            "more elements than can be addressed",
        ),
        ("wrap", Kind::HandlerOutput, "input \"x\""),
        ("rank 65", Kind::HandlerOutput, "65 axes"),
        (
            "booleans",
            Kind::HandlerOutput,
            "a boolean is 0 or 1, got 7",
        ),
        ("strings-cut", Kind::HandlerOutput, "element 0"),
        ("strings-few", Kind::HandlerOutput, "input \"x\""),
        ("name", Kind::HandlerOutput, "an input named \"\""),
        (
            "tensor-bytes 6000000",
            Kind::HandlerOutput,
            "handed over more than 4194304 bytes",
        ),
        (
            "carry 6000000",
            Kind::HandlerOutput,
            "handed over more than 4194304 bytes",
        ),
    ])
    .await;
}

#[tokio::test]
async fn broken_responses_are_refused() {
    each_is_refused(&[
        ("status 99", Kind::HandlerOutput, "status 99"),
        ("status 199", Kind::HandlerOutput, "statuses are 200 to 999"),
        ("status 1000", Kind::HandlerOutput, "status 1000"),
        (
            "header content-length 5",
            Kind::HandlerOutput,
            "which only the server sets",
        ),
        (
            "header Connection close",
            Kind::HandlerOutput,
            "which only the server sets",
        ),
        (
            "header-newline",
            Kind::HandlerOutput,
            "values are printable ASCII",
        ),
        (
            "header x-a ä",
            Kind::HandlerOutput,
            "values are printable ASCII",
        ),
        ("header-name", Kind::HandlerOutput, "which is not a token"),
        ("headers 65", Kind::HandlerOutput, "65 headers"),
        (
            "header-bytes 40000",
            Kind::HandlerOutput,
            "the limit is 32768",
        ),
        ("content-type-newline", Kind::HandlerOutput, "content type"),
        ("content-type x", Kind::HandlerOutput, "content type \"x\""),
        (
            "body-bytes 2000000",
            Kind::HandlerOutput,
            "a body of 2000000 bytes, the limit is 1048576",
        ),
    ])
    .await;
}

#[tokio::test]
async fn an_authors_errors_keep_their_kind_and_text() {
    each_is_refused(&[
        ("bad-request why", Kind::BadRequest, "why"),
        ("too-large why", Kind::TooLarge, "why"),
        (
            "unsupported-media-type why",
            Kind::UnsupportedMediaType,
            "why",
        ),
        ("unavailable why", Kind::HandlerUnavailable, "why"),
        ("internal why", Kind::HandlerFailed, "why"),
        ("asset nowhere", Kind::HandlerFailed, "nowhere"),
        ("asset-at-once handler.wasm", Kind::HandlerFailed, ""),
    ])
    .await;
    let handler = hostile().load().await.unwrap();
    let error = refusal(&handler, "error-bytes 100000").await;
    assert_eq!(error.message().len(), 4096);
}

#[tokio::test]
async fn a_panics_message_is_the_authors_alone() {
    let fixture = hostile();
    let handler = fixture.load().await.unwrap();
    let error = refusal(&handler, "panic secret").await;
    assert!(!error.message().contains("secret"), "{error}");
    let lines = fixture.recorder.lines.lock();
    let line = lines
        .iter()
        .find(|line| line.message.contains("panicked at"))
        .unwrap();
    assert!(line.message.contains("secret"), "{line:?}");
    assert_eq!(
        (line.level, line.request_id.as_str()),
        (Level::Error, "request-1")
    );
}

#[tokio::test]
async fn postprocess_has_the_same_limits() {
    let handler = hostile().load().await.unwrap();
    for (order, kind) in [
        ("postprocess/panic x", Kind::HandlerPanicked),
        ("postprocess/loop", Kind::HandlerTimedOut),
        ("postprocess/allocate", Kind::HandlerOutOfMemory),
        ("postprocess/status 99", Kind::HandlerOutput),
        ("postprocess/body-bytes 2000000", Kind::HandlerOutput),
    ] {
        let prepared = infer(&handler, order).await;
        let error = handler
            .postprocess("r", &Meter::default(), Vec::new(), prepared.carry)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{order}: {error}");
        assert!(error.message().contains("postprocess"), "{order}: {error}");
        still_answers(&handler).await;
    }
}

#[tokio::test]
async fn init_that_fails_is_a_load_that_fails_with_the_reason() {
    for (order, says) in [
        ("internal no labels", "failed in init: no labels"),
        ("panic secret", "panicked"),
        ("loop", "more than 100 ms of CPU time in init"),
        ("allocate", "bytes of memory in init"),
        ("exit", "called exit in init"),
    ] {
        let mut fixture = hostile();
        fixture.config = format!(r#"{{"handler": {{"init": "{order}"}}}}"#);
        fixture.limits.init_cpu = Duration::from_millis(100);
        let Err(error) = fixture.load().await else {
            panic!("{order}: loaded");
        };
        assert_eq!(error.kind(), Kind::LoadFailed, "{order}: {error}");
        assert!(error.message().contains(says), "{order}: {error}");
        assert!(!error.message().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn what_a_call_logs_and_prints_is_bounded() {
    let fixture = hostile();
    let handler = fixture.load().await.unwrap();
    infer(&handler, "log 5000").await;
    assert_eq!(fixture.recorder.lines.lock().len(), 100);
    infer(&handler, "log-bytes 100000").await;
    infer(&handler, "stderr 600").await;
    let lines = fixture.recorder.lines.lock();
    assert!(lines.iter().all(|line| line.message.len() <= 8 << 10));
    assert!(
        lines
            .iter()
            .any(|line| line.message == "4900 lines of the handler's log were left out")
    );
    assert!(
        lines
            .iter()
            .any(|line| line.message.starts_with("line 0 on stderr"))
    );
}

#[tokio::test]
async fn metrics_are_checked_and_bounded() {
    let mut fixture = hostile();
    fixture.limits.metric_series = 10;
    let handler = fixture.load().await.unwrap();
    infer(&handler, "metric good_total").await;
    let first = fixture.recorder.observations.lock()[0].clone();
    assert_eq!(
        (first.name.as_ref(), first.kind, first.value),
        ("good_total", MetricKind::Counter, 1.0)
    );
    for order in [
        "metric bad name",
        "metric-nan",
        "metric-labels",
        "series 1000",
        "metrics 100",
    ] {
        infer(&handler, order).await;
    }
    assert_eq!(fixture.recorder.observations.lock().len(), 10);
    for says in [
        "names are",
        "not a finite number",
        "2 label values for 1 labels",
        "more than 10 series",
    ] {
        assert!(fixture.recorder.has_line(says), "{says}");
    }
}

#[tokio::test]
async fn forbidden_imports_are_named_before_anything_runs() {
    let Err(error) = Fixture::new("forbidden").load().await else {
        panic!("loaded");
    };
    assert_eq!(error.kind(), Kind::LoadFailed);
    for says in [
        "wasi:filesystem/types@0.2",
        "wasi:sockets/tcp@0.2",
        "interface `assets`",
    ] {
        assert!(error.message().contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_handler_that_reads_without_end_is_ended_as_one_that_computes() {
    let fixture = hostile();
    std::fs::write(fixture.directory.path().join("big"), vec![7; 4 << 20]).unwrap();
    let handler = fixture.load().await.unwrap();
    let error = refusal(&handler, "asset-loop big").await;
    assert_eq!(error.kind(), Kind::HandlerTimedOut, "{error}");
    still_answers(&handler).await;
}
