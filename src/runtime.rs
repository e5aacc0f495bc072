//! A loaded model version: its pipeline, batcher and workers, hosted in this process or in a child.
//!
//! [`Runtime`] is the seam: one entry, [`Runtime::call`], and two hosts behind it. It knows no protocol that
//! clients speak, no archive and no other version.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tracing::Span;

use crate::backend::Backend;
use crate::error::Error;
use crate::handler::HandlerEngine;
use crate::model::{BackendKind, Device, Hosting, ModelSpec};
use crate::payload::{Reply, Request, Response};
use crate::sandbox::Outcomes;

pub mod batcher;
pub mod batching;
pub mod child;
pub mod compiler;
mod envelope;
pub mod failures;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod inflight;
mod inline_runs;
pub mod local;
mod memory;
mod pool;
pub mod process;
mod protocol;
mod room;
mod shared;
mod source;
#[cfg(test)]
pub(crate) mod testing;

pub use crate::backend::{ModelState, Signature};
pub use crate::handler::{Level, LogLine, Observation, Sink};

pub use batching::{Batching, Grounds, Verdict, Verdicts};
pub use compiler::{CodeSource, CompileHere, CompileLimits, Compiler};
pub use inflight::{InFlight, InFlightTicket};
pub use inline_runs::InlineRuns;
pub use memory::available as available_memory;
pub use pool::Bounds;
pub use process::ProcessCounts;
pub use room::Room;

use local::LocalRuntime;
use process::ProcessRuntime;

/// Hands out worker ids, never one twice within a server's life. The first is TorchServe's first worker port.
#[derive(Debug)]
pub struct WorkerIds(AtomicU32);

impl WorkerIds {
    /// Ids from `first` on.
    pub const fn from(first: u32) -> Self {
        Self(AtomicU32::new(first))
    }

    /// The next id.
    pub fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// State of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// Loading the model.
    Loading,
    /// Takes jobs.
    Ready,
    /// Failed; a restart may be under way.
    Failed,
}

/// One worker, as `describe` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Id, unique within the server's life.
    pub id: u32,
    /// Where it computes.
    pub device: Device,
    /// State.
    pub state: WorkerState,
    /// When it was started.
    pub started: SystemTime,
    /// Process that hosts it.
    pub pid: u32,
}

impl WorkerStatus {
    /// Resident memory in bytes, now, of the process that hosts it and its other workers; 0 once it failed.
    pub fn memory(&self) -> u64 {
        match self.state {
            WorkerState::Loading | WorkerState::Ready => memory::resident(self.pid),
            WorkerState::Failed => 0,
        }
    }
}

impl WorkerStatus {
    /// The most resident memory, in bytes, that the process has had that hosts it and its other workers.
    pub fn peak_memory(&self) -> u64 {
        memory::peak(self.pid)
    }

    /// CPU time that the process has used that hosts it and its other workers.
    pub fn cpu_time(&self) -> Duration {
        memory::cpu_time(self.pid)
    }
}

/// Whether requests are let through to a version's worker process. In the server's process a circuit is always closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CircuitState {
    /// All are.
    #[default]
    Closed,
    /// One at a time, until one was answered: worker processes kept dying.
    HalfOpen,
    /// None for a while: worker processes keep dying.
    Open,
}

/// A runtime at one moment, as `describe`, `/ping` and the metrics show it.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Workers, by id.
    pub workers: Vec<WorkerStatus>,
    /// The walls around its process; none where it is hosted in the server's own.
    pub walls: Outcomes,
    /// Whether the runtime failed for longer than the version's retry window and was given up.
    pub given_up: bool,
    /// Whether requests are let through.
    pub circuit: CircuitState,
    /// The last lines a worker process wrote to stderr before it died, oldest first.
    pub last_output: Vec<String>,
    /// Why the last start failed, if it did.
    pub last_error: Option<Error>,
    /// Requests called and not answered.
    pub in_flight: usize,
    /// How requests are stacked, once the model was loaded.
    pub batching: Option<Batching>,
}

/// What all runtimes of a process are made from.
#[derive(Clone)]
pub struct Hosts {
    /// Gives the compiled code of handlers, wherever they are hosted.
    pub code: Arc<dyn CodeSource>,
    /// Engine for handlers hosted in this process; made at the first use.
    pub engine: Arc<dyn Fn() -> Result<HandlerEngine, Error> + Send + Sync>,
    /// Backends this process may host, by kind.
    pub backends: Arc<HashMap<BackendKind, Arc<dyn Backend>>>,
    /// How worker processes are started.
    pub processes: process::ProcessConfig,
    /// Ids for workers.
    pub worker_ids: Arc<WorkerIds>,
    /// Processor cores that workers may share out among themselves.
    pub cores: usize,
    /// What was found out about archives.
    pub verdicts: Verdicts,
    /// The slots for runs on threads of tokio.
    pub inline_runs: Arc<InlineRuns>,
}

impl Hosts {
    /// The same for one version, whose files `files` brings back when another program removed them.
    #[must_use]
    pub fn with_files(&self, files: Arc<dyn ModelFiles>) -> Self {
        let mut hosts = self.clone();
        hosts.processes.files = Some(files);
        hosts
    }

    /// The same for one version, whose worker processes are counted in `counts`.
    #[must_use]
    pub fn with_counts(mut self, counts: Arc<ProcessCounts>) -> Self {
        self.processes.counts = counts;
        self
    }
}

