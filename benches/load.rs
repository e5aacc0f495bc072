//! The server as a user meets it: a release build, started as a process, driven over loopback.
//!
//! `make bench ARGS="--bench load"` prints one table per question: requests a second and latency for a small JSON model, memory
//! by number of workers, the time from start to the first answer, and what metrics cost. Every figure is the median of
//! several runs. `make bench ARGS="--bench load -- metrics` asks one question alone.

#![allow(clippy::print_stdout, clippy::disallowed_methods, missing_docs)]

use std::time::{Duration, Instant};

use lantern_benches::load::{self, Load, Outcome};
use lantern_benches::server::{Model, Setup};
use lantern_benches::{fixture, guest};

const RUNS: usize = 3;
const X: &str = r#"{"x":[0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1.0,1.1,1.2,1.3,1.4,1.5,1.6]}"#;

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let questions: [(&str, fn()); 5] = [
        ("speed", speed),
        ("memory", memory),
        ("start-up", start_up),
        ("metrics", metrics),
        ("tokens", tokens),
    ];
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let is_asked = |name: &str| asked.iter().any(|argument| argument == name);
    let is_any = questions.iter().any(|(name, _)| is_asked(name));
    for (_, answer) in questions
        .iter()
        .filter(|(name, _)| !is_any || is_asked(name))
    {
        answer();
    }
}

fn linear(backend: &str, hosting: &str, workers: usize) -> Setup {
    linear_with(backend, hosting, workers, "")
}

/// The same, with more lines of `config.properties`.
fn linear_with(backend: &str, hosting: &str, workers: usize, extra: &str) -> Setup {
    let artifact = fixture(if backend == "torch" {
        "linear.pt"
    } else {
        "linear.onnx"
    });
    let config = format!(
        "minWorkers: {workers}\nmaxWorkers: {workers}\nbatchSize: 32\nmaxBatchDelay: 1\n\
         lantern:\n  hosting: {hosting}\n  inputs: [{{name: x, dtype: fp32, shape: [-1, 16]}}]\n  \
         outputs: [{{name: y, dtype: fp32, shape: [-1, 4]}}]\n"
    );
    let model = Model {
        name: "linear",
        artifact: &artifact,
        handler: &guest("linear"),
        config,
        extra_files: Vec::new(),
    };
    Setup::new(&[model], extra)
}

fn question() -> Vec<u8> {
    load::post("/predictions/linear", "application/json", X.as_bytes())
}

fn speed() {
    println!(
        "\n16-input linear model, JSON in and out, one worker, batch size 32; medians of {RUNS} runs"
    );
    println!(
        "{:<8} {:<8} {:>5} {:>12} {:>10} {:>10} {:>9}",
        "backend", "hosting", "conns", "requests/s", "p50 us", "p99 us", "failures"
    );
    for (backend, hosting) in [
        ("onnx", "inline"),
        ("onnx", "process"),
        ("torch", "process"),
    ] {
        let setup = linear(backend, hosting, 1);
        let _server = setup.start();
        setup.first_answer(&question(), Instant::now());
        for connections in [1, 8, 32, 64] {
            let outcome = median((0..RUNS).map(|_| measure(&setup, connections)).collect());
            println!(
                "{backend:<8} {hosting:<8} {connections:>5} {:>12.0} {:>10.0} {:>10.0} {:>9}",
                outcome.throughput,
                micros(outcome.p50),
                micros(outcome.p99),
                outcome.failures
            );
        }
    }
}

/// What tokens cost: the same load with them and without, in turn, so that a drift of the machine meets both.
fn tokens() {
    println!("\nTokens on and off, ONNX inline, 32 connections; medians of {RUNS} runs");
    println!("{:<6} {:>12} {:>10}", "tokens", "requests/s", "p99 us");
    let off = linear("onnx", "inline", 1);
    let on = linear_with("onnx", "inline", 1, "disable_token_authorization=false");
    let (_first, _second) = (off.start(), on.start());
    off.first_answer(&question(), Instant::now());
    // Health needs no key; a server that answers has written its keys.
    let health = b"GET /ping HTTP/1.1\r\nHost: lantern\r\nConnection: close\r\n\r\n";
    on.first_answer(health, Instant::now());
    let request = load::authorized(&question(), &on.key("inference"));
    on.first_answer(&request, Instant::now());
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        without.push(measure(&off, 32));
        with.push(drive(&on, request.clone(), 32));
    }
    for (name, outcomes) in [("off", without), ("on", with)] {
        let outcome = median(outcomes);
        println!(
            "{name:<6} {:>12.0} {:>10.0}",
            outcome.throughput,
            micros(outcome.p99)
        );
    }
}

