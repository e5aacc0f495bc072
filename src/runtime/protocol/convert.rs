//! Between the wire types and the values that the rest of the program uses. Values from the wire are checked.

mod batching;
mod model;
mod reports;
mod requests;
mod signature;

use crate::backend::{Axis0, ModelState, Signature};
use crate::error::{Error, truncated};
use crate::model::{Arity, Device, TensorSpec};
use crate::runtime::Bounds;
use crate::tensor::{DType, MAX_NAME, MAX_RANK};

use super::{Violation, messages};

pub use batching::{batching_from_wire, batching_to_wire, verdict_from_wire, verdict_to_wire};
pub use model::{model_from_wire, model_to_wire, path_from_wire, path_to_wire};
pub use reports::{
    inferred_from_wire, log_from_wire, log_to_wire, observation_from_wire, observation_to_wire,
    reply_from_wire, reply_to_wire, spent_from_wire, spent_to_wire, walls_from_wire,
    workers_to_wire,
};
pub use requests::{call_from_wire, call_to_wire, has_any_bytes};
pub use signature::check_signature;

/// Bytes of an error's message or detail that are taken from the wire.
const FAILURE_TEXT: usize = 16 << 10;

/// An error, borrowed.
pub fn failure_to_wire(error: &Error) -> messages::Failure<&str> {
    messages::Failure {
        kind: error.kind().into(),
        message: truncated(error.message(), FAILURE_TEXT),
        detail: error.detail().map(|text| truncated(text, FAILURE_TEXT)),
    }
}

/// An error, its texts cut to what a log or a client can take.
pub fn failure_from_wire(failure: &messages::Failure<String>) -> Error {
    let message = truncated(&failure.message, FAILURE_TEXT);
    let error = Error::new(failure.kind.into(), message);
    match &failure.detail {
        Some(detail) => error.with_detail(truncated(detail, FAILURE_TEXT)),
        None => error,
    }
}

/// How many workers there shall be.
pub fn bounds_to_wire(bounds: Bounds) -> messages::Bounds {
    let count = |workers| u32::try_from(workers).unwrap_or(u32::MAX);
    messages::Bounds {
        min: count(bounds.min),
        max: count(bounds.max),
    }
}

/// How many workers there shall be: not more at least than at most.
pub fn bounds_from_wire(bounds: messages::Bounds) -> Result<Bounds, Violation> {
    let messages::Bounds { min, max } = bounds;
    if min > max {
        let text = format!("at least {min} and at most {max} workers");
        return Err(Violation::Message(text));
    }
    Ok(Bounds {
        min: min as usize,
        max: max as usize,
    })
}

/// Inputs or outputs of a model.
pub fn specs_to_wire(specs: &[TensorSpec]) -> Vec<messages::TensorSpec> {
    specs
        .iter()
        .map(|spec| messages::TensorSpec {
            name: spec.name.to_string(),
            dtype: spec.dtype.map(dtype_to_wire),
            shape: spec.shape.as_deref().map(axes_to_wire),
            arity: match spec.arity {
                Arity::One => messages::Arity::One,
                Arity::Optional => messages::Arity::Optional,
                Arity::Many => messages::Arity::Many,
            },
        })
        .collect()
}

fn axes_to_wire(axes: &[Option<usize>]) -> Vec<Option<u64>> {
    axes.iter().map(|axis| axis.map(|n| n as u64)).collect()
}

/// Inputs or outputs of a model.
pub fn specs_from_wire(specs: Vec<messages::TensorSpec>) -> Result<Vec<TensorSpec>, Violation> {
    specs.into_iter().map(spec_from_wire).collect()
}

fn spec_from_wire(spec: messages::TensorSpec) -> Result<TensorSpec, Violation> {
    let rank = spec.shape.as_ref().map_or(0, Vec::len);
    if rank > MAX_RANK || spec.name.len() > MAX_NAME {
        return Err(Violation::Message(format!(
            "a tensor has {rank} axes and a name of {} bytes",
            spec.name.len()
        )));
    }
    Ok(TensorSpec {
        name: spec.name.into(),
        dtype: spec.dtype.map(dtype_from_wire).transpose()?,
        shape: spec.shape.map(axes_from_wire).transpose()?,
        arity: match spec.arity {
            messages::Arity::One => Arity::One,
            messages::Arity::Optional => Arity::Optional,
            messages::Arity::Many => Arity::Many,
        },
    })
}

fn axes_from_wire(axes: Vec<Option<u64>>) -> Result<Vec<Option<usize>>, Violation> {
    let axes = axes.into_iter();
    axes.map(|axis| axis.map(size).transpose()).collect()
}

/// What a model takes and gives.
pub fn signature_to_wire(signature: &Signature) -> messages::Signature {
    messages::Signature {
        inputs: specs_to_wire(&signature.inputs),
        outputs: specs_to_wire(&signature.outputs),
        is_open: signature.is_open,
        axis0: match &signature.axis0 {
            Axis0::Unknown => messages::Axis0::Unknown,
            Axis0::Shared => messages::Axis0::Shared,
            Axis0::Refuted(reason) => {
                messages::Axis0::Refuted(truncated(reason, FAILURE_TEXT).to_owned())
            }
        },
        state: match signature.state {
            ModelState::Stateless => messages::ModelState::Stateless,
            ModelState::Locked => messages::ModelState::Locked,
            ModelState::Copied => messages::ModelState::Copied,
        },
    }
}

/// What a model takes and gives.
pub fn signature_from_wire(signature: messages::Signature) -> Result<Signature, Violation> {
    Ok(Signature {
        inputs: specs_from_wire(signature.inputs)?,
        outputs: specs_from_wire(signature.outputs)?,
        is_open: signature.is_open,
        axis0: match signature.axis0 {
            messages::Axis0::Unknown => Axis0::Unknown,
            messages::Axis0::Shared => Axis0::Shared,
            messages::Axis0::Refuted(reason) => {
                Axis0::Refuted(truncated(&reason, FAILURE_TEXT).to_owned())
            }
        },
        state: match signature.state {
            messages::ModelState::Stateless => ModelState::Stateless,
            messages::ModelState::Locked => ModelState::Locked,
            messages::ModelState::Copied => ModelState::Copied,
        },
    })
}

/// A device.
pub const fn device_to_wire(device: Device) -> messages::Device {
    match device {
        Device::Cpu => messages::Device::Cpu,
        Device::Cuda(index) => messages::Device::Cuda(index),
    }
}

/// A device.
pub const fn device_from_wire(device: messages::Device) -> Device {
    match device {
        messages::Device::Cpu => Device::Cpu,
        messages::Device::Cuda(index) => Device::Cuda(index),
    }
}

#[allow(clippy::cast_possible_truncation)] // There are fourteen.
fn dtype_to_wire(dtype: DType) -> u8 {
    let position = DType::ALL.iter().position(|other| *other == dtype);
    position.unwrap_or(DType::ALL.len()) as u8
}

fn dtype_from_wire(dtype: u8) -> Result<DType, Violation> {
    DType::ALL
        .get(usize::from(dtype))
        .copied()
        .ok_or_else(|| Violation::Message(format!("there is no dtype {dtype}")))
}

fn size(value: u64) -> Result<usize, Violation> {
    usize::try_from(value).map_err(|_| Violation::Message(format!("{value} is too large a size")))
}
