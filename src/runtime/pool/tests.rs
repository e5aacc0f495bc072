//! Who runs which batch on which thread, with a backend that does as it is told.

use std::time::Duration;

use super::loader::Loader;
use super::*;
use crate::backend::Axis0;
use crate::backend::fake::{FakeBackend, Outcome};
use crate::error::Kind;
use crate::model::{BatchingMode, Device, Settings, TensorSpec};
use crate::runtime::testing::{self, marks, rows};
use crate::runtime::{Bounds, WorkerIds, WorkerState};
use crate::tensor::DType;

mod long_runs;
mod stress;

const HOUR: Duration = Duration::from_hours(1);

/// A request under way.
type Request = tokio::task::JoinHandle<Result<Answer, Error>>;

struct Fixture {
    supervisor: Arc<WorkerSupervisor>,
    pool: Arc<Pool>,
    backend: FakeBackend,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.backend.gate().open();
        self.backend.hold().open();
        self.pool.close(&gone());
    }
}

fn gone() -> Error {
    Error::new(Kind::Draining, "gone")
}

fn settings(batch_size: usize, max_workers: usize) -> Settings {
    Settings {
        max_workers,
        batch_size,
        batching: BatchingMode::On,
        ..Settings::default()
    }
}

async fn pool(backend: FakeBackend, settings: Settings, workers: usize) -> Fixture {
    pool_with(Arc::default(), backend, settings, workers).await
}

/// A pool that may hold the only thread of tokio, as its tests' runs are short.
async fn inline_pool(backend: FakeBackend, settings: Settings, workers: usize) -> Fixture {
    let inline_runs = InlineRuns::with_slots(1, &Handle::current());
    pool_with(inline_runs, backend, settings, workers).await
}

async fn pool_with(
    inline_runs: Arc<InlineRuns>,
    backend: FakeBackend,
    settings: Settings,
    workers: usize,
) -> Fixture {
    let model = Arc::new(testing::model(settings));
    let loader = Loader::new(Arc::new(backend.clone()), &model, workers, 2);
    let ids = Arc::new(WorkerIds::from(9000));
    let pool = Pool::new(model, Verdicts::default(), &inline_runs);
    let supervisor = WorkerSupervisor::new(Arc::clone(&pool), loader, ids);
    let bounds = Bounds {
        min: workers,
        max: workers.max(pool.model.settings.max_workers),
    };
    supervisor.scale(bounds).await.unwrap();
    Fixture {
        supervisor,
        pool,
        backend,
    }
}

impl Fixture {
    /// A request of one row per mark, under way.
    fn send(&self, marks: &[u8]) -> Request {
        self.send_until(marks, Instant::now() + HOUR)
    }

    fn send_until(&self, marks: &[u8], deadline: Instant) -> Request {
        let (pool, inputs, count) = (Arc::clone(&self.pool), rows(marks, 2), marks.len());
        tokio::spawn(async move {
            let options = testing::options(deadline);
            pool.infer(inputs, Some(count), options).await
        })
    }

    /// Lets tasks run until so many jobs wait.
    async fn queued(&self, jobs: usize) {
        while self.pool.state.lock().batcher.len() != jobs {
            tokio::task::yield_now().await;
        }
    }

    /// Shuts the gate and sends a request that is held there.
    async fn hold(&self, mark: u8) -> Request {
        let gate = self.backend.gate();
        gate.shut();
        let held = gate.waiting();
        let request = self.send(&[mark]);
        while gate.waiting() == held {
            tokio::task::yield_now().await;
        }
        request
    }

    fn batches(&self) -> Vec<Vec<u8>> {
        let runs = self.backend.runs();
        runs.iter().map(|run| marks(&run.inputs)).collect()
    }

    fn states(&self) -> Vec<(u32, WorkerState)> {
        let (workers, ..) = self.pool.report();
        workers.iter().map(|w| (w.id, w.state)).collect()
    }

