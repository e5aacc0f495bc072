//! What is decided, without threads and without a clock.

#![allow(clippy::unwrap_used)]

use tokio::sync::oneshot;

use super::*;
use crate::backend::fake::FakeBackend;
use crate::model::Settings;
use crate::payload::Priority;
use crate::runtime::batcher::Answer;
use crate::runtime::pool::loader::Loader;
use crate::runtime::pool::workers::GRACE;
use crate::runtime::testing::{self, rows};

const HOUR: Duration = Duration::from_hours(1);

type Receiver = oneshot::Receiver<Result<Answer, Error>>;

/// A pool's state, and the time.
struct Fixture {
    state: State,
    loader: Loader,
    now: Instant,
}

/// With so many idle workers, whose runs are short.
fn fixture(settings: Settings, workers: u32) -> Fixture {
    let model = testing::model(settings);
    let loader = Loader::new(Arc::new(FakeBackend::new()), &model, 1, 1);
    let mut fixture = Fixture {
        state: State::new(Arc::new(model)),
        loader,
        now: Instant::now(),
    };
    fixture.state.set_pace(Duration::from_micros(50));
    (0..workers).for_each(|id| fixture.add_worker(id));
    fixture
}

impl Fixture {
    fn add_worker(&mut self, id: u32) {
        let thread = std::thread::current();
        self.state.add_worker(id, Device::Cpu, Ok(thread));
        let session = self.loader.session(Device::Cpu).unwrap();
        self.state.set_session(id, session);
    }

    fn push(&mut self) -> Receiver {
        let (reply, answer) = oneshot::channel();
        let job = Job {
            inputs: rows(b"a", 2),
            rows: 1,
            stacks: true,
            arrival: self.now,
            deadline: self.now + HOUR,
            expires: self.now,
            priority: Priority::default(),
            is_alone: false,
            reply,
        };
        self.state.push(job).unwrap();
        answer
    }

    fn start_run(&mut self) -> (u32, WorkerSession) {
        self.state.start_run(None, self.now).unwrap()
    }

    fn end_run(&mut self, id: u32, mut session: WorkerSession) -> Result<RunEnd, WorkerSession> {
        session.batch.clear();
        let result = RunResult {
            condition: Condition::Usable,
            infer: Duration::ZERO,
            comparison: None,
        };
        self.state.end_run(id, session, &result)
    }

    /// What there is to do about overdue runs when they were asked to end and had time for it.
    fn overdue(&mut self) -> Overdue {
        self.now += HOUR;
        assert!(self.state.end_overdue_runs(self.now).left_behind.is_empty());
        self.now += GRACE;
        self.state.end_overdue_runs(self.now)
    }
}

#[test]
fn as_many_threads_are_woken_as_there_are_batches() {
    let mut fixture = fixture(Settings::default(), 3);
    let now = fixture.now;
    let _answers = [fixture.push(), fixture.push()];
    let is_woken = |_| {
        matches!(
            fixture.state.runner_after_push(false, now),
            Runner::Worker(_)
        )
    };
    assert_eq!([0; 3].map(is_woken), [true, true, false]);
    assert!(matches!(fixture.state.next_order(0, now), Order::Run(..)));
    assert!(matches!(fixture.state.next_order(1, now), Order::Run(..)));
    assert!(matches!(
        fixture.state.next_order(2, now),
        Order::Sleep(None)
    ));
}

#[test]
fn one_inline_run_is_called_for_at_a_time() {
    let mut fixture = fixture(Settings::default(), 1);
    let _answer = fixture.push();
    let is_called = |runner| matches!(runner, Runner::InlineRun { yields_first: true });
    assert!(is_called(fixture.state.next_runner(true)));
    assert!(!is_called(fixture.state.next_runner(true)));
    fixture.state.clear_inline_run();
    assert!(is_called(
        fixture.state.runner_after_push(true, fixture.now)
    ));
}

#[test]
fn no_short_run_is_expected_on_trial_nor_beside_a_long_one() {
    let mut fixture = fixture(Settings::default(), 2);
    let _answers = [fixture.push(), fixture.push()];
    assert!(fixture.state.expects_short_run(false, fixture.now));
    assert!(!fixture.state.expects_short_run(true, fixture.now));
    let (id, session) = fixture.start_run();
    assert!(fixture.state.expects_short_run(true, fixture.now));
    assert!(!fixture.state.expects_short_run(true, fixture.now + LONG));
    assert!(fixture.end_run(id, session).is_ok());
    assert!(fixture.state.expects_short_run(true, fixture.now + LONG));
}

#[test]
fn where_workers_take_turns_the_second_waits() {
    let mut fixture = fixture(Settings::default(), 2);
    fixture.state.set_take_turns();
    let _answers = [fixture.push(), fixture.push()];
    let (id, session) = fixture.start_run();
    assert!(!fixture.state.has_next_run(fixture.now));
    assert!(fixture.state.start_run(None, fixture.now).is_none());
    assert!(fixture.end_run(id, session).is_ok());
    assert!(fixture.state.has_next_run(fixture.now));
}

#[test]
fn runs_without_end_are_left_behind_until_there_are_too_many() {
    let mut fixture = fixture(Settings::default(), 0);
    let mut runs = Vec::new();
    for id in 0..=2 {
        fixture.add_worker(id);
        let _answer = fixture.push();
        runs.push(fixture.start_run().1);
        let overdue = fixture.overdue();
        let replaced = overdue.left_behind.iter().map(|run| run.is_replaced);
        let is_replaced = id < 2;
        assert_eq!(
            replaced.collect::<Vec<_>>(),
            vec![true; usize::from(is_replaced)]
        );
        assert!(overdue.has_changed);
        assert_eq!(fixture.state.should_exit().is_some(), !is_replaced);
    }
    let ends = runs.into_iter().zip(0..);
    let ends: Vec<_> = ends
        .map(|(run, id)| fixture.end_run(id, run).is_ok())
        .collect();
    assert_eq!(ends, [false, false, true]);
    assert_eq!(*fixture.state.left_behind_mut(), 0);
    assert!(fixture.state.should_exit().is_none());
}

#[test]
fn fewer_workers_stop_the_newest_and_more_replace_the_failed() {
    let mut fixture = fixture(Settings::default(), 3);
    let _answer = fixture.push();
    let (missing, stopped) = fixture.state.resize(1);
    assert_eq!((missing, stopped.len()), (0, 2));
    assert!(matches!(
        fixture.state.next_order(2, fixture.now),
        Order::End(Some(_))
    ));
    fixture.state.set_failed(0);
    assert_eq!(fixture.state.resize(2).0, 2);
}

#[test]
fn jobs_are_answered_when_the_last_worker_has_ended() {
    let mut fixture = fixture(Settings::default(), 1);
    let _answer = fixture.push();
    fixture.state.resize(0);
    let Order::End(Some(departure)) = fixture.state.next_order(0, fixture.now) else {
        panic!("the worker goes on");
    };
    assert_eq!(departure.stranded.len(), 1);
    assert_eq!(fixture.state.admit().unwrap_err().kind(), Kind::NoWorker);
}
