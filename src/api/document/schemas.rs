//! The bodies that the server itself reads and writes, as `OpenAPI` schemas.

use serde_json::{Value, json};

/// The place of schema `name` in a document.
pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// All schemas by name.
pub(super) fn all() -> Value {
    json!({
        "Error": object(&["code", "type"], &json!({ "code": integer(), "type": string(), "message": string() })),
        "Object": { "type": "object" },
        "List": { "type": "array", "items": { "type": "object" } },
        "Status": object(&["status"], &json!({ "status": string() })),
        "Health": object(&["Status"], &json!({ "Status": string() })),
        "Document": object(&["openapi", "info", "paths"], &json!({
            "openapi": string(),
            "info": { "type": "object" },
            "paths": { "type": "object" },
        })),
        "ExecutionParameters": object(
            &["MaxConcurrentTransforms", "BatchStrategy", "MaxPayloadInMB"],
            &json!({ "MaxConcurrentTransforms": integer(), "BatchStrategy": string(), "MaxPayloadInMB": integer() }),
        ),
        "Models": models(),
        "Readiness": object(&["name", "ready"], &json!({ "name": string(), "ready": { "type": "boolean" }, "state": string() })),
        "Names": object(&["models"], &json!({ "models": { "type": "array", "items": string() } })),
        "Workflows": object(&["workflows"], &json!({ "workflows": { "type": "array", "items": { "type": "object" } } })),
        "Descriptions": { "type": "array", "items": description() },
        "Registration": registration(),
    })
}

fn models() -> Value {
    let model = object(
        &["modelName", "modelUrl"],
        &json!({ "modelName": string(), "modelUrl": string() }),
    );
    let models =
        json!({ "nextPageToken": string(), "models": { "type": "array", "items": model } });
    object(&["models"], &models)
}

/// The members that clients rely on; there are more.
fn description() -> Value {
    let worker = object(
        &["id", "startTime", "status"],
        &json!({ "id": string(), "startTime": string(), "status": string(), "pid": integer() }),
    );
    object(
        &[
            "modelName",
            "modelVersion",
            "modelUrl",
            "minWorkers",
            "maxWorkers",
            "batchSize",
            "maxBatchDelay",
            "workers",
        ],
        &json!({
            "modelName": string(),
            "modelVersion": string(),
            "modelUrl": string(),
            "runtime": string(),
            "minWorkers": integer(),
            "maxWorkers": integer(),
            "batchSize": integer(),
            "maxBatchDelay": integer(),
            "loadedAtStartup": { "type": "boolean" },
            "workers": { "type": "array", "items": worker },
            "jobQueueStatus": object(
                &["remainingCapacity", "pendingRequests"],
                &json!({ "remainingCapacity": integer(), "pendingRequests": integer() }),
            ),
            "customizedMetadata": { "type": "object" },
            "lantern": { "type": "object" },
        }),
    )
}

fn registration() -> Value {
    let flag = json!({ "type": "boolean" });
    object(
        &["url"],
        &json!({
            "url": string(),
            "model_name": string(),
            "handler": string(),
            "runtime": string(),
            "batch_size": integer(),
            "max_batch_delay": integer(),
            "response_timeout": integer(),
            "startup_timeout": integer(),
            "initial_workers": integer(),
            "synchronous": flag,
            "s3_sse_kms": flag,
        }),
    )
}

fn object(required: &[&str], properties: &Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

fn string() -> Value {
    json!({ "type": "string" })
}

fn integer() -> Value {
    json!({ "type": "integer" })
}
