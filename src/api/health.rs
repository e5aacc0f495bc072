//! Endpoints that probes ask: whether the server lives, whether it is ready, and what TorchServe's `/ping` says.

use hyper::StatusCode;

use super::{Api, Response, reply};

impl Api {
    /// Whether no model that should serve has been without a worker for too long; or readiness, if the operator chose so.
    pub(super) fn ping(&self) -> Response {
        if self.services.catalog.is_healthy() {
            reply::status(StatusCode::OK, "Healthy")
        } else {
            reply::status(StatusCode::INTERNAL_SERVER_ERROR, "Unhealthy")
        }
    }

    /// Whether requests should be sent here now.
    pub(super) fn ready(&self) -> Response {
        if self.services.catalog.is_ready() {
            reply::status(StatusCode::OK, "Ready")
        } else {
            reply::status(StatusCode::SERVICE_UNAVAILABLE, "Not ready")
        }
    }
}

/// Whoever gets the answer knows it.
pub(super) fn live() -> Response {
    reply::status(StatusCode::OK, "Live")
}
