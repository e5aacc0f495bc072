//! Runs that take longer than expected, and runs that do not end. What fails here hangs.

use super::*;
use crate::runtime::inline_runs::LONG;
use crate::runtime::pool::state::MOST_LEFT_BEHIND;
use crate::runtime::pool::workers::GRACE;

/// How long the requests of endless runs are waited for.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(50);

fn holding() -> FakeBackend {
    FakeBackend::new().with_mark("h", Outcome::Hold)
}

/// Settings under which no run may take longer than requests wait here.
fn impatient(max_workers: usize) -> Settings {
    Settings {
        response_timeout: RESPONSE_TIMEOUT,
        ..settings(1, max_workers)
    }
}

/// A backend whose workers take turns.
fn locked() -> FakeBackend {
    holding().with_signature(Signature {
        state: ModelState::Locked,
        ..Signature::default()
    })
}

impl Fixture {
    /// Sees to overdue runs as if it were that much later, and so long after that they have been asked to end.
    fn end_overdue_runs_after(&self, time: Duration) {
        let later = Instant::now() + time;
        self.supervisor.end_overdue_runs(later);
        self.supervisor.end_overdue_runs(later + GRACE);
    }

    /// How many workers are in runs once all that were woken have looked for jobs.
    async fn busy(&self) -> usize {
        let is_any_woken = || {
            let state = self.pool.state.lock();
            state.workers.woken() > 0
        };
        while is_any_woken() {
            tokio::task::yield_now().await;
        }
        let state = self.pool.state.lock();
        state.workers.busy()
    }

    /// A job that waits, for which nobody was called.
    fn put(&self) -> testing::Receiver {
        let (job, answer) = testing::job(b"a", 2, Instant::now());
        self.pool.state.lock().batcher.push(job);
        answer
    }

    /// A request whose run does not end before it is told, under way.
    async fn long(&self) -> Request {
        self.long_until(Instant::now() + HOUR).await
    }

    async fn long_until(&self, deadline: Instant) -> Request {
        let held = self.backend.hold().waiting();
        let request = self.send_until(b"h", deadline);
        while self.backend.hold().waiting() == held {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        request
    }

    /// A request whose run outlives it.
    async fn endless(&self) -> Request {
        self.long_until(Instant::now() + RESPONSE_TIMEOUT).await
    }

    fn may_run_inline(&self) -> bool {
        let state = self.pool.state.lock();
        self.pool.may_run_inline(&state, Instant::now())
    }

    async fn serves(&self) {
        let answer = self.send(b"a").await.unwrap().unwrap();
        assert_eq!(marks(&answer.outputs), b"a");
    }
}

/// As `worker_threads` of a server and of a worker process, with a spare thread beside them or not.
fn on_threads<F: Future<Output = ()> + Send + 'static>(
    threads: usize,
    has_spare: bool,
    test: impl FnOnce(Arc<InlineRuns>) -> F,
) {
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads + usize::from(has_spare))
        .enable_all()
        .build()
        .unwrap();
    let inline_runs = Arc::<InlineRuns>::default();
    if has_spare {
        inline_runs.keep_spare_thread(tokio.handle());
    }
    let test = test(Arc::clone(&inline_runs));
    tokio.block_on(async { tokio::spawn(test).await.unwrap() });
    tokio.shutdown_background();
}

