//! `lantern-torch` as a server starts it: with a real model behind a real handler, and with one that crashes it.

#![allow(clippy::unwrap_used)]
#![expect(clippy::disallowed_methods, reason = "tests are told where things lie")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lantern::error::{Error, Kind};
use lantern::handler::{LogLine, Observation, Sink};
use lantern::model::{
    BackendKind, Declared, Limits, ModelName, ModelSpec, Settings, TensorSpec, TensorsTo, Version,
};
use lantern::payload::{Body, Request, Schedule};
use lantern::runtime::process::{ProcessConfig, ProcessRuntime};
use lantern::runtime::{Bounds, Hosts, WorkerIds};
use lantern::tensor::{DType, NamedTensor, Tensor};
use serde_json::Value;

struct Silence;

impl Sink for Silence {
    fn log(&self, _line: LogLine) {}
    fn observe(&self, _observation: Observation) {}
}

fn hosts() -> Hosts {
    let libraries =
        std::env::var_os("LD_LIBRARY_PATH").map(|path| ("LD_LIBRARY_PATH".into(), path));
    Hosts {
        verdicts: lantern::runtime::Verdicts::default(),
        engine: Arc::new(|| Err(Error::new(Kind::Internal, "nothing is hosted inline here"))),
        backends: Arc::default(),
        processes: ProcessConfig {
            lantern_torch: env!("CARGO_BIN_EXE_lantern-torch").into(),
            environment: libraries.into_iter().collect(),
            ..ProcessConfig::default()
        },
        worker_ids: Arc::new(WorkerIds::from(9000)),
        cores: 1,
        leaders: Arc::default(),
    }
}

fn spec(name: &str, dtype: DType, shape: Vec<Option<usize>>) -> TensorSpec {
    TensorSpec::new(name, dtype, shape)
}

fn model(artifact: &str, input: TensorSpec) -> ModelSpec {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = root.join("examples/target/wasm32-wasip2/release");
    let guests = std::env::var_os("LANTERN_GUESTS").map_or(built, PathBuf::from);
    ModelSpec {
        digest: String::new(),
        samples: None,
        name: ModelName::new("m").unwrap(),
        version: Version::new("1").unwrap(),
        directory: root.join("tests/fixtures"),
        artifact: artifact.into(),
        handler: guests.join("passthrough.wasm"),
        backend: BackendKind::Torch,
        declared: Declared {
            inputs: vec![input],
            outputs: vec![spec("y", DType::F32, vec![None, None])],
        },
        manifest: "{}".into(),
        config: "{}".into(),
        properties: [].into(),
        settings: Settings {
            tensors_to: TensorsTo::Handler,
            ..Settings::default()
        },
        limits: Limits::default(),
    }
}

async fn start(model: ModelSpec) -> ProcessRuntime {
    let started = ProcessRuntime::start(
        &hosts(),
        Arc::new(model),
        Bounds::exactly(1),
        Arc::new(Silence),
    )
    .await;
    started.unwrap_or_else(|error| panic!("{error}"))
}

fn request(input: NamedTensor) -> Request {
    Request {
        id: "r".into(),
        content_type: None,
        headers: vec![],
        body: Body::Tensors(vec![input]),
        arrival: Instant::now(),
        deadline: Instant::now() + Duration::from_secs(50),
        schedule: Schedule::default(),
    }
}

fn length(value: i64) -> Request {
    let data = value.to_le_bytes().to_vec();
    let tensor = Tensor::new(DType::I64, vec![1, 1], data.into()).unwrap();
    request(NamedTensor::new("length", tensor))
}

#[tokio::test]
async fn a_torchscript_model_answers_from_its_process() {
    let zeros = Tensor::new(DType::F32, vec![1, 16], vec![0; 64].into()).unwrap();
    let runtime = start(model(
        "linear.pt",
        spec("x", DType::F32, vec![None, Some(16)]),
    ))
    .await;
    let reply = runtime
        .call(request(NamedTensor::new("x", zeros)))
        .await
        .unwrap();
    let body = reply.into_response().unwrap().into_body();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["outputs"][0]["name"], "y", "{answer}");
    assert_eq!(
        answer["outputs"][0]["shape"],
        serde_json::json!([1, 4]),
        "{answer}"
    );
}

#[tokio::test]
async fn a_model_that_crashes_its_process_fails_its_own_request_alone() {
    let runtime = start(model(
        "crash.pt",
        spec("length", DType::I64, vec![None, Some(1)]),
    ))
    .await;
    let error = runtime.call(length(1_000_000_000_000)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WorkerDied);
    assert_eq!(error.message(), "Worker died: killed by signal 11");
    let reply = runtime.call(length(1)).await.unwrap();
    assert_eq!(reply.into_response().unwrap().status(), 200);
}
