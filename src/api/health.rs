//! Endpoints that probes ask: whether the server lives, whether it is ready, and what TorchServe's `/ping` says.

use hyper::StatusCode;

use super::{ApiState, Response, reply};
use crate::catalog::Condition;

/// Whether no model that should serve has been without a worker for too long; or readiness, if the operator chose so.
pub(super) async fn ping(api: ApiState) -> Response {
    if api.services.catalog.is_healthy() {
        reply::status(StatusCode::OK, "Healthy")
    } else {
        reply::status(StatusCode::INTERNAL_SERVER_ERROR, "Unhealthy")
    }
}

/// Whether requests should be sent here now.
pub(super) async fn ready(api: ApiState) -> Response {
    let catalog = &api.services.catalog;
    if catalog.is_ready() {
        return reply::status(StatusCode::OK, "Ready");
    }
    let is_degraded = catalog.is_degraded() && !catalog.is_stopping();
    let state = if is_degraded {
        Condition::Degraded.name()
    } else {
        "Not ready"
    };
    reply::status(StatusCode::SERVICE_UNAVAILABLE, state)
}

/// Whoever gets the answer knows it.
pub(super) async fn live() -> Response {
    reply::status(StatusCode::OK, "Live")
}
