//! Handlers: wasm components run by wasmtime inside limits. Only this module knows wasmtime.
//!
//! It knows requests, tensors and responses; it knows neither batches nor backends nor HTTP.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Error;
use crate::model::{Device, Limits, ModelSpec};
use crate::payload::{Request, Response};
use crate::tensor::NamedTensor;

/// What `preprocess` decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Run the model on these tensors.
    Infer(Prepared),
    /// Answer at once.
    Done(Response),
}

/// A request's tensors, and what its `postprocess` needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Inputs; all have `rows` rows on axis 0.
    pub inputs: Vec<NamedTensor>,
    /// Rows that the request contributes to a batch; at least 1.
    pub rows: usize,
    /// Comes back to `postprocess`.
    pub carry: Bytes,
}

/// Severity of a handler's log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Finest.
    Trace,
    /// For the author.
    Debug,
    /// Normal course of things.
    Info,
    /// Something odd.
    Warn,
    /// Something failed.
    Error,
}

/// Kind of a handler's own metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetricKind {
    /// Grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

/// One line of the model's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Severity.
    pub level: Level,
    /// Text, at most 8 KiB.
    pub message: String,
    /// Named values.
    pub fields: Vec<(String, String)>,
    /// The request in whose call it was written; empty for `init`.
    pub request_id: String,
}

/// One observation of a handler's own metric. Names and label values were validated.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Metric name.
    pub name: Arc<str>,
    /// Kind.
    pub kind: MetricKind,
    /// Unit, as in the interface: `none`, `milliseconds`, `bytes`, `count`, `percent`.
    pub unit: &'static str,
    /// Label names.
    pub label_names: Arc<[String]>,
    /// Label values, as many as names.
    pub label_values: Vec<String>,
    /// Value.
    pub value: f64,
}

/// Where a handler's logs and metrics go. Called from within a call to the handler: must not block.
pub trait Sink: Send + Sync {
    /// Takes a line of the model's log.
    fn log(&self, line: LogLine);
    /// Takes an observation of a handler's own metric.
    fn observe(&self, observation: Observation);
}

/// What one version's handler is loaded with.
#[derive(Clone)]
pub struct HandlerSpec {
    /// The version it belongs to; its `directory` holds the component and the assets.
    pub model: Arc<ModelSpec>,
    /// The device of the version's first worker.
    pub device: Device,
    /// What it may use.
    pub limits: Limits,
    /// Where its logs and metrics go.
    pub sink: Arc<dyn Sink>,
}

/// Settings of the engine that all handlers of a process share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineConfig {
    /// Where compiled code is kept; `None` compiles anew each time.
    pub cache: Option<PathBuf>,
}

/// Compiles and links components; owns the ticker that ends endless calls. Cheap to clone.
#[derive(Clone)]
pub struct HandlerEngine {}

impl HandlerEngine {
    /// Configures wasmtime and starts the ticker.
    pub fn new(_cfg: EngineConfig) -> Result<Self, Error> {
        unimplemented!()
    }
}

/// One version's handler: compiled code and its warm instances. Cheap to clone.
#[derive(Clone)]
pub struct Handler {}

impl Handler {
    /// Compiles the component, or takes it from the cache, checks exports and imports, and makes the first instance.
    pub async fn load(_engine: &HandlerEngine, _spec: HandlerSpec) -> Result<Self, Error> {
        unimplemented!()
    }

    /// Runs `preprocess`. Dropping the future ends the call.
    pub async fn preprocess(&self, _request: &Request) -> Result<Step, Error> {
        unimplemented!()
    }

    /// Runs `postprocess` on one request's rows of the outputs.
    pub async fn postprocess(
        &self,
        _request_id: &str,
        _outputs: Vec<NamedTensor>,
        _carry: Bytes,
    ) -> Result<Response, Error> {
        unimplemented!()
    }
}
