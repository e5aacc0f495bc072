//! The messages, as they are encoded. Wire types only: what they mean to the rest is `convert`'s business.
//!
//! `S` is `&str` where a message is written and `String` where it is read; both have one encoding.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Limits, Settings};
use crate::sandbox::Outcomes;

/// From the front to the worker process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Order<S> {
    /// The handshake: load this version.
    Start(Box<Start>),
    /// Answer one request. The body follows.
    Call(Call<S>),
    /// Ask the handler what it says of its model; answered as a call.
    Describe {
        /// Of this order; counted together with calls.
        id: u64,
        /// Id of the request that asks.
        request: S,
        /// Until its deadline.
        left: Duration,
    },
    /// Nobody waits for the answer to this any more.
    Cancel {
        /// Of the call.
        id: u64,
    },
    /// Have as many workers as this allows; answered by [`Report::Scaled`].
    Scale {
        /// Of this order; counted together with calls.
        id: u64,
        /// Workers there shall be.
        workers: Bounds,
    },
    /// Finish what is under way and exit.
    Drain {
        /// How long that may take.
        timeout: Duration,
    },
    /// A body in shared memory is not read any more.
    Released {
        /// Where it began.
        offset: u64,
    },
}

/// From the worker process to the front.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Report<S> {
    /// The version is loaded.
    Ready {
        /// What the model takes and gives.
        signature: Signature,
        /// Its workers.
        workers: Vec<Worker>,
    },
    /// The version does not load. The last message.
    Failed(Failure<S>),
    /// The response to a call. Its body follows.
    Reply(Reply<S>),
    /// A call failed.
    Refused {
        /// Of the call.
        id: u64,
        /// What it used.
        spent: Spent,
        /// Why.
        failure: Failure<S>,
    },
    /// An order to scale was carried out, or not.
    Scaled {
        /// Of the order.
        id: u64,
        /// Why not.
        failure: Option<Failure<S>>,
    },
    /// How requests are stacked from now on, and what was found out about the archive.
    Batching {
        /// What is done.
        batching: Batching,
        /// What was found out, if anything.
        verdict: Option<Verdict>,
    },
    /// The workers are now these. Sent when they change.
    Workers(Vec<Worker>),
    /// A line of the handler's log.
    Log(Log<S>),
    /// An observation of one of the handler's own metrics.
    Observe(Observe<S>),
    /// The walls around the process. The first message, sent before anything foreign is opened.
    Walls(Outcomes),
    /// The tensors that answer a call. Their data follows.
    Inferred(Inferred<S>),
    /// The process lives. Sent every second, from the handshake on.
    Alive {
        /// How long its runtime threads have done nothing.
        stuck: Duration,
    },
    /// A body in shared memory is not read any more.
    Released {
        /// Where it began.
        offset: u64,
    },
}

/// How many workers there shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// At least.
    pub min: u32,
    /// At most.
    pub max: u32,
}

/// What a worker process loads, and with what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Build of the front.
    pub build: String,
    /// The version.
    pub model: Model,
    /// Workers there shall be; the least number to start with.
    pub workers: Bounds,
    /// Processor cores that all workers share.
    pub cores: u32,
    /// `libonnxruntime.so.*`.
    pub onnxruntime: Option<PathBytes>,
    /// What was found out about batching before.
    pub verdict: Option<Verdict>,
}

/// A path, byte for byte.
pub type PathBytes = Vec<u8>;

