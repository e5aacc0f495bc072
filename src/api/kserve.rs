//! What KServe asks a predictor beside predictions: which models there are, whether one serves, and whether the server lives.

use hyper::StatusCode;
use serde_json::json;

use super::extract::PathParams;
use super::{ApiState, EndpointResult, Response, reply};

/// Names of all models.
pub(super) async fn models(api: ApiState) -> Response {
    reply::json(StatusCode::OK, &api.operations.names())
}

/// Whether a model serves. One that does not is 503, so that a probe need not read the body.
pub(super) async fn model(api: ApiState, path: PathParams) -> EndpointResult {
    let readiness = api.operations.readiness(&path.model)?;
    let status = if readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Ok(reply::json(status, &readiness))
}

/// Whoever gets the answer knows it.
pub(super) async fn live() -> Response {
    reply::json(StatusCode::OK, &json!({ "status": "alive" }))
}
