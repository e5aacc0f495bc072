//! What a handler costs a request: `preprocess` and `postprocess` of the linear guest, 16 numbers of JSON in and 2 out.
//!
//! `warm` is a server at work, `fresh` makes a new instance for each call, `load` starts from compiled code.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lantern::budget::Account;
use lantern::handler::{
    Code, Handler, HandlerEngine, HandlerSpec, LogLine, Observation, Sink, Step,
};
use lantern::model::{
    BackendKind, Declared, Device, Limits, ModelName, ModelSpec, Settings, Version,
};
use lantern::payload::{Body, Meter, Request, Schedule};
use lantern::tensor::{DType, NamedTensor, Tensor};
use lantern_benches::guest;
use tokio::runtime::Runtime;

const BODY: &str = r#"{"x": [0.1, -1.5, 2.25, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14.125, 15.5]}"#;

struct Silent;

impl Sink for Silent {
    fn log(&self, _line: LogLine) {}
    fn observe(&self, _observation: Observation) {}
}

fn wasm() -> Vec<u8> {
    let file = guest("linear");
    std::fs::read(&file)
        .unwrap_or_else(|error| panic!("{}: {error}: run make guests", file.display()))
}

fn spec(directory: &Path, code: &Code, fresh_instances: bool) -> HandlerSpec {
    let model = ModelSpec {
        digest: String::new(),
        samples: None,
        name: ModelName::new("linear").unwrap(),
        version: Version::new("1.0").unwrap(),
        directory: directory.to_owned(),
        artifact: PathBuf::from("model.onnx"),
        handler: PathBuf::from("linear.wasm"),
        backend: BackendKind::Fake,
        declared: Declared::default(),
        manifest: "{}".to_owned(),
        config: "{}".to_owned(),
        properties: BTreeMap::new(),
        settings: Settings {
            fresh_instances,
            ..Settings::default()
        },
        limits: Limits::default(),
    };
    HandlerSpec {
        model: Arc::new(model),
        code: code.clone(),
        device: Device::Cpu,
        limits: Limits::default(),
        sink: Arc::new(Silent),
    }
}

fn request() -> Request {
    let arrival = Instant::now();
    Request {
        id: "0f2c3e4a-93b4-4b2f-a7bb-6d1f2f3a4b5c".to_owned(),
        content_type: Some("application/json".to_owned()),
        headers: Vec::new(),
        body: Body::Raw(Bytes::from_static(BODY.as_bytes())),
        arrival,
        deadline: arrival + Duration::from_mins(1),
        schedule: Schedule::default(),
        account: Account::default(),
        passes_tensors_on: false,
        meter: Meter::default(),
    }
}

fn outputs() -> Vec<NamedTensor> {
    let values = [0.731_058_6_f32, -12.25];
    let data: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let tensor = Tensor::new(DType::F32, vec![1, values.len()], data.into()).unwrap();
    vec![NamedTensor::new("y", tensor)]
}

async fn round_trip(handler: &Handler, request: &Request, outputs: &[NamedTensor]) {
    let Step::Infer(prepared) = handler.preprocess(request).await.unwrap() else {
        panic!("the linear handler always infers");
    };
    let answer = handler
        .postprocess(
            &request.id,
            &request.meter,
            outputs.to_vec(),
            prepared.carry,
        )
        .await;
    black_box(answer.unwrap());
}

fn handler_calls(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("linear.wasm"), wasm()).unwrap();
    let code = Code::compile_here(&wasm()).unwrap();
    let engine = HandlerEngine::new().unwrap();
    let load = |fresh| {
        runtime
            .block_on(Handler::load(&engine, spec(directory.path(), &code, fresh)))
            .unwrap()
    };
    let (warm, fresh) = (load(false), load(true));
    let (request, outputs) = (request(), outputs());

    let mut group = criterion.benchmark_group("handler");
    group.throughput(Throughput::Elements(1));
    group.bench_function("warm", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(|| round_trip(&warm, &request, &outputs));
    });
    group.bench_function("fresh", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(|| round_trip(&fresh, &request, &outputs));
    });
    group.bench_function("load", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(|| Handler::load(&engine, spec(directory.path(), &code, false)));
    });
    group.finish();
}

criterion_group!(benches, handler_calls);
criterion_main!(benches);
