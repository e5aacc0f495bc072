//! TorchScript models on libtorch.
//!
//! Owns how a TorchScript file becomes a loaded model, how tensors become libtorch's and back, and in what words its
//! failures are told. Only this module and those below it know `tch`. It knows neither requests nor batches.

use std::sync::{Arc, Once};

use bytes::Bytes;
use lantern::backend::failure::classify;
use lantern::backend::{Backend, BackendError, LoadSpec, LoadedModel, Session, Signature, memory};
use lantern::model::{Device, TensorSpec};
use lantern::tensor::{DType, NamedTensor, Tensor};
use tch::Kind;

mod cuda;
mod script;

use script::{Output, Script, Thrown};

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
    fn name(&self) -> &'static str {
        "torch"
    }

    fn load(&self, spec: &LoadSpec) -> Result<Arc<dyn LoadedModel>, BackendError> {
        check_declared(&spec.declared.inputs)?;
        configure(spec.intra_op_threads);
        if let Device::Cuda(index) = spec.device {
            cuda::prepare(index)?;
        }
        let script =
            Script::load(&spec.artifact, device_index(spec.device)).map_err(load_failure)?;
        memory::give_back();
        let signature = Signature {
            inputs: spec.declared.inputs.clone(),
            outputs: spec.declared.outputs.clone(),
            ..Signature::default()
        };
        Ok(Arc::new(TorchModel(Arc::new(Shared {
            script,
            device: device(spec.device),
            signature,
        }))))
    }
}

/// One module, which all workers of a device call at once.
struct TorchModel(Arc<Shared>);

struct Shared {
    script: Script,
    device: tch::Device,
    signature: Signature,
}

impl LoadedModel for TorchModel {
    fn signature(&self) -> &Signature {
        &self.0.signature
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        Ok(Box::new(TorchSession(Arc::clone(&self.0))))
    }
}

struct TorchSession(Arc<Shared>);

impl Session for TorchSession {
    fn infer(&mut self, inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, BackendError> {
        let _no_grad = tch::no_grad_guard();
        let inputs = self.0.in_order(&inputs)?;
        let inputs = inputs
            .into_iter()
            .map(|tensor| to_torch(tensor, self.0.device))
            .collect::<Result<Vec<_>, _>>()?;
        let output = self.0.script.forward(&inputs).map_err(infer_failure)?;
        let named = named(output, &self.0.signature.outputs)?;
        named
            .into_iter()
            .map(|(name, tensor)| Ok(NamedTensor::new(name.clone(), from_torch(&name, &tensor)?)))
            .collect()
    }
}

impl Shared {
    /// Tensors in the order of the declared inputs, or as they come where none are declared.
    fn in_order<'a>(&self, inputs: &'a [NamedTensor]) -> Result<Vec<&'a Tensor>, BackendError> {
        let specs = &self.signature.inputs;
        if specs.is_empty() {
            return Ok(inputs.iter().map(|input| &input.tensor).collect());
        }
        if inputs.len() != specs.len() {
            return Err(BackendError::Input(format!(
                "{} tensors came for {} inputs",
                inputs.len(),
                specs.len()
            )));
        }
        let find = |spec: &TensorSpec| {
            let input = inputs.iter().find(|input| input.name == spec.name);
            input
                .map(|input| &input.tensor)
                .ok_or_else(|| BackendError::Input(format!("input {:?} is missing", spec.name)))
        };
        specs.iter().map(find).collect()
    }
}

