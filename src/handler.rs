//! Handlers: wasm components run by wasmtime inside limits. Only this module knows wasmtime.
//!
//! It knows requests, tensors and responses; it knows neither batches nor backends nor HTTP.

mod assets;
mod bindings;
mod cache;
mod code;
mod compile;
mod context;
mod cpu_meter;
mod engine;
mod fault;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod host;
mod inspect;
mod instance;
mod limiter;
mod load;
mod logging;
mod lower;
mod metrics;
mod observation;
mod output;
mod pool;
mod rate;
mod sealed;
mod tensors;
mod ticker;
mod wasi;

use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use crate::error::{Error, Kind};
use crate::model::{Device, Limits, ModelSpec};
use crate::payload::{Meter, Request, Response};
use crate::tensor::NamedTensor;

use instance::Instance;
use load::Linked;
use logging::LogGate;
use metrics::Series;
use pool::{Lease, Pool};

pub(crate) use self::cache::{CodeCache, CodeId};
pub use self::code::Code;
pub(crate) use self::code::{CODE_LIMIT, WeakCode};
pub(crate) use self::compile::compile;
pub(crate) use self::cpu_meter::yield_now;
pub(crate) use self::inspect::SIZE_LIMIT;
pub use self::inspect::{ComponentInfo, check, inspect};
pub(crate) use self::logging::FAILURES_PER_SECOND;
pub(crate) use self::observation::unit_named;
pub(crate) use self::rate::RateLimit;
pub(crate) use self::sealed::{Sealed, memory_file};
pub use crate::metrics::MetricKind;

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
    /// The model's inputs, by name.
    pub inputs: Vec<NamedTensor>,
    /// Bytes that the handler gets back in `postprocess`, unchanged.
    pub carry: Bytes,
}

/// Severity of a handler's log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Finer than what debugging needs.
    Trace,
    /// Of use to the handler's author.
    Debug,
    /// Something that happens in normal operation.
    Info,
    /// Something unexpected that did no harm yet.
    Warn,
    /// Something failed.
    Error,
}

/// One line of the model's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How severe the handler says it is.
    pub level: Level,
    /// The text, at most 8 KiB.
    pub message: String,
    /// Names and values that the handler logged beside the text.
    pub fields: Vec<(String, String)>,
    /// Id of the request whose call wrote it; empty for `init`.
    pub request_id: String,
}

/// One observation of a handler's own metric. Names and label values were validated.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Name of the metric, as the handler chose it.
    pub name: Arc<str>,
    /// Counter, gauge or histogram.
    pub kind: MetricKind,
    /// Unit, as in the interface: `none`, `milliseconds`, `bytes`, `count`, `percent`.
    pub unit: &'static str,
    /// Label names.
    pub label_names: Arc<[String]>,
    /// Label values, as many as names.
    pub label_values: Vec<String>,
    /// By how much a counter grows, or the value that was observed.
    pub value: f64,
    /// Id of the request whose call observed it; empty for `init`.
    pub request_id: String,
}

/// Where a handler's logs and metrics go. It is called while the handler runs, on a runtime thread, so it must not block.
pub trait Sink: Send + Sync {
    /// Takes a line of the model's log.
    fn log(&self, line: LogLine);
    /// Takes an observation of a handler's own metric.
    fn observe(&self, observation: Observation);
    /// Takes what the server itself says of the version: that a worker process died, and the like. `text` and the error's message are fit
    /// for whoever owns the version, the error's detail for the operator alone. Whoever keeps no such lines leaves it out.
    fn say(&self, level: Level, text: String, error: Option<&Error>) {
        let _ = (level, text, error);
    }
}

/// What one version's handler is loaded with.
#[derive(Clone)]
pub struct HandlerSpec {
    /// The version it belongs to; its `directory` holds the assets.
    pub model: Arc<ModelSpec>,
    /// Its component, compiled.
    pub code: Code,
    /// The device of the version's first worker.
    pub device: Device,
    /// What its instances and calls may use at most.
    pub limits: Limits,
    /// Where its logs and metrics go.
    pub sink: Arc<dyn Sink>,
}

