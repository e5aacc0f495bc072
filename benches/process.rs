//! The process host by itself: the linear ONNX model in a worker process, called from here, without HTTP.
//!
//! `one caller` is what a lone request costs from call to reply, both crossings included; `32 callers` is what the
//! socket carries when frames travel together. `benches/pipeline.rs` has the same without a process between.

#![allow(clippy::print_stdout, clippy::disallowed_methods, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use lantern::error::{Error, Kind};
use lantern::model::{BackendKind, Hosting};
use lantern::runtime::process::ProcessConfig;
use lantern::runtime::{Hosts, NativeLibraries, Runtime, WorkerIds};

use lantern_benches::runtime::{self, measure, model};
use lantern_benches::{onnxruntime, program};

fn main() {
    runtime::on_one_thread_and_two(bench);
}

async fn bench() {
    let model = model(32, BackendKind::Onnx, Hosting::Process);
    let runtime = measure(&hosts(), model).await;
    memory(&runtime);
    runtime.drain(Duration::from_secs(1)).await;
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

fn hosts() -> Hosts {
    Hosts {
        verdicts: lantern::runtime::Verdicts::default(),
        code: Arc::new(lantern::runtime::CompileHere),
        engine: Arc::new(|| Err(Error::new(Kind::Internal, "nothing is hosted inline here"))),
        backends: Arc::default(),
        processes: ProcessConfig {
            lantern: program(),
            libraries: NativeLibraries {
                onnxruntime: onnxruntime(),
            },
            ..ProcessConfig::default()
        },
        worker_ids: Arc::new(WorkerIds::from(9000)),
        cores: 1,
        inline_runs: Arc::default(),
    }
}