fn check_declared(inputs: &[TensorSpec]) -> Result<(), BackendError> {
    match inputs.iter().find(|spec| spec.dtype == Some(DType::Bytes)) {
        None => Ok(()),
        Some(spec) => Err(BackendError::Load(format!(
            "input {spec} is declared, but TorchScript has no tensors of strings"
        ))),
    }
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

const fn device(device: Device) -> tch::Device {
    match device {
        Device::Cpu => tch::Device::Cpu,
        Device::Cuda(index) => tch::Device::Cuda(index as usize),
    }
}

/// Copies a tensor to libtorch. Not lent, even on the processor: a module may write to its inputs in place or keep them,
/// and the data may be shared with others and be freed after the run.
fn to_torch(tensor: &Tensor, device: tch::Device) -> Result<tch::Tensor, BackendError> {
    let kind = kind(tensor.dtype())
        .ok_or_else(|| BackendError::Input("TorchScript has no tensors of strings".to_owned()))?;
    let shape = tensor
        .shape()
        .iter()
        .map(|axis| i64::try_from(*axis).unwrap_or(i64::MAX))
        .collect::<Vec<_>>();
    let copy = tch::Tensor::f_from_data_size(tensor.data(), &shape, kind).map_err(from_tch)?;
    if device == tch::Device::Cpu {
        return Ok(copy);
    }
    copy.f_to(device).map_err(from_tch)
}

/// Copies the output named `name` out.
fn from_torch(name: &str, output: &tch::Tensor) -> Result<Tensor, BackendError> {
    let broken = |reason: String| BackendError::Infer(format!("output {name:?} {reason}"));
    if !output.defined() || output.is_sparse() || output.is_mkldnn() {
        return Err(broken(
            "is undefined, sparse or in a layout of oneDNN".to_owned(),
        ));
    }
    let kind = output.f_kind().map_err(from_tch)?;
    let dtype =
        dtype(kind).ok_or_else(|| broken(format!("is of {kind:?}, which is not served")))?;
    let output = output
        .f_to(tch::Device::Cpu)
        .and_then(|tensor| tensor.f_resolve_neg())
        .and_then(|tensor| tensor.f_contiguous())
        .map_err(from_tch)?;
    let shape = output
        .size()
        .into_iter()
        .map(|axis| usize::try_from(axis).unwrap_or(0))
        .collect();
    let length = output.numel() * kind.elt_size_in_bytes();
    let data = copied(&output, length);
    Tensor::new(dtype, shape, data).map_err(|error| broken(error.to_string()))
}

#[expect(unsafe_code, reason = "reads a tensor's data")]
fn copied(tensor: &tch::Tensor, length: usize) -> Bytes {
    if length == 0 {
        return Bytes::new();
    }
    let data = tensor.data_ptr().cast::<u8>();
    // SAFETY: the tensor is dense, contiguous and in host memory, so its data is `length` bytes from `data` on; it lives
    // while they are copied.
    Bytes::copy_from_slice(unsafe { std::slice::from_raw_parts(data, length) })
}

/// Names outputs: a dict's are its keys, others are declared or counted.
fn named(
    output: Output,
    declared: &[TensorSpec],
) -> Result<Vec<(String, tch::Tensor)>, BackendError> {
    let tensors = match output {
        Output::Dict(entries) => return in_declared_order(entries, declared),
        Output::Sequence(tensors) => tensors,
        Output::One(tensor) => vec![tensor],
    };
    if !declared.is_empty() && declared.len() != tensors.len() {
        return Err(BackendError::Infer(format!(
            "the model returned {} outputs, {} are declared",
            tensors.len(),
            declared.len()
        )));
    }
    let name = |index: usize| {
        declared
            .get(index)
            .map_or_else(|| format!("output_{index}"), |spec| spec.name.to_string())
    };
    Ok(tensors
        .into_iter()
        .enumerate()
        .map(|(index, tensor)| (name(index), tensor))
        .collect())
}

fn in_declared_order(
    mut entries: Vec<(String, tch::Tensor)>,
    declared: &[TensorSpec],
) -> Result<Vec<(String, tch::Tensor)>, BackendError> {
    if declared.is_empty() {
        return Ok(entries);
    }
    let take = |spec: &TensorSpec| match entries.iter().position(|(key, _)| **key == *spec.name) {
        Some(index) => Ok(entries.swap_remove(index)),
        None => Err(BackendError::Infer(format!(
            "output {:?} is declared, but the dict that the model returned lacks it",
            spec.name
        ))),
    };
    declared.iter().map(take).collect()
}

const fn kind(dtype: DType) -> Option<Kind> {
    Some(match dtype {
        DType::Bool => Kind::Bool,
        DType::U8 => Kind::Uint8,
        DType::I8 => Kind::Int8,
        DType::I16 => Kind::Int16,
        DType::I32 => Kind::Int,
        DType::I64 => Kind::Int64,
        DType::F16 => Kind::Half,
        DType::Bf16 => Kind::BFloat16,
        DType::F32 => Kind::Float,
        DType::F64 => Kind::Double,
        DType::U16 | DType::U32 | DType::U64 | DType::Bytes => return None,
    })
}

fn dtype(wanted: Kind) -> Option<DType> {
    DType::ALL
        .into_iter()
        .find(|dtype| kind(*dtype) == Some(wanted))
}

fn from_tch(error: tch::TchError) -> BackendError {
    infer_failure(Thrown(match error {
        tch::TchError::Torch(text) => text,
        other => other.to_string(),
    }))
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