    /// Lets runs count as short, so that they are inline.
    fn quicken(&self) {
        self.pool.state.lock().pace.set(Duration::from_micros(50));
    }
}

async fn answered(requests: impl IntoIterator<Item = Request>) {
    for request in requests {
        request.await.unwrap().unwrap();
    }
}

fn kind(result: Result<Answer, Error>) -> Kind {
    result.unwrap_err().kind()
}

#[tokio::test]
async fn an_idle_worker_takes_one_job_at_once() {
    let fixture = pool(FakeBackend::new(), settings(8, 1), 1).await;
    let answer = fixture.send(b"a").await.unwrap().unwrap();
    assert_eq!(marks(&answer.outputs), b"a");
    assert_eq!(answer.batch_rows, 1);
}

#[tokio::test]
async fn what_waits_while_a_worker_is_busy_becomes_one_batch() {
    let fixture = pool(FakeBackend::new(), settings(4, 1), 1).await;
    let mut requests = vec![fixture.hold(b'a').await];
    for marks in [&b"b"[..], b"cc", b"d", b"e"] {
        requests.push(fixture.send(marks));
        fixture.queued(requests.len() - 1).await;
    }
    fixture.backend.gate().open();
    let mut answers = Vec::new();
    for request in requests {
        answers.push(request.await.unwrap().unwrap());
    }
    assert_eq!(fixture.batches(), [&b"a"[..], b"bccd", b"e"]);
    let outputs: Vec<_> = answers.iter().map(|a| marks(&a.outputs)).collect();
    assert_eq!(outputs, [&b"a"[..], b"b", b"cc", b"d", b"e"]);
    assert_eq!(answers[2].batch_rows, 4);
}

#[tokio::test]
async fn one_bad_job_fails_alone() {
    for (outcome, expected) in [
        (Outcome::Fail, Kind::InferenceFailed),
        (Outcome::Refuse, Kind::InvalidInput),
        (Outcome::Panic, Kind::InferenceFailed),
        (Outcome::OutOfMemory, Kind::OutOfMemory),
    ] {
        let backend = FakeBackend::new().with_mark("x", outcome);
        let fixture = pool(backend, settings(4, 1), 1).await;
        let first = fixture.hold(b'a').await;
        let mut requests = Vec::new();
        for mark in b"bxc" {
            requests.push(fixture.send(&[*mark]));
            fixture.queued(requests.len()).await;
        }
        fixture.backend.gate().open();
        first.await.unwrap().unwrap();
        let mut answers = Vec::new();
        for request in requests {
            answers.push(request.await.unwrap());
        }
        assert_eq!(marks(&answers[0].as_ref().unwrap().outputs), b"b");
        assert_eq!(marks(&answers[2].as_ref().unwrap().outputs), b"c");
        let error = answers.remove(1).unwrap_err();
        assert_eq!(error.kind(), expected);
        assert!(!error.message().contains("marked"), "{error:?}");
        assert!(error.detail().unwrap().contains("marked"), "{error:?}");
        assert_eq!(fixture.batches(), [&b"a"[..], b"bxc", b"b", b"x", b"c"]);
        assert_eq!(fixture.states(), [(9000, WorkerState::Ready)]);
    }
}

#[tokio::test]
async fn a_stacked_run_that_loses_rows_gives_nobody_rows_of_others() {
    let backend = FakeBackend::new().with_mark("l", Outcome::LoseRow);
    let fixture = pool(backend, settings(4, 1), 1).await;
    let first = fixture.hold(b'a').await;
    let requests = [fixture.send(b"ll"), fixture.send(b"b")];
    fixture.queued(2).await;
    fixture.backend.gate().open();
    first.await.unwrap().unwrap();
    let [lost, kept] = requests;
    // Alone, its outputs are what the model gives: one row of two.
    assert_eq!(marks(&lost.await.unwrap().unwrap().outputs), b"l");
    assert_eq!(marks(&kept.await.unwrap().unwrap().outputs), b"b");
    assert!(matches!(fixture.pool.batching(), Some(Batching::Off(_))));
}

