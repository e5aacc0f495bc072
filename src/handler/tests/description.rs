//! The optional export `describe`: its answers, and the errors of handlers that misbehave in it.

use std::fs;
use std::path::Path;

use super::fixture::{Fixture, raw};
use super::*;

/// A hostile guest that obeys `order` in `describe`.
async fn hostile(order: &str) -> Handler {
    let mut fixture = Fixture::new("hostile");
    fixture.config = format!(r#"{{"handler": {{"describe": "{order}"}}}}"#);
    fixture.limits.cpu = Duration::from_millis(100);
    fixture.limits.memory = 16 << 20;
    fixture.load().await.unwrap()
}

async fn described(handler: &Handler) -> String {
    let response = handler.describe("request-1").await.unwrap();
    String::from_utf8(response.body().to_vec()).unwrap()
}

#[tokio::test]
async fn a_handler_says_what_it_wants_to() {
    let digits = Fixture::new("digits").load().await.unwrap();
    assert_eq!(
        described(&digits).await,
        r#"{"classes":["0","1","2","3","4","5","6","7","8","9"],"side":28,"topk":5}"#
    );
    let linear = Fixture::new("linear").load().await.unwrap();
    assert_eq!(described(&linear).await, "{}", "the SDK's default");
}

#[tokio::test]
async fn a_component_of_an_earlier_release_is_run_and_says_nothing() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/handler-0.1.0.wasm");
    let handler = Fixture::of(&fs::read(file).unwrap()).load().await.unwrap();
    let Step::Done(response) = handler.preprocess(&raw("hi")).await.unwrap() else {
        panic!("echo answers at once");
    };
    assert_eq!(response.body().as_ref(), b"hi");
    assert_eq!(described(&handler).await, "{}");
}

#[tokio::test]
async fn faults_end_the_call_and_nothing_else() {
    for (order, kind, says) in [
        (
            "trap",
            Kind::HandlerTrapped,
            "The handler trapped (unreachable code) in describe",
        ),
        (
            "panic secret",
            Kind::HandlerPanicked,
            "The handler panicked in describe",
        ),
        (
            "exit",
            Kind::HandlerTrapped,
            "The handler called exit in describe",
        ),
        (
            "loop",
            Kind::HandlerTimedOut,
            "more than 100 ms of CPU time in describe",
        ),
        (
            "allocate",
            Kind::HandlerOutOfMemory,
            "bytes of memory in describe",
        ),
        ("recurse", Kind::HandlerTrapped, "in describe"),
        (
            "long 300000",
            Kind::HandlerOutput,
            "The handler's describe returned a text of 300008 bytes, the limit is 262144",
        ),
        (
            "long 10000000",
            Kind::HandlerOutOfMemory,
            "bytes of memory in describe",
        ),
        ("internal why", Kind::HandlerFailed, "why"),
        ("unavailable why", Kind::HandlerUnavailable, "why"),
    ] {
        let handler = hostile(order).await;
        let error = handler.describe("request-1").await.unwrap_err();
        assert_eq!(error.kind(), kind, "{order}: {error}");
        assert!(error.message().contains(says), "{order}: {error}");
        assert!(!error.message().contains("secret"), "{error}");
        let step = handler.preprocess(&raw("done")).await.unwrap();
        assert!(matches!(step, Step::Done(_)), "{order}");
    }
}

#[tokio::test]
async fn a_text_that_is_no_description_is_passed_on_as_it_is() {
    let handler = hostile("text not JSON").await;
    assert_eq!(described(&handler).await, "not JSON");
    assert_eq!(described(&handler).await, "not JSON");
}
