//! A model whose arithmetic dominates: ResNet-18 in batches of 8, served and bare.
//!
//! `make bench` makes the model and names its folder in `LANTERN_RESNET`, and Python with torch in `LANTERN_PYTHON`. Bare is the
//! framework by itself, in a loop over one batch of 8: ONNX Runtime through this crate's backend, TorchScript through
//! `benches/resnet18_bare.py`. Served is a server with one worker in a worker process, 16 connections that send one picture each,
//! on the same cores as the load generator. The two run in turn, with as many threads; then memory by number of workers.

#![allow(clippy::print_stdout, clippy::disallowed_methods, missing_docs)]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates and sizes to print"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lantern::backend::onnx::OnnxBackend;
use lantern::backend::{Backend as _, LoadSpec, Session};
use lantern::model::{Declared, Device};
use lantern::tensor::{DType, NamedTensor, Tensor};

use lantern_benches::load::{self, Load, Outcome};
use lantern_benches::server::{self, Model, Setup};
use lantern_benches::{guest, root};

const RUNS: usize = 3;
const BATCH: usize = 8;
const CONNECTIONS: usize = 2 * BATCH;
const PICTURE: [usize; 3] = [3, 224, 224];
const WARM_UP: Duration = Duration::from_secs(1);
/// After this, memory that is not needed has gone back.
const IDLE: Duration = Duration::from_secs(10);
const MEASURED: Duration = Duration::from_secs(5);

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let Some(folder) = std::env::var_os("LANTERN_RESNET").map(PathBuf::from) else {
        return skip("no LANTERN_RESNET");
    };
    let backends: Vec<_> = [("onnx", "resnet18.onnx"), ("torch", "resnet18.pt")]
        .map(|(backend, file)| (backend, folder.join(file)))
        .into_iter()
        .filter(|(_, artifact)| artifact.exists())
        .collect();
    if backends.is_empty() {
        return skip(&format!("no model in {}", folder.display()));
    }
    println!(
        "\nResNet-18, batch size {BATCH}, {} threads, {CONNECTIONS} connections with a picture of {} bytes each; medians of {RUNS} runs",
        cores(),
        picture().len()
    );
    speed(&backends);
    memory(&backends);
}

