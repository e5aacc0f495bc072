//! What tests of the runtime share: a model that has no files, and tensors that say whose they are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use tracing::Span;

use crate::error::Error;
use crate::model::{BackendKind, Declared, Limits, ModelName, ModelSpec, Settings, Version};
use crate::payload::Priority;
use crate::runtime::batcher::{Answer, Job};
use crate::runtime::pool::JobOptions;
use crate::tensor::{DType, NamedTensor, Tensor};

/// Receives a job's answer.
pub(crate) type Receiver = oneshot::Receiver<Result<Answer, Error>>;

/// A model for the fake backend.
pub(crate) fn model(settings: Settings) -> ModelSpec {
    ModelSpec {
        name: ModelName::new("m").expect("a good name"),
        version: Version::new("1").expect("a good version"),
        directory: "unpacked".into(),
        artifact: "model".into(),
        handler: "handler.wasm".into(),
        backend: BackendKind::Fake,
        digest: String::new(),
        declared: Declared::default(),
        samples: None,
        manifest: "{}".into(),
        config: "{}".into(),
        properties: BTreeMap::new(),
        settings,
        limits: Limits::default(),
    }
}

/// One input of as many rows as `marks`, each of `width` bytes that begin with its mark.
pub(crate) fn rows(marks: &[u8], width: usize) -> Vec<NamedTensor> {
    let mut data = Vec::new();
    for mark in marks {
        data.push(*mark);
        data.resize(data.len() + width - 1, 0);
    }
    let shape = vec![marks.len(), width];
    let tensor = Tensor::new(DType::U8, shape, Bytes::from(data)).expect("lengths agree");
    vec![NamedTensor::new("x", tensor)]
}

/// A job of one row per mark, which may wait for an hour.
pub(crate) fn job(marks: &[u8], width: usize, arrival: Instant) -> (Job, Receiver) {
    let (reply, answer) = oneshot::channel();
    let deadline = arrival + Duration::from_hours(1);
    let job = Job {
        inputs: rows(marks, width),
        rows: marks.len(),
        stacks: true,
        arrival,
        deadline,
        expires: deadline,
        priority: Priority::default(),
        is_alone: false,
        span: Span::none(),
        reply,
    };
    (job, answer)
}

/// What a request with this deadline asks of its job.
pub(crate) fn options(deadline: Instant) -> JobOptions {
    JobOptions {
        begin_by: deadline,
        deadline,
        priority: Priority::default(),
    }
}

/// The marks of the rows in the first tensor.
pub(crate) fn marks(tensors: &[NamedTensor]) -> Vec<u8> {
    let tensor = &tensors[0].tensor;
    let width = tensor.shape()[1..].iter().product::<usize>().max(1);
    tensor.data().chunks(width).map(|row| row[0]).collect()
}
