#![allow(clippy::unwrap_used)]

use handler_sdk::{ErrorKind, Tensor, testing};

use super::*;

fn step(order: &str) -> Result<Step, Error> {
    let _host = testing::Host::new().asset("here.txt", "text");
    Hostile::default().preprocess(testing::request(order))
}

fn input(order: &str) -> Tensor {
    testing::inferred(step(order).unwrap()).0.remove(0)
}

#[test]
fn orders_travel_to_postprocess_in_the_carry() {
    let (inputs, carry) = testing::inferred(step("postprocess/status 99").unwrap());
    assert_eq!(
        (inputs[0].shape(), &carry[..]),
        (&[1, 16][..], &b"status 99"[..])
    );
    let response = Hostile::default()
        .postprocess(Vec::new().into(), &carry)
        .unwrap();
    assert_eq!(response.status(), 99);
}

#[test]
fn errors_have_the_kind_they_are_named_after() {
    for (order, kind) in [
        ("bad-request why", ErrorKind::BadRequest),
        ("too-large why", ErrorKind::TooLarge),
        (
            "unsupported-media-type why",
            ErrorKind::UnsupportedMediaType,
        ),
        ("unavailable why", ErrorKind::Unavailable),
        ("internal why", ErrorKind::Internal),
    ] {
        let error = step(order).unwrap_err();
        assert_eq!((error.kind(), error.message()), (kind, "why"));
    }
    assert_eq!(
        step("nonsense").unwrap_err().message(),
        "there is no act `nonsense`"
    );
    let host = testing::Host::new().settings(serde_json::json!({"init": "unavailable later"}));
    assert_eq!(host.init::<Hostile>().err().unwrap().message(), "later");
}

#[test]
fn wrong_tensors_are_wrong() {
    assert_eq!(
        (input("shape").shape(), input("shape").bytes().len()),
        (&[1, 16][..], 60)
    );
    assert_eq!(input("rank 9").shape(), [1; 9]);
    assert_eq!(input("name y").name(), "y");
    assert_eq!(input("rows 3").shape(), [3, 16]);
    assert!(input("dtype").view::<f32>().is_err());
    assert!(input("booleans").view::<bool>().is_err());
    assert!(input("strings-cut").strings().is_err());
    assert!(input("overflow").view::<f32>().is_err());
}

#[test]
fn floods_and_reads_go_on_as_honest_requests() {
    let host = testing::Host::new().asset("here.txt", "text");
    for order in [
        "log 3",
        "metrics 2",
        "series 2",
        "handles 5",
        "calls 9",
        "asset here.txt",
    ] {
        let step = Hostile::default()
            .preprocess(testing::request(order))
            .unwrap();
        assert_eq!(testing::inferred(step).0[0].shape(), [1, 16], "{order}");
    }
    assert_eq!((host.lines().len(), host.observations().len()), (3, 4));
    assert!(
        step("asset missing")
            .unwrap_err()
            .message()
            .contains("`missing`")
    );
    assert!(
        step("asset-at-once here.txt")
            .unwrap_err()
            .message()
            .contains("too-large")
    );
}

#[test]
fn descriptions_are_what_was_ordered() {
    for (order, text) in [
        ("", "{}"),
        ("text [1]", "[1]"),
        ("long 2", r#"{"x":"xx"}"#),
        ("deep 2", r#"{"x":[[]]}"#),
    ] {
        let host = testing::Host::new().settings(serde_json::json!({ "describe": order }));
        let hostile: Hostile = host.init().unwrap();
        assert_eq!(hostile.describe().unwrap().as_str(), text);
    }
}
