//! What each envelope takes off and puts on, and which bodies it refuses.

use std::time::Instant;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::budget::Account;
use crate::model::{Limits, Settings};
use crate::payload::{Meter, Schedule};
use crate::runtime::testing;

fn spec() -> ModelSpec {
    testing::model(Settings::default())
}

fn request(body: Body) -> Request {
    Request {
        id: "r-1".to_owned(),
        content_type: Some(JSON.to_owned()),
        headers: Vec::new(),
        body,
        arrival: Instant::now(),
        deadline: Instant::now(),
        schedule: Schedule::default(),
        account: Account::default(),
        passes_tensors_on: false,
        meter: Meter::default(),
    }
}

fn raw(body: impl Into<Bytes>) -> Request {
    request(Body::Raw(body.into()))
}

async fn wrapped(envelope: Envelope, body: &Value) -> (Wrapped, Vec<Row>) {
    match open(envelope, raw(body.to_string())).await {
        Ok(Opened::Wrapped(wrapped, rows)) => (wrapped, rows),
        Ok(Opened::Whole(_)) => panic!("no rows"),
        Err(error) => panic!("{error}"),
    }
}

async fn refused(envelope: Envelope, request: Request) -> Error {
    match open(envelope, request).await {
        Err(error) => error,
        Ok(_) => panic!("not refused"),
    }
}

fn part(name: &str, content_type: Option<&str>, body: &'static str) -> Part {
    Part {
        name: name.to_owned(),
        filename: None,
        content_type: content_type.map(str::to_owned),
        body: Bytes::from_static(body.as_bytes()),
    }
}

fn answer(content_type: &str, body: &'static [u8]) -> Response {
    Response::new(
        200,
        content_type.to_owned(),
        Vec::new(),
        Bytes::from_static(body),
    )
    .unwrap()
}

fn closed(wrapped: &Wrapped, responses: &[Response]) -> Result<Response, Error> {
    wrapped.close(&spec(), responses)
}

#[tokio::test]
async fn without_an_envelope_a_request_stays_as_it_is() {
    let form = Body::Form(vec![part("data", None, "x"), part("k", None, "5")]);
    let opened = open(Envelope::None, request(form.clone())).await;
    assert!(matches!(opened, Ok(Opened::Whole(whole)) if whole.body == form));
}

#[tokio::test]
async fn the_body_is_data_or_else_body() {
    for (parts, expected) in [
        (
            vec![part("body", None, "b"), part("data", Some(TEXT), "d")],
            "d",
        ),
        (
            vec![part("data", None, ""), part("body", Some(TEXT), "b")],
            "b",
        ),
    ] {
        let opened = open(Envelope::Body, request(Body::Form(parts))).await;
        let Ok(Opened::Whole(whole)) = opened else {
            panic!("rows")
        };
        assert_eq!(whole.body, Body::Raw(expected.into()));
        assert_eq!(whole.content_type.as_deref(), Some(TEXT));
    }
    let other = Body::Form(vec![part("image", None, "i")]);
    let opened = open(Envelope::Body, request(other.clone())).await;
    assert!(matches!(opened, Ok(Opened::Whole(whole)) if whole.body == other));
}

