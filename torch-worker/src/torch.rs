//! TorchScript models on libtorch.
//!
//! Owns how a TorchScript file becomes a loaded model, how many copies there are of a model that keeps state, which
//! sessions may call a copy at the same time, and how libtorch's exceptions become errors. Only this module and those below
//! it know libtorch. It knows neither requests nor batches.

use std::sync::{Arc, Mutex, Once, PoisonError};

use lantern::backend::failure::classify;
use lantern::backend::{
    Axis0, Backend, BackendError, LoadSpec, LoadedModel, ModelState, NamedAxis, Session, Signature,
};
use lantern::memory;
use lantern::model::{Device, StateSharing, TensorSpec};
use lantern::tensor::{DType, NamedTensor};

mod arguments;
mod cuda;
mod outputs;
mod shim;

use arguments::Arguments;
use outputs::Outputs;
use shim::{Call, Module, Thrown};

// A tensor's data is little-endian, and is handed to native code as it is.
const _: () = assert!(cfg!(target_endian = "little"));

/// libtorch's settings are for the whole process, and are made when the first model is loaded.
static SETTINGS: Once = Once::new();

/// Loads TorchScript models. CUDA is opened when the first model asks for it.
#[derive(Debug, Clone, Copy, Default)]
pub struct TorchBackend;

impl TorchBackend {
    /// Makes the backend without opening anything.
    pub const fn new() -> Self {
        Self
    }
}

impl Backend for TorchBackend {
    fn load(&self, spec: &LoadSpec) -> Result<Arc<dyn LoadedModel>, BackendError> {
        configure(spec.intra_op_threads);
        if let Device::Cuda(index) = spec.device {
            cuda::prepare(index)?;
        }
        let module = load_module(spec)?;
        let arguments = Arguments::of(&module.arguments()).map_err(BackendError::Refused)?;
        let outputs = Outputs::of(module.returns().as_ref(), &spec.declared.outputs)
            .map_err(BackendError::Refused)?;
        let signature = signature(&module, &arguments, &outputs, spec)?;
        let modules = match signature.state {
            ModelState::Stateless => Modules::Shared(Arc::new(module)),
            ModelState::Locked => Modules::Locked(Arc::new(module), Arc::default()),
            ModelState::Copied => Modules::Copies(Mutex::new(Some(module)), spec.clone()),
        };
        Ok(Arc::new(TorchModel {
            modules,
            signature,
            plan: Arc::new(Plan {
                arguments,
                outputs,
                device: device_index(spec.device),
            }),
        }))
    }
}

/// One version on one device.
struct TorchModel {
    modules: Modules,
    signature: Signature,
    plan: Arc<Plan>,
}

/// Which sessions call which module.
enum Modules {
    /// All sessions call one module, at the same time.
    Shared(Arc<Module>),
    /// All sessions call one module, one after the other.
    Locked(Arc<Module>, Arc<Mutex<()>>),
    /// Each session calls a module of its own. The first session takes the one that was loaded; others load theirs from the
    /// file, since a call may change not only attributes but the program's constants as well.
    Copies(Mutex<Option<Module>>, LoadSpec),
}

/// How calls are made and read.
struct Plan {
    arguments: Arguments,
    outputs: Outputs,
    device: i32,
}

impl LoadedModel for TorchModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        let (module, lock) = match &self.modules {
            Modules::Shared(module) => (Arc::clone(module), None),
            Modules::Locked(module, lock) => (Arc::clone(module), Some(Arc::clone(lock))),
            Modules::Copies(first, spec) => {
                let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
                let module = first.map_or_else(|| load_module(spec), Ok)?;
                (Arc::new(module), None)
            }
        };
        Ok(Box::new(TorchSession {
            module,
            lock,
            plan: Arc::clone(&self.plan),
        }))
    }
}

struct TorchSession {
    module: Arc<Module>,
    /// Held during a call, if calls change the module.
    lock: Option<Arc<Mutex<()>>>,
    plan: Arc<Plan>,
}