#[test]
fn a_run_that_takes_long_delays_none_that_another_worker_can_serve() {
    for (threads, has_spare) in [(1, false), (1, true), (2, false), (2, true)] {
        on_threads(threads, has_spare, async move |inline_runs| {
            let fixture = pool_with(inline_runs, holding(), settings(1, 4), 4).await;
            for _ in 0..3 {
                fixture.quicken();
                let long = fixture.long().await;
                for _ in 0..20 {
                    fixture.serves().await;
                }
                assert!(!long.is_finished());
                fixture.backend.hold().let_through(1);
                long.await.unwrap().unwrap();
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_run_is_long_none_is_inline() {
    let fixture = pool(holding(), settings(1, 2), 2).await;
    fixture.quicken();
    let long = fixture.long().await;
    assert!(!fixture.pool.inline_runs.has_free_slot(), "it was inline");
    tokio::time::sleep(LONG).await;
    fixture.backend.hold().let_through(1);
    long.await.unwrap().unwrap();
    assert!(fixture.pool.inline_runs.has_free_slot());
    assert!(!fixture.pool.state.lock().pace.is_short());
    // A run on a worker's thread counts as well, before it ends.
    let long = fixture.long().await;
    fixture.quicken();
    tokio::time::sleep(LONG).await;
    assert!(!fixture.may_run_inline());
    fixture.backend.hold().open();
    long.await.unwrap().unwrap();
}

#[tokio::test]
async fn jobs_whose_inline_run_is_stuck_are_run_by_a_worker() {
    let fixture = inline_pool(FakeBackend::new(), settings(1, 2), 2).await;
    fixture.quicken();
    drop(fixture.pool.state.lock().next_runner(true));
    let waiting = [fixture.send(b"b"), fixture.send(b"c")];
    fixture.queued(2).await;
    fixture.pool.wake_workers();
    answered(waiting).await;
}

#[tokio::test]
async fn without_a_slot_an_inline_run_wakes_a_worker() {
    let fixture = inline_pool(FakeBackend::new(), settings(1, 1), 1).await;
    fixture.quicken();
    let request = fixture.send(b"b");
    tokio::task::yield_now().await;
    let taken = fixture.pool.inline_runs.begin(Instant::now());
    request.await.unwrap().unwrap();
    fixture.serves().await;
    drop(taken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_outlives_its_requests_is_ended() {
    for is_inline in [false, true] {
        let backend = holding().with_interrupter();
        let fixture = pool(backend, settings(1, 1), 1).await;
        fixture.supervisor.watch_overdue_runs();
        if is_inline {
            fixture.quicken();
        }
        let endless = fixture.endless().await;
        fixture.serves().await;
        assert_eq!(kind(endless.await.unwrap()), Kind::Expired);
        assert_eq!(fixture.states(), [(9000, WorkerState::Ready)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_gives_up_early_costs_no_worker() {
    let fixture = pool(holding(), settings(1, 3), 3).await;
    let before = fixture.states();
    let mut long = Vec::new();
    for _ in 0..3 {
        long.push(fixture.endless().await);
    }
    let response_timeout = fixture.pool.model.settings.response_timeout;
    for time in [
        RESPONSE_TIMEOUT + 2 * GRACE,
        response_timeout.checked_sub(2 * GRACE).unwrap(),
    ] {
        fixture.end_overdue_runs_after(time);
        assert_eq!(fixture.states(), before);
    }
    assert!(fixture.pool.state.lock().should_exit().is_none());
    fixture.backend.hold().let_through(3);
    answered(long).await;
    fixture.quicken();
    assert!(fixture.pool.state.lock().pace.is_short());
    let endless = fixture.endless().await;
    fixture.end_overdue_runs_after(response_timeout + 2 * GRACE);
    assert_ne!(fixture.states(), before);
    endless.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_cannot_be_ended_is_left_behind() {
    for is_inline in [false, true] {
        let fixture = pool(holding(), impatient(1), 1).await;
        fixture.supervisor.watch_overdue_runs();
        if is_inline {
            fixture.quicken();
        }
        let endless = fixture.endless().await;
        fixture.serves().await;
        assert!(!endless.is_finished());
        assert_eq!(fixture.states(), [(9001, WorkerState::Ready)]);
        assert_eq!(fixture.pool.inline_runs.has_free_slot(), !is_inline);
        fixture.quicken();
        assert!(!fixture.pool.state.lock().pace.is_short());
        fixture.backend.hold().let_through(1);
        endless.await.unwrap().unwrap();
        while fixture.pool.state.lock().left_behind > 0 {
            tokio::task::yield_now().await;
        }
        fixture.serves().await;
        assert_eq!(fixture.states(), [(9001, WorkerState::Ready)]);
        fixture.pool.close(&gone());
        fixture.supervisor.ended().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_to_stop_is_left_behind_without_another() {
    let fixture = pool(holding(), impatient(1), 1).await;
    fixture.supervisor.watch_overdue_runs();
    let endless = fixture.endless().await;
    fixture.supervisor.scale(Bounds::exactly(0)).await.unwrap();
    settled(&fixture, 0).await;
    assert_eq!(kind(fixture.send(b"a").await.unwrap()), Kind::NoWorker);
    fixture.pool.close(&gone());
    fixture.supervisor.ended().await;
    endless.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_runs_without_end_are_the_process_failure() {
    let fixture = pool(holding(), impatient(1), 1).await;
    fixture.supervisor.watch_overdue_runs();
    let mut endless = Vec::new();
    for _ in 0..2 {
        endless.push(fixture.endless().await);
        fixture.serves().await;
    }
    endless.push(fixture.endless().await);
    let failure = fixture.pool.failure().await;
    assert_eq!(failure.kind(), Kind::WorkerDied);
    assert_eq!(fixture.states(), [(9002, WorkerState::Failed)]);
    // Where the process cannot end, the worker is back when its run is.
    fixture.backend.hold().open();
    fixture.serves().await;
    assert_eq!(fixture.states()[0].1, WorkerState::Ready);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_run_ends_after_all_serves_again() {
    let fixture = pool(holding(), impatient(1), 1).await;
    fixture.pool.state.lock().left_behind = MOST_LEFT_BEHIND;
    let long = fixture.endless().await;
    fixture.end_overdue_runs_after(2 * GRACE);
    assert_eq!(fixture.states(), [(9000, WorkerState::Failed)]);
    assert!(fixture.pool.without_worker_since().is_some());
    fixture.backend.hold().let_through(1);
    long.await.unwrap().unwrap();
    while fixture.pool.without_worker_since().is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(fixture.pool.state.lock().should_exit().is_none());
    fixture.serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_without_end_is_replaced_when_another_has_ended() {
    let fixture = pool(holding(), impatient(1), 1).await;
    fixture.pool.state.lock().left_behind = MOST_LEFT_BEHIND;
    let long = fixture.endless().await;
    fixture.end_overdue_runs_after(2 * GRACE);
    fixture.pool.state.lock().left_behind -= 1;
    fixture.end_overdue_runs_after(2 * GRACE);
    fixture.serves().await;
    assert!(fixture.pool.state.lock().should_exit().is_none());
    long.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_is_lost_in_a_run_that_was_left_behind_is_lost() {
    let backend = FakeBackend::new().with_mark("f", Outcome::Fatal);
    let fixture = pool(backend, impatient(1), 1).await;
    let held = fixture.hold(b'f').await;
    fixture.end_overdue_runs_after(2 * HOUR);
    assert_eq!(fixture.pool.state.lock().left_behind, 1);
    fixture.backend.gate().open();
    assert_eq!(kind(held.await.unwrap()), Kind::WorkerDied);
    assert_eq!(fixture.pool.failure().await.kind(), Kind::WorkerDied);
    let (_, last_error, _) = fixture.pool.report();
    assert!(last_error.unwrap().detail().unwrap().contains("device"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_workers_that_take_turns_one_runs_at_a_time() {
    let fixture = pool(locked(), settings(1, 4), 4).await;
    let mut requests = vec![fixture.hold(b'a').await];
    for waiting in 1..8 {
        requests.push(fixture.send(b"b"));
        fixture.queued(waiting).await;
    }
    for (run, request) in (1..).zip(requests) {
        while fixture.backend.runs().len() < run {
            tokio::task::yield_now().await;
        }
        assert_eq!(fixture.busy().await, 1);
        fixture.backend.gate().let_through(1);
        request.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_take_turns_on_each_device() {
    let settings = Settings {
        devices: vec![Device::Cuda(0), Device::Cuda(1)],
        ..settings(1, 4)
    };
    let fixture = pool(locked(), settings, 4).await;
    let requests = [
        fixture.hold(b'a').await,
        fixture.hold(b'b').await,
        fixture.send(b"c"),
    ];
    fixture.queued(1).await;
    assert_eq!(fixture.busy().await, 2);
    let runs = fixture.backend.runs();
    assert_ne!(runs[0].device, runs[1].device);
    fixture.backend.gate().open();
    answered(requests).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_panicked_passes_its_turn_on() {
    let backend = locked().with_mark("p", Outcome::Panic);
    let fixture = pool(backend, settings(1, 2), 2).await;
    let panicking = fixture.hold(b'p').await;
    let waiting = fixture.send(b"a");
    fixture.queued(1).await;
    fixture.backend.gate().open();
    assert_eq!(kind(panicking.await.unwrap()), Kind::InferenceFailed);
    waiting.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_wait_for_their_turn_expire_without_a_run() {
    let fixture = pool(locked(), settings(1, 4), 4).await;
    let first = fixture.hold(b'a').await;
    let deadline = Instant::now() + RESPONSE_TIMEOUT;
    let expired = fixture.send_until(b"b", deadline);
    let abandoned = fixture.send(b"c");
    fixture.queued(2).await;
    while Instant::now() <= deadline {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    abandoned.abort();
    assert!(abandoned.await.unwrap_err().is_cancelled());
    fixture.end_overdue_runs_after(GRACE);
    assert!(fixture.states().iter().all(|(id, _)| *id < 9004));
    fixture.backend.gate().open();
    first.await.unwrap().unwrap();
    assert_eq!(kind(expired.await.unwrap()), Kind::Expired);
    assert_eq!(fixture.batches(), [b"a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_watches_for_full_batches_out_of_turn() {
    let settings = Settings {
        wait_for_full_batches: true,
        max_batch_delay: Duration::ZERO,
        ..settings(1, 2)
    };
    let fixture = pool(locked(), settings, 2).await;
    let held = fixture.hold(b'a').await;
    let waiting = fixture.send(b"b");
    fixture.queued(1).await;
    let watches = |id: &u32| fixture.pool.state.lock().wait_until_due(*id).is_some();
    assert!(![9000, 9001].iter().any(watches));
    fixture.backend.gate().open();
    held.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_workers_take_turns_a_run_without_end_is_the_process_failure() {
    let fixture = pool(locked(), impatient(4), 4).await;
    let long = fixture.endless().await;
    fixture.end_overdue_runs_after(2 * GRACE);
    assert_eq!(fixture.pool.failure().await.kind(), Kind::WorkerDied);
    assert_eq!(fixture.pool.state.lock().left_behind, 0);
    assert_eq!(fixture.states().len(), 4);
    long.abort();
}

/// Gives rows of ones where a worker's thread runs it, of zeros elsewhere.
fn whose_thread(inputs: &[NamedTensor]) -> Vec<NamedTensor> {
    let thread = std::thread::current();
    let is_workers = thread
        .name()
        .is_some_and(|name| name.starts_with("worker-"));
    rows(&vec![u8::from(is_workers); marks(inputs).len()], 2)
}

#[tokio::test]
async fn several_jobs_on_trial_are_not_run_inline() {
    let settings = Settings {
        batching: BatchingMode::Auto,
        ..settings(8, 1)
    };
    let backend = FakeBackend::new().with_model(whose_thread);
    let fixture = inline_pool(backend, settings, 1).await;
    assert!(fixture.pool.decision.is_trial());
    for (jobs, is_workers) in [(1, 0), (2, 1), (1, 0)] {
        fixture.quicken();
        let waiting: Vec<_> = (0..jobs).map(|_| fixture.put()).collect();
        fixture.pool.run_inline();
        for answer in waiting {
            let answer = answer.await.unwrap().unwrap();
            assert_eq!(marks(&answer.outputs), [is_workers]);
        }
        while fixture.pool.state.lock().workers.busy() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
