//! What `SageMaker` asks of a container beside predictions: its own health check, and how it may send batches.

use std::sync::atomic::Ordering;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde::Serialize;

use super::{Api, ApiState, Response, reply};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const HEALTHY: &str = "{\n\t\"Status\": \"Healthy\"\n}\n";
const NOT_LOADED: &str = "Models are not loaded";
const MEGABYTE: usize = 1 << 20;

/// How `SageMaker` runs this container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SageMaker {
    /// Models come and go by management calls: the server is healthy without any.
    pub multi_model: bool,
    /// Requests that batch transform may send at the same time.
    pub concurrent_transforms: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ExecutionParameters {
    max_concurrent_transforms: usize,
    batch_strategy: &'static str,
    #[serde(rename = "MaxPayloadInMB")]
    max_payload: usize,
}

/// Healthy once a worker of any model was ready, and from then on; with several models at once, always.
pub(super) async fn ping(api: ApiState) -> Response {
    let multi_model = api
        .common
        .cfg
        .sagemaker
        .is_some_and(|mode| mode.multi_model);
    if multi_model || was_ready(&api) {
        return reply::with_type(StatusCode::OK, JSON, HEALTHY);
    }
    reply::with_type(StatusCode::SERVICE_UNAVAILABLE, TEXT, NOT_LOADED)
}

fn was_ready(api: &Api) -> bool {
    if !api.was_ready.load(Ordering::Relaxed) && api.services.catalog.has_ready_worker() {
        api.was_ready.store(true, Ordering::Relaxed);
    }
    api.was_ready.load(Ordering::Relaxed)
}

/// How batch transform may send requests.
pub(super) async fn execution_parameters(api: ApiState) -> Response {
    let transforms = api
        .common
        .cfg
        .sagemaker
        .map(|mode| mode.concurrent_transforms);
    let parameters = ExecutionParameters {
        max_concurrent_transforms: transforms.unwrap_or(1),
        batch_strategy: "MULTI_RECORD",
        max_payload: api.common.cfg.max_request_size / MEGABYTE,
    };
    reply::json(StatusCode::OK, &parameters)
}
