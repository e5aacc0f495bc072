//! A model's configuration, as Triton has it: what its clients size their requests by.

use serde::Serialize;

use super::Target;
use super::metadata::dims;
use crate::catalog::{Batching, Catalog, Entry, Signature};
use crate::error::Error;
use crate::model::{Arity, DType, Device, TensorSpec};
use crate::payload::Priority;

/// A configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::api) struct ModelConfig {
    /// Name of the model.
    pub name: String,
    /// Triton's name of framework and format.
    pub platform: &'static str,
    /// Triton's name of the framework.
    pub backend: &'static str,
    /// All versions are served.
    pub version_policy: VersionPolicy,
    /// Rows a request should have at most; 0 if requests are not stacked.
    pub max_batch_size: usize,
    /// Inputs; those that may be left out say so.
    pub input: Vec<TensorConfig>,
    /// Outputs.
    pub output: Vec<TensorConfig>,
    /// Workers.
    pub instance_group: Vec<InstanceGroup>,
    /// How requests are stacked, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_batching: Option<DynamicBatching>,
}

/// Which versions are served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(in crate::api) struct VersionPolicy {
    all: Nothing,
}

/// `{}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Nothing {}

/// An input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::api) struct TensorConfig {
    /// Its name.
    pub name: String,
    /// Its element type; `TYPE_INVALID`, which is Triton's name for none, where that is not known.
    pub data_type: &'static str,
    /// Its shape, without axis 0 where requests are stacked; -1 for an axis that varies.
    pub dims: Vec<i64>,
    /// Whether an input may be left out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// Workers on one kind of device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::api) struct InstanceGroup {
    /// Name of the group.
    pub name: String,
    /// The kind.
    pub kind: &'static str,
    /// Workers on each device.
    pub count: usize,
    /// GPUs.
    pub gpus: Vec<u32>,
}

/// How requests are stacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::api) struct DynamicBatching {
    /// Rows that a batch is filled to.
    pub preferred_batch_size: Vec<usize>,
    /// How long the oldest request may wait for company.
    pub max_queue_delay_microseconds: u64,
    /// Levels of `priority`; 1 goes first.
    pub priority_levels: u64,
    /// The level of requests that name none.
    pub default_priority_level: u64,
}

/// The configuration of a version.
pub(in crate::api) fn config(catalog: &Catalog, target: Target<'_>) -> Result<ModelConfig, Error> {
    let entry = target.find(catalog)?;
    let (spec, signature) = (entry.spec(), entry.signature());
    let is_batched = is_batched(&entry, &signature);
    let (inputs, outputs) = (signature.inputs.iter(), signature.outputs.iter());
    let (platform, backend) = spec.backend.info().triton;
    Ok(ModelConfig {
        name: spec.name.to_string(),
        platform,
        backend,
        version_policy: VersionPolicy::default(),
        max_batch_size: if is_batched {
            spec.settings.batch_size
        } else {
            0
        },
        input: inputs.map(|spec| input(spec, is_batched)).collect(),
        output: outputs.map(|spec| tensor(spec, is_batched)).collect(),
        instance_group: vec![instances(&entry)],
        dynamic_batching: is_batched.then(|| batching(&entry)),
    })
}

/// Whether axis 0 holds the rows of a batch: not known of a model that says nothing of itself, and not so of one whose
/// requests are kept apart for what they would do to each other.
fn is_batched(entry: &Entry, signature: &Signature) -> bool {
    let is_off = matches!(entry.batching(), Some(Batching::Off(_)));
    let mut inputs = signature.inputs.iter();
    let has_rows = inputs.any(TensorSpec::has_free_rows);
    has_rows && signature.is_batchable() && !is_off
}

fn input(spec: &TensorSpec, is_batched: bool) -> TensorConfig {
    TensorConfig {
        optional: spec.arity == Arity::Optional,
        ..tensor(spec, is_batched)
    }
}

fn tensor(spec: &TensorSpec, is_batched: bool) -> TensorConfig {
    let dims = dims(spec.shape.as_deref());
    // What may be left out is not stacked: it has all its axes.
    let has_rows = is_batched && spec.arity == Arity::One;
    TensorConfig {
        name: spec.name.to_string(),
        data_type: spec.dtype.map_or("TYPE_INVALID", data_type),
        dims: dims.into_iter().skip(usize::from(has_rows)).collect(),
        optional: false,
    }
}

fn instances(entry: &Entry) -> InstanceGroup {
    let spec = entry.spec();
    let gpus = spec.settings.devices.iter();
    let gpus: Vec<u32> = gpus
        .filter_map(|device| match device {
            Device::Cuda(index) => Some(*index),
            Device::Cpu => None,
        })
        .collect();
    InstanceGroup {
        name: spec.name.to_string(),
        kind: if gpus.is_empty() {
            "KIND_CPU"
        } else {
            "KIND_GPU"
        },
        count: spec.settings.min_workers.div_ceil(gpus.len().max(1)),
        gpus,
    }
}

fn batching(entry: &Entry) -> DynamicBatching {
    let settings = &entry.spec().settings;
    let delay = if settings.wait_for_full_batches {
        settings.max_batch_delay.as_micros()
    } else {
        0
    };
    let levels = Priority::ALL.iter().zip(1u64..);
    let default = levels
        .clone()
        .find(|(level, _)| **level == Priority::default());
    DynamicBatching {
        preferred_batch_size: vec![settings.batch_size],
        max_queue_delay_microseconds: u64::try_from(delay).unwrap_or(u64::MAX),
        priority_levels: levels.count() as u64,
        default_priority_level: default.map_or(0, |(_, level)| level),
    }
}

const fn data_type(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "TYPE_BOOL",
        DType::U8 => "TYPE_UINT8",
        DType::I8 => "TYPE_INT8",
        DType::I16 => "TYPE_INT16",
        DType::I32 => "TYPE_INT32",
        DType::I64 => "TYPE_INT64",
        DType::F16 => "TYPE_FP16",
        DType::Bf16 => "TYPE_BF16",
        DType::F32 => "TYPE_FP32",
        DType::F64 => "TYPE_FP64",
        DType::Bytes => "TYPE_STRING",
        DType::U16 => "TYPE_UINT16",
        DType::U32 => "TYPE_UINT32",
        DType::U64 => "TYPE_UINT64",
    }
}
