//! The runtime by itself: a linear ONNX model behind a handler, called in this process, without a wire.
//!
//! `one caller` is what a lone request costs from call to reply; `32 callers` is what the pipeline carries when they
//! meet in batches; the processor time per call says what that costs, whatever else the machine does. `handler alone`
//! and `session` are the parts, so that what is left is the runtime's own. A second model takes 100 µs for any batch: its
//! figures say whether batches form where they pay.

#![allow(clippy::print_stdout, clippy::disallowed_methods, missing_docs)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lantern::backend::onnx::OnnxBackend;
use lantern::backend::{Backend, BackendError, LoadSpec, LoadedModel, Session, Signature};
use lantern::handler::{Code, Handler, HandlerEngine, HandlerSpec, Step};
use lantern::model::{BackendKind, Declared, Device, Hosting, Limits};
use lantern::payload::Meter;
use lantern::runtime::process::ProcessConfig;
use lantern::runtime::{Hosts, WorkerIds};
use lantern::tensor::{DType, NamedTensor, Tensor};

use lantern_benches::runtime::{self, Print, WARM_UP, measure, model, report, request};
use lantern_benches::{fixture, onnxruntime};

fn main() {
    runtime::on_one_thread_and_two(bench);
}

async fn bench() {
    handler_alone().await;
    session_alone();
    for backend in [BackendKind::Onnx, BackendKind::Fake] {
        println!("{} backend", backend.name());
        let runtime = measure(&hosts(), model(32, backend, Hosting::Inline)).await;
        runtime.drain(Duration::from_secs(1)).await;
    }
}

async fn handler_alone() {
    let engine = HandlerEngine::new().expect("the engine starts");
    let model = Arc::new(model(1, BackendKind::Onnx, Hosting::Inline));
    let wasm = std::fs::read(model.directory.join(&model.handler)).expect("the guest is built");
    let spec = HandlerSpec {
        model,
        code: Code::compile_here(&wasm).expect("the guest compiles"),
        device: Device::Cpu,
        limits: Limits::default(),
        sink: Arc::new(Print),
    };
    let handler = Handler::load(&engine, spec).await;
    let handler = handler.expect("the handler loads");
    let mut times = Vec::new();
    for _ in 0..WARM_UP {
        let request = request();
        let started = Instant::now();
        let step = handler.preprocess(&request).await;
        let Ok(Step::Infer(prepared)) = step else {
            panic!("the handler asks for inference");
        };
        let y = Tensor::new(DType::F32, vec![1, 4], Bytes::from_static(&[0; 16]));
        let outputs = vec![NamedTensor::new("y", y.expect("lengths agree"))];
        let response = handler
            .postprocess("r", &Meter::default(), outputs, prepared.carry)
            .await;
        response.expect("the handler answers");
        times.push(started.elapsed());
    }
    report("handler alone", &mut times);
}

fn session_alone() {
    let spec = LoadSpec {
        has_brief_outputs: true,
        artifact: fixture("linear.onnx"),
        device: Device::Cpu,
        workers: 1,
        intra_op_threads: 1,
        declared: Declared::default(),
        state: lantern::model::StateSharing::default(),
    };
    let model = backend().load(&spec).expect("the model loads");
    let mut session = model.session().expect("a session can be made");
    for rows in [1, 32] {
        let data = Bytes::from(vec![0; rows * 64]);
        let x = Tensor::new(DType::F32, vec![rows, 16], data).expect("lengths agree");
        let mut times = Vec::new();
        for _ in 0..WARM_UP {
            let inputs = vec![NamedTensor::new("x", x.clone())];
            let started = Instant::now();
            session.infer(inputs).expect("the model runs");
            times.push(started.elapsed());
        }
        report(&format!("session, {rows} rows"), &mut times);
    }
}

/// A model that takes 100 µs of its thread for any batch.
struct Busy(Signature);

impl Backend for Busy {
    fn load(&self, _spec: &LoadSpec) -> Result<Arc<dyn LoadedModel>, BackendError> {
        Ok(Arc::new(Self(self.0.clone())))
    }
}

impl LoadedModel for Busy {
    fn signature(&self) -> &Signature {
        &self.0
    }
    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        Ok(Box::new(BusySession))
    }
}

struct BusySession;

impl Session for BusySession {
    fn infer(&mut self, inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, BackendError> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_micros(100) {
            std::hint::spin_loop();
        }
        let rows = inputs[0].tensor.rows().unwrap_or(0);
        let y = Tensor::new(DType::F32, vec![rows, 4], Bytes::from(vec![0; rows * 16]));
        let y = y.map_err(|error| BackendError::Infer(error.to_string()))?;
        Ok(vec![NamedTensor::new("y", y)])
    }
}

fn hosts() -> Hosts {
    Hosts {
        verdicts: lantern::runtime::Verdicts::default(),
        code: Arc::new(lantern::runtime::CompileHere),
        engine: Arc::new(HandlerEngine::new),
        backends: Arc::new(HashMap::from([
            (BackendKind::Onnx, backend()),
            (BackendKind::Fake, Arc::new(Busy(Signature::default())) as _),
        ])),
        processes: ProcessConfig::default(),
        worker_ids: Arc::new(WorkerIds::from(9000)),
        cores: 1,
        inline_runs: Arc::default(),
    }
}

fn backend() -> Arc<dyn Backend> {
    let library = onnxruntime();
    Arc::new(OnnxBackend::new(library.as_deref()).expect("ORT_DYLIB_PATH is set"))
}