#[tokio::test]
async fn a_session_that_panicked_is_made_anew() {
    let backend = FakeBackend::new().with_mark("p", Outcome::Panic);
    let fixture = inline_pool(backend, settings(1, 1), 1).await;
    for quick in [false, true] {
        if quick {
            fixture.quicken();
        }
        let failed = fixture.send(b"p").await.unwrap();
        assert_eq!(kind(failed), Kind::InferenceFailed);
        fixture.send(b"a").await.unwrap().unwrap();
    }
    let sessions: Vec<_> = fixture.backend.runs().iter().map(|r| r.session).collect();
    assert_eq!(sessions, [0, 1, 1, 2]);
}

#[tokio::test]
async fn a_lost_device_fails_all_jobs_and_the_pool() {
    let backend = FakeBackend::new().with_mark("f", Outcome::Fatal);
    let fixture = pool(backend, settings(1, 1), 1).await;
    let held = fixture.hold(b'f').await;
    let waiting = fixture.send(b"a");
    fixture.queued(1).await;
    fixture.backend.gate().open();
    assert_eq!(kind(held.await.unwrap()), Kind::WorkerDied);
    assert_eq!(kind(waiting.await.unwrap()), Kind::WorkerDied);
    assert_eq!(fixture.pool.failure().await.kind(), Kind::WorkerDied);
    assert_eq!(kind(fixture.send(b"b").await.unwrap()), Kind::WorkerDied);
    let (_, last_error, given_up) = fixture.pool.report();
    assert!(given_up);
    assert!(last_error.unwrap().detail().unwrap().contains("device"));
}

#[tokio::test]
async fn expired_and_abandoned_jobs_are_not_run() {
    let fixture = pool(FakeBackend::new(), settings(4, 1), 1).await;
    let first = fixture.hold(b'a').await;
    let expired = fixture.send_until(b"b", Instant::now());
    fixture.queued(1).await;
    let abandoned = fixture.send(b"c");
    fixture.queued(2).await;
    let last = fixture.send(b"d");
    fixture.queued(3).await;
    abandoned.abort();
    assert!(abandoned.await.unwrap_err().is_cancelled());
    fixture.backend.gate().open();
    first.await.unwrap().unwrap();
    assert_eq!(kind(expired.await.unwrap()), Kind::Expired);
    last.await.unwrap().unwrap();
    assert_eq!(fixture.batches(), [b"a", b"d"]);
}

#[tokio::test]
async fn short_runs_are_inline_and_still_batched() {
    let fixture = inline_pool(FakeBackend::new(), settings(8, 1), 1).await;
    fixture.quicken();
    let requests: Vec<_> = b"abcdef".iter().map(|m| fixture.send(&[*m])).collect();
    for (request, mark) in requests.into_iter().zip(b"abcdef") {
        assert_eq!(marks(&request.await.unwrap().unwrap().outputs), [*mark]);
    }
    assert_eq!(fixture.batches(), [b"abcdef"]);
}

