//! `lantern worker`: hosts one model version for a server that started it.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::Failure;
use crate::backend::fake::{FakeBackend, Outcome};
use crate::backend::none::NoModel;
use crate::backend::onnx::OnnxBackend;
use crate::backend::{Backend, BackendError};
use crate::model::BackendKind;
use crate::runtime::{NativeLibraries, child};
use crate::telemetry;

/// A row of the fake backend that starts so ends the process, as a fault in native code does.
const ABORT: &[u8] = b"abort";

/// A row that starts so costs it its device.
const FATAL: &[u8] = b"fatal";

/// A row that starts so is in a run that does not end.
const STUCK: &[u8] = b"stuck";

/// Nothing: what a worker process is told comes in the handshake.
#[derive(Debug, Args)]
pub struct WorkerArgs {}

/// Hosts a model version until the server that started this process says otherwise, or is gone.
pub fn run(_args: &WorkerArgs) -> Result<ExitCode, Failure> {
    telemetry::init_worker();
    Ok(child::run(backend))
}

fn fake() -> FakeBackend {
    FakeBackend::new()
        .with_mark(ABORT, Outcome::Abort)
        .with_mark(FATAL, Outcome::Fatal)
        .with_mark(STUCK, Outcome::Hold)
}

fn backend(
    kind: BackendKind,
    libraries: &NativeLibraries,
) -> Result<Arc<dyn Backend>, BackendError> {
    match kind {
        BackendKind::Onnx => Ok(Arc::new(OnnxBackend::new(
            libraries.onnxruntime.as_deref(),
        )?)),
        BackendKind::None => Ok(Arc::new(NoModel)),
        BackendKind::Fake => Ok(Arc::new(fake())),
        BackendKind::Torch => Err(BackendError::Library(
            "TorchScript is hosted by lantern-torch, not by lantern".to_owned(),
        )),
    }
}
