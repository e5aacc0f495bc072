//! What is decided, without threads and without a clock.

use super::*;
use crate::backend::fake::FakeBackend;
use crate::model::{Device, Settings};
use crate::runtime::pool::loader::Loader;
use crate::runtime::pool::workers::GRACE;
use crate::runtime::testing;

const HOUR: Duration = Duration::from_hours(1);

struct Fixture {
    state: State,
    loader: Loader,
    now: Instant,
    answers: Vec<testing::Receiver>,
}

/// A pool with idle workers, whose runs are short, and jobs that were pushed.
fn fixture(workers: u32, jobs: usize) -> Fixture {
    let model = testing::model(Settings::default());
    let loader = Loader::new(Arc::new(FakeBackend::new()), &model, 1, 1);
    let mut fixture = Fixture {
        state: State::new(Arc::new(model)),
        loader,
        now: Instant::now(),
        answers: Vec::new(),
    };
    fixture.state.pace.set(Duration::from_micros(50));
    (0..workers).for_each(|id| fixture.add_worker(id));
    (0..jobs).for_each(|_| fixture.push());
    fixture
}

impl Fixture {
    fn add_worker(&mut self, id: u32) {
        let thread = Some(std::thread::current());
        self.state.workers.add(id, Device::Cpu, thread);
        let session = self.loader.session(Device::Cpu).unwrap();
        self.state.set_session(id, session);
    }

    fn push(&mut self) {
        let (mut job, answer) = testing::job(b"a", 2, self.now);
        job.expires = self.now;
        self.state.batcher.push(job);
        self.answers.push(answer);
    }

    fn order(&mut self, id: u32) -> Order {
        self.state.next_order(id, self.now)
    }

    fn start_run(&mut self) -> (u32, WorkerSession) {
        self.state.start_run(None, self.now).unwrap()
    }

    /// Ends a run whose jobs were answered. Returns whether it had not been left behind.
    fn end_run(&mut self, id: u32, mut session: WorkerSession) -> bool {
        session.batch.clear();
        let result = RunResult {
            condition: Condition::Usable,
            infer: Duration::ZERO,
            comparison: None,
        };
        self.state.end_run(id, session, &result).is_ok()
    }
}

#[test]
fn as_many_threads_are_woken_as_there_are_batches() {
    let mut fixture = fixture(3, 2);
    let now = fixture.now;
    let wakes = |_| {
        matches!(
            fixture.state.runner_after_push(false, now),
            Runner::Worker(_)
        )
    };
    assert_eq!([0; 3].map(wakes), [true, true, false]);
    assert!(matches!(fixture.order(0), Order::Run(..)));
    assert!(matches!(fixture.order(1), Order::Run(..)));
    assert!(matches!(fixture.order(2), Order::Sleep(None)));
}

#[test]
fn one_inline_run_is_called_for_at_a_time() {
    let mut fixture = fixture(1, 1);
    let is_called = |runner| matches!(runner, Runner::InlineRun { yields_first: true });
    assert!(is_called(fixture.state.next_runner(true)));
    assert!(!is_called(
        fixture.state.runner_after_push(true, fixture.now)
    ));
    fixture.state.is_inline_run_coming = false;
    assert!(is_called(
        fixture.state.runner_after_push(true, fixture.now)
    ));
}

#[test]
fn no_short_run_is_expected_on_trial_nor_beside_a_long_one() {
    let mut fixture = fixture(2, 2);
    let later = fixture.now + LONG;
    assert!(fixture.state.expects_short_run(false, fixture.now));
    assert!(!fixture.state.expects_short_run(true, fixture.now));
    let (id, session) = fixture.start_run();
    assert!(fixture.state.expects_short_run(true, fixture.now));
    assert!(!fixture.state.expects_short_run(true, later));
    assert!(fixture.end_run(id, session));
    assert!(fixture.state.expects_short_run(true, later));
}

#[test]
fn runs_without_end_are_left_behind_until_there_are_too_many() {
    let mut fixture = fixture(0, 0);
    let mut runs = Vec::new();
    for id in 0..3 {
        fixture.add_worker(id);
        fixture.push();
        runs.push(fixture.start_run());
        fixture.now += HOUR;
        assert!(fixture.state.end_overdue_runs(fixture.now).0.is_empty());
        fixture.now += GRACE;
        let (removed, has_changed) = fixture.state.end_overdue_runs(fixture.now);
        let is_too_many = id == 2;
        assert_eq!(
            (removed.len(), has_changed),
            (usize::from(!is_too_many), is_too_many)
        );
        assert_eq!(fixture.state.should_exit().is_some(), is_too_many);
    }
    let ends: Vec<_> = runs
        .into_iter()
        .map(|(id, run)| fixture.end_run(id, run))
        .collect();
    assert_eq!(ends, [false, false, true]);
    assert!(fixture.state.left_behind == 0 && fixture.state.should_exit().is_none());
}

#[test]
fn fewer_workers_stop_the_newest_and_failed_ones_are_missing() {
    let mut fixture = fixture(3, 1);
    assert_eq!(fixture.state.resize(1), 0);
    assert!(matches!(fixture.order(2), Order::End(Some((_, unserved))) if unserved.is_empty()));
    fixture.state.set_failed(0);
    assert_eq!(fixture.state.resize(2), 2);
    assert!(matches!(fixture.order(1), Order::End(Some((_, unserved))) if unserved.len() == 1));
}
