//! The backend of an archive without weights: its handler answers every request by itself.

use std::sync::Arc;

use super::{Backend, BackendError, LoadSpec, LoadedModel, Session, Signature};
use crate::tensor::NamedTensor;

/// Loads nothing. A handler that asks for inference all the same gets an error that says so.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoModel;

#[derive(Debug, Default)]
struct Nothing(Signature);

impl Backend for NoModel {
    fn load(&self, _spec: &LoadSpec) -> Result<Arc<dyn LoadedModel>, BackendError> {
        Ok(Arc::new(Nothing::default()))
    }
}

impl LoadedModel for Nothing {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        Ok(Box::new(NoModel))
    }
}

impl Session for NoModel {
    fn infer(&mut self, _inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, BackendError> {
        Err(BackendError::Infer(
            "the archive has no serialized file to infer with".to_owned(),
        ))
    }
}
