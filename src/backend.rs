//! The seam to native inference: a [`Backend`] loads artifacts, a [`Session`] infers.
//!
//! Backends know tensors and devices. They know neither handlers nor batches nor requests. Three short traits are the whole
//! contract: a further framework is a folder beside `onnx`, a row in [`crate::model::BackendKind::info`], and a line in the
//! program that hosts it, which constructs it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::{BackendKind, Declared, Device, Program, StateSharing};
use crate::tensor::NamedTensor;

pub mod failure;
pub mod fake;
pub mod none;
pub mod onnx;
mod signature;

pub use signature::{Axis0, ModelState, NamedAxis, Signature};

/// Variables that every process has in its environment before it opens a native library, so that none reports to its maker.
///
/// ONNX Runtime queues events in a database among the user's files, and calls its maker's host, from the moment that its
/// environment is made. Its own switch comes too late for that; only the variable is heeded in time.
pub const NO_TELEMETRY: [(&str, &str); 1] = [("ORT_DISABLE_TELEMETRY", "1")];

/// What to load, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadSpec {
    /// The artifact, which lies inside the unpacked archive. Its content is foreign: it may be wrong, and may be code.
    pub artifact: PathBuf,
    /// Where to put the weights.
    pub device: Device,
    /// Workers that will infer at the same time on this device.
    pub workers: usize,
    /// Threads that one worker may use inside one operator; at least 1.
    pub intra_op_threads: usize,
    /// What the owner says of inputs and outputs.
    pub declared: Declared,
    /// What workers do with a model that keeps state.
    pub state: StateSharing,
    /// Whether outputs are dropped soon, so that they may stay in memory that the framework keeps for its runs.
    pub has_brief_outputs: bool,
}

/// Why a backend could not load or infer. Texts may hold paths and the framework's own text: they are for the log
/// and for the operator who registers a model, not for the client of a prediction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The framework's library is not on this machine, or not usable.
    #[error("{0}")]
    Library(String),
    /// The artifact does not load.
    #[error("{0}")]
    Load(String),
    /// The artifact, or what is declared of it, asks for what is not served. The text names nothing of this machine:
    /// whoever registers the model sees it.
    #[error("{0}")]
    Refused(String),
    /// The framework refused these inputs.
    #[error("{0}")]
    Input(String),
    /// The run failed.
    #[error("{0}")]
    Infer(String),
    /// No memory was left on the device or the host.
    #[error("{0}")]
    OutOfMemory(String),
    /// The device or the process cannot be used any more.
    #[error("{0}")]
    Fatal(String),
}

impl BackendError {
    /// The answer of the program `here` to whoever asks it for a backend that another program hosts.
    pub fn not_hosted(kind: BackendKind, here: Program) -> Self {
        let info = kind.info();
        Self::Library(format!(
            "{} is hosted by {}, not by {}",
            info.format,
            info.program.name(),
            here.name()
        ))
    }
}

/// Checks what can be known of an artifact without its framework. Every backend does so when it loads one; tools do so where the
/// framework may not be there.
pub fn check_artifact(
    kind: BackendKind,
    artifact: &Path,
    declared: &Declared,
) -> Result<(), BackendError> {
    match kind {
        BackendKind::Onnx => onnx::check(artifact, declared),
        // What a module says of itself is in its program.
        BackendKind::Torch | BackendKind::None | BackendKind::Fake => Ok(()),
    }
}

/// A framework that loads artifacts.
///
/// One value per process. Called by a runtime while it loads, from a thread that may block.
pub trait Backend: Send + Sync {
    /// Loads weights onto one device. Called once per device of a version; may take seconds.
    fn load(&self, spec: &LoadSpec) -> Result<Arc<dyn LoadedModel>, BackendError>;
}

/// Gives memory of this process that runs needed, and need no more, back to the allocator. Blocks, for milliseconds.
pub fn give_back() {
    onnx::give_back();
}

/// One copy of a model's weights on one device, shared by all workers there.
pub trait LoadedModel: Send + Sync {
    /// Inputs and outputs.
    fn signature(&self) -> &Signature;

    /// Makes what one worker needs to infer by itself. Must not copy the weights where the framework allows it.
    fn session(&self) -> Result<Box<dyn Session>, BackendError>;
}

/// What one worker infers with. It is used by one thread at a time, and may move between threads.
pub trait Session: Send {
    /// Runs the model once, on inputs that passed [`Signature::check`] or several such stacked along axis 0. An error
    /// leaves the session usable unless it is [`BackendError::Fatal`]. May block; may panic, which the worker catches.
    fn infer(&mut self, inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, BackendError>;

    /// What ends a run of this session from another thread; `None` where the framework has nothing for it.
    fn interrupter(&self) -> Option<Arc<dyn Interrupt>> {
        None
    }
}

/// Ends runs of one [`Session`]. Called by a runtime, from any thread, when nobody waits for a run's outputs any more.
pub trait Interrupt: Send + Sync {
    /// Has the run under way fail soon, if there is one. Runs that begin afterwards are not concerned. Returns at once.
    fn interrupt(&self);
}
