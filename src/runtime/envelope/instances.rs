//! TensorFlow Serving's form, which is KServe's first protocol as well: `{"instances": […]}`, `{"predictions": […]}`.
//!
//! An instance is what a client would have sent as a request: an object with a member `data` or `body`, or with binary
//! members, is a form of its members; any other object, list or number is JSON; a text is text; `{"b64": …}` is bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::{Answer, JSON, Row, TEXT, Wrapped, answers};
use crate::model::ModelSpec;
use crate::payload::{Part, Response};

/// The only member of an object that stands for bytes.
const BINARY: &str = "b64";
/// Members that handlers take for the payload.
const PAYLOAD: [&str; 2] = ["data", "body"];

pub(super) fn read(instance: Value) -> Result<Row, String> {
    if let Some(bytes) = binary(&instance)? {
        return Ok(Row::new(None, bytes));
    }
    match instance {
        Value::Object(members) if is_form(&members) => {
            let parts = members.into_iter().map(part);
            Ok(Row::form(parts.collect::<Result<_, _>>()?))
        }
        Value::String(text) => Ok(Row::new(Some(TEXT), text)),
        other => Ok(Row::new(Some(JSON), other.to_string())),
    }
}

fn is_form(members: &Map<String, Value>) -> bool {
    let has_payload = PAYLOAD.iter().any(|name| members.contains_key(*name));
    has_payload || members.values().any(is_binary)
}

fn is_binary(value: &Value) -> bool {
    let members = value.as_object();
    members.is_some_and(|members| members.len() == 1 && members.contains_key(BINARY))
}

/// The bytes that `{"b64": …}` stands for; `None` for anything else. Line breaks in it do not count.
fn binary(value: &Value) -> Result<Option<Bytes>, String> {
    if !is_binary(value) {
        return Ok(None);
    }
    let Some(text) = value[BINARY].as_str() else {
        return Err(format!("has a {BINARY:?} that is no text"));
    };
    let text: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let bytes = STANDARD.decode(text);
    let bytes = bytes.map_err(|error| format!("has a {BINARY:?} that is no base64: {error}"))?;
    Ok(Some(bytes.into()))
}

fn part((name, value): (String, Value)) -> Result<Part, String> {
    let (content_type, body) = match binary(&value)? {
        Some(bytes) => (None, bytes),
        None => match value {
            Value::String(text) => (Some(TEXT), text.into()),
            other => (Some(JSON), other.to_string().into()),
        },
    };
    Ok(Part {
        name,
        filename: None,
        content_type: content_type.map(str::to_owned),
        body,
    })
}

/// Answers in JSON stand as they were written.
pub(super) fn wrap(_: &Wrapped, _: &ModelSpec, responses: &[Response]) -> Result<Vec<u8>, String> {
    let mut body = b"{\"predictions\": [".to_vec();
    for answer in answers(responses) {
        let (place, answer) = answer?;
        if place > 0 {
            body.extend_from_slice(b", ");
        }
        match answer {
            Answer::Json(json) => body.extend_from_slice(json),
            Answer::Text(text) => body.extend(Value::from(text).to_string().into_bytes()),
        }
    }
    body.extend_from_slice(b"]}");
    Ok(body)
}
