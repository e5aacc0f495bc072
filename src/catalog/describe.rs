//! A version at one moment, for those who ask.

use std::sync::Arc;

use super::{Batching, Bounds, Signature, WorkerStatus};
use crate::archive::Origin;
use crate::error::Error;
use crate::model::{BackendKind, ModelSpec};
use crate::sandbox::Outcomes;

/// Where a version is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Its runtime starts.
    Loading,
    /// It takes requests.
    Ready,
    /// It has no workers, by request.
    Empty,
    /// All its workers are dead; a restart may be under way.
    Unhealthy,
    /// Its worker processes keep dying: requests are refused, or let through one at a time.
    Degraded,
    /// Its runtime did not start, for this reason.
    Failed(Error),
    /// It finishes what it has.
    Draining,
}

impl Condition {
    /// The name in answers and logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Empty => "empty",
            Self::Unhealthy => "unhealthy",
            Self::Degraded => "DEGRADED",
            Self::Failed(_) => "failed",
            Self::Draining => "draining",
        }
    }
}

/// A version at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// What it was loaded from.
    pub spec: Arc<ModelSpec>,
    /// The framework that runs the artifact, if that is known.
    pub backend: Option<BackendKind>,
    /// The manifest's `runtime`.
    pub runtime: &'static str,
    /// As given at registration.
    pub url: String,
    /// What its archive holds, and who signed it, once it was opened.
    pub origin: Option<Origin>,
    /// How many workers it may have.
    pub bounds: Bounds,
    /// Whether the server loaded it when it started.
    pub loaded_at_startup: bool,
    /// Where it is in its life.
    pub condition: Condition,
    /// Workers, by id.
    pub workers: Vec<WorkerStatus>,
    /// The walls around its worker process.
    pub walls: Outcomes,
    /// Requests that may yet wait.
    pub queue_remaining: usize,
    /// Requests that wait.
    pub queue_pending: usize,
    /// What the model takes and gives, as far as it is known.
    pub signature: Arc<Signature>,
    /// How requests are stacked, once the model was loaded.
    pub batching: Option<Batching>,
    /// The last lines a worker process wrote before it died.
    pub last_output: Vec<String>,
    /// Why the last start failed.
    pub last_error: Option<Error>,
}
