//! `lantern-torch`: hosts one TorchScript version for a server that started it.

use std::process::ExitCode;
use std::sync::Arc;

use lantern::backend::{Backend, BackendError};
use lantern::model::{BackendKind, Program};
use lantern::runtime::{NativeLibraries, child};
use lantern::telemetry;
use torch_worker::torch::TorchBackend;

fn main() -> ExitCode {
    telemetry::init_worker();
    child::run(backend)
}

fn backend(
    kind: BackendKind,
    _libraries: &NativeLibraries,
) -> Result<Arc<dyn Backend>, BackendError> {
    match kind {
        BackendKind::Torch => Ok(Arc::new(TorchBackend::new())),
        elsewhere => Err(BackendError::not_hosted(elsewhere, Program::LanternTorch)),
    }
}