/// A model version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    pub name: String,
    pub version: String,
    pub directory: PathBytes,
    pub artifact: PathBytes,
    pub handler: PathBytes,
    /// The backend's name.
    pub backend: String,
    pub digest: String,
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    pub samples: Option<PathBytes>,
    pub manifest: String,
    pub config: String,
    pub properties: Vec<(String, String)>,
    pub settings: Settings,
    pub limits: Limits,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Device {
    Cpu,
    Cuda(u32),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorSpec {
    pub name: String,
    /// Position in `DType::ALL`.
    pub dtype: Option<u8>,
    pub shape: Option<Vec<Option<u64>>>,
    pub arity: Arity,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Arity {
    One,
    Optional,
    Many,
}

/// Inputs and outputs of a model and what else is known of it, as in `backend`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signature {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    pub is_open: bool,
    pub axis0: Axis0,
    pub state: ModelState,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Axis0 {
    Unknown,
    Shared,
    Refuted(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum ModelState {
    Stateless,
    Locked,
    Copied,
}

/// What is done about batching, as in `runtime::batching`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Batching {
    Single,
    On(Grounds),
    OnByOwner,
    Trial,
    Off(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Grounds {
    Samples,
    Rounded,
    Requests,
}

/// What was found out about an archive, as in `runtime::batching`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Verdict {
    Confirmed(Grounds),
    Refuted(String),
}

/// A request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call<S> {
    /// One more than that of the call or order to scale before, on this connection.
    pub id: u64,
    pub request: S,
    pub content_type: Option<S>,
    pub headers: Vec<(S, S)>,
    /// How the body is divided.
    pub layout: Layout<S>,
    /// Since the request arrived.
    pub age: Duration,
    /// Until its deadline.
    pub left: Duration,
    pub priority: Priority,
    /// Until it has to have begun.
    pub begin_within: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Priority {
    High,
    Normal,
    Low,
}

/// How the raw body of a call is divided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Layout<S> {
    /// One payload.
    Raw,
    /// Parts of a form, one after the other.
    Form(Vec<Part<S>>),
    /// Tensors, one after the other.
    Tensors(Vec<Tensor<S>>),
}

/// One part of a form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part<S> {
    pub name: S,
    pub filename: Option<S>,
    pub content_type: Option<S>,
    /// Bytes of the body that are its content.
    pub length: u64,
}

/// One tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tensor<S> {
    pub name: S,
    /// Position in `DType::ALL`.
    pub dtype: u8,
    pub shape: Vec<u64>,
    /// Bytes of the body that are its data.
    pub length: u64,
}

/// The head of a response and the times of its phases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply<S> {
    /// Of the call.
    pub id: u64,
    pub status: u16,
    pub content_type: S,
    pub headers: Vec<(S, S)>,
    pub timings: Timings,
    pub spent: Spent,
}

/// The tensors that answer a call and the times of its phases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inferred<S> {
    /// Of the call.
    pub id: u64,
    /// One after the other in the body.
    pub tensors: Vec<Tensor<S>>,
    pub timings: Timings,
    pub spent: Spent,
}

/// What a call used, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    pub handler: u64,
    pub inference: u64,
}

/// Times of phases in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    pub preprocess: u64,
    pub queue: u64,
    pub infer: u64,
    pub postprocess: u64,
    pub batch_rows: u32,
    pub rows: u32,
    pub leads_batch: bool,
}

/// One worker of the process.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Counts from 0 in each worker process; the front gives it an id that is unique in the server.
    pub id: u32,
    pub device: Device,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum State {
    Loading,
    Ready,
    Failed,
}

/// A line of the handler's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Log<S> {
    pub level: Level,
    pub message: S,
    pub fields: Vec<(S, S)>,
    pub request: S,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// An observation of a handler's own metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observe<S> {
    pub name: S,
    pub kind: MetricKind,
    pub unit: S,
    pub label_names: Vec<S>,
    pub label_values: Vec<S>,
    pub value: f64,
    pub request: S,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure<S> {
    pub kind: FailureKind,
    pub message: S,
    pub detail: Option<S>,
}

/// Mirrors `error::Kind` and converts both ways, exhaustively.
macro_rules! failure_kinds {
    ($($kind:ident),* $(,)?) => {
        /// What went wrong, as `error::Kind` has it.
        #[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
        pub enum FailureKind { $($kind),* }

        impl From<crate::error::Kind> for FailureKind {
            fn from(kind: crate::error::Kind) -> Self {
                match kind { $(crate::error::Kind::$kind => Self::$kind),* }
            }
        }

        impl From<FailureKind> for crate::error::Kind {
            fn from(kind: FailureKind) -> Self {
                match kind { $(FailureKind::$kind => Self::$kind),* }
            }
        }
    };
}

failure_kinds! {
    BadRequest, InvalidInput, BadEncoding, TooLarge, BodyTimedOut, UnknownExpectation, NegativeWorkers,
    UnsupportedMediaType, ResourceNotFound, MethodNotAllowed, ModelNotFound, VersionNotFound, WorkflowNotFound,
    CannotExplain, Conflict, DefaultVersionInUse, InvalidModel, NoWorker, QueueFull, Draining, Expired, Cancelled,
    HandlerUnavailable, HandlerFailed, HandlerPanicked, HandlerTrapped, HandlerTimedOut, HandlerOutOfMemory,
    HandlerOutput, InferenceFailed, OutOfMemory, LoadFailed, WorkerDied, CleanupTimedOut, Internal,
    DownloadFailed, FileExists, ModelApiDisabled, InvalidKey, Loading,
    CrashLoop, Overloaded, OverQuota, Throttled, Suspended,
}
