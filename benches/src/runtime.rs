//! The linear ONNX model in a runtime, wherever it is hosted, called without a wire: by one caller, and by many at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lantern::budget::Account;
use lantern::handler::{LogLine, Observation, Sink};
use lantern::model::{
    BackendKind, Declared, Hosting, Limits, ModelName, ModelSpec, Settings, Version,
};
use lantern::payload::{Body, Meter, Request, Schedule};
use lantern::runtime::{Bounds, Hosts, Runtime};

use crate::{guest, root};

/// A body that the model's handler takes.
const X: &str = r#"{"x":[0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1.0,1.1,1.2,1.3,1.4,1.5,1.6]}"#;
/// How long callers call.
const MEASURED: Duration = Duration::from_secs(3);
/// Calls that are not measured.
pub const WARM_UP: usize = 2000;

/// Prints what handlers log.
pub struct Print;

impl Sink for Print {
    fn log(&self, line: LogLine) {
        println!("{}", line.message);
    }
    fn observe(&self, _observation: Observation) {}
}

/// Runs `bench` on one runtime thread and on two, as requests are run; not when benches are only listed.
pub fn on_one_thread_and_two<F: Future<Output = ()> + Send + 'static>(bench: fn() -> F) {
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
        tokio.block_on(async { tokio::spawn(bench()).await.expect("the bench ends well") });
    }
}

/// Loads `model` and measures one caller, then more and more; returns the runtime, which still runs.
pub async fn measure(hosts: &Hosts, model: ModelSpec) -> Runtime {
    let runtime = Runtime::start(hosts, Arc::new(model), Bounds::exactly(1), Arc::new(Print)).await;
    let runtime = runtime.expect("the model loads");
    for _ in 0..WARM_UP {
        call(&runtime).await;
    }
    let mut times = lone_calls(&runtime).await;
    report("one caller", &mut times);
    for callers in [4, 32, 128] {
        crowd(&runtime, callers).await;
    }
    runtime
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
        "{:<16} {:>9.0} calls/s, {:.1} us of this process's processor time each",
        "",
        calls / elapsed.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / calls
    );
}

async fn call(runtime: &Runtime) -> Duration {
    let started = Instant::now();
    let reply = runtime.call(request()).await;
    reply.expect("the call is answered");
    started.elapsed()
}

/// Prints the distribution of `times`.
pub fn report(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100];
    println!(
        "{name:<16} p50 {:>8.1?} p90 {:>8.1?} p99 {:>8.1?}",
        at(50),
        at(90),
        at(99)
    );
}

/// Processor time of this process so far.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// One request for the model.
pub fn request() -> Request {
    let arrival = Instant::now();
    Request {
        id: "r".to_owned(),
        content_type: Some("application/json".to_owned()),
        headers: Vec::new(),
        body: Body::Raw(Bytes::from_static(X.as_bytes())),
        arrival,
        deadline: arrival + Duration::from_mins(2),
        schedule: Schedule::default(),
        account: Account::default(),
        passes_tensors_on: false,
        meter: Meter::default(),
    }
}

/// The model behind its JSON handler.
pub fn model(batch_size: usize, backend: BackendKind, hosting: Hosting) -> ModelSpec {
    ModelSpec {
        digest: String::new(),
        samples: None,
        name: ModelName::new("linear").expect("a good name"),
        version: Version::new("1").expect("a good version"),
        directory: root().join("tests/fixtures"),
        artifact: "linear.onnx".into(),
        handler: guest("linear"),
        backend,
        declared: Declared::default(),
        manifest: "{}".to_owned(),
        config: "{}".to_owned(),
        properties: [].into(),
        settings: Settings {
            batch_size,
            hosting,
            ..Settings::default()
        },
        limits: Limits::default(),
    }
}