#[tokio::test]
async fn each_instance_is_a_request_of_its_own() {
    let body = json!({"instances": [
        {"x": [1, 2], "k": null},
        [1.5, 2],
        "plain \"text\"",
        {"b64": "AP8=\n"},
        {"data": "ZGF0YQ=="},
        {"image": {"b64": "aW1n"}, "top": 3},
    ]});
    for envelope in [Envelope::Json, Envelope::KServe] {
        let (_, rows) = wrapped(envelope, &body).await;
        let expected = [
            Row::new(Some(JSON), r#"{"x":[1,2],"k":null}"#),
            Row::new(Some(JSON), "[1.5,2]"),
            Row::new(Some(TEXT), "plain \"text\""),
            Row::new(None, &b"\0\xff"[..]),
            Row::form(vec![part("data", Some(TEXT), "ZGF0YQ==")]),
            Row::form(vec![
                part("image", None, "img"),
                part("top", Some(JSON), "3"),
            ]),
        ];
        assert_eq!(rows, expected);
    }
}

#[tokio::test]
async fn a_field_of_a_form_holds_the_envelope_as_well() {
    let form = vec![part("data", None, r#"{"instances": [1]}"#)];
    let opened = open(Envelope::KServe, request(Body::Form(form))).await;
    assert!(matches!(opened, Ok(Opened::Wrapped(_, rows)) if rows.len() == 1));
}

#[tokio::test]
async fn large_bodies_are_read_as_small_ones() {
    let body = json!({"instances": ["x".repeat(LARGE), 1]});
    assert_eq!(wrapped(Envelope::Json, &body).await.1.len(), 2);
}

#[tokio::test]
async fn what_is_no_envelope_is_the_clients_fault_and_says_why() {
    let many = json!({"instances": vec![0; ROWS_LIMIT + 1]}).to_string();
    for (body, says) in [
        ("", "the body is no JSON that can be read: EOF"),
        ("[1]", "got JSON that is no object"),
        ("{}", "the object has no \"instances\""),
        (r#"{"instances": 1}"#, "\"instances\" is no list"),
        (
            r#"{"instances": [{"b64": "%"}]}"#,
            "instances[0] has a \"b64\" that is no base64",
        ),
        (
            r#"{"instances": [1, {"a": {"b64": 5}}]}"#,
            "instances[1] has a \"b64\" that is no text",
        ),
        (&many, "at most 65536 of them, got 65537"),
    ] {
        let error = refused(Envelope::KServe, raw(body.to_owned())).await;
        assert_eq!(error.kind(), Kind::BadRequest);
        let begin = "service_envelope=kserve takes a JSON object with a list \"instances\": ";
        assert!(error.message().starts_with(begin), "{error}");
        assert!(error.message().contains(says), "{error}");
    }
    let form = request(Body::Form(vec![part("image", None, "i")]));
    let error = refused(Envelope::Json, form).await;
    assert!(
        error
            .message()
            .contains("a form without a field data or body")
    );
}

#[tokio::test]
async fn answers_are_predictions_as_they_were_written() {
    let body = json!({"instances": [1, 2, 3, 4]});
    let (wrapped, _) = wrapped(Envelope::KServe, &body).await;
    let answers = [
        answer(JSON, b"{\"p\": 1.0}\n"),
        answer("text/plain; charset=utf-8", b"7"),
        answer("", b"8"),
        answer("", b"cat \"a\""),
    ];
    let closed = closed(&wrapped, &answers).unwrap();
    let expected = r#"{"predictions": [{"p": 1.0}, "7", 8, "cat \"a\""]}"#;
    assert_eq!(
        (closed.status(), &closed.body()[..]),
        (200, expected.as_bytes())
    );
    assert_eq!(closed.content_type(), JSON);
}

#[tokio::test]
async fn no_instances_are_no_predictions() {
    let (wrapped, rows) = wrapped(Envelope::Json, &json!({"instances": []})).await;
    assert!(rows.is_empty());
    assert_eq!(
        closed(&wrapped, &[]).unwrap().body(),
        "{\"predictions\": []}"
    );
}

#[tokio::test]
async fn the_first_other_status_is_that_of_the_whole() {
    let (wrapped, _) = wrapped(Envelope::KServe, &json!({"instances": [1, 2]})).await;
    let headers = vec![("x-why".to_owned(), "late".to_owned())];
    let other = Response::new(422, String::new(), headers.clone(), "no".into()).unwrap();
    let closed = closed(&wrapped, &[answer("", b"1"), other]).unwrap();
    assert_eq!(
        (closed.status(), closed.headers()),
        (422, headers.as_slice())
    );
    assert_eq!(closed.body(), "{\"predictions\": [1, \"no\"]}");
}

#[tokio::test]
async fn answers_that_cannot_be_wrapped_are_the_handlers_fault() {
    let (wrapped, _) = wrapped(Envelope::KServe, &json!({"instances": [1]})).await;
    let limits = Limits {
        response: 20,
        ..Limits::default()
    };
    let small = ModelSpec { limits, ..spec() };
    for (response, says) in [
        (
            answer("image/png", b"\xff"),
            "the answer to row 0 is neither JSON nor text",
        ),
        (
            answer(JSON, b"[\"\xff\"]"),
            "the answer to row 0 is neither JSON nor text",
        ),
        (
            answer(JSON, b"{"),
            "is labelled application/json and is no JSON",
        ),
        (
            answer("", b"123456789"),
            "the answers have 28 bytes together, the limit is 20",
        ),
    ] {
        let error = wrapped.close(&small, &[response]).unwrap_err();
        assert_eq!(error.kind(), Kind::HandlerOutput);
        assert!(error.message().contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_failure_names_its_row_where_it_is_about_it() {
    let (wrapped, _) = wrapped(Envelope::KServe, &json!({"instances": [1, 2]})).await;
    let failed = wrapped.failed(1, Error::new(Kind::BadRequest, "no face").with_detail("d"));
    assert_eq!(failed.message(), "instances[1]: no face");
    assert_eq!(
        (failed.kind(), failed.detail()),
        (Kind::BadRequest, Some("d"))
    );
    let load = Error::new(Kind::NoWorker, "none");
    assert_eq!(wrapped.failed(1, load.clone()), load);
}

#[tokio::test]
async fn inputs_are_requests_and_answers_outputs_with_their_names() {
    let body = json!({"id": "q-7", "inputs": [
        {"name": "a", "shape": [2, -1], "datatype": "FP32", "data": [1.5, 2, 3, 4]},
        {"name": "b", "shape": -1, "datatype": "BYTES", "data": ["aW1n"]},
    ]});
    let (wrapped, rows) = wrapped(Envelope::KServeV2, &body).await;
    let seen = rows.iter().map(|row| match &row.body {
        Body::Raw(bytes) => serde_json::from_slice(bytes).unwrap(),
        other => panic!("{other:?}"),
    });
    let expected = [
        json!({"name": "a", "shape": [2, -1], "datatype": "FP32", "data": [[1.5, 2], [3, 4]]}),
        json!({"name": "b", "shape": -1, "datatype": "BYTES", "data": "aW1n"}),
    ];
    assert_eq!(seen.collect::<Vec<Value>>(), expected);
    let closed = closed(
        &wrapped,
        &[answer("", b"[[1, 2], [3]]"), answer(TEXT, b"cat")],
    )
    .unwrap();
    let model = spec();
    let expected = json!({
        "id": "q-7", "model_name": model.name.as_str(), "model_version": model.version.as_str(),
        "outputs": [
            {"name": "a", "datatype": "INT64", "data": [1, 2, 3], "shape": [3]},
            {"name": "b", "datatype": "BYTES", "data": ["cat"], "shape": [1]},
        ],
    });
    assert_eq!(String::from_utf8_lossy(closed.body()), expected.to_string());
}

#[tokio::test]
async fn without_an_id_the_servers_own_is_given() {
    for body in [json!({"inputs": []}), json!({"id": " ", "inputs": []})] {
        let (wrapped, _) = wrapped(Envelope::KServeV2, &body).await;
        let closed = closed(&wrapped, &[]).unwrap();
        let answer: Value = serde_json::from_slice(closed.body()).unwrap();
        assert_eq!(answer["id"], "r-1");
    }
}

#[tokio::test]
async fn datatypes_are_those_of_the_answers() {
    for (body, datatype, data) in [
        ("true", "BOOL", json!([true])),
        ("[1, -2]", "INT64", json!([1, -2])),
        ("[18446744073709551615]", "UINT64", json!([u64::MAX])),
        ("[1, 2.5]", "FP64", json!([1, 2.5])),
        ("[]", "FP64", json!([])),
        ("[1, \"a\"]", "BYTES", json!(["1", "a"])),
        ("{\"cat\": 0.5}", "BYTES", json!([{"cat": 0.5}])),
    ] {
        let input =
            json!({"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [1]}]});
        let (wrapped, _) = wrapped(Envelope::KServeV2, &input).await;
        let closed = closed(&wrapped, &[answer(JSON, body.as_bytes())]).unwrap();
        let answer: Value = serde_json::from_slice(closed.body()).unwrap();
        let output = &answer["outputs"][0];
        assert_eq!(
            (&output["datatype"], &output["data"]),
            (&json!(datatype), &data),
            "{body}"
        );
    }
}

/// JSON that only looks whole is not sent on as something else.
#[tokio::test]
async fn answers_that_cannot_be_read_are_the_handlers_fault() {
    let deep = [[b'['; 200], [b']'; 200]].concat().leak();
    for body in [&b"[1e999]"[..], br#"["\ud800"]"#, b"[\"\xff\"]", deep] {
        let input =
            json!({"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [1]}]});
        let (wrapped, _) = wrapped(Envelope::KServeV2, &input).await;
        let error = closed(&wrapped, &[answer(JSON, body)]).unwrap_err();
        assert_eq!(error.kind(), Kind::HandlerOutput);
        assert!(error.message().contains("the answer to row 0"), "{error}");
    }
}

#[tokio::test]
async fn inputs_that_break_a_rule_are_named() {
    let deep = vec![1; 65];
    let thin = [&[100], &[1; 63][..]].concat();
    for (input, says) in [
        (
            json!({"name": "a", "datatype": "FP32", "shape": thin, "data": vec![1; 100]}),
            "(a) has a shape of 6301 lists, at most 8 are made for each element",
        ),
        (
            json!(1),
            "inputs[0] must be an object with name, shape, datatype and data",
        ),
        (
            json!({"datatype": "FP32", "data": []}),
            "must have a text \"name\"",
        ),
        (
            json!({"name": "a", "data": []}),
            "must have a text \"datatype\"",
        ),
        (
            json!({"name": "a", "datatype": "FP32"}),
            "(a) must have a list \"data\"",
        ),
        (
            json!({"name": "a", "datatype": "BYTES", "data": []}),
            "must have an element",
        ),
        (
            json!({"name": "a", "datatype": "FP32", "data": [1]}),
            "a list of at most 64 sizes",
        ),
        (
            json!({"name": "a", "datatype": "FP32", "shape": deep, "data": [1]}),
            "at most 64 sizes",
        ),
        (
            json!({"name": "a", "datatype": "FP32", "shape": [2], "data": [1]}),
            "has 1 elements, which shape [2] does not hold",
        ),
        (
            json!({"name": "a", "datatype": "FP32", "shape": [-1, -1], "data": [1]}),
            "does not hold",
        ),
        (
            json!({"name": "a", "datatype": "FP32", "shape": [i64::MAX, 0, -1], "data": []}),
            "does not hold",
        ),
        (
            json!({"name": "a", "datatype": "FP32", "shape": [i64::MAX, 4], "data": [1]}),
            "does not hold",
        ),
    ] {
        let body = json!({"inputs": [input]}).to_string();
        let error = refused(Envelope::KServeV2, raw(body)).await;
        assert!(error.message().contains(says), "{error}");
    }
}

proptest! {
    #[test]
    fn any_body_is_read_or_refused(body in "[\\[\\]{}\":,a-z0-9 ]{0,80}") {
        for rules in [&INSTANCES, &INPUTS] {
            let _ = read(rules, &Body::Raw(body.clone().into()));
        }
    }

    /// Whatever an instance is, what the handler gets of it is the instance again.
    #[test]
    fn no_instance_is_lost(number in any::<f64>(), text in "\\PC{0,20}", rows in 0_usize..5) {
        prop_assume!(number.is_finite());
        let instance = json!({"n": number, "t": text});
        let body = json!({"instances": vec![instance.clone(); rows]}).to_string();
        let (_, read) = read(&INSTANCES, &Body::Raw(body.into())).unwrap();
        prop_assert_eq!(read.len(), rows);
        for row in read {
            let Body::Raw(bytes) = row.body else { panic!("a form") };
            prop_assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), instance.clone());
        }
    }
}
