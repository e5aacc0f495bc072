//! What clients are told when a version does not answer: one text for each failure, wherever the version is hosted.

use std::fmt::Display;

use crate::error::{Error, Kind};
use crate::model::{ModelName, ModelSpec, Version};

/// The refusal of a request by a version that cannot take it, in TorchServe's words, with its unbalanced quote where the
/// request named the version: clients match it.
pub fn not_served(kind: Kind, name: &ModelName, version: Option<&Version>) -> Error {
    let version = version.map_or_else(String::new, |version| format!(" Version {version}\""));
    let text = format!(
        "Model \"{name}\"{version} has no worker to serve inference request. Please use scale workers API to add \
         workers. If this is a sequence inference, please check if it is closed, or expired; or exceeds \
         maxSequenceJobQueueSize"
    );
    Error::new(kind, text)
}

/// The version has no worker.
pub fn no_worker(model: &ModelSpec) -> Error {
    not_served(Kind::NoWorker, &model.name, None)
}

/// The version is being unloaded.
pub fn draining(model: &ModelSpec) -> Error {
    let (name, version) = (&model.name, &model.version);
    let text = format!("Model \"{name}\" Version {version} is being unloaded");
    Error::new(Kind::Draining, text)
}

/// The request's deadline passed; `phase` completes the sentence.
pub fn expired(phase: &str) -> Error {
    let text = format!("The request's deadline passed {phase}");
    Error::new(Kind::Expired, text)
}

/// The worker died that had the request. `reason` names neither a path nor a process.
pub fn worker_died(reason: &str) -> Error {
    Error::new(Kind::WorkerDied, format!("Worker died: {reason}"))
}

/// The worker cannot be used any more: its device is lost, or its run does not end. `text` is for the log.
pub fn worker_lost(text: &str) -> Error {
    worker_died("it cannot be used any more").with_detail(text)
}

/// The request is larger than what a worker process takes.
pub fn too_large(detail: &dyn Display) -> Error {
    let text = "the request is too large for a worker process";
    Error::new(Kind::TooLarge, text).with_detail(detail)
}

/// The version took longer to load than it may.
pub fn not_ready_in_time(model: &ModelSpec) -> Error {
    let text = format!(
        "the worker did not respond in given time: model \"{}\" version {} was not ready within its startup timeout of \
         {} s",
        model.name,
        model.version,
        model.settings.startup_timeout.as_secs_f64()
    );
    Error::new(Kind::LoadFailed, text)
}

/// The version cannot be loaded; whoever registers it is told.
pub fn load_failed(text: &str, detail: &dyn Display) -> Error {
    Error::new(Kind::LoadFailed, text).with_detail(detail)
}

#[cfg(test)]
mod tests;
