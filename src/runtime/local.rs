//! Placeholder of the local host.

use std::sync::Arc;
use std::time::Duration;

use super::{Hosts, Status};
use crate::backend::Signature;
use crate::error::Error;
use crate::handler::Sink;
use crate::model::ModelSpec;
use crate::payload::{Reply, Request};

/// Placeholder.
#[derive(Clone)]
pub struct LocalRuntime {}

impl LocalRuntime {
    /// Placeholder.
    pub async fn start(
        _hosts: &Hosts,
        _model: Arc<ModelSpec>,
        _workers: usize,
        _sink: Arc<dyn Sink>,
    ) -> Result<Self, Error> {
        unimplemented!()
    }
    /// Placeholder.
    pub async fn call(&self, _request: Request) -> Result<Reply, Error> {
        unimplemented!()
    }
    /// Placeholder.
    pub async fn scale(&self, _workers: usize) -> Result<(), Error> {
        unimplemented!()
    }
    /// Placeholder.
    pub fn status(&self) -> Status {
        unimplemented!()
    }
    /// Placeholder.
    pub fn signature(&self) -> Option<Arc<Signature>> {
        unimplemented!()
    }
    /// Placeholder.
    pub async fn drain(&self, _patience: Duration) {
        unimplemented!()
    }
}
