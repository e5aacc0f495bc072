//! What clients are told when a version does not answer: one text for each failure, wherever the version is hosted.

use std::fmt::Display;
use std::time::Duration;

use crate::backend::BackendError;
use crate::error::{Error, Kind, reason};
use crate::model::{ModelName, ModelSpec, Version};
use crate::sandbox::Wall;

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

/// The refusal to ask the handler of a version without workers, in TorchServe's words.
pub fn cannot_describe(name: &ModelName) -> Error {
    let text = format!(
        "Model \"{name}\" has no worker to serve describe request. Please use scale workers API to add workers."
    );
    Error::new(Kind::NoWorker, text)
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

/// The version was unregistered, or the server was stopped, before its workers were ready.
pub fn called_off(model: &ModelSpec) -> Error {
    let (name, version) = (&model.name, &model.version);
    let text = format!(
        "model \"{name}\" version {version} was unregistered, or the server was stopped, before its workers were ready"
    );
    Error::new(Kind::Conflict, text)
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

/// An equal request has ended two worker processes.
pub fn poison() -> Error {
    worker_died(
        "an equal request has ended two worker processes, so this one is not tried for some minutes",
    )
}

/// The version's worker processes keep dying, and nobody is let through for so long.
pub fn crash_loop(model: &ModelSpec, left: Duration) -> Error {
    let (name, version) = (&model.name, &model.version);
    let text = format!(
        "Model \"{name}\" Version {version} is degraded: its worker process keeps dying. Try again later"
    );
    Error::new(Kind::CrashLoop, text).with_retry_after(left)
}

/// A worker process died as the last one of several, and the next is started after `pause`. `reason` names neither a path nor
/// a process.
pub fn keeps_dying(reason: &str, pause: Duration) -> Error {
    let seconds = pause.as_secs();
    worker_died(&format!(
        "{reason}, as others before; the next one is started after {seconds} s"
    ))
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

/// The model's outputs are more than a response may hold.
pub fn outputs_too_large(size: usize, limit: usize) -> Error {
    let text = format!(
        "The model's outputs have {size} bytes, the limit is {limit} (max_response_size, lantern.limits.response)"
    );
    Error::new(Kind::InferenceFailed, text)
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

/// The version cannot be loaded; whoever registers it gets this.
pub fn load_failed(text: &str, detail: &dyn Display) -> Error {
    Error::new(Kind::LoadFailed, text).with_detail(detail)
}

/// The process that is to host the version does not have the version's backend.
pub fn backend_missing(model: &ModelSpec) -> Error {
    let text = format!(
        "model \"{}\" version {} needs the {} backend, which this process does not have",
        model.name,
        model.version,
        model.backend.name()
    );
    Error::new(Kind::LoadFailed, text)
}

/// The program of the worker process could not be run.
pub fn process_not_started(detail: &dyn Display) -> Error {
    load_failed("the worker process could not be started", detail)
}

/// No directory could be made for the worker process.
pub fn no_working_directory(detail: &dyn Display) -> Error {
    load_failed("the worker process has no directory to work in", detail)
}

/// A wall that the operator requires is missing around the worker process. `reason` is the kernel's.
pub fn not_walled_in(wall: Wall, reason: &str) -> Error {
    let text = format!(
        "the worker process was not started: the wall {wall} is required (lantern_sandbox) and cannot go up: {reason}; {}, or \
         prefer the wall: `lantern doctor` says what there is",
        wall.remedy()
    );
    Error::new(Kind::LoadFailed, text)
}

/// The worker program is not of the server's build.
pub fn other_build(server: &str, worker: &str) -> Error {
    let text = format!("the server is build {server}, its worker program is build {worker}");
    Error::new(Kind::LoadFailed, text)
}

/// What the worker process has to know does not fit into a message.
pub fn too_much_to_start(detail: &dyn Display) -> Error {
    let text = "the model's manifest and settings are more than a worker process can be told";
    load_failed(text, detail)
}

/// What the model says of itself does not fit into a message.
pub fn too_much_to_report(detail: &dyn Display) -> Error {
    let text = "the model's inputs and outputs are more than a worker process can report";
    load_failed(text, detail)
}

/// The worker process sent what breaks the protocol before the version was loaded.
pub fn protocol_broken_in_load(detail: &dyn Display) -> Error {
    let text = "the worker process broke the protocol while it loaded the model";
    load_failed(text, detail)
}

/// The worker process ended, or was ended, before the version was loaded. `reason` names neither a path nor a process.
pub fn died_in_load(reason: &dyn Display) -> Error {
    let text = format!("Worker died: {reason} while it loaded the model");
    Error::new(Kind::LoadFailed, text)
}

/// The backend does not load the model: why, as far as it says nothing of this machine, and what to do.
pub fn not_loaded(model: &ModelSpec, error: &BackendError) -> Error {
    let info = model.backend.info();
    let reason = reason(&error.to_string(), &model.directory);
    let why = match error {
        // Lantern's own text, which says what to do.
        BackendError::Refused(text) => format!("cannot be served: {text}"),
        BackendError::Library(_) => format!("cannot be served here: {reason}"),
        BackendError::OutOfMemory(_) => format!(
            "does not fit into memory: {reason}; give the server more, or load fewer models or workers on the device"
        ),
        BackendError::Load(_)
        | BackendError::Input(_)
        | BackendError::Infer(_)
        | BackendError::Fatal(_) => format!(
            "does not load with the {} backend: {reason}; check that {}",
            info.name, info.loads_if
        ),
    };
    let text = format!("model \"{}\" version {} {why}", model.name, model.version);
    load_failed(&text, error)
}

#[cfg(test)]
mod tests;
