//! What the batcher costs a request: being pushed, and being taken in a batch. It is paid under the pool's lock.

#![allow(missing_docs)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use lantern::payload::Priority;
use lantern::runtime::batcher::{Answer, Batcher, BatcherConfig, Job};
use lantern::tensor::{DType, NamedTensor, Tensor};
use tokio::sync::oneshot;

const HOUR: Duration = Duration::from_hours(1);

type Receiver = oneshot::Receiver<Result<Answer, lantern::error::Error>>;

fn batcher(batch_size: usize) -> Batcher {
    Batcher::new(BatcherConfig {
        batch_size,
        max_batch_elements: None,
        max_batch_delay: Duration::from_millis(100),
        wait_for_full_batches: false,
    })
}

/// Jobs of one row each, in as many shapes as asked for.
fn jobs(count: usize, shapes: usize) -> (Vec<Job>, Vec<Receiver>) {
    let now = Instant::now();
    let job = |index: usize| {
        let width = 16 + index % shapes;
        let data = Bytes::from(vec![0; width * 4]);
        let tensor = Tensor::new(DType::F32, vec![1, width], data).expect("lengths agree");
        let (reply, answer) = oneshot::channel();
        let job = Job {
            inputs: vec![NamedTensor::new("x", tensor)],
            rows: 1,
            stacks: true,
            arrival: now,
            deadline: now + HOUR,
            expires: now + HOUR,
            priority: Priority::default(),
            is_alone: false,
            span: tracing::Span::none(),
            reply,
        };
        (job, answer)
    };
    (0..count).map(job).unzip()
}

fn push_and_take(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batcher");
    for (name, count, shapes) in [
        ("1 job", 1, 1),
        ("32 jobs", 32, 1),
        ("32 jobs of 8 shapes", 32, 8),
    ] {
        group.throughput(Throughput::Elements(count as u64));
        let mut batcher = batcher(32);
        let mut batch = Vec::new();
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || jobs(count, shapes),
                |(jobs, answers)| {
                    for job in jobs {
                        batcher.push(job);
                    }
                    let now = Instant::now();
                    while !batcher.is_empty() {
                        batcher.take(now, &mut batch);
                        black_box(&batch);
                        batch.clear();
                    }
                    answers
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, push_and_take);
criterion_main!(benches);
