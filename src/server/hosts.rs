//! Backends for runtimes in the server's own process. A framework's library is opened when the first model needs it:
//! a server whose models run in worker processes never opens one.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crate::backend::none::NoModel;
use crate::backend::onnx::OnnxBackend;
use crate::backend::{Backend, BackendError, LoadSpec, LoadedModel};
use crate::model::BackendKind;

/// What may run in the server's process: ONNX, and handlers that have no model. Not TorchScript, whose files are code.
pub fn inline_backends(onnxruntime: Option<PathBuf>) -> HashMap<BackendKind, Arc<dyn Backend>> {
    let onnx = LazyOnnx {
        library: onnxruntime,
        opened: OnceLock::new(),
    };
    HashMap::from([
        (BackendKind::Onnx, Arc::new(onnx) as Arc<dyn Backend>),
        (BackendKind::None, Arc::new(NoModel) as Arc<dyn Backend>),
    ])
}

struct LazyOnnx {
    library: Option<PathBuf>,
    opened: OnceLock<Result<OnnxBackend, BackendError>>,
}

impl Backend for LazyOnnx {
    fn name(&self) -> &'static str {
        BackendKind::Onnx.name()
    }

    fn load(&self, spec: &LoadSpec) -> Result<Arc<dyn LoadedModel>, BackendError> {
        let opened = self
            .opened
            .get_or_init(|| OnnxBackend::new(self.library.as_deref()));
        opened.as_ref().map_err(Clone::clone)?.load(spec)
    }
}
