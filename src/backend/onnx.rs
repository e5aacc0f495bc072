//! ONNX models on ONNX Runtime, whose library is opened at run time.
//!
//! Owns the library, the process's one environment, and how a model file becomes a loaded model. Only this module
//! and those below it know `ort`. It trusts neither the model file nor what the file says of itself.

use std::path::Path;
use std::sync::Arc;

use ort::environment::Environment;
use ort::ep::ExecutionProvider as _;
use ort::logging::LogLevel;
use ort::session::Session as OrtSession;
use ort::session::builder::SessionBuilder;
use parking_lot::Mutex;

use super::failure::classify;
use super::{Axis0, Backend, BackendError, LoadSpec, LoadedModel, ModelState};
use super::{Session, Signature};
use crate::memory;
use crate::model::{Arity, Declared, Device, TensorSpec};

mod arena;
mod empty;
mod external;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod gather;
mod interface;
mod port;
mod session;
#[cfg(test)]
mod tests;
mod value;
mod wire;

use interface::{Interface, InterfaceError};
use port::{Form, Ports};
use session::{OnnxSession, SharedSession};

/// What to open when no path is known: the dynamic linker searches for it.
const LIBRARY: &str = "libonnxruntime.so";

/// The library allows one environment per process, for as long as the process lives.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// Loads ONNX models.
pub struct OnnxBackend {
    environment: Environment,
}

impl OnnxBackend {
    /// Opens ONNX Runtime: the shared library at `library`, or the one the dynamic linker finds. A process has one:
    /// later calls give the library that the first one opened.
    ///
    /// Fails with [`BackendError::Library`] where there is none, or one that is too old.
    pub fn new(library: Option<&Path>) -> Result<Self, BackendError> {
        let mut slot = ENVIRONMENT.lock();
        if let Some(environment) = &*slot {
            return Ok(Self {
                environment: environment.clone(),
            });
        }
        let environment = open(library.unwrap_or(Path::new(LIBRARY)))?;
        *slot = Some(environment.clone());
        Ok(Self { environment })
    }

    fn commit(&self, spec: &LoadSpec) -> Result<OrtSession, ort::Error> {
        configure(SessionBuilder::new(&self.environment)?, spec)?.commit_from_file(&spec.artifact)
    }
}

/// Gives memory that runs needed back to the allocator, if the library was opened.
pub(super) fn give_back() {
    let environment = ENVIRONMENT.lock().clone();
    let given_back = environment.as_ref().map(arena::give_back);
    if let Some(Err(error)) = given_back {
        tracing::debug!(%error, "the arena does not shrink");
    }
}

/// Checks what can be known of a model without ONNX Runtime: that the file may be opened, and that what it says of its inputs
/// is served and is what its owner declared.
pub fn check(artifact: &Path, declared: &Declared) -> Result<(), BackendError> {
    read_interface(artifact, declared).map(drop)
}

fn read_interface(artifact: &Path, declared: &Declared) -> Result<Interface, BackendError> {
    external::check(artifact).map_err(|error| BackendError::Load(error.to_string()))?;
    let interface = interface::read(artifact).map_err(|error| match error {
        InterfaceError::Wire(_) => BackendError::Load(error.to_string()),
        InterfaceError::Value { .. } => BackendError::Refused(error.to_string()),
    })?;
    let confirmed = interface.confirm(declared);
    confirmed.map_err(BackendError::Refused)?;
    Ok(interface)
}

impl Backend for OnnxBackend {
    fn load(&self, spec: &LoadSpec) -> Result<Arc<dyn LoadedModel>, BackendError> {
        let interface = read_interface(&spec.artifact, &spec.declared)?;
        check_device(spec.device)?;
        let session = self
            .commit(spec)
            .map_err(|error| classify(error.to_string(), BackendError::Load))?;
        give_back();
        memory::give_back();
        let inputs = port::inputs(&session, &interface)?;
        let outputs = port::outputs(&session, &interface)?;
        let signature = signature(&inputs, &outputs, &spec.declared);
        signature
            .confirm(&spec.declared)
            .map_err(BackendError::Refused)?;
        Ok(Arc::new(OnnxModel(Arc::new(SharedSession {
            empty: empty::sequences(&self.environment, &inputs.all),
            inputs: inputs.all,
            outputs: outputs.all,
            session,
            signature,
            has_brief_outputs: spec.has_brief_outputs,
        }))))
    }
}

/// One ONNX Runtime session, which all workers of a device run at once.
struct OnnxModel(Arc<SharedSession>);