impl Session for TorchSession {
    fn infer(&mut self, inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, BackendError> {
        let mut call = Call::new(&self.module, self.plan.device).map_err(infer_failure)?;
        self.plan.arguments.fill(&mut call, &inputs)?;
        drop(inputs);
        // The lock is held until the outputs are copied, since they may be the module's own memory.
        let lock = self.lock.as_ref();
        let _locked = lock.map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner));
        let answer = call.forward().map_err(infer_failure)?;
        self.plan.outputs.read(&answer)
    }
}

fn load_module(spec: &LoadSpec) -> Result<Module, BackendError> {
    let module = Module::load(&spec.artifact, device_index(spec.device)).map_err(load_failure)?;
    memory::give_back();
    Ok(module)
}

fn signature(
    module: &Module,
    arguments: &Arguments,
    outputs: &Outputs,
    spec: &LoadSpec,
) -> Result<Signature, BackendError> {
    let declared = &spec.declared;
    let inputs = arguments
        .declared(&declared.inputs)
        .map_err(BackendError::Refused)?;
    let outputs = outputs.specs().to_vec();
    let reason = module.state();
    let state = match (&reason, spec.state) {
        (None, _) => ModelState::Stateless,
        (Some(_), StateSharing::Shared) => ModelState::Locked,
        (Some(_), StateSharing::Copies) => ModelState::Copied,
    };
    let is_declared = !declared.inputs.is_empty() && !declared.outputs.is_empty();
    let axis0 = match reason {
        Some(reason) => Axis0::Refuted(format!("the model keeps state: {reason}")),
        None => Axis0::judge(&unnamed(&inputs), &unnamed(&outputs), is_declared),
    };
    Ok(Signature {
        inputs,
        outputs,
        is_open: false,
        axis0,
        state,
    })
}

/// TorchScript has no names for axes.
fn unnamed(specs: &[TensorSpec]) -> Vec<NamedAxis<'_>> {
    specs.iter().map(|spec| (spec, None)).collect()
}

fn configure(intra_op_threads: usize) {
    SETTINGS.call_once(|| {
        shim::print_lines();
        tch::set_num_threads(i32::try_from(intra_op_threads.max(1)).unwrap_or(i32::MAX));
        tch::set_num_interop_threads(1);
        // Profiling makes the first runs of each program, and the first with new shapes, slow: 60 ms instead of 1 for a
        // linear model, for the same answers and, on processors, the same speed afterwards.
        tch::jit::set_profiling_mode(false);
    });
}

const fn device_index(device: Device) -> i32 {
    match device {
        Device::Cpu => -1,
        Device::Cuda(index) => index.cast_signed(),
    }
}

/// The shim numbers dtypes as they are listed.
fn dtype_number(dtype: DType) -> usize {
    let place = DType::ALL.iter().position(|other| *other == dtype);
    place.unwrap_or(DType::ALL.len())
}

fn dtype_of(number: usize) -> Option<DType> {
    DType::ALL.get(number).copied()
}

fn infer_failure(thrown: Thrown) -> BackendError {
    classify(with_message_first(thrown), BackendError::Infer)
}

fn load_failure(thrown: Thrown) -> BackendError {
    let hint = if thrown.0.contains("constants.pkl") || thrown.0.contains("PytorchStreamReader") {
        "this is no TorchScript file (weights saved with torch.save hold no program: export with torch.jit.script or torch.jit.trace): "
    } else {
        ""
    };
    classify(
        format!("{hint}{}", with_message_first(thrown)),
        BackendError::Load,
    )
}

/// The exception's own message, and below it the whole text of libtorch.
fn with_message_first(Thrown(text): Thrown) -> String {
    let line = text.lines().rev().find_map(|line| meaningful(line.trim()));
    match line.or_else(|| text.lines().next().map(str::trim)) {
        Some(line) if line != text.trim() => format!("{line}\n{text}"),
        _ => text,
    }
}

/// The part of a line that the author of an exception wrote.
fn meaningful(line: &str) -> Option<&str> {
    let (class, message) = line.split_once(": ")?;
    let is_class = class.ends_with("Error") || class.ends_with("Exception");
    (is_class && !class.contains(' ') && !message.is_empty()).then_some(line)
}
