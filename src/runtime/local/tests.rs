//! The pipeline with real handlers and a backend that does as it is told.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;

use super::*;
use crate::backend::fake::{FakeBackend, Outcome};
use crate::budget::Account;
use crate::handler::{HandlerEngine, LogLine, Observation};
use crate::model::{BackendKind, Settings};
use crate::payload::{Body, Meter, Priority};
use crate::runtime::process::ProcessConfig;
use crate::runtime::testing::{self, rows};
use crate::runtime::{WorkerIds, WorkerState};

const HOUR: Duration = Duration::from_hours(1);

struct NoSink;

impl Sink for NoSink {
    fn log(&self, _line: LogLine) {}
    fn observe(&self, _observation: Observation) {}
}

pub(in crate::runtime) fn hosts(backend: &FakeBackend) -> Hosts {
    let backend: Arc<dyn crate::backend::Backend> = Arc::new(backend.clone());
    Hosts {
        verdicts: crate::runtime::Verdicts::default(),
        code: Arc::new(crate::runtime::CompileHere),
        engine: Arc::new(HandlerEngine::new),
        backends: Arc::new(HashMap::from([(BackendKind::Fake, backend)])),
        processes: ProcessConfig::default(),
        worker_ids: Arc::new(WorkerIds::from(9000)),
        cores: 2,
        inline_runs: Arc::default(),
    }
}

/// A model whose handler is a guest and takes tensors too; guests are built by `make guests`.
pub(in crate::runtime) fn model(guest: &str, settings: Settings) -> Arc<ModelSpec> {
    let mut model = testing::model(settings);
    model.settings.tensors_to = TensorsTo::Handler;
    model.directory = guests();
    model.handler = format!("{guest}.wasm").into();
    Arc::new(model)
}

#[expect(clippy::disallowed_methods, reason = "tests are told where guests lie")]
fn guests() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::env::var_os("LANTERN_GUESTS").map_or_else(
        || root.join("examples/target/wasm32-wasip2/release"),
        PathBuf::from,
    )
}

async fn start(
    backend: &FakeBackend,
    model: Arc<ModelSpec>,
    workers: usize,
) -> Result<LocalRuntime, Error> {
    LocalRuntime::start(
        &hosts(backend),
        model,
        Bounds::exactly(workers),
        Arc::new(NoSink),
    )
    .await
}

async fn passthrough(backend: &FakeBackend) -> LocalRuntime {
    let model = model("passthrough", Settings::default());
    start(backend, model, 1).await.unwrap()
}

fn request(body: Body) -> Request {
    let arrival = Instant::now();
    Request {
        id: "r".into(),
        content_type: Some("text/plain".into()),
        headers: Vec::new(),
        body,
        arrival,
        deadline: arrival + HOUR,
        schedule: Schedule::default(),
        account: Account::default(),
        passes_tensors_on: false,
        meter: Meter::default(),
    }
}

fn tensors(marks: &[u8]) -> Request {
    request(Body::Tensors(rows(marks, 1)))
}

fn body(reply: &Reply) -> &str {
    match &reply.output {
        Output::Response(response) => std::str::from_utf8(response.body()).unwrap(),
        Output::Tensors(tensors) => panic!("no response, but {tensors:?}"),
    }
}