fn measure(setup: &Setup, connections: usize) -> Outcome {
    drive(setup, question(), connections)
}

fn drive(setup: &Setup, request: Vec<u8>, connections: usize) -> Outcome {
    load::drive(&Load {
        address: setup.inference,
        request,
        connections,
        warm_up: Duration::from_millis(500),
        duration: Duration::from_secs(3),
    })
}

/// The run with the median throughput.
fn median(mut outcomes: Vec<Outcome>) -> Outcome {
    outcomes.sort_by(|a, b| a.throughput.total_cmp(&b.throughput));
    outcomes[outcomes.len() / 2]
}

fn memory() {
    println!("\nPrivate memory in MiB after {RUNS} s of load on 8 connections");
    println!(
        "{:<8} {:>8} {:>8} {:>14}",
        "backend", "workers", "front", "worker process"
    );
    for backend in ["onnx", "torch"] {
        for workers in [1, 4] {
            let setup = linear(backend, "process", workers);
            let server = setup.start();
            setup.first_answer(&question(), Instant::now());
            let (front, children) = server.private_memory();
            println!(
                "{backend:<8} {workers:>8} {:>8.1} {:>14.1}   idle",
                mib(front),
                mib(children.iter().sum())
            );
            measure(&setup, 8);
            let (front, children) = server.private_memory();
            println!(
                "{backend:<8} {workers:>8} {:>8.1} {:>14.1}   after load",
                mib(front),
                mib(children.iter().sum())
            );
        }
    }
}

fn start_up() {
    println!("\nFrom start to the first answer, caches warm; median of 5 starts");
    for (backend, hosting) in [
        ("onnx", "inline"),
        ("onnx", "process"),
        ("torch", "process"),
    ] {
        let setup = linear(backend, hosting, 1);
        let mut times: Vec<Duration> = (0..6).map(|_| start_once(&setup)).skip(1).collect();
        times.sort();
        println!(
            "{backend:<8} {hosting:<8} {:>8.3} s",
            times[2].as_secs_f64()
        );
    }
}

fn start_once(setup: &Setup) -> Duration {
    let started = Instant::now();
    let _server = setup.start();
    setup.first_answer(&question(), started)
}

/// Throughput with metrics on, off and as lines: in turns, since a machine does not stay the same.
fn metrics() {
    const TURNS: usize = 9;
    let settings = [
        ("on", ""),
        ("off", "enable_metrics_api=false"),
        ("log", "metrics_mode=log"),
    ];
    println!(
        "\nWhat metrics cost: requests/s on 32 connections, onnx inline; medians of {TURNS} turns"
    );
    let setups = settings.map(|(_, extra)| linear_with("onnx", "inline", 1, extra));
    let mut outcomes = settings.map(|_| Vec::with_capacity(TURNS));
    for _ in 0..TURNS {
        for (setup, outcomes) in setups.iter().zip(&mut outcomes) {
            let _server = setup.start();
            setup.first_answer(&question(), Instant::now());
            outcomes.push(measure(setup, 32));
        }
    }
    let medians = outcomes.map(median);
    let off = medians[1].throughput;
    for ((name, _), outcome) in settings.iter().zip(medians) {
        println!(
            "{name:<8} {:>12.0} requests/s {:>+7.2} % p99 {:>6.0} us",
            outcome.throughput,
            100.0 * (outcome.throughput - off) / off,
            micros(outcome.p99)
        );
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[expect(
    clippy::cast_precision_loss,
    reason = "megabytes are shown to one digit"
)]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
