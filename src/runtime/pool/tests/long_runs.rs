//! Runs that take longer than expected, and runs that do not end. What fails here hangs.

use super::*;
use crate::runtime::pace::LONG;

/// How long the requests of endless runs are waited for.
const PATIENCE: Duration = Duration::from_millis(50);

fn holding() -> FakeBackend {
    FakeBackend::new().with_mark("h", Outcome::Hold)
}

impl Fixture {
    /// A request whose run does not end before it is told, under way.
    async fn long(&self) -> tokio::task::JoinHandle<Result<Answer, Error>> {
        self.long_until(Instant::now() + HOUR).await
    }

    async fn long_until(
        &self,
        deadline: Instant,
    ) -> tokio::task::JoinHandle<Result<Answer, Error>> {
        let held = self.backend.hold().waiting();
        let request = self.send_until(b"h", deadline);
        while self.backend.hold().waiting() == held {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        request
    }

    /// A request whose run outlives it.
    async fn endless(&self) -> tokio::task::JoinHandle<Result<Answer, Error>> {
        self.long_until(Instant::now() + PATIENCE).await
    }

    fn may_lead(&self) -> bool {
        let state = self.pool.state.lock();
        self.pool.may_lead(&state, Instant::now())
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
    test: impl FnOnce(Arc<Leaders>) -> F,
) {
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads + usize::from(has_spare))
        .enable_all()
        .build()
        .unwrap();
    let leaders = Arc::<Leaders>::default();
    if has_spare {
        leaders.keep_spare(tokio.handle());
    }
    let test = test(Arc::clone(&leaders));
    tokio.block_on(async { tokio::spawn(test).await.unwrap() });
    tokio.shutdown_background();
}

#[test]
fn a_run_that_takes_long_delays_none_that_another_worker_can_serve() {
    for (threads, has_spare) in [(1, false), (1, true), (2, false), (2, true)] {
        on_threads(threads, has_spare, async move |leaders| {
            let fixture = pool_with(leaders, holding(), settings(1, 4), 4).await;
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
async fn while_a_run_is_long_none_is_led() {
    let fixture = pool(holding(), settings(1, 2), 2).await;
    fixture.quicken();
    let long = fixture.long().await;
    assert!(!fixture.pool.leaders.has_place(), "it was led");
    tokio::time::sleep(LONG).await;
    fixture.backend.hold().let_through(1);
    long.await.unwrap().unwrap();
    assert!(fixture.pool.leaders.has_place());
    assert!(!fixture.pool.pace.is_short());
    // One of a worker's thread counts as well, before it ends.
    let long = fixture.long().await;
    fixture.quicken();
    tokio::time::sleep(LONG).await;
    assert!(!fixture.may_lead());
    fixture.backend.hold().open();
    long.await.unwrap().unwrap();
}

#[tokio::test]
async fn jobs_whose_leader_is_stuck_are_run_by_a_worker() {
    let fixture = leading(FakeBackend::new(), settings(1, 2), 2).await;
    fixture.quicken();
    fixture.pool.state.lock().leader_called = true;
    let waiting = [fixture.send(b"b"), fixture.send(b"c")];
    fixture.queued(2).await;
    fixture.pool.rescue();
    for request in waiting {
        request.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn without_a_place_a_leader_wakes_a_worker() {
    let fixture = leading(FakeBackend::new(), settings(1, 1), 1).await;
    fixture.quicken();
    let request = fixture.send(b"b");
    tokio::task::yield_now().await;
    let taken = fixture.pool.leaders.enter(Instant::now());
    request.await.unwrap().unwrap();
    fixture.serves().await;
    drop(taken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_outlives_its_requests_is_ended() {
    for is_led in [false, true] {
        let backend = holding().with_interrupter();
        let fixture = pool(backend, settings(1, 1), 1).await;
        fixture.pool.oversee();
        if is_led {
            fixture.quicken();
        }
        let endless = fixture.endless().await;
        fixture.serves().await;
        assert_eq!(kind(endless.await.unwrap()), Kind::Expired);
        assert_eq!(fixture.states(), [(9000, WorkerState::Ready)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_cannot_be_ended_is_left_behind() {
    for is_led in [false, true] {
        let fixture = pool(holding(), settings(1, 1), 1).await;
        fixture.pool.oversee();
        if is_led {
            fixture.quicken();
        }
        let endless = fixture.endless().await;
        fixture.serves().await;
        assert!(!endless.is_finished());
        assert_eq!(fixture.states(), [(9001, WorkerState::Ready)]);
        assert_eq!(fixture.pool.leaders.has_place(), !is_led);
        fixture.quicken();
        assert!(!fixture.pool.pace.is_short());
        fixture.backend.hold().let_through(1);
        endless.await.unwrap().unwrap();
        while fixture.pool.state.lock().abandoned > 0 {
            tokio::task::yield_now().await;
        }
        fixture.serves().await;
        assert_eq!(fixture.states(), [(9001, WorkerState::Ready)]);
        fixture.pool.close(&gone());
        fixture.pool.ended().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_to_stop_is_left_behind_without_another() {
    let fixture = pool(holding(), settings(1, 1), 1).await;
    fixture.pool.oversee();
    let endless = fixture.endless().await;
    fixture.pool.scale(Bounds::exactly(0)).await.unwrap();
    settled(&fixture, 0).await;
    assert_eq!(kind(fixture.send(b"a").await.unwrap()), Kind::NoWorker);
    fixture.pool.close(&gone());
    fixture.pool.ended().await;
    endless.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_runs_without_end_are_the_process_failure() {
    let fixture = pool(holding(), settings(1, 1), 1).await;
    fixture.pool.oversee();
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