async fn until_held(backend: &FakeBackend) {
    while backend.gate().waiting() == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_request_goes_through_handler_and_model_and_is_timed() {
    let backend = FakeBackend::new();
    let runtime = passthrough(&backend).await;
    let reply = runtime.call(tensors(&[7, 8])).await.unwrap();
    assert!(body(&reply).contains("\"data\":[7,8]"), "{}", body(&reply));
    let timings = reply.timings;
    assert_eq!(timings.batch_rows, 2);
    assert!(timings.preprocess > Duration::ZERO && timings.postprocess > Duration::ZERO);
    assert_eq!(runtime.status().in_flight, 0);
    assert_eq!(runtime.status().workers[0].state, WorkerState::Ready);
}

/// A runtime whose tensors go straight to the model.
async fn straight(backend: &FakeBackend, settings: Settings) -> LocalRuntime {
    let mut spec = ModelSpec::clone(&model("echo", settings));
    spec.settings.tensors_to = TensorsTo::Model;
    start(backend, Arc::new(spec), 1).await.unwrap()
}

#[tokio::test]
async fn tensors_go_straight_to_the_model() {
    let backend = FakeBackend::new();
    let runtime = straight(&backend, Settings::default()).await;
    let reply = runtime.call(tensors(&[7, 8])).await.unwrap();
    assert_eq!(reply.output, Output::Tensors(rows(&[7, 8], 1)));
    let timings = reply.timings;
    assert_eq!((timings.rows, timings.batch_rows), (2, 2));
    assert!(timings.leads_batch);
    assert_eq!(timings.preprocess + timings.postprocess, Duration::ZERO);
}

#[tokio::test]
async fn one_request_of_a_batch_counts_it_and_high_priorities_go_first() {
    let backend = FakeBackend::new();
    let settings = Settings {
        batch_size: 3,
        batching: crate::model::BatchingMode::On,
        ..Settings::default()
    };
    let runtime = straight(&backend, settings).await;
    backend.gate().shut();
    let call = |mark, priority| {
        let (runtime, mut request) = (runtime.clone(), tensors(&[mark]));
        request.schedule.priority = priority;
        tokio::spawn(async move { runtime.call(request).await })
    };
    let first = call(1, Priority::Normal);
    until_held(&backend).await;
    let calls = [
        call(2, Priority::Low),
        call(3, Priority::Normal),
        call(4, Priority::Normal),
        call(5, Priority::High),
    ];
    while runtime.status().in_flight < 5 {
        tokio::task::yield_now().await;
    }
    backend.gate().open();
    first.await.unwrap().unwrap();
    let mut counted = 0;
    for call in calls {
        counted += usize::from(call.await.unwrap().unwrap().timings.leads_batch);
    }
    let runs = backend.runs();
    let batches = runs[runs.len() - 2..]
        .iter()
        .map(|run| testing::marks(&run.inputs));
    assert_eq!(batches.collect::<Vec<_>>(), [vec![5, 3, 4], vec![2]]);
    assert_eq!(counted, 2);
}

#[tokio::test]
async fn a_request_that_cannot_begin_in_time_is_not_begun() {
    let backend = FakeBackend::new();
    let runtime = straight(&backend, Settings::default()).await;
    backend.gate().shut();
    let first = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.call(tensors(&[1])).await }
    });
    until_held(&backend).await;
    let mut late = tensors(&[2]);
    late.schedule.begin_by = Some(late.arrival);
    let late = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.call(late).await }
    });
    while runtime.status().in_flight < 2 {
        tokio::task::yield_now().await;
    }
    backend.gate().open();
    first.await.unwrap().unwrap();
    assert_eq!(late.await.unwrap().unwrap_err().kind(), Kind::Expired);
}

#[tokio::test]
async fn a_handler_may_answer_without_the_model() {
    let backend = FakeBackend::new();
    let runtime = start(&backend, model("echo", Settings::default()), 1).await;
    let hello = request(Body::Raw(Bytes::from_static(b"hello")));
    let reply = runtime.unwrap().call(hello).await.unwrap();
    assert_eq!(body(&reply), "hello");
    assert_eq!(reply.timings.batch_rows, 0);
    assert!(backend.runs().is_empty());
}

#[tokio::test]
async fn wrong_inputs_are_refused_before_they_meet_others() {
    use crate::backend::Signature;
    use crate::model::TensorSpec;
    let wide = TensorSpec::new("x", crate::tensor::DType::U8, vec![None, Some(3)]);
    let backend = FakeBackend::new().with_signature(Signature {
        inputs: vec![wide],
        ..Signature::default()
    });
    let runtime = passthrough(&backend).await;
    let warm_up = backend.runs().len();
    let error = runtime.call(tensors(&[1])).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidInput);
    assert_eq!(error.message(), "expected x: uint8[?, 3], got uint8[1, 1]");
    assert_eq!(backend.runs().len(), warm_up);
}

#[tokio::test]
async fn wrong_names_are_mistakes_of_whoever_named_them() {
    use crate::backend::Signature;
    use crate::model::TensorSpec;
    let signature = Signature {
        inputs: vec![TensorSpec::new(
            "y",
            crate::tensor::DType::U8,
            vec![None, Some(1)],
        )],
        ..Signature::default()
    };
    let refusal = async |tensors_to, request| {
        let backend = FakeBackend::new().with_signature(signature.clone());
        let mut model = model("passthrough", Settings::default());
        Arc::make_mut(&mut model).settings.tensors_to = tensors_to;
        let runtime = start(&backend, model, 1).await;
        runtime.unwrap().call(request).await.unwrap_err()
    };
    let text = "the model has no input \"x\"; it takes y: uint8[?, 1]";
    for tensors_to in [TensorsTo::Model, TensorsTo::Handler] {
        let by_client = refusal(tensors_to, tensors(&[1])).await;
        assert_eq!(by_client.kind(), Kind::InvalidInput);
        assert_eq!(by_client.message(), text);
    }
    let made = br#"{"inputs": [{"name": "x", "dtype": "uint8", "shape": [1, 1], "data": [1]}]}"#;
    let made = request(Body::Raw(Bytes::from_static(made)));
    let by_handler = refusal(TensorsTo::Handler, made).await;
    assert_eq!(by_handler.kind(), Kind::HandlerOutput);
    assert!(by_handler.message().ends_with(text), "{by_handler}");
}

#[tokio::test]
async fn the_deadline_covers_waiting_for_the_model() {
    let backend = FakeBackend::new();
    let runtime = passthrough(&backend).await;
    backend.gate().shut();
    let mut late = tensors(&[1]);
    late.deadline = late.arrival + Duration::from_millis(50);
    let error = runtime.call(late).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Expired);
    backend.gate().open();
    runtime.call(tensors(&[2])).await.unwrap();
}

