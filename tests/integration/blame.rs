//! Whose fault it is that a model does not take its inputs, by who made them: the status, and the line in the model's log, in
//! both hostings.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lantern::backend::Backend;
use lantern::backend::onnx::OnnxBackend;
use lantern::budget::Account;
use lantern::error::{Error, Fault};
use lantern::handler::{HandlerEngine, Level, LogLine, Observation, Sink};
use lantern::model::{
    BackendKind, Declared, Hosting, Limits, ModelName, ModelSpec, Settings, TensorsTo, Version,
};
use lantern::payload::{Body, Meter, Request, Schedule};
use lantern::runtime::process::ProcessConfig;
use lantern::runtime::{Bounds, Hosts, NativeLibraries, Runtime, Verdicts, WorkerIds};
use lantern::tensor::{DType, NamedTensor, Tensor};
use parking_lot::Mutex;
use serde_json::json;

use crate::support::{fixture, guest};

const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

/// Keeps the lines of the model's log.
#[derive(Default)]
struct Lines(Mutex<Vec<LogLine>>);

impl Sink for Lines {
    fn log(&self, line: LogLine) {
        self.0.lock().push(line);
    }
    fn observe(&self, _observation: Observation) {}
}

/// Who makes the tensors that the model is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// A client of Open Inference Protocol, past the handler.
    Client,
    /// Such a client, whose tensors the handler gives on as they are.
    GivenOn,
    /// The handler, from the request's JSON.
    Handler,
}

/// What is wrong with them, for a model of `index`, int64 `[?, 1]`, that takes indices below 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    Name,
    DType,
    Shape,
    Value,
}

/// What is told of it: of the first three by the server's own check, of the last by ONNX Runtime.
const FLAWS: [(Flaw, &str); 4] = [
    (
        Flaw::Name,
        "the model has no input \"row\"; it takes index: int64[?, 1]",
    ),
    (Flaw::DType, "expected index: int64[?, 1], got int32[1, 1]"),
    (Flaw::Shape, "expected index: int64[?, 1], got int64[1, 2]"),
    (
        Flaw::Value,
        "the model refused the shapes or values of its inputs",
    ),
];

#[allow(
    clippy::disallowed_methods,
    reason = "tests are told by the Makefile where libraries lie"
)]
fn hosts() -> Hosts {
    let library = std::env::var_os("ORT_DYLIB_PATH").map(Into::into);
    let libraries = NativeLibraries {
        onnxruntime: library,
    };
    let onnx = OnnxBackend::new(libraries.onnxruntime.as_deref()).unwrap();
    let onnx: Arc<dyn Backend> = Arc::new(onnx);
    Hosts {
        verdicts: Verdicts::default(),
        code: Arc::new(lantern::runtime::CompileHere),
        engine: Arc::new(HandlerEngine::lazy()),
        backends: Arc::new(HashMap::from([(BackendKind::Onnx, onnx)])),
        processes: ProcessConfig {
            lantern: env!("CARGO_BIN_EXE_lantern").into(),
            libraries,
            ..ProcessConfig::default()
        },
        worker_ids: Arc::new(WorkerIds::from(9000)),
        cores: 1,
        inline_runs: Arc::default(),
    }
}

fn model(hosting: Hosting, tensors_to: TensorsTo) -> ModelSpec {
    ModelSpec {
        name: ModelName::new("fails").unwrap(),
        version: Version::new("1.0").unwrap(),
        directory: fixture(""),
        artifact: "fails.onnx".into(),
        handler: guest("passthrough"),
        backend: BackendKind::Onnx,
        digest: String::new(),
        samples: None,
        declared: Declared::default(),
        manifest: "{}".to_owned(),
        config: "{}".to_owned(),
        properties: BTreeMap::new(),
        settings: Settings {
            hosting,
            tensors_to,
            ..Settings::default()
        },
        limits: Limits::default(),
    }
}

