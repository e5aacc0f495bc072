//! TorchScript models on libtorch.
//!
//! Owns how a TorchScript file becomes a loaded model, how many copies of one that keeps state there are and who may call them
//! when, and in what words its failures are told. Only this module and those below it know libtorch. It knows neither requests
//! nor batches.

use std::sync::{Arc, Mutex, Once, PoisonError};

use lantern::backend::failure::classify;
use lantern::backend::{
    Axis0, Backend, BackendError, LoadSpec, LoadedModel, ModelState, NamedAxis, Session, Signature,
    memory,
};
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

/// libtorch's settings are for the whole process; the first model loaded makes them.
static SETTINGS: Once = Once::new();

/// Loads TorchScript models. CUDA is opened when the first model asks for it.
#[derive(Debug, Clone, Copy, Default)]
pub struct TorchBackend;

impl TorchBackend {
    /// The backend; costs nothing.
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

/// Who calls which module.
enum Modules {
    /// Everybody calls one, at once.
    Shared(Arc<Module>),
    /// Everybody calls one, in turn.
    Locked(Arc<Module>, Arc<Mutex<()>>),
    /// Each session has its own. The first takes the one that was loaded; others load theirs from the file, for what a call
    /// may change is not only in attributes: a program's constants are as good.
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
        let (module, turn) = match &self.modules {
            Modules::Shared(module) => (Arc::clone(module), None),
            Modules::Locked(module, turn) => (Arc::clone(module), Some(Arc::clone(turn))),
            Modules::Copies(first, spec) => {
                let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
                let module = first.map_or_else(|| load_module(spec), Ok)?;
                (Arc::new(module), None)
            }
        };
        Ok(Box::new(TorchSession {
            module,
            turn,
            plan: Arc::clone(&self.plan),
        }))
    }
}

struct TorchSession {
    module: Arc<Module>,
    /// Held during a call, where calls of one module change it.
    turn: Option<Arc<Mutex<()>>>,
    plan: Arc<Plan>,
}

impl Session for TorchSession {
    fn infer(&mut self, inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, BackendError> {
        let mut call = Call::new(&self.module, self.plan.device).map_err(infer_failure)?;
        self.plan.arguments.fill(&mut call, &inputs)?;
        drop(inputs);
        // Until the outputs are copied: they may be the module's own memory.
        let turn = self.turn.as_ref();
        let _turn = turn.map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner));
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
    classify(told(thrown), BackendError::Infer)
}

fn load_failure(thrown: Thrown) -> BackendError {
    let hint = if thrown.0.contains("constants.pkl") || thrown.0.contains("PytorchStreamReader") {
        "this is no TorchScript file (weights saved with torch.save hold no program: export with torch.jit.script or torch.jit.trace): "
    } else {
        ""
    };
    classify(format!("{hint}{}", told(thrown)), BackendError::Load)
}

/// The message first, then what libtorch said around it.
fn told(Thrown(text): Thrown) -> String {
    let line = text.lines().rev().find_map(|line| meaningful(line.trim()));
    match line.or_else(|| text.lines().next().map(str::trim)) {
        Some(line) if line != text.trim() => format!("{line}\n{text}"),
        _ => text,
    }
}

/// The part of a line that an exception's author wrote.
fn meaningful(line: &str) -> Option<&str> {
    let (class, message) = line.split_once(": ")?;
    let is_class = class.ends_with("Error") || class.ends_with("Exception");
    (is_class && !class.contains(' ') && !message.is_empty()).then_some(line)
}
