//! Modules under `tests/fixtures/torchscript`, tensors for them, and answers as text.

use std::sync::Arc;

use lantern::backend::{Backend as _, BackendError, LoadSpec, LoadedModel};
use lantern::model::{Declared, Device, StateSharing, TensorSpec};
use lantern::tensor::{DType, NamedTensor, Tensor};
use torch_worker::torch::TorchBackend;

/// Loads a module with what is declared of it.
pub fn load_declared(
    name: &str,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
) -> Result<Arc<dyn LoadedModel>, BackendError> {
    load_with(name, Declared { inputs, outputs }, StateSharing::Shared)
}

/// Loads a module of which nothing is declared.
pub fn load(name: &str) -> Arc<dyn LoadedModel> {
    load_with(name, Declared::default(), StateSharing::Shared).unwrap()
}

/// Loads a module.
pub fn load_with(
    name: &str,
    declared: Declared,
    state: StateSharing,
) -> Result<Arc<dyn LoadedModel>, BackendError> {
    TorchBackend::new().load(&LoadSpec {
        artifact: super::fixture::path(&format!("torchscript/{name}.pt")),
        device: Device::Cpu,
        workers: 4,
        intra_op_threads: 1,
        declared,
        state,
        has_brief_outputs: true,
    })
}

/// Checks the inputs as a runtime does, runs them, and shows the outputs; an error as its text.
pub fn answer(model: &Arc<dyn LoadedModel>, inputs: Vec<NamedTensor>) -> String {
    if let Err(error) = model.signature().check(&inputs) {
        return error.message().to_owned();
    }
    match model.session().unwrap().infer(inputs) {
        Ok(outputs) => shown(&outputs),
        Err(error) => error.to_string(),
    }
}

pub fn floats(name: &str, shape: &[usize], values: &[f32]) -> NamedTensor {
    let data = values.iter().flat_map(|value| value.to_le_bytes());
    named(name, DType::F32, shape, data.collect())
}

pub fn int(name: &str, value: i64) -> NamedTensor {
    named(name, DType::I64, &[], value.to_le_bytes().to_vec())
}

pub fn ints(name: &str, values: &[i64]) -> NamedTensor {
    let data = values.iter().flat_map(|value| value.to_le_bytes());
    named(name, DType::I64, &[values.len()], data.collect())
}

pub fn double(name: &str, value: f64) -> NamedTensor {
    named(name, DType::F64, &[], value.to_le_bytes().to_vec())
}

pub fn boolean(name: &str, value: bool) -> NamedTensor {
    named(name, DType::Bool, &[], vec![u8::from(value)])
}

pub fn text(name: &str, value: &str) -> NamedTensor {
    let length = u32::try_from(value.len()).unwrap().to_le_bytes();
    named(
        name,
        DType::Bytes,
        &[],
        [&length, value.as_bytes()].concat(),
    )
}

pub fn named(name: &str, dtype: DType, shape: &[usize], data: Vec<u8>) -> NamedTensor {
    NamedTensor::new(
        name,
        Tensor::new(dtype, shape.to_vec(), data.into()).unwrap(),
    )
}

/// Outputs as `name dtype[shape] values`, joined by semicolons.
pub fn shown(outputs: &[NamedTensor]) -> String {
    let output = |output: &NamedTensor| {
        let tensor = &output.tensor;
        let values = values(tensor).join(" ");
        format!(
            "{} {}{:?} {values}",
            output.name,
            tensor.dtype(),
            tensor.shape()
        )
    };
    outputs.iter().map(output).collect::<Vec<_>>().join("; ")
}

fn values(tensor: &Tensor) -> Vec<String> {
    let data = tensor.data();
    match tensor.dtype() {
        DType::F32 => chunks(data, |bytes| f32::from_le_bytes(bytes).to_string()),
        DType::F64 => chunks(data, |bytes| f64::from_le_bytes(bytes).to_string()),
        DType::F16 => chunks(data, |bytes| half::f16::from_le_bytes(bytes).to_string()),
        DType::I64 => chunks(data, |bytes| i64::from_le_bytes(bytes).to_string()),
        DType::U16 => chunks(data, |bytes| u16::from_le_bytes(bytes).to_string()),
        DType::Bool | DType::U8 => data.iter().map(ToString::to_string).collect(),
        DType::Bytes => tensor
            .strings()
            .map(|text| format!("{:?}", String::from_utf8_lossy(text)))
            .collect(),
        other => panic!("no test shows {other}"),
    }
}

fn chunks<const N: usize>(data: &[u8], show: fn([u8; N]) -> String) -> Vec<String> {
    let chunks = data.chunks_exact(N);
    chunks
        .map(|chunk| show(chunk.try_into().unwrap()))
        .collect()
}