/// The body of a request for which `source` gives the model a tensor with the flaw.
fn body(source: Source, flaw: Flaw) -> Body {
    let name = if flaw == Flaw::Name { "row" } else { "index" };
    let dtype = if flaw == Flaw::DType {
        DType::I32
    } else {
        DType::I64
    };
    let shape = if flaw == Flaw::Shape {
        vec![1, 2]
    } else {
        vec![1, 1]
    };
    let values = vec![if flaw == Flaw::Value { 9 } else { 1 }; shape.iter().product()];
    if source == Source::Handler {
        let tensor = json!({"name": name, "dtype": dtype.name(), "shape": shape, "data": values});
        return Body::Raw(json!({"inputs": [tensor]}).to_string().into());
    }
    let bytes = |value: &i64| match dtype {
        DType::I32 => i32::try_from(*value).unwrap().to_le_bytes().to_vec(),
        _ => value.to_le_bytes().to_vec(),
    };
    let data: Vec<u8> = values.iter().flat_map(bytes).collect();
    let tensor = Tensor::new(dtype, shape, Bytes::from(data)).unwrap();
    Body::Tensors(vec![NamedTensor::new(name, tensor)])
}

fn request(body: Body) -> Request {
    let arrival = Instant::now();
    Request {
        id: ID.to_owned(),
        content_type: Some("application/json".to_owned()),
        headers: Vec::new(),
        body,
        arrival,
        deadline: arrival + Duration::from_secs(50),
        schedule: Schedule::default(),
        account: Account::default(),
        passes_tensors_on: false,
        meter: Meter::default(),
    }
}

/// The lines of the model's log that are about the request, once there are so many. In a worker process they come as reports of
/// their own.
async fn lines(log: &Lines, least: usize) -> Vec<LogLine> {
    let found = async {
        loop {
            let lines = log.0.lock().clone();
            let about: Vec<_> = lines
                .into_iter()
                .filter(|line| line.request_id == ID)
                .collect();
            if about.len() >= least {
                return about;
            }
            tokio::task::yield_now().await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(20), found).await;
    found.expect("no line about the request")
}

async fn failure(hosting: Hosting, source: Source, flaw: Flaw) -> (Error, Arc<Lines>) {
    let log = Arc::<Lines>::default();
    let tensors_to = match source {
        Source::Client => TensorsTo::Model,
        Source::GivenOn | Source::Handler => TensorsTo::Handler,
    };
    let model = Arc::new(model(hosting, tensors_to));
    let sink = Arc::clone(&log) as Arc<dyn Sink>;
    let runtime = Runtime::start(&hosts(), model, Bounds::exactly(1), sink).await;
    let runtime = runtime.unwrap();
    let called = runtime.call(request(body(source, flaw))).await;
    (called.unwrap_err(), log)
}

async fn is_blamed(hosting: Hosting) {
    for source in [Source::Client, Source::GivenOn, Source::Handler] {
        for (flaw, told) in FLAWS {
            let (error, log) = failure(hosting, source, flaw).await;
            let case = format!("{source:?} {flaw:?}: {error:?}");
            let (status, fault) = match source {
                Source::Client | Source::GivenOn => (400, Fault::Client),
                Source::Handler => (503, Fault::Handler),
            };
            assert_eq!(error.kind().wire().status, status, "{case}");
            assert_eq!(error.kind().fault(), fault, "{case}");
            assert!(error.message().ends_with(told), "{case}");
            let by_framework = flaw == Flaw::Value;
            let is_logged = by_framework || fault == Fault::Handler;
            let lines = lines(&log, usize::from(is_logged)).await;
            assert_eq!(lines.len(), usize::from(is_logged), "{case}: {lines:?}");
            if let Some(line) = lines.first() {
                assert_eq!(line.level, Level::Warn, "{case}");
                assert!(line.message.contains(told), "{case}: {}", line.message);
                let says = line.message.contains("out of data bounds");
                assert_eq!(says, by_framework, "{case}: {}", line.message);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_that_a_model_does_not_take_are_blamed_on_who_made_them_inline() {
    is_blamed(Hosting::Inline).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_that_a_model_does_not_take_are_blamed_on_who_made_them_in_a_process() {
    is_blamed(Hosting::Process).await;
}
