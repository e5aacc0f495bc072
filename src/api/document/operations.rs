//! What each endpoint takes and answers, as data; and that data as `OpenAPI` has it.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::schemas;
use crate::api::oip;
use crate::api::routes::Endpoint;

/// What an endpoint takes and answers.
pub(super) struct Operation {
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
pub(super) enum Takes {
    Nothing,
    Anything,
    /// The parameters of a registration as JSON, in place of those of the query.
    Registration,
}

/// What a response's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Whatever the handler says.
    Anything,
    /// `text/plain`.
    Text,
    /// JSON of this schema.
    Json(&'static str),
}

/// A parameter of the query.
pub(super) struct Query {
    name: &'static str,
    says: &'static str,
    kind: &'static str,
}

const fn query(name: &'static str, kind: &'static str, says: &'static str) -> Query {
    Query { name, says, kind }
}

/// Of the answers to a prediction, those that the server itself gives.
const PREDICTION_FAILS: &[u16] = &[400, 404, 408, 415, 500, 503, 504, 507];
const STATUS: Answer = Answer::Json("Status");
const OBJECT: Answer = Answer::Json("Object");

const ROTATE: &[Query] = &[query("type", "string", "`inference` or `management`.")];

const LIST: &[Query] = &[
    query("limit", "integer", "Entries on a page, at most 100."),
    query("next_page_token", "string", "Where the last page ended."),
];
const REGISTER: &[Query] = &[
    query(
        "url",
        "string",
        "The archive: a file of the model store, or an address that may be fetched. Required, here or in the body.",
    ),
    query(
        "model_name",
        "string",
        "The model's name, if not the archive's.",
    ),
    query("handler", "string", "The handler, if not the archive's."),
    query("runtime", "string", "What runs the handler."),
    query("batch_size", "integer", "Rows of a batch at most."),
    query(
        "max_batch_delay",
        "integer",
        "Milliseconds that a batch waits for more requests.",
    ),
    query(
        "response_timeout",
        "integer",
        "Seconds that a request may take.",
    ),
    query(
        "startup_timeout",
        "integer",
        "Seconds that a worker may take to load.",
    ),
    query("initial_workers", "integer", "Workers to start with."),
    query(
        "synchronous",
        "boolean",
        "Whether to answer when the workers are up.",
    ),
    query(
        "s3_sse_kms",
        "boolean",
        "Whether the object is encrypted with a key of the service.",
    ),
];
const SCALE: &[Query] = &[
    query("min_worker", "integer", "Workers at least; 1 if not given."),
    query(
        "max_worker",
        "integer",
        "Workers at most; `min_worker` if not given.",
    ),
    query("number_gpu", "integer", "Is not used."),
    query(
        "synchronous",
        "boolean",
        "Whether to answer when the workers are up.",
    ),
    query("timeout", "integer", "Seconds to wait for them."),
];
const DESCRIBE: &[Query] = &[query(
    "customized",
    "boolean",
    "Whether the handler is asked, too.",
)];
const UNREGISTER: &[Query] = &[
    query(
        "synchronous",
        "boolean",
        "Is not used: the answer comes when the model is gone.",
    ),
    query(
        "timeout",
        "integer",
        "Seconds to wait for requests in flight.",
    ),
];
const SCRAPE: &[Query] = &[query(
    "name[]",
    "array",
    "Names of metrics; all if not given.",
)];

const fn prediction(says: &'static str, query: &'static [Query]) -> Operation {
    Operation {
        says,
        query,
        takes: Takes::Anything,
        answers: &[(200, Answer::Anything)],
        fails: PREDICTION_FAILS,
    }
}

const fn document(says: &'static str, fails: &'static [u16]) -> Operation {
    get(says, &[], &[(200, Answer::Json("Document"))], fails)
}

const fn get(
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

const fn posted(says: &'static str, answers: &'static [(u16, Answer)]) -> Operation {
    Operation {
        takes: Takes::Anything,
        ..get(says, &[], answers, &[400])
    }
}

/// What `endpoint` takes and answers.
#[rustfmt::skip]
pub(super) const fn of(endpoint: Endpoint) -> Operation {
    const HEALTH: &[(u16, Answer)] = &[(200, STATUS), (500, STATUS)];
    const READINESS: &[(u16, Answer)] = &[(200, STATUS), (503, STATUS)];
    const DONE: &[(u16, Answer)] = &[(200, STATUS)];
    const STARTED: &[(u16, Answer)] = &[(200, STATUS), (202, STATUS), (206, STATUS)];
    const NAMED: &[Query] = &[query("model_name", "string", "The model; the only one loaded at start-up if not given.")];
    match endpoint {
        Endpoint::ApiDescription => document("This document.", &[]),
        Endpoint::PredictDescription => document("What one model takes and answers.", &[400, 404]),
        Endpoint::ModelDescription => document("The management calls of one model.", &[404]),
        Endpoint::Ping => get("Whether no model has been without a worker for longer than it is restarted; or whether the server is ready.", &[], HEALTH, &[]),
        Endpoint::Live => get("Whether the server lives.", &[], DONE, &[]),
        Endpoint::Ready => get("Whether requests should be sent to the server.", &[], READINESS, &[]),
        Endpoint::SageMakerPing => get("Whether a model has been loaded.", &[], &[(200, Answer::Json("Health")), (503, Answer::Text)], &[]),
        Endpoint::ExecutionParameters => get("How batch transform may send requests.", &[], &[(200, Answer::Json("ExecutionParameters"))], &[]),
        Endpoint::Predict => prediction("A prediction.", &[]),
        Endpoint::PredictKServe => prediction("A prediction, by KServe's path.", &[]),
        Endpoint::Invoke => prediction("A prediction. Parameters of the query are fields of the request.", &[]),
        Endpoint::Invocations => prediction("A prediction. Parameters of the query are fields of the request.", NAMED),
        Endpoint::Explain => Operation { fails: &[400, 404, 501], answers: &[], ..prediction("An explanation. No handler gives one yet.", &[]) },
        Endpoint::PredictWorkflow => Operation { fails: &[404], answers: &[], ..prediction("A prediction of a workflow. There are none.", &[]) },
        Endpoint::ListWorkflows => get("All workflows. There are none.", LIST, &[(200, Answer::Json("Workflows"))], &[]),
        Endpoint::RegisterWorkflow => Operation { takes: Takes::Anything, ..get("Registers a workflow, which is disabled.", &[], &[], &[400]) },
        Endpoint::Workflow => get("A workflow. There are none.", &[], &[], &[404]),
        Endpoint::ListModels => get("All models, page by page.", LIST, &[(200, Answer::Json("Models"))], &[]),
        Endpoint::RegisterModel => Operation { takes: Takes::Registration, ..get("Registers a model.", REGISTER, STARTED, &[400, 404, 405, 408, 409, 415, 500, 507]) },
        Endpoint::DescribeModel => get("One version, or all with `all` as the version.", DESCRIBE, &[(200, Answer::Json("Descriptions"))], &[404, 500, 503]),
        Endpoint::ScaleModel => get("Changes the number of workers.", SCALE, STARTED, &[400, 404, 500, 507]),
        Endpoint::UnregisterModel => get("Unregisters a version.", UNREGISTER, DONE, &[403, 404, 405, 408, 500]),
        Endpoint::SetDefault => get("Makes a version the default.", &[], DONE, &[404]),
        Endpoint::ModelReadiness => get("Whether the default version serves, as KServe asks.", &[], &[(200, Answer::Json("Readiness"))], &[404, 500, 503]),
        Endpoint::OpenInference(endpoint) => open_inference(endpoint),
        Endpoint::RotateToken => get("Writes another key to the file of keys, in place of the one of this type.", ROTATE, &[(200, Answer::Anything)], &[400, 404, 500]),
        Endpoint::Scrape => get("Metrics in Prometheus' text format.", SCRAPE, &[(200, Answer::Text)], &[]),
    }
}

/// What an endpoint of Open Inference Protocol takes and answers. Its errors are of the protocol's own form.
#[rustfmt::skip]
const fn open_inference(endpoint: oip::Endpoint) -> Operation {
    const READY: &[(u16, Answer)] = &[(200, OBJECT), (400, OBJECT), (503, OBJECT)];
    const READY_MODEL: &[(u16, Answer)] = &[(200, OBJECT), (400, OBJECT), (404, OBJECT), (503, OBJECT)];
    const GIVEN: &[(u16, Answer)] = &[(200, OBJECT), (400, OBJECT), (404, OBJECT)];
    const LISTED: &[(u16, Answer)] = &[(200, Answer::Json("List"))];
    const INFERRED: &[(u16, Answer)] = &[
        (200, Answer::Anything), (400, OBJECT), (404, OBJECT), (408, OBJECT), (415, OBJECT),
        (500, OBJECT), (501, OBJECT), (503, OBJECT), (504, OBJECT), (507, OBJECT),
    ];
    const CHANGED: &[(u16, Answer)] = &[(200, OBJECT), (400, OBJECT), (404, OBJECT), (405, OBJECT), (500, OBJECT), (507, OBJECT)];
    match endpoint {
        oip::Endpoint::ServerMetadata => get("What the server is.", &[], GIVEN, &[]),
        oip::Endpoint::Live => get("Whether the server lives.", &[], READY, &[]),
        oip::Endpoint::Ready => get("Whether requests should be sent to the server.", &[], READY, &[]),
        oip::Endpoint::ModelMetadata => get("What a model takes and gives.", &[], GIVEN, &[]),
        oip::Endpoint::ModelReady => get("Whether a version serves.", &[], READY_MODEL, &[]),
        oip::Endpoint::ModelConfig => get("A model's configuration.", &[], GIVEN, &[]),
        oip::Endpoint::ModelStatistics => get("What a model has done.", &[], GIVEN, &[]),
        oip::Endpoint::Statistics => get("What all models have done.", &[], GIVEN, &[]),
        oip::Endpoint::Infer => posted("An inference: tensors in JSON, or in binary after it.", INFERRED),
        oip::Endpoint::Index => posted("The list of models.", LISTED),
        oip::Endpoint::Load => posted("Has a model serve.", CHANGED),
        oip::Endpoint::Unload => posted("Has a model serve no more.", CHANGED),
    }
}

/// The parameters that stand in `path`.
pub(super) fn path_parameters(path: &str) -> impl Iterator<Item = Value> {
    let known = [
        ("model_name", "Name of the model."),
        ("model_version", "Version of the model."),
        ("workflow_name", "Name of the workflow."),
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