impl LoadedModel for OnnxModel {
    fn signature(&self) -> &Signature {
        &self.0.signature
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        Ok(Box::new(OnnxSession::new(Arc::clone(&self.0))?))
    }
}

fn open(library: &Path) -> Result<Environment, BackendError> {
    let unusable = |error: &dyn std::fmt::Display| {
        BackendError::Library(format!(
            "ONNX models need ONNX Runtime 1.{} or later, and {} does not load: {error}. Install the Python package \
             onnxruntime, or onnxruntime-gpu for CUDA, and set ORT_DYLIB_PATH to the libonnxruntime.so in it",
            ort::MINOR_VERSION,
            library.display()
        ))
    };
    let environment = ort::init_from(library)
        .map_err(|error| unusable(&error))?
        .with_name("lantern")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|error| unusable(&error))?;
    environment.set_log_level(LogLevel::Warning);
    arena::register(&environment).map_err(|error| unusable(&error))?;
    Ok(environment)
}

/// A run's failure is in its result as well, so nothing short of a fatal message is news to the operator.
fn log(level: LogLevel, category: &str, _id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Fatal => {
            tracing::error!(target: "onnxruntime", category, location, "{message}");
        }
        LogLevel::Error | LogLevel::Warning => {
            tracing::debug!(target: "onnxruntime", category, location, "{message}");
        }
        LogLevel::Info | LogLevel::Verbose => {
            tracing::trace!(target: "onnxruntime", category, location, "{message}");
        }
    }
}

fn configure(builder: SessionBuilder, spec: &LoadSpec) -> Result<SessionBuilder, ort::Error> {
    let builder = builder
        .with_intra_threads(pool_threads(spec))?
        .with_inter_threads(1)?
        // A spinning pool takes the cores that handlers need.
        .with_intra_op_spinning(false)?
        // Patterns are kept for every shape that ever came, and clients choose shapes.
        .with_memory_pattern(false)?
        .with_env_allocators()?
        .with_log_level(LogLevel::Warning)?
        // The file was checked as protobuf, so it must be read as that whatever its name is.
        .with_config_entry("session.load_model_format", "ONNX")?;
    let provider = match spec.device {
        Device::Cpu => ort::ep::CPU::default().with_arena_allocator(true).build(),
        Device::Cuda(index) => ort::ep::CUDA::default()
            .with_device_id(device_id(index))
            .build(),
    };
    Ok(builder.with_execution_providers([provider.error_on_failure()])?)
}

/// The workers share one pool, and each calling thread takes part in its own run.
fn pool_threads(spec: &LoadSpec) -> usize {
    spec.workers.max(1) * (spec.intra_op_threads.max(1) - 1) + 1
}

fn device_id(index: u32) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

fn check_device(device: Device) -> Result<(), BackendError> {
    let has_cuda = || ort::ep::CUDA::is_available().unwrap_or(false);
    if device == Device::Cpu || has_cuda() {
        return Ok(());
    }
    Err(BackendError::Library(format!(
        "{device} is asked for, but this ONNX Runtime has no CUDA: install onnxruntime-gpu instead of onnxruntime"
    )))
}

fn signature(inputs: &Ports, outputs: &Ports, declared: &Declared) -> Signature {
    Signature {
        is_open: false,
        axis0: axis0(inputs, outputs, declared),
        inputs: inputs.specs.clone(),
        outputs: outputs.specs.clone(),
        state: ModelState::Stateless,
    }
}

fn axis0(inputs: &Ports, outputs: &Ports, declared: &Declared) -> Axis0 {
    let mut all = inputs.all.iter().chain(&outputs.all);
    if let Some(port) = all.find(|port| matches!(port.form, Form::Map { .. })) {
        return Axis0::Refuted(format!("{:?} is a map", port.name));
    }
    Axis0::judge(
        &inputs.named_axes(),
        &outputs.named_axes(),
        declares_rows(&inputs.specs, &declared.inputs)
            && declares_rows(&outputs.specs, &declared.outputs),
    )
}

/// Whether the owner says of each of these that axis 0 varies.
fn declares_rows(specs: &[TensorSpec], declared: &[TensorSpec]) -> bool {
    let is_declared = |spec: &TensorSpec| {
        let mut declared = declared.iter();
        declared.any(|said| said.name == spec.name && said.has_free_rows())
    };
    let mut required = specs.iter().filter(|spec| spec.arity != Arity::Optional);
    required.all(is_declared)
}
