//! What batching costs in copies: stacking the inputs of many requests, and parting the outputs again.

#![allow(missing_docs)]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lantern::tensor::{DType, Tensor};

/// One row each of a small vector and of an image.
const ROWS: [(&str, &[usize]); 2] = [("16 floats", &[1, 16]), ("an image", &[1, 3, 224, 224])];
const BATCH: usize = 32;

fn tensor(shape: &[usize]) -> Tensor {
    let length = shape.iter().product::<usize>() * size_of::<f32>();
    Tensor::new(DType::F32, shape.to_vec(), Bytes::from(vec![0; length])).expect("lengths agree")
}

fn stack(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stack 32 rows of");
    for (name, shape) in ROWS {
        let rows: Vec<_> = (0..BATCH).map(|_| tensor(shape)).collect();
        let rows: Vec<_> = rows.iter().collect();
        group.throughput(Throughput::Bytes((BATCH * rows[0].data().len()) as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| Tensor::stack(black_box(&rows)));
        });
    }
    group.finish();
}

fn split(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("split into 32 rows of");
    for (name, shape) in ROWS {
        let mut shape = shape.to_vec();
        shape[0] = BATCH;
        let batch = tensor(&shape);
        group.throughput(Throughput::Bytes(batch.data().len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(&batch).split(&[1; BATCH]));
        });
    }
    group.finish();
}

criterion_group!(benches, stack, split);
criterion_main!(benches);