#[tokio::test]
async fn draining_finishes_what_is_under_way_and_refuses_the_rest() {
    let backend = FakeBackend::new();
    let runtime = passthrough(&backend).await;
    backend.gate().shut();
    let under_way = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.call(tensors(&[1])).await }
    });
    until_held(&backend).await;
    let mut drained = Box::pin(runtime.drain(HOUR));
    assert!(futures_util::poll!(&mut drained).is_pending());
    let refused = runtime.call(tensors(&[2])).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Draining);
    assert_eq!(refused.message(), "Model \"m\" Version 1 is being unloaded");
    backend.gate().open();
    drained.await;
    under_way.await.unwrap().unwrap();
    assert!(runtime.status().workers.is_empty());
}

#[tokio::test]
async fn impatient_draining_fails_what_still_waits() {
    let backend = FakeBackend::new();
    let runtime = passthrough(&backend).await;
    backend.gate().shut();
    let calls: Vec<_> = (0..2u8)
        .map(|mark| {
            let runtime = runtime.clone();
            tokio::spawn(async move { runtime.call(tensors(&[mark])).await })
        })
        .collect();
    until_held(&backend).await;
    while runtime.pool().waiting_jobs() == 0 {
        tokio::task::yield_now().await;
    }
    runtime.drain(Duration::ZERO).await;
    backend.gate().open();
    let mut kinds = Vec::new();
    for call in calls {
        kinds.push(call.await.unwrap().err().map(|error| error.kind()));
    }
    kinds.sort_by_key(Option::is_some);
    assert_eq!(kinds, [None, Some(Kind::Draining)]);
}

#[tokio::test]
async fn a_version_without_workers_waits_for_none() {
    let backend = FakeBackend::new();
    let runtime = start(&backend, model("passthrough", Settings::default()), 0).await;
    let runtime = runtime.unwrap();
    assert!(runtime.signature().is_none() && backend.loads().is_empty());
    let error = runtime.call(tensors(&[1])).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NoWorker);
    runtime.scale(Bounds::exactly(1)).await.unwrap();
    runtime.call(tensors(&[1])).await.unwrap();
    assert!(runtime.signature().is_some());
}

#[tokio::test]
async fn starting_names_what_does_not_load() {
    use crate::backend::BackendError;
    let bad = BackendError::Load("cut short".into());
    let backend = FakeBackend::new().with_load_error(bad);
    let error = start(&backend, model("echo", Settings::default()), 1).await;
    let error = error.err().unwrap();
    assert_eq!(error.kind(), Kind::LoadFailed);
    assert!(error.message().contains("fake backend"), "{error}");

    let backend = FakeBackend::new();
    let error = start(&backend, model("absent", Settings::default()), 1).await;
    assert_eq!(error.err().unwrap().kind(), Kind::LoadFailed);

    let mut torch = (*model("echo", Settings::default())).clone();
    torch.backend = BackendKind::Torch;
    let error = start(&backend, Arc::new(torch), 1).await.err().unwrap();
    assert_eq!(
        error.message(),
        "model \"m\" version 1 needs the torch backend, which this process does not have"
    );
}

#[tokio::test]
async fn a_lost_device_is_announced() {
    let backend = FakeBackend::new().with_mark([9], Outcome::Fatal);
    let runtime = passthrough(&backend).await;
    let error = runtime.call(tensors(&[9])).await.unwrap_err();
    assert_eq!(error.kind(), Kind::WorkerDied);
    assert_eq!(runtime.failure().await.kind(), Kind::WorkerDied);
    assert!(runtime.status().given_up);
}

#[tokio::test]
async fn a_run_that_does_not_end_costs_its_own_request_alone() {
    let backend = FakeBackend::new().with_mark(b"h", Outcome::Hold);
    let settings = Settings {
        response_timeout: Duration::from_millis(200),
        ..Settings::default()
    };
    let model = model("passthrough", settings);
    let runtime = start(&backend, model, 1).await.unwrap();
    let endless = tensors(b"h");
    let deadline = endless.arrival + Duration::from_millis(200);
    let expired = runtime.call(Request {
        deadline,
        ..endless
    });
    assert_eq!(expired.await.unwrap_err().kind(), Kind::Expired);
    let reply = runtime.call(tensors(&[7])).await.unwrap();
    assert!(body(&reply).contains("\"data\":[7]"), "{}", body(&reply));
    assert_eq!(runtime.status().workers[0].id, 9001);
    let error = runtime.status().last_error.unwrap();
    assert!(
        error.detail().unwrap().contains("a run has taken"),
        "{error}"
    );
    backend.hold().open();
}

#[tokio::test]
async fn the_last_clone_ends_the_workers() {
    let backend = FakeBackend::new();
    let runtime = passthrough(&backend).await;
    let pool = Arc::clone(runtime.pool());
    drop(runtime);
    let mut changes = pool.changes();
    while !pool.report().0.is_empty() {
        changes.changed().await.unwrap();
    }
}
