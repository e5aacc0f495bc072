//! What a client is told when the pool cannot answer its request. Details of a backend go to the log.

use std::fmt::Display;

use crate::backend::BackendError;
use crate::error::{Error, Kind};
use crate::model::ModelSpec;

/// The version has no worker. The text is TorchServe's.
pub(crate) fn no_worker(model: &ModelSpec) -> Error {
    Error::new(
        Kind::NoWorker,
        format!(
            "Model \"{}\" has no worker to serve inference request. Please use scale workers API to add workers. \
             If this is a sequence inference, please check if it is closed, or expired; or exceeds \
             maxSequenceJobQueueSize",
            model.name
        ),
    )
}

/// The version is being unloaded.
pub(crate) fn draining(model: &ModelSpec) -> Error {
    let text = format!(
        "Model \"{}\" Version {} is being unloaded",
        model.name, model.version
    );
    Error::new(Kind::Draining, text)
}

/// The device or the process cannot be used any more.
pub(crate) fn worker_died(detail: &str) -> Error {
    Error::new(Kind::WorkerDied, "Worker died.").with_detail(detail)
}

/// The request's deadline passed; `phase` completes the sentence.
pub(crate) fn expired(phase: &str) -> Error {
    Error::new(
        Kind::Expired,
        format!("The request's deadline passed {phase}"),
    )
}

/// The version cannot be loaded; whoever registers it is told.
pub(crate) fn load_failed(text: &str, detail: &dyn Display) -> Error {
    Error::new(Kind::LoadFailed, text).with_detail(detail)
}

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
        BackendError::Fatal(text) => worker_died(text),
        BackendError::Library(_)
        | BackendError::Load(_)
        | BackendError::Refused(_)
        | BackendError::Infer(_) => prediction_failed(error),
    }
}
