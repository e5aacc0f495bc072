//! `lantern-torch` as a server starts it: with a real model behind a real handler, and with one that crashes it.

#![allow(clippy::unwrap_used)]
#![expect(clippy::disallowed_methods, reason = "tests are told where things lie")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lantern::budget::Account;
use lantern::error::{Error, Kind};
use lantern::handler::{LogLine, Observation, Sink};
use lantern::model::{
    BackendKind, Declared, Limits, ModelName, ModelSpec, Settings, StateSharing, TensorSpec,
    TensorsTo, Version,
};
use lantern::payload::{Body, Meter, Output, Request, Schedule};
use lantern::runtime::process::{ProcessConfig, ProcessRuntime};
use lantern::runtime::{Batching, Bounds, Grounds, Hosts, ModelState, WorkerIds};
use lantern::tensor::{DType, NamedTensor, Tensor};
use serde_json::Value;

#[path = "process/attack.rs"]
mod attack;

/// Keeps the lines of the model's log.
#[derive(Clone)]
struct Lines(tokio::sync::mpsc::UnboundedSender<LogLine>);

impl Sink for Lines {
    fn log(&self, line: LogLine) {
        let _ = self.0.send(line);
    }
    fn observe(&self, _observation: Observation) {}
}

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
        code: Arc::new(lantern::runtime::CompileHere),
        engine: Arc::new(|| Err(Error::new(Kind::Internal, "nothing is hosted inline here"))),
        backends: Arc::default(),
        processes: ProcessConfig {
            lantern_torch: env!("CARGO_BIN_EXE_lantern-torch").into(),
            environment: libraries.into_iter().collect(),
            ..ProcessConfig::default()
        },
        worker_ids: Arc::new(WorkerIds::from(9000)),
        cores: 1,
        inline_runs: Arc::default(),
    }
}

fn spec(name: &str, dtype: DType, shape: Vec<Option<usize>>) -> TensorSpec {
    TensorSpec::new(name, dtype, shape)
}

/// A module of which nothing is declared, to which tensors go past the handler.
fn undeclared(name: &str, state: StateSharing) -> ModelSpec {
    let file = format!("torchscript/{name}.pt");
    let mut model = model(&file, spec("x", DType::F32, vec![]));
    model.declared = Declared::default();
    model.settings.tensors_to = TensorsTo::Model;
    model.settings.state = state;
    model
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
    let started = try_start(model, 1).await;
    started.unwrap_or_else(|error| panic!("{error}"))
}

async fn try_start(model: ModelSpec, workers: usize) -> Result<ProcessRuntime, Error> {
    let bounds = Bounds::exactly(workers);
    ProcessRuntime::start(&hosts(), Arc::new(model), bounds, Arc::new(Silence)).await
}

fn request(input: NamedTensor) -> Request {
    request_of(vec![input])
}