#[tokio::test]
async fn jobs_left_by_an_inline_run_are_run_too() {
    let backend = FakeBackend::new().with_mark("x", Outcome::Fail);
    let fixture = inline_pool(backend, settings(2, 1), 1).await;
    fixture.quicken();
    let requests: Vec<_> = b"abxcdef".iter().map(|m| fixture.send(&[*m])).collect();
    let mut failed = 0;
    for request in requests {
        failed += usize::from(request.await.unwrap().is_err());
    }
    assert_eq!(failed, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_came_during_an_inline_run_are_run_after_it() {
    let fixture = pool(FakeBackend::new(), settings(8, 1), 1).await;
    fixture.quicken();
    let inline = fixture.hold(b'a').await;
    let late = [fixture.send(b"b"), fixture.send(b"c")];
    fixture.queued(2).await;
    fixture.backend.gate().open();
    inline.await.unwrap().unwrap();
    answered(late).await;
    assert_eq!(fixture.batches().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_request_is_answered_its_own_from_many_threads() {
    for workers in [1, 3] {
        let backend = FakeBackend::new().with_mark("x", Outcome::Fail);
        let fixture = pool(backend, settings(4, workers), workers).await;
        let requests: Vec<_> = (0..2000u32)
            .map(|i| u8::try_from(i % 251).unwrap())
            .map(|mark| (mark, fixture.send(&[mark])))
            .collect();
        for (mark, request) in requests {
            let answer = request.await.unwrap();
            match answer {
                Ok(answer) => assert_eq!(marks(&answer.outputs), [mark]),
                Err(error) => assert_eq!((mark, error.kind()), (b'x', Kind::InferenceFailed)),
            }
        }
        assert!(fixture.backend.runs().iter().all(|run| run.rows() <= 4));
    }
}

#[tokio::test]
async fn full_batches_are_waited_for_if_asked() {
    let settings = Settings {
        wait_for_full_batches: true,
        max_batch_delay: HOUR,
        ..settings(3, 1)
    };
    let fixture = pool(FakeBackend::new(), settings, 1).await;
    let requests = [fixture.send(b"a"), fixture.send(b"b")];
    fixture.queued(2).await;
    assert!(fixture.batches().is_empty());
    let last = fixture.send(b"c");
    answered(requests).await;
    last.await.unwrap().unwrap();
    assert_eq!(fixture.batches(), [b"abc"]);
}

#[tokio::test]
async fn a_batch_that_does_not_fill_leaves_after_the_delay() {
    let settings = Settings {
        wait_for_full_batches: true,
        max_batch_delay: Duration::from_millis(20),
        ..settings(3, 1)
    };
    let fixture = pool(FakeBackend::new(), settings, 1).await;
    let answer = fixture.send(b"a").await.unwrap().unwrap();
    assert!(answer.queue >= Duration::from_millis(20), "{answer:?}");
}

#[tokio::test]
async fn a_fixed_axis_keeps_requests_apart() {
    let signature = Signature {
        inputs: vec![TensorSpec::new("x", DType::U8, vec![Some(1), Some(2)])],
        axis0: Axis0::Refuted("axis 0 of input \"x\" is always 1".into()),
        ..Signature::default()
    };
    let backend = FakeBackend::new().with_signature(signature);
    let fixture = pool(backend, settings(8, 1), 1).await;
    fixture.pool.state.lock().pace.set(HOUR);
    let warm_up = fixture.batches().len();
    let first = fixture.hold(b'a').await;
    let requests = [fixture.send(b"b"), fixture.send(b"c")];
    fixture.queued(2).await;
    fixture.backend.gate().open();
    first.await.unwrap().unwrap();
    answered(requests).await;
    assert_eq!(fixture.batches()[warm_up..], [b"a", b"b", b"c"]);
}

#[tokio::test]
async fn workers_share_one_copy_and_run_side_by_side() {
    let fixture = pool(FakeBackend::new(), settings(1, 2), 2).await;
    assert_eq!(fixture.backend.loads().len(), 1);
    let gate = fixture.backend.gate();
    gate.shut();
    let requests = [fixture.send(b"a"), fixture.send(b"b")];
    while gate.waiting() < 2 {
        tokio::task::yield_now().await;
    }
    gate.open();
    answered(requests).await;
    let sessions: Vec<_> = fixture.backend.runs().iter().map(|r| r.session).collect();
    assert!(sessions == [0, 1] || sessions == [1, 0], "{sessions:?}");
}

#[tokio::test]
async fn workers_go_round_the_devices() {
    let settings = Settings {
        devices: vec![Device::Cuda(0), Device::Cuda(1)],
        ..settings(1, 3)
    };
    let fixture = pool(FakeBackend::new(), settings, 3).await;
    let (workers, ..) = fixture.pool.report();
    let devices: Vec<_> = workers.iter().map(|w| w.device).collect();
    assert_eq!(devices, [0, 1, 0].map(Device::Cuda));
    assert_eq!(fixture.backend.loads().len(), 2);
    assert!(
        workers
            .iter()
            .all(|w| w.memory() > 0 && w.pid == std::process::id())
    );
}

#[tokio::test]
async fn scaling_down_finishes_the_batch_and_scaling_up_takes_new_ids() {
    let fixture = pool(FakeBackend::new(), settings(1, 1), 2).await;
    let held = [fixture.hold(b'a').await, fixture.hold(b'b').await];
    fixture.supervisor.scale(Bounds::exactly(1)).await.unwrap();
    let waiting = fixture.send(b"c");
    fixture.queued(1).await;
    fixture.backend.gate().open();
    answered(held).await;
    waiting.await.unwrap().unwrap();
    settled(&fixture, 1).await;
    fixture.supervisor.scale(Bounds::exactly(3)).await.unwrap();
    let ready = WorkerState::Ready;
    assert_eq!(
        fixture.states(),
        [(9000, ready), (9002, ready), (9003, ready)]
    );
}

async fn settled(fixture: &Fixture, workers: usize) {
    let mut changes = fixture.pool.changes();
    while fixture.states().len() != workers {
        changes.changed().await.unwrap();
    }
}

#[tokio::test]
async fn without_workers_requests_are_refused() {
    let fixture = pool(FakeBackend::new(), settings(1, 1), 1).await;
    let held = fixture.hold(b'a').await;
    let waiting = fixture.send(b"b");
    fixture.queued(1).await;
    fixture.supervisor.scale(Bounds::exactly(0)).await.unwrap();
    let refused = fixture.send(b"c").await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), Kind::NoWorker);
    assert!(refused.message().starts_with("Model \"m\" has no worker"));
    fixture.backend.gate().open();
    held.await.unwrap().unwrap();
    assert_eq!(kind(waiting.await.unwrap()), Kind::NoWorker);
    settled(&fixture, 0).await;
}

#[tokio::test(start_paused = true)]
async fn demand_adds_a_worker_and_its_end_takes_it_away() {
    let settings = Settings {
        max_batch_delay: Duration::ZERO,
        ..settings(1, 2)
    };
    let fixture = pool(FakeBackend::new(), settings, 1).await;
    fixture.supervisor.follow_demand();
    let held = fixture.hold(b'a').await;
    let waiting = fixture.send(b"b");
    settled(&fixture, 2).await;
    fixture.backend.gate().open();
    held.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
    settled(&fixture, 1).await;
    assert_eq!(fixture.states(), [(9000, WorkerState::Ready)]);
}

/// A pool of `workers` that follows demand and was registered with that many to `max`, scaled to `bounds`.
async fn scaled(workers: usize, max: usize, bounds: Bounds) -> Fixture {
    let settings = Settings {
        max_batch_delay: Duration::ZERO,
        ..settings(1, max)
    };
    let fixture = pool(FakeBackend::new(), settings, workers).await;
    fixture.supervisor.follow_demand();
    // The follower has looked at the bounds of registration.
    tokio::time::sleep(Duration::from_secs(1)).await;
    fixture.supervisor.scale(bounds).await.unwrap();
    settled(&fixture, bounds.hold(workers)).await;
    fixture
}

/// Workers there are when jobs have waited for much longer than demand needs to grow.
async fn workers_under_demand(fixture: &Fixture) -> usize {
    let mut requests = vec![fixture.hold(b'a').await];
    requests.extend((0..9).map(|_| fixture.send(b"b")));
    // Waits are measured on a clock that does not pause; ticks are counted on one that does.
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(500) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let workers = fixture.states().len();
    fixture.backend.gate().open();
    answered(requests).await;
    workers
}

#[tokio::test(start_paused = true)]
async fn demand_keeps_to_a_lower_bound_it_was_given_later() {
    let fixture = scaled(1, 3, Bounds::exactly(1)).await;
    assert_eq!(workers_under_demand(&fixture).await, 1);
}

#[tokio::test(start_paused = true)]
async fn demand_uses_the_room_it_was_given_later() {
    let fixture = scaled(1, 1, Bounds { min: 1, max: 3 }).await;
    assert_eq!(workers_under_demand(&fixture).await, 3);
}

#[tokio::test(start_paused = true)]
async fn an_idle_pool_shrinks_to_the_least_it_was_given_later() {
    let fixture = scaled(3, 3, Bounds { min: 1, max: 3 }).await;
    assert_eq!(fixture.states().len(), 3);
    settled(&fixture, 1).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_pool_keeps_its_last_worker() {
    let fixture = scaled(2, 2, Bounds { min: 0, max: 2 }).await;
    settled(&fixture, 1).await;
    tokio::time::sleep(HOUR).await;
    assert_eq!(fixture.states().len(), 1);
}

#[tokio::test]
async fn a_model_that_does_not_load_is_a_failed_worker() {
    use crate::backend::BackendError;
    let mut model = testing::model(settings(1, 1));
    model.directory = "/models/m".into();
    let model = Arc::new(model);
    let said = "/models/m/model is cut short\nException raised from f at a.cpp:1";
    let error = BackendError::Load(said.into());
    let backend = FakeBackend::new().with_load_error(error);
    let loader = Loader::new(Arc::new(backend), &model, 1, 2);
    let ids = Arc::new(WorkerIds::from(9000));
    let pool = Pool::new(model, Verdicts::default(), &Arc::default());
    let supervisor = WorkerSupervisor::new(Arc::clone(&pool), loader, ids);
    let error = supervisor.scale(Bounds::exactly(1)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::LoadFailed);
    assert_eq!(
        error.message(),
        "model \"m\" version 1 does not load with the fake backend: model is cut short; check that the test means it to load"
    );
    assert_eq!(error.frames(), Some(said));
    assert!(
        error
            .to_string()
            .ends_with("(/models/m/model is cut short)")
    );
    assert_eq!(pool.report().0[0].state, WorkerState::Failed);
    assert_eq!(pool.first_ready().await.unwrap_err(), error);
}

#[tokio::test]
async fn what_is_wrong_with_samples_is_told_to_whoever_registers() {
    let mut model = testing::model(settings(1, 2));
    model.samples = Some("no_such_samples.json".into());
    let model = Arc::new(model);
    let loader = Loader::new(Arc::new(FakeBackend::new()), &model, 1, 2);
    let ids = Arc::new(WorkerIds::from(9000));
    let pool = Pool::new(model, Verdicts::default(), &Arc::default());
    let supervisor = WorkerSupervisor::new(Arc::clone(&pool), loader, ids);
    let error = supervisor.scale(Bounds::exactly(1)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::LoadFailed);
    let told = "model \"m\" version 1 cannot be served: samples no_such_samples.json: ";
    assert!(error.message().starts_with(told), "{error}");
}

#[tokio::test]
async fn a_closed_pool_answers_what_waits_and_ends_its_threads() {
    let fixture = pool(FakeBackend::new(), settings(1, 2), 2).await;
    let held = [fixture.hold(b'a').await, fixture.hold(b'b').await];
    let waiting = fixture.send(b"c");
    fixture.queued(1).await;
    fixture.pool.close(&gone());
    assert_eq!(kind(waiting.await.unwrap()), Kind::Draining);
    assert_eq!(kind(fixture.send(b"d").await.unwrap()), Kind::Draining);
    fixture.backend.gate().open();
    answered(held).await;
    fixture.supervisor.ended().await;
    assert!(fixture.states().is_empty());
    assert!(fixture.supervisor.threads.lock().is_empty());
}
