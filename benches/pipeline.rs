//! The runtime by itself: a linear ONNX model behind a handler, called in this process, without a wire.
//!
//! `one caller` is what a lone request costs from call to reply; `32 callers` is what the pipeline carries when they
//! meet in batches. `handler alone` and `session alone` are the parts, so that what is left is the runtime's own.

#![allow(clippy::print_stdout, clippy::disallowed_methods, missing_docs)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lantern::backend::onnx::OnnxBackend;
use lantern::backend::{Backend, LoadSpec};
use lantern::handler::{
    EngineConfig, Handler, HandlerEngine, HandlerSpec, LogLine, Observation, Sink, Step,
};
use lantern::model::{
    BackendKind, Declared, Device, Hosting, Limits, ModelName, ModelSpec, Settings, Version,
};
use lantern::payload::{Body, Request};
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
    let runtime = LocalRuntime::start(&hosts(), model(32), 1, Arc::new(NoSink)).await;
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
    let started = Instant::now();
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
    #[expect(clippy::cast_precision_loss, reason = "a rate to print")]
    let rate = times.len() as f64 / started.elapsed().as_secs_f64();
    report(&name, &mut times);
    println!("{:<16} {rate:>9.0} calls/s", "");
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
        model: model(1),
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

fn request() -> Request {
    let arrival = Instant::now();
    Request {
        id: "r".to_owned(),
        content_type: Some("application/json".to_owned()),
        headers: Vec::new(),
        body: Body::Raw(Bytes::from_static(X.as_bytes())),
        arrival,
        deadline: arrival + Duration::from_mins(2),
    }
}

fn hosts() -> Hosts {
    Hosts {
        engine: Arc::new(|| HandlerEngine::new(EngineConfig::default())),
        backends: Arc::new(HashMap::from([(BackendKind::Onnx, backend())])),
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

fn model(batch_size: usize) -> Arc<ModelSpec> {
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
        backend: BackendKind::Onnx,
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
