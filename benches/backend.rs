//! What one run costs beyond the model's own arithmetic: names, values, and the copy of the outputs.
//!
//! `ORT_DYLIB_PATH` names ONNX Runtime, as `make bench` sets it.

#![allow(missing_docs, clippy::disallowed_methods)]

use std::path::PathBuf;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use lantern::backend::onnx::OnnxBackend;
use lantern::backend::{Backend as _, LoadSpec, Session};
use lantern::model::{Declared, Device};
use lantern::tensor::{DType, NamedTensor, Tensor};
use lantern_benches::fixture;

/// `y = x W + b` over 16 inputs.
fn linear() -> Box<dyn Session> {
    let library = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    let spec = LoadSpec {
        has_brief_outputs: true,
        artifact: fixture("linear.onnx"),
        device: Device::Cpu,
        workers: 1,
        intra_op_threads: 1,
        declared: Declared::default(),
        state: lantern::model::StateSharing::default(),
    };
    let backend = OnnxBackend::new(library.as_deref()).expect("ONNX Runtime is installed");
    backend
        .load(&spec)
        .and_then(|model| model.session())
        .expect("the fixture loads")
}

fn rows(count: usize) -> Vec<NamedTensor> {
    let data = Bytes::from(vec![0; count * 16 * size_of::<f32>()]);
    let tensor = Tensor::new(DType::F32, vec![count, 16], data).expect("lengths agree");
    vec![NamedTensor::new("x", tensor)]
}

fn infer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("infer a linear model on ONNX Runtime, rows");
    let mut session = linear();
    for count in [1, 32] {
        let inputs = rows(count);
        group.bench_function(count.to_string(), |bencher| {
            bencher.iter_batched(
                || inputs.clone(),
                |inputs| session.infer(inputs),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, infer);
criterion_main!(benches);