fn skip(why: &str) {
    println!(
        "resnet: skipped, {why}. Make the model and name its folder:\n  \
         .runtime/python/bin/python -m pip install onnx==1.23.2 onnxscript==0.7.2\n  \
         .runtime/python/bin/python benches/resnet18.py DIR\n  \
         make bench ARGS=\"--bench resnet\""
    );
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// One picture, as bytes. Which one is the same to the network.
fn picture() -> Vec<u8> {
    0.5f32.to_le_bytes().repeat(PICTURE.iter().product())
}

fn question() -> Vec<u8> {
    load::post(
        "/predictions/resnet",
        "application/octet-stream",
        &picture(),
    )
}

fn speed(backends: &[(&str, PathBuf)]) {
    println!(
        "{:<8} {:>14} {:>16} {:>8} {:>11} {:>8} {:>8} {:>9}",
        "backend",
        "bare images/s",
        "served images/s",
        "ratio",
        "batch rows",
        "p50 ms",
        "p99 ms",
        "failures"
    );
    for (backend, artifact) in backends {
        let Some(mut bare) = bare(backend, artifact) else {
            println!("{backend:<8} skipped: LANTERN_PYTHON names no Python with torch");
            continue;
        };
        let setup = setup(artifact, 1);
        let _running = setup.start();
        setup.first_answer(&question(), Instant::now());
        let runs = (0..RUNS).map(|_| (bare(), measure(&setup, CONNECTIONS)));
        let (bare, served): (Vec<f64>, Vec<Outcome>) = runs.unzip();
        let (bare, served) = (middle(bare, f64::total_cmp), median(served));
        println!(
            "{backend:<8} {bare:>14.1} {:>16.1} {:>8.3} {:>11.2} {:>8.1} {:>8.1} {:>9}",
            served.throughput,
            served.throughput / bare,
            batch_rows(&setup),
            served.p50.as_secs_f64() * 1e3,
            served.p99.as_secs_f64() * 1e3,
            served.failures
        );
    }
}

/// What measures the framework by itself, in images a second.
fn bare(backend: &str, artifact: &Path) -> Option<Box<dyn FnMut() -> f64>> {
    if backend == "onnx" {
        let mut session = session(artifact);
        return Some(Box::new(move || bare_onnx(session.as_mut())));
    }
    let python = std::env::var_os("LANTERN_PYTHON").filter(|python| Path::new(python).exists())?;
    let artifact = artifact.to_owned();
    Some(Box::new(move || bare_torch(Path::new(&python), &artifact)))
}

fn session(artifact: &Path) -> Box<dyn Session> {
    let library = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    let spec = LoadSpec {
        has_brief_outputs: true,
        artifact: artifact.to_owned(),
        device: Device::Cpu,
        workers: 1,
        intra_op_threads: cores(),
        declared: Declared::default(),
        state: lantern::model::StateSharing::default(),
    };
    let backend = OnnxBackend::new(library.as_deref()).expect("ONNX Runtime is installed");
    let session = backend.load(&spec).and_then(|model| model.session());
    session.expect("the model loads")
}

fn bare_onnx(session: &mut dyn Session) -> f64 {
    let shape = [&[BATCH], PICTURE.as_slice()].concat();
    let data = Bytes::from(picture().repeat(BATCH));
    let tensor = Tensor::new(DType::F32, shape, data).expect("lengths agree");
    let inputs = vec![NamedTensor::new("image", tensor)];
    let mut infer = |for_how_long: Duration| {
        let (started, mut images) = (Instant::now(), 0.0);
        while started.elapsed() < for_how_long {
            session.infer(inputs.clone()).expect("the model runs");
            images += BATCH as f64;
        }
        images / started.elapsed().as_secs_f64()
    };
    infer(WARM_UP);
    infer(MEASURED)
}

fn bare_torch(python: &Path, artifact: &Path) -> f64 {
    let numbers = [BATCH as f64, cores() as f64, MEASURED.as_secs_f64()];
    let output = Command::new(python)
        .arg(root().join("benches/resnet18_bare.py"))
        .arg(artifact)
        .args(numbers.map(|number| number.to_string()))
        // Without these, glibc gives the activations back after each batch and faults them in again: 20 % slower.
        .env("MALLOC_MMAP_MAX_", "0")
        .env("MALLOC_TRIM_THRESHOLD_", "4000000000")
        // Python finds the libraries of its own torch.
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .expect("Python starts");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().unwrap_or_else(|_| {
        let error = String::from_utf8_lossy(&output.stderr);
        panic!("resnet18_bare.py prints images a second; got {text:?}, {error}")
    })
}

fn setup(artifact: &Path, workers: usize) -> Setup {
    let [channels, height, width] = PICTURE;
    let config = format!(
        "minWorkers: {workers}\nmaxWorkers: {workers}\nbatchSize: {BATCH}\nmaxBatchDelay: 50\n\
         handler: {{input: image, shape: [{channels}, {height}, {width}]}}\n\
         lantern:\n  intraOpThreads: {}\n  waitForFullBatches: true\n  \
         inputs: [{{name: image, dtype: fp32, shape: [-1, {channels}, {height}, {width}]}}]\n  \
         outputs: [{{name: logits, dtype: fp32, shape: [-1, 1000]}}]\n",
        cores()
    );
    let model = Model {
        name: "resnet",
        artifact,
        handler: &guest("raw"),
        config,
        extra_files: Vec::new(),
    };
    Setup::new(&[model], "metrics_mode=prometheus")
}

fn measure(setup: &Setup, connections: usize) -> Outcome {
    load::drive(&Load {
        address: setup.inference,
        request: question(),
        connections,
        warm_up: WARM_UP,
        duration: MEASURED,
    })
}

fn median(outcomes: Vec<Outcome>) -> Outcome {
    middle(outcomes, |a, b| a.throughput.total_cmp(&b.throughput))
}

fn middle<T>(mut values: Vec<T>, order: impl FnMut(&T, &T) -> std::cmp::Ordering) -> T {
    values.sort_by(order);
    values.swap_remove(values.len() / 2)
}

/// Rows of the batch that a request was in, mean over all requests so far.
fn batch_rows(setup: &Setup) -> f64 {
    let text = load::get(setup.metrics, "/metrics");
    let sample = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.unwrap_or(f64::NAN)
    };
    sample("lantern_batch_rows_sum{") / sample("lantern_batch_rows_count{")
}

fn memory(backends: &[(&str, PathBuf)]) {
    println!(
        "\nPrivate memory of the worker process in MiB: loaded, after load on 32 connections, and {} s later",
        IDLE.as_secs()
    );
    println!(
        "{:<8} {:>8} {:>8} {:>11} {:>8}",
        "backend", "workers", "loaded", "after load", "idle"
    );
    for (backend, artifact) in backends {
        for workers in [1, 4] {
            let setup = setup(artifact, workers);
            let server = setup.start();
            setup.first_answer(&question(), Instant::now());
            let loaded = children(&server);
            measure(&setup, 4 * BATCH);
            let after = children(&server);
            std::thread::sleep(IDLE);
            let idle = children(&server);
            println!("{backend:<8} {workers:>8} {loaded:>8.1} {after:>11.1} {idle:>8.1}");
        }
    }
}

fn children(server: &server::Server) -> f64 {
    let (_front, children) = server.private_memory();
    children.iter().sum::<u64>() as f64 / f64::from(1 << 20)
}
