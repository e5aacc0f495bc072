//! The process host by itself: the linear ONNX model in a worker process, called from here, without HTTP.
//!
//! `one caller` is what a lone request costs from call to reply, both crossings included; `32 callers` is what the
//! socket carries when frames travel together. `benches/pipeline.rs` has the same without a process between.

#![allow(clippy::print_stdout, clippy::disallowed_methods, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lantern::error::{Error, Kind};
use lantern::handler::{LogLine, Observation, Sink};
use lantern::model::{BackendKind, Declared, Limits, ModelName, ModelSpec, Settings, Version};
use lantern::payload::{Body, Request, Schedule};
use lantern::runtime::process::ProcessConfig;
use lantern::runtime::{Hosts, NativeLibraries, Runtime, WorkerIds};

const X: &str = r#"{"x":[0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1.0,1.1,1.2,1.3,1.4,1.5,1.6]}"#;
const MEASURED: Duration = Duration::from_secs(3);
const WARM_UP: usize = 2000;

struct Print;

impl Sink for Print {
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
        println!("\n{threads} tokio threads in the front");
        // On a runtime thread, as requests are.
        tokio.block_on(async { tokio::spawn(bench()).await.expect("the bench ends well") });
    }
}

async fn bench() {
    let runtime = Runtime::start(&hosts(), Arc::new(model()), 1, Arc::new(Print)).await;
    let runtime = runtime.expect("the model loads");
    for _ in 0..WARM_UP {
        call(&runtime).await;
    }
    let mut times = lone_calls(&runtime).await;
    report("one caller", &mut times);
    for callers in [4, 32, 128] {
        crowd(&runtime, callers).await;
    }
    memory(&runtime);
    runtime.drain(Duration::from_secs(1)).await;
}

async fn lone_calls(runtime: &Runtime) -> Vec<Duration> {
    let mut times = Vec::new();
    let started = Instant::now();
    while started.elapsed() < MEASURED {
        times.push(call(runtime).await);
        // As a connection does that waits for its next request.
        tokio::task::yield_now().await;
    }
    times
}

async fn crowd(runtime: &Runtime, callers: usize) {
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

async fn call(runtime: &Runtime) -> Duration {
    let started = Instant::now();
    let reply = runtime.call(request()).await;
    reply.expect("the call is answered");
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

fn memory(runtime: &Runtime) {
    let pid = runtime.status().workers[0].pid;
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    let rollup = rollup.expect("the process is there");
    let kib = |name: &str| {
        let line = rollup.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_whitespace().nth(1));
        value.and_then(|value| value.parse::<u64>().ok())
    };
    let private = kib("Private_Dirty:").unwrap_or(0) + kib("Private_Clean:").unwrap_or(0);
    println!("{:<16} {:>9} MiB private", "worker process", private / 1024);
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
        engine: Arc::new(|| Err(Error::new(Kind::Internal, "nothing is hosted inline here"))),
        backends: Arc::default(),
        processes: ProcessConfig {
            lantern: env!("CARGO_BIN_EXE_lantern").into(),
            libraries: NativeLibraries {
                onnxruntime: std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from),
            },
            ..ProcessConfig::default()
        },
        worker_ids: Arc::new(WorkerIds::from(9000)),
        cores: 1,
    }
}

fn model() -> ModelSpec {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = root.join("examples/target/wasm32-wasip2/release");
    let guests = std::env::var_os("LANTERN_GUESTS").map_or(built, PathBuf::from);
    ModelSpec {
        name: ModelName::new("linear").expect("a good name"),
        version: Version::new("1").expect("a good version"),
        directory: root.join("tests/fixtures"),
        artifact: "linear.onnx".into(),
        handler: guests.join("linear.wasm"),
        backend: BackendKind::Onnx,
        declared: Declared::default(),
        manifest: "{}".to_owned(),
        config: "{}".to_owned(),
        properties: [].into(),
        settings: Settings {
            batch_size: 32,
            ..Settings::default()
        },
        limits: Limits::default(),
    }
}
