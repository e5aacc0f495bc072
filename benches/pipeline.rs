//! The runtime by itself: a linear ONNX model behind a handler, called in this process, without a wire.
//!
//! `one caller` is what a lone request costs from call to reply; `32 callers` is what the pipeline carries when they
//! meet in batches; the processor time per call says what that costs, whatever else the machine does. `handler alone`
//! and `session` are the parts, so that what is left is the runtime's own. A second model takes 100 µs for any batch: its
//! figures say whether batches form where they pay.

#![allow(clippy::print_stdout, clippy::disallowed_methods, missing_docs)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lantern::backend::onnx::OnnxBackend;
use lantern::backend::{Backend, BackendError, LoadSpec, LoadedModel, Session, Signature};
use lantern::handler::{
    EngineConfig, Handler, HandlerEngine, HandlerSpec, LogLine, Observation, Sink, Step,
};
use lantern::model::{
    BackendKind, Declared, Device, Hosting, Limits, ModelName, ModelSpec, Settings, Version,
};
use lantern::payload::{Body, Request, Schedule};
use lantern::runtime::local::LocalRuntime;
use lantern::runtime::process::ProcessConfig;
use lantern::runtime::{Hosts, WorkerIds};
use lantern::tensor::{DType, NamedTensor, Tensor};

const X: &str = r#"{"x":[0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1.0,1.1,1.2,1.3,1.4,1.5,1.6]}"#;
const MEASURED: Duration = Duration::from_secs(3);
const WARM_UP: usize = 2000;

struct NoSink;

impl Sink for NoSink {
    fn log(&self, line: LogLine) {
        println!("{}", line.message);
    }
    fn observe(&self, _observation: Observation) {}
}

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    for threads in [1, 2] {
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        println!("\n{threads} tokio threads");
        tokio.block_on(async {
            // On a runtime thread, as requests are.
            let bench = tokio::spawn(bench());
            bench.await.expect("the bench ends well");
        });
    }
}

async fn bench() {
    handler_alone().await;
    session_alone();
    for backend in [BackendKind::Onnx, BackendKind::Fake] {
        runtime(backend).await;
    }
}

async fn runtime(backend: BackendKind) {
    println!("{} backend", backend.name());
    let model = model(32, backend);
    let runtime = LocalRuntime::start(&hosts(), model, 1, Arc::new(NoSink)).await;
    let runtime = runtime.expect("the model loads");
    for _ in 0..WARM_UP {
        call(&runtime).await;
    }
    let mut times = lone_calls(&runtime).await;
    report("one caller", &mut times);
    for callers in [4, 32, 128] {
        crowd(&runtime, callers).await;
    }
    runtime.drain(Duration::from_secs(1)).await;
}

async fn lone_calls(runtime: &LocalRuntime) -> Vec<Duration> {
    let mut times = Vec::new();
    let started = Instant::now();
    while started.elapsed() < MEASURED {
        times.push(call(runtime).await);
        // As a connection does that waits for its next request.
        tokio::task::yield_now().await;
    }
    times
}

async fn crowd(runtime: &LocalRuntime, callers: usize) {
    let (started, cpu) = (Instant::now(), cpu_time());
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let runtime = runtime.clone();
            tokio::spawn(async move { lone_calls(&runtime).await })
        })
        .collect();
    let name = format!("{} callers", callers.len());
    let mut times = Vec::new();
    for caller in callers {
        times.extend(caller.await.expect("callers end well"));
    }
    let (elapsed, cpu) = (started.elapsed(), cpu_time().saturating_sub(cpu));
    #[expect(clippy::cast_precision_loss, reason = "rates to print")]
    let calls = times.len() as f64;
    report(&name, &mut times);
    println!(
        "{:<16} {:>9.0} calls/s, {:.1} us of processor time each",
        "",
        calls / elapsed.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / calls
    );
}

async fn call(runtime: &LocalRuntime) -> Duration {
    let started = Instant::now();
    runtime.call(request()).await.expect("the call is answered");
    started.elapsed()
}

fn report(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100];
    println!(
        "{name:<16} p50 {:>8.1?} p90 {:>8.1?} p99 {:>8.1?}",
        at(50),
        at(90),
        at(99)
    );
}

async fn handler_alone() {
    let engine = HandlerEngine::new(EngineConfig::default()).expect("the engine starts");
    let spec = HandlerSpec {
        model: model(1, BackendKind::Onnx),
        device: Device::Cpu,
        limits: Limits::default(),
        sink: Arc::new(NoSink),
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
        let response = handler.postprocess("r", outputs, prepared.carry).await;
        response.expect("the handler answers");
        times.push(started.elapsed());
    }
    report("handler alone", &mut times);
}

fn session_alone() {
    let spec = LoadSpec {
        artifact: fixtures().join("linear.onnx"),
        device: Device::Cpu,
        workers: 1,
        intra_op_threads: 1,
        declared: Declared::default(),
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

/// Processor time of this process so far.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// A model that takes 100 µs of its thread for any batch.
struct Busy(Signature);

impl Backend for Busy {
    fn name(&self) -> &'static str {
        "busy"
    }
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

fn request() -> Request {
    let arrival = Instant::now();
    Request {
        id: "r".to_owned(),
        content_type: Some("application/json".to_owned()),
        headers: Vec::new(),
        body: Body::Raw(Bytes::from_static(X.as_bytes())),
        arrival,
        deadline: arrival + Duration::from_mins(2),
        schedule: Schedule::default(),
    }
}

fn hosts() -> Hosts {
    Hosts {
        engine: Arc::new(|| HandlerEngine::new(EngineConfig::default())),
        backends: Arc::new(HashMap::from([
            (BackendKind::Onnx, backend()),
            (BackendKind::Fake, Arc::new(Busy(Signature::default())) as _),
        ])),
        processes: ProcessConfig::default(),
        worker_ids: Arc::new(WorkerIds::from(9000)),
        cores: 1,
    }
}

fn backend() -> Arc<dyn Backend> {
    let library = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    Arc::new(OnnxBackend::new(library.as_deref()).expect("ORT_DYLIB_PATH is set"))
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn model(batch_size: usize, backend: BackendKind) -> Arc<ModelSpec> {
    let guests = std::env::var_os("LANTERN_GUESTS").map_or_else(
        || {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            root.join("examples/target/wasm32-wasip2/release")
        },
        PathBuf::from,
    );
    Arc::new(ModelSpec {
        name: ModelName::new("linear").expect("a good name"),
        version: Version::new("1").expect("a good version"),
        directory: fixtures(),
        artifact: "linear.onnx".into(),
        handler: guests.join("linear.wasm"),
        backend,
        declared: Declared::default(),
        manifest: "{}".to_owned(),
        config: "{}".to_owned(),
        properties: BTreeMap::new(),
        settings: Settings {
            batch_size,
            hosting: Hosting::Inline,
            ..Settings::default()
        },
        limits: Limits::default(),
    })
}
