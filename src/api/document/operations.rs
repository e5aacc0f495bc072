//! What an endpoint takes and answers, as data; and that data as `OpenAPI` has it.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::schemas;

/// What an endpoint takes and answers.
#[derive(Clone, Copy)]
pub(in crate::api) struct Operation {
    pub says: &'static str,
    pub query: &'static [Query],
    pub takes: Takes,
    /// Statuses and what comes with them.
    pub answers: &'static [(u16, Answer)],
    /// Statuses that come with the error body.
    pub fails: &'static [u16],
}

/// What a request's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Takes {
    Nothing,
    Anything,
    /// The parameters of a registration as JSON, in place of those of the query.
    Registration,
}

/// What a response's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Answer {
    /// Whatever the handler says.
    Anything,
    /// `text/plain`.
    Text,
    /// JSON of this schema.
    Json(&'static str),
}

/// A parameter of the query.
pub(in crate::api) struct Query {
    name: &'static str,
    says: &'static str,
    kind: &'static str,
}

pub(in crate::api) const fn query(
    name: &'static str,
    kind: &'static str,
    says: &'static str,
) -> Query {
    Query { name, says, kind }
}

/// Of the answers to a prediction, those that the server itself gives.
const PREDICTION_FAILS: &[u16] = &[400, 404, 408, 415, 500, 503, 504, 507];
pub(in crate::api) const STATUS: Answer = Answer::Json("Status");
pub(in crate::api) const OBJECT: Answer = Answer::Json("Object");

/// A prediction.
pub(in crate::api) const fn prediction(says: &'static str, query: &'static [Query]) -> Operation {
    Operation {
        says,
        query,
        takes: Takes::Anything,
        answers: &[(200, Answer::Anything)],
        fails: PREDICTION_FAILS,
    }
}

/// An OpenAPI document.
pub(in crate::api) const fn document(says: &'static str, fails: &'static [u16]) -> Operation {
    get(says, &[], &[(200, Answer::Json("Document"))], fails)
}

/// What takes no body.
pub(in crate::api) const fn get(
    says: &'static str,
    query: &'static [Query],
    answers: &'static [(u16, Answer)],
    fails: &'static [u16],
) -> Operation {
    Operation {
        says,
        query,
        takes: Takes::Nothing,
        answers,
        fails,
    }
}

/// What takes a body of Open Inference Protocol, whose errors have a form of their own.
pub(in crate::api) const fn posted(
    says: &'static str,
    answers: &'static [(u16, Answer)],
) -> Operation {
    Operation {
        takes: Takes::Anything,
        ..get(says, &[], answers, &[400])
    }
}

/// The parameters that stand in `path`.
pub(super) fn path_parameters(path: &str) -> impl Iterator<Item = Value> {
    let known = [
        ("model_name", "Name of the model."),
        ("model_version", "Version of the model."),
        ("workflow_name", "Name of the workflow."),
        ("tenant", "Name of the tenant."),
    ];
    let present = known.map(|(name, says)| (path.contains(&format!("{{{name}}}")), name, says));
    present.into_iter().filter(|(is_present, ..)| *is_present).map(|(_, name, says)| {
        json!({ "in": "path", "name": name, "description": says, "required": true, "schema": { "type": "string" } })
    })
}

pub(super) fn query_parameter(query: &Query) -> Value {
    let schema = match query.kind {
        "array" => json!({ "type": "array", "items": { "type": "string" } }),
        kind => json!({ "type": kind }),
    };
    json!({ "in": "query", "name": query.name, "description": query.says, "required": false, "schema": schema })
}

pub(super) fn request_body(takes: Takes) -> Option<Value> {
    match takes {
        Takes::Nothing => None,
        Takes::Anything => Some(json!({
            "description": "Raw bytes, JSON, or a form; the handler decides what it takes. May be gzip or deflate.",
            "content": { "*/*": { "schema": { "type": "string", "format": "binary" } } },
        })),
        Takes::Registration => Some(json!({
            "description": "The parameters, if they are not in the query.",
            "content": { "application/json": { "schema": schemas::reference("Registration") } },
        })),
    }
}

/// The responses of `operation`, with those that any request may get. Errors of paths under `/v2` are of the form that
/// Open Inference Protocol gives them, where it is spoken.
pub(super) fn responses(operation: &Operation, path: &str) -> Value {
    let error = if path.starts_with("/v2") {
        OBJECT
    } else {
        Answer::Json("Error")
    };
    let mut responses = Map::new();
    for (status, answer) in operation.answers {
        responses.insert(status.to_string(), response(*status, &content(*answer)));
    }
    for status in [&[400, 403], operation.fails].concat() {
        let entry = responses.entry(status.to_string());
        entry.or_insert_with(|| response(status, &content(error)));
    }
    let too_large = json!({ "description": "The body is larger than it may be." });
    responses.insert("413".to_owned(), too_large);
    if operation.answers.contains(&(200, Answer::Anything)) {
        let description = "Another status that the handler chose.";
        let content = content(Answer::Anything);
        let other = json!({ "description": description, "content": content });
        responses.insert("default".to_owned(), other);
    }
    Value::Object(responses)
}

fn response(status: u16, content: &Value) -> Value {
    let reason = StatusCode::from_u16(status).ok();
    let reason = reason.and_then(|status| status.canonical_reason());
    json!({ "description": reason.unwrap_or("Failure"), "content": content })
}

fn content(answer: Answer) -> Value {
    let binary = json!({ "schema": { "type": "string", "format": "binary" } });
    match answer {
        Answer::Anything => json!({ "*/*": binary }),
        Answer::Text => json!({ "text/plain": { "schema": { "type": "string" } } }),
        Answer::Json(name) => json!({ "application/json": { "schema": schemas::reference(name) } }),
    }
}
