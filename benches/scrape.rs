//! What a scrape costs with many models, what a request pays for being counted, and whether it pays more while
//! somebody scrapes.

#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lantern::metrics::{Config, Format, Metrics, Mode, ModelMetrics, ObservedRequest};
use lantern::model::{ModelName, Version};

/// Models of servers that have many.
const MODELS: [usize; 2] = [200, 1000];
const OBSERVED: ObservedRequest = ObservedRequest {
    request: Duration::from_micros(900),
    preprocess: Duration::from_micros(40),
    queue: Duration::from_micros(300),
    infer: Duration::from_micros(500),
    postprocess: Duration::from_micros(30),
    batch_rows: 8,
};

/// A server's metrics with models that have been asked something.
fn serving(cfg: &Config, models: usize) -> (Metrics, Vec<ModelMetrics>) {
    let metrics = Metrics::new(cfg);
    let version = Version::new("1.0").expect("a good version");
    let bind = |number: usize| {
        let name = ModelName::new(&format!("model-{number}")).expect("a good name");
        let model = metrics.model(&name, &version, false);
        model.workers(
            &[9000 + u32::try_from(number).expect("few models")],
            Duration::ZERO,
        );
        count(&model);
        model
    };
    let models = (0..models).map(bind).collect();
    (metrics, models)
}

/// What is counted of one request.
fn count(model: &ModelMetrics) {
    model.requested(false);
    model.answered(false, "", black_box(&OBSERVED));
}

fn scrape(criterion: &mut Criterion) {
    let cfg = Config {
        threads: 8,
        ..Config::default()
    };
    let mut group = criterion.benchmark_group("scrape");
    for models in MODELS {
        let (metrics, _models) = serving(&cfg, models);
        let all = metrics.scrape(Format::TorchServe, &[]).len();
        group.throughput(Throughput::Bytes(all as u64));
        group.bench_function(format!("{models} models"), |bencher| {
            bencher.iter(|| metrics.scrape(Format::TorchServe, &[]));
        });
        let names = ["ts_inference_requests_total".to_owned()];
        group.throughput(Throughput::Elements(2 * models as u64));
        group.bench_function(format!("{models} models, one name"), |bencher| {
            bencher.iter(|| metrics.scrape(Format::TorchServe, &names));
        });
    }
    group.finish();
}

fn request(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("counting a request");
    for (name, mode, has_scrapes) in [
        ("prometheus", Mode::Prometheus, true),
        ("log", Mode::Log, true),
        ("off", Mode::Prometheus, false),
    ] {
        let cfg = Config {
            mode,
            has_scrapes,
            ..Config::default()
        };
        let (_metrics, models) = serving(&cfg, 1);
        group.bench_function(name, |bencher| bencher.iter(|| count(&models[0])));
    }
    let cfg = Config {
        threads: 8,
        ..Config::default()
    };
    let (metrics, models) = serving(&cfg, MODELS[0]);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                black_box(metrics.scrape(Format::TorchServe, &[]));
            }
        });
        group.bench_function("prometheus, while somebody scrapes", |bencher| {
            bencher.iter(|| count(&models[0]));
        });
        is_over.store(true, Ordering::Relaxed);
    });
    group.finish();
}

criterion_group!(benches, scrape, request);
criterion_main!(benches);