/// Loads and links compiled components, and owns the thread by which calls notice that their time is over. Cheap to clone.
#[derive(Clone)]
pub struct HandlerEngine {
    shared: Arc<engine::EngineState>,
}

impl HandlerEngine {
    /// Configures wasmtime and starts the ticker.
    ///
    /// wasmtime installs signal handlers here: make the engine after native libraries that install their own.
    pub fn new() -> Result<Self, Error> {
        let shared = engine::EngineState::new()?;
        Ok(Self { shared })
    }

    /// Gives one engine, which the first call makes.
    pub fn lazy() -> impl Fn() -> Result<Self, Error> + Send + Sync {
        let engine = LazyLock::new(Self::new);
        move || LazyLock::force(&engine).clone()
    }
}

/// One version's handler: compiled code and its warm instances. Cheap to clone.
#[derive(Clone)]
pub struct Handler {
    version: Arc<Version>,
}

/// What instances of one handler are made from, and the idle instances.
struct Version {
    engine: Arc<engine::EngineState>,
    component: Linked,
    model: Arc<ModelSpec>,
    device: Device,
    host: Arc<host::HandlerState>,
    pool: Pool,
}

impl Handler {
    /// Loads the compiled code, checks exports and imports, and makes the first instance.
    ///
    /// Every failure is [`Kind::LoadFailed`] with the reason in its message.
    pub async fn load(engine: &HandlerEngine, spec: HandlerSpec) -> Result<Self, Error> {
        let engine = Arc::clone(&engine.shared);
        let model = Arc::clone(&spec.model);
        let code = spec.code;
        let loading = tokio::task::spawn_blocking({
            let engine = Arc::clone(&engine);
            move || load::load(&engine, &model, &code)
        });
        let (component, assets) = loading.await.map_err(|error| aborted(&error))??;
        let host = Arc::new(host::HandlerState {
            sink: spec.sink,
            assets,
            log_gate: LogGate::new(
                spec.limits.log_lines_per_second,
                spec.limits.log_bytes_per_second,
            ),
            failure_gate: LogGate::new(FAILURES_PER_SECOND, usize::MAX),
            series: Series::new(
                spec.limits.metric_series,
                spec.limits.observations_per_second,
            ),
            limits: spec.limits,
        });
        let version = Arc::new(Version {
            engine,
            component,
            model: spec.model,
            device: spec.device,
            pool: Pool::new(host.limits.instances),
            host,
        });
        pool::put(&version, Instance::start(&version).await?);
        Ok(Self { version })
    }

    /// Runs `preprocess`. Dropping the future ends the call.
    pub async fn preprocess(&self, request: &Request) -> Result<Step, Error> {
        let mut lease = Lease::take(&self.version).await?;
        let step = lease.instance().preprocess(&self.version, request).await;
        lease.give_back();
        step
    }

    /// Runs `postprocess` on one request's rows of the outputs. Dropping the future ends the call.
    pub async fn postprocess(
        &self,
        request_id: &str,
        meter: &Meter,
        outputs: Vec<NamedTensor>,
        carry: Bytes,
    ) -> Result<Response, Error> {
        let mut lease = Lease::take(&self.version).await?;
        let instance = lease.instance();
        let response = instance
            .postprocess(&self.version, (request_id, meter), &outputs, &carry)
            .await;
        lease.give_back();
        response
    }

    /// Says in the model's log, as a warning, why a request failed outside of the handler.
    pub fn log_failure(&self, message: &str, request_id: &str) {
        self.version.host.log_failure(message, request_id);
    }

    /// Runs `describe`: a text that should be a JSON object. It is `{}` for a component without that export.
    /// Dropping the future ends the call.
    pub async fn describe(&self, request_id: &str) -> Result<Response, Error> {
        if self.version.component.describe.is_none() {
            return Ok(Response::json(Bytes::from_static(b"{}")));
        }
        let mut lease = Lease::take(&self.version).await?;
        let text = lease.instance().describe(&self.version, request_id).await;
        lease.give_back();
        Ok(Response::json(text?.into()))
    }
}

fn aborted(error: &tokio::task::JoinError) -> Error {
    Error::new(Kind::LoadFailed, "Loading the handler was aborted").with_detail(error)
}

#[cfg(test)]
mod tests;
