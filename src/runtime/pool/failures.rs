//! What a client is told when the pool cannot answer its request. Details of a backend go to the log.

use std::fmt::Display;

use crate::backend::BackendError;
use crate::error::{Error, Kind};
use crate::runtime::failures::worker_lost;

/// The job was dropped without an answer.
pub(super) fn lost() -> Error {
    Error::new(Kind::Internal, "The request was lost by its worker")
}

/// The batch could not be stacked.
pub(super) fn not_stacked(detail: &dyn Display) -> Error {
    Error::new(Kind::Internal, "The requests could not be batched").with_detail(detail)
}

/// The model failed to run.
pub(super) fn prediction_failed(detail: &dyn Display) -> Error {
    Error::new(
        Kind::InferenceFailed,
        "Prediction failed: the model failed to run",
    )
    .with_detail(detail)
}

/// A run failed in the backend.
pub(super) fn run_failed(error: &BackendError) -> Error {
    match error {
        BackendError::Input(_) => Error::new(
            Kind::InvalidInput,
            "Prediction failed: the model refused the shapes or values of its inputs",
        )
        .with_detail(error),
        BackendError::OutOfMemory(_) => {
            Error::new(Kind::OutOfMemory, "Out of resources").with_detail(error)
        }
        BackendError::Fatal(text) => worker_lost(text),
        BackendError::Library(_)
        | BackendError::Load(_)
        | BackendError::Refused(_)
        | BackendError::Infer(_) => prediction_failed(error),
    }
}