/// The files that a version is loaded from. Other programs may remove them, as those do that clean directories of temporary
/// files. Called before each start of a worker process, from a thread that may block.
pub trait ModelFiles: Send + Sync {
    /// Whether all are there.
    fn are_whole(&self) -> bool;

    /// Brings back those that are missing. An error says why that is not possible.
    fn restore(&self) -> Result<(), Error>;
}

/// Names the version in the span of a request for it, see [`crate::payload::request_span`].
pub fn record_version(span: &Span, model: &ModelSpec) {
    let (name, version) = (model.name.as_str(), model.version.as_str());
    tracing::record_all!(span, model = name, version = version);
}

/// A loaded model version, wherever it is hosted. Cheap to clone.
#[derive(Clone)]
pub enum Runtime {
    /// In this process.
    Inline(LocalRuntime),
    /// In a worker process.
    Process(ProcessRuntime),
}

impl Runtime {
    /// Loads a version with `bounds.min` workers and waits until the first is ready, for as long as the version's
    /// startup timeout. `sink` takes what its handler logs and measures.
    pub async fn start(
        hosts: &Hosts,
        model: Arc<ModelSpec>,
        bounds: Bounds,
        sink: Arc<dyn Sink>,
    ) -> Result<Self, Error> {
        match model.settings.hosting {
            Hosting::Inline => LocalRuntime::start(hosts, model, bounds, sink)
                .await
                .map(Self::Inline),
            Hosting::Process => ProcessRuntime::start(hosts, model, bounds, sink)
                .await
                .map(Self::Process),
        }
    }

    /// Takes one request through preprocess, inference and postprocess. Dropping the future cancels the request.
    pub async fn call(&self, request: Request) -> Result<Reply, Error> {
        let account = request.account.clone();
        let reply = match self {
            Self::Inline(runtime) => runtime.call(request).await,
            Self::Process(runtime) => runtime.call(request).await,
        };
        reply?.held_by(&account).await
    }

    /// Room for a body of `length` bytes of a request to this version.
    pub fn room(&self, length: usize) -> Room {
        match self {
            Self::Inline(_) => Room::own(length),
            Self::Process(runtime) => runtime.room(length),
        }
    }

    /// Asks the handler what it says of its model: a text that should be a JSON object, `{}` if it cannot be asked.
    /// Dropping the future ends the call.
    pub async fn describe(&self, request_id: &str, deadline: Instant) -> Result<Response, Error> {
        match self {
            Self::Inline(runtime) => runtime.describe(request_id, deadline).await,
            Self::Process(runtime) => runtime.describe(request_id, deadline).await,
        }
    }

    /// Starts or stops workers until there are as many as `bounds` allow, and waits until the new ones are ready.
    /// Workers that stop finish the batch they are in. Demand keeps to the bounds from now on.
    pub async fn scale(&self, bounds: Bounds) -> Result<(), Error> {
        match self {
            Self::Inline(runtime) => runtime.scale(bounds).await,
            Self::Process(runtime) => runtime.scale(bounds).await,
        }
    }

    /// The runtime at this moment. Cheap: reads what is known, asks nobody.
    pub fn status(&self) -> Status {
        match self {
            Self::Inline(runtime) => runtime.status(),
            Self::Process(runtime) => runtime.status(),
        }
    }

    /// Has its worker process, if it has one, come after those of others where the kernel decides, or among them again. Blocks for some time.
    pub fn set_back(&self, is_back: bool) -> io::Result<()> {
        match self {
            Self::Inline(_) => Ok(()),
            Self::Process(runtime) => runtime.set_back(is_back),
        }
    }

    /// How many workers take jobs. Asks nobody and reads nothing from the system, so that a scrape of many versions may.
    pub fn workers_ready(&self) -> usize {
        match self {
            Self::Inline(runtime) => runtime.workers_ready(),
            Self::Process(runtime) => runtime.workers_ready(),
        }
    }

    /// Whether requests are let through. Cheap, asks nobody.
    pub fn circuit(&self) -> CircuitState {
        match self {
            Self::Inline(_) => CircuitState::Closed,
            Self::Process(runtime) => runtime.circuit(),
        }
    }

    /// How requests are stacked, once the model was loaded. Cheap, asks nobody.
    pub fn batching(&self) -> Option<Batching> {
        match self {
            Self::Inline(runtime) => runtime.batching(),
            Self::Process(runtime) => runtime.batching(),
        }
    }

    /// Since when no worker takes jobs; `None` while one does.
    pub fn without_worker_since(&self) -> Option<Instant> {
        match self {
            Self::Inline(runtime) => runtime.without_worker_since(),
            Self::Process(runtime) => runtime.without_worker_since(),
        }
    }

    /// Inputs and outputs of the model, once loaded.
    pub fn signature(&self) -> Option<Arc<Signature>> {
        match self {
            Self::Inline(runtime) => runtime.signature(),
            Self::Process(runtime) => runtime.signature(),
        }
    }

    /// Refuses new requests, waits at most `timeout` for those under way, then ends workers and processes.
    pub async fn drain(&self, timeout: Duration) {
        match self {
            Self::Inline(runtime) => runtime.drain(timeout).await,
            Self::Process(runtime) => runtime.drain(timeout).await,
        }
    }
}

/// Where native libraries lie; found by `config`, sent to worker processes in the handshake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NativeLibraries {
    /// `libonnxruntime.so.*`.
    pub onnxruntime: Option<PathBuf>,
}