fn request_of(inputs: Vec<NamedTensor>) -> Request {
    Request {
        id: "r".into(),
        content_type: None,
        headers: vec![],
        body: Body::Tensors(inputs),
        arrival: Instant::now(),
        deadline: Instant::now() + Duration::from_secs(50),
        schedule: Schedule::default(),
        account: Account::default(),
        passes_tensors_on: false,
        meter: Meter::default(),
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

fn row(name: &str, value: f32) -> NamedTensor {
    let data = value.to_le_bytes().to_vec();
    let tensor = Tensor::new(DType::F32, vec![1, 1], data.into()).unwrap();
    NamedTensor::new(name, tensor)
}

/// The outputs of a call, by name.
async fn outputs(
    runtime: &ProcessRuntime,
    inputs: Vec<NamedTensor>,
) -> Result<Vec<NamedTensor>, Error> {
    match runtime.call(request_of(inputs)).await?.output {
        Output::Tensors(tensors) => Ok(tensors),
        Output::Response(response) => panic!("no tensors, but {response:?}"),
    }
}

#[tokio::test]
async fn an_undeclared_model_is_known_and_called_by_its_schema() {
    let runtime = start(undeclared("order", StateSharing::Shared)).await;
    let signature = runtime.signature().unwrap();
    let names: Vec<_> = signature.inputs.iter().map(|spec| &*spec.name).collect();
    assert_eq!(names, ["zeta", "alpha", "mid"]);
    let inputs = vec![row("alpha", 2.0), row("mid", 3.0), row("zeta", 1.0)];
    let answer = outputs(&runtime, inputs).await.unwrap();
    assert_eq!(*answer[0].name, *"output_0");
    assert_eq!(*answer[0].tensor.data(), 123f32.to_le_bytes()[..]);
    let wrong = vec![row("alpha", 2.0), row("middle", 3.0), row("zeta", 1.0)];
    let error = outputs(&runtime, wrong).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidInput);
    assert!(
        error.message().contains("it takes zeta: any[...]"),
        "{error}"
    );
}

#[tokio::test]
async fn a_declaration_that_contradicts_the_schema_does_not_start() {
    let mut model = undeclared("order", StateSharing::Shared);
    model.declared.inputs = vec![spec("image", DType::F32, vec![None])];
    let error = try_start(model, 1).await.err().unwrap();
    assert_eq!(error.kind(), Kind::LoadFailed);
    let told = error.message();
    assert!(
        told.contains("cannot be served: input image") && told.contains("forward takes zeta"),
        "{told}"
    );
}

#[tokio::test]
async fn a_tensor_without_memory_is_a_value() {
    let runtime = start(undeclared("values", StateSharing::Shared)).await;
    let kind = [&4u32.to_le_bytes()[..], b"zero"].concat();
    let kind = Tensor::new(DType::Bytes, vec![], kind.into()).unwrap();
    let inputs = vec![row("x", 1.0), NamedTensor::new("kind", kind)];
    let answer = outputs(&runtime, inputs).await.unwrap();
    assert_eq!(*answer[0].tensor.data(), [0; 24][..]);
}

/// What eight clients of four workers are answered by a model that counts its calls: how often each number.
async fn counted(state: StateSharing) -> BTreeMap<i64, usize> {
    const CLIENTS: usize = 8;
    const EACH: usize = 100;
    let mut model = undeclared("counts", state);
    model.settings.max_workers = 4;
    model.settings.min_workers = 4;
    let runtime = try_start(model, 4).await.unwrap();
    let locked = runtime.signature().unwrap().state == ModelState::Locked;
    assert_eq!(locked, state == StateSharing::Shared);
    let clients = (0..CLIENTS).map(|_| {
        let runtime = runtime.clone();
        tokio::spawn(async move {
            let mut numbers = Vec::new();
            for _ in 0..EACH {
                let answer = outputs(&runtime, vec![row("x", 1.0)]).await.unwrap();
                let data: [u8; 8] = answer[0].tensor.data()[..].try_into().unwrap();
                numbers.push(i64::from_le_bytes(data));
            }
            numbers
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut answers = BTreeMap::new();
    for client in clients {
        for number in client.await.unwrap() {
            *answers.entry(number).or_default() += 1;
        }
    }
    assert_eq!(answers.values().sum::<usize>(), CLIENTS * EACH);
    answers
}

#[tokio::test]
async fn workers_that_share_state_answer_as_one() {
    let answers = counted(StateSharing::Shared).await;
    assert_eq!(
        answers.keys().copied().collect::<Vec<_>>(),
        (1..=800).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn workers_with_copies_count_by_themselves() {
    let answers = counted(StateSharing::Copies).await;
    // Each worker that ran counts from one, without gaps.
    assert!(answers.values().all(|count| *count <= 4), "{answers:?}");
    assert!(
        answers.values().is_sorted_by(|one, two| one >= two),
        "{answers:?}"
    );
}

#[tokio::test]
async fn assigning_an_attribute_kills_no_process() {
    let mut model = undeclared("assigns", StateSharing::Shared);
    model.settings.max_workers = 4;
    model.settings.min_workers = 4;
    let runtime = try_start(model, 4).await.unwrap();
    let x = || {
        let data = [1f32; 4].map(f32::to_le_bytes).concat();
        NamedTensor::new(
            "x",
            Tensor::new(DType::F32, vec![1, 4], data.into()).unwrap(),
        )
    };
    let clients = (0..8).map(|_| {
        let runtime = runtime.clone();
        tokio::spawn(async move {
            for _ in 0..200 {
                outputs(&runtime, vec![x()]).await.unwrap();
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}

/// `linear.pt`, of whose shapes nothing is known, with a batch size of 2 that batches wait for.
fn eager() -> ModelSpec {
    let mut model = undeclared("unused", StateSharing::default());
    model.artifact = "linear.pt".into();
    model.digest = "ab".repeat(32);
    model.settings.batch_size = 2;
    model.settings.wait_for_full_batches = true;
    model.settings.max_batch_delay = Duration::from_secs(5);
    model
}

/// Sixteen columns of one value.
fn columns(value: f32) -> Vec<NamedTensor> {
    let data = [value; 16].map(f32::to_le_bytes).concat();
    let tensor = Tensor::new(DType::F32, vec![1, 16], data.into()).unwrap();
    vec![NamedTensor::new("x", tensor)]
}

fn floats(output: &NamedTensor) -> Vec<f32> {
    let (chunks, _) = output.tensor.data().as_chunks::<4>();
    let floats = chunks.iter().map(|bytes| f32::from_le_bytes(*bytes));
    floats.collect()
}

#[tokio::test]
async fn the_first_requests_of_an_undeclared_model_decide_whether_it_is_batched() {
    let hosts = hosts();
    let start = || {
        let (bounds, model) = (Bounds::exactly(1), Arc::new(eager()));
        ProcessRuntime::start(&hosts, model, bounds, Arc::new(Silence))
    };
    let runtime = start().await.unwrap();
    assert_eq!(runtime.batching(), Some(Batching::Trial));
    let both = async || {
        let requests = [columns(1.0), columns(2.0)].map(|inputs| outputs(&runtime, inputs));
        let [first, second] = requests;
        let (first, second) = tokio::join!(first, second);
        [first, second].map(|outputs| floats(&outputs.unwrap()[0]))
    };
    let confirmed = Some(Batching::On(Grounds::Requests));
    let (own, mut rounds) = (both().await, 0);
    while runtime.batching() != confirmed {
        for (own, again) in own.iter().zip(both().await) {
            // A stacked run rounds otherwise.
            let moved = own
                .iter()
                .zip(&again)
                .map(|(own, again)| (own - again).abs());
            assert!(moved.fold(0.0, f32::max) < 1e-4, "{own:?} became {again:?}");
        }
        rounds += 1;
        assert!(rounds < 100_000, "never decided: {:?}", runtime.batching());
    }
    runtime.drain(Duration::from_secs(1)).await;
    let next = start().await.unwrap();
    assert_eq!(next.batching(), confirmed, "what was found out is kept");
}

/// The program finds libtorch where it lies itself, and in `lib` beside its directory, before the place of the build.
#[test]
fn a_directory_with_the_program_and_its_libraries_may_be_moved() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_lantern-torch")).unwrap();
    let searched = b"$ORIGIN:$ORIGIN/../lib";
    let mut places = program.windows(searched.len());
    assert!(places.any(|bytes| bytes == searched));
}

#[tokio::test]
async fn what_a_model_prints_is_in_its_log_while_it_runs() {
    let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
    let model = Arc::new(undeclared("prints", StateSharing::Shared));
    let sink = Arc::new(Lines(sender));
    let started = ProcessRuntime::start(&hosts(), model, Bounds::exactly(1), sink).await;
    let runtime = started.unwrap();
    let x = Tensor::new(DType::F32, vec![1, 2], vec![0; 8].into()).unwrap();
    outputs(&runtime, vec![NamedTensor::new("x", x)])
        .await
        .unwrap();
    // The process lives, so only a line that was not kept back comes.
    let printed = async {
        loop {
            let line = lines.recv().await.unwrap();
            if line.message == "rows: 1" {
                return line;
            }
        }
    };
    let line = tokio::time::timeout(Duration::from_secs(20), printed).await;
    let line = line.expect("what the model printed is not in its log");
    assert_eq!(line.fields, [("stream".to_owned(), "stdout".to_owned())]);
}

#[tokio::test]
async fn a_file_that_libtorch_refuses_is_explained_without_its_frames() {
    let mut model = undeclared("unused", StateSharing::Shared);
    for (file, reason) in [
        ("broken.pt", "PytorchStreamReader failed"),
        ("hostile/state_dict.pt", "this is no TorchScript file"),
    ] {
        model.artifact = file.into();
        let error = try_start(model.clone(), 1).await.err().unwrap();
        let told = error.message();
        assert!(
            told.starts_with("model \"m\" version 1 does not load with the torch backend: "),
            "{told}"
        );
        assert!(
            told.contains(reason) && told.contains("; check that torch.jit.load opens it"),
            "{told}"
        );
        for secret in [
            "frame #",
            "0x",
            "\n",
            ".cpp",
            "tests/fixtures",
            "Exception raised",
        ] {
            assert!(!told.contains(secret), "{secret}: {told}");
        }
        assert!(
            error
                .frames()
                .is_some_and(|frames| frames.contains("Exception raised")),
            "{error:?}"
        );
    }
}
