//! A version's worker processes on a paused clock. None of them is real.
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

use super::super::testing::{FakeProcess, FakePrograms, Log, request};
use super::super::{ProcessCounts, ProcessRuntime};
use super::*;
use crate::error::Kind;
use crate::metrics::ReportKind;
use crate::model::Settings;
use crate::payload::Reply;
use crate::runtime::protocol::messages::{self, Order};
use crate::runtime::testing::model;
use crate::runtime::{CircuitState, ModelFiles};

const WINDOW: Duration = Duration::from_secs(20);

struct Version {
    runtime: ProcessRuntime,
    programs: Arc<FakePrograms>,
    processes: mpsc::UnboundedReceiver<FakeProcess>,
    counts: Arc<ProcessCounts>,
}

/// Files that a test removes and that come back when it says so.
#[derive(Default)]
struct Files {
    are_missing: AtomicBool,
    can_come_back: AtomicBool,
}

impl ModelFiles for Files {
    fn are_whole(&self) -> bool {
        !self.are_missing.load(Ordering::SeqCst)
    }

    fn restore(&self) -> Result<(), Error> {
        if self.are_whole() {
            return Ok(());
        }
        if !self.can_come_back.load(Ordering::SeqCst) {
            return Err(Error::new(Kind::ModelNotFound, "the archive is gone"));
        }
        self.are_missing.store(false, Ordering::SeqCst);
        Ok(())
    }
}

/// A version that is about to start with one worker, and its process, to which nothing was sent.
async fn starting() -> (JoinHandle<Result<Version, Error>>, FakeProcess) {
    starting_with(Arc::default()).await
}

async fn starting_with(files: Arc<Files>) -> (JoinHandle<Result<Version, Error>>, FakeProcess) {
    let (programs, mut processes) = FakePrograms::new();
    let (sender, first) = oneshot::channel();
    let starting = tokio::spawn(async move {
        let settings = Settings {
            max_retry_timeout: WINDOW,
            ..Settings::default()
        };
        let counts = Arc::<ProcessCounts>::default();
        let hosts = programs.hosts().with_files(files);
        let (hosts, model) = (hosts.with_counts(counts.clone()), Arc::new(model(settings)));
        let starting =
            ProcessRuntime::start(&hosts, model, Bounds::exactly(1), Arc::new(Log::default()));
        let first = async {
            let _ = sender.send(processes.recv().await.unwrap());
        };
        let (runtime, ()) = tokio::join!(starting, first);
        Ok(Version {
            runtime: runtime?,
            programs,
            processes,
            counts,
        })
    });
    (starting, first.await.unwrap())
}

async fn started() -> (Version, FakeProcess) {
    started_with(Arc::default()).await
}

async fn started_with(files: Arc<Files>) -> (Version, FakeProcess) {
    let (starting, mut process) = starting_with(files).await;
    process.load().await;
    let version = starting.await.unwrap().ok().unwrap();
    (version, process)
}

/// A version whose process has died and whose next processes do not start.
async fn failing() -> Version {
    let (version, process) = started().await;
    version.programs.set_fails(true);
    process.die(9);
    version
}

/// Lets every task go on until all of them wait.
async fn settled() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

impl Version {
    /// The next process that is started.
    async fn next(&mut self) -> FakeProcess {
        self.processes.recv().await.unwrap()
    }

    fn call(&self, id: &str) -> JoinHandle<Result<Reply, Error>> {
        let (runtime, request) = (self.runtime.clone(), request(id));
        tokio::spawn(async move { runtime.call(request).await })
    }

    fn scale(&self, workers: usize) -> JoinHandle<Result<(), Error>> {
        let runtime = self.runtime.clone();
        tokio::spawn(async move { runtime.scale(Bounds::exactly(workers)).await })
    }

    fn drain(&self, timeout: Duration) -> JoinHandle<()> {
        let runtime = self.runtime.clone();
        tokio::spawn(async move { runtime.drain(timeout).await })
    }

    /// Why a request is refused.
    async fn refusal(&self) -> Error {
        self.call("refused").await.unwrap().unwrap_err()
    }

    /// Has one request answered by `process`.
    async fn answered_by(&self, process: &mut FakeProcess) {
        let call = self.call("a");
        let id = process.peer.call().await.id;
        process.peer.reply(id, b"").await;
        call.await.unwrap().unwrap();
    }
}

/// The process that is loaded after `process` and those after it, `deaths` in all, have died as soon as they had loaded.
async fn loaded_after_deaths(
    version: &mut Version,
    mut process: FakeProcess,
    deaths: usize,
) -> FakeProcess {
    for _ in 0..deaths {
        process.die(11);
        process = version.next().await;
        process.load().await;
        settled().await;
    }
    process
}

/// Whole seconds between the starts of `processes` that fail, and the death before the first of them.
async fn pauses(version: &mut Version, starts: usize) -> Vec<u64> {
    let mut last = Instant::now();
    let mut pauses = Vec::new();
    for _ in 0..starts {
        let at = version.next().await.at;
        pauses.push((at - last).as_secs());
        last = at;
    }
    pauses
}

#[tokio::test(start_paused = true)]
async fn a_process_that_does_not_start_is_given_up_after_growing_pauses() {
    let mut version = failing().await;
    assert_eq!(pauses(&mut version, 8).await, [0, 1, 1, 2, 3, 5, 8, 13]);
    let waits = version.refusal().await;
    assert_eq!(waits.kind(), Kind::NoWorker);
    let status = version.runtime.status();
    assert!(status.given_up && status.last_error.is_some());
    tokio::time::sleep(Duration::from_hours(24)).await;
    assert!(version.processes.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn requests_do_not_wait_for_files_that_have_to_come_back() {
    let files = Arc::new(Files::default());
    let (mut version, process) = started_with(files.clone()).await;
    files.are_missing.store(true, Ordering::SeqCst);
    process.die(9);
    settled().await;
    for _ in 0..3 {
        let asked = Instant::now();
        assert_eq!(version.refusal().await.kind(), Kind::NoWorker);
        assert_eq!(asked.elapsed(), Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(
        version.processes.try_recv().is_err(),
        "there is nothing to load"
    );
    let status = version.runtime.status();
    assert_eq!(status.last_error.unwrap().kind(), Kind::ModelNotFound);
    files.can_come_back.store(true, Ordering::SeqCst);
    let mut process = version.next().await;
    process.load().await;
    version.answered_by(&mut process).await;
}

#[tokio::test(start_paused = true)]
async fn scaling_starts_a_version_that_was_given_up() {
    let mut version = failing().await;
    pauses(&mut version, 8).await;
    assert_eq!(version.refusal().await.kind(), Kind::NoWorker);
    version.programs.set_fails(false);
    let scaled = version.scale(2);
    let mut process = version.next().await;
    process.load().await;
    assert_eq!(process.scaled().await.min, 2);
    scaled.await.unwrap().unwrap();
    assert!(!version.runtime.status().given_up);
    version.answered_by(&mut process).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_served_for_a_while_starts_the_pauses_anew() {
    for (serves, expected) in [(59, [1, 1, 2]), (60, [0, 1, 1])] {
        let (mut version, process) = started().await;
        process.die(9);
        let mut process = version.next().await;
        process.load().await;
        version.answered_by(&mut process).await;
        process.live(serves).await;
        version.programs.set_fails(true);
        process.die(9);
        assert_eq!(pauses(&mut version, 3).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn scaling_starts_the_pauses_anew() {
    let (mut version, process) = started().await;
    let mut process = loaded_after_deaths(&mut version, process, 3).await;
    let scaled = version.scale(1);
    process.scaled().await;
    scaled.await.unwrap().unwrap();
    version.programs.set_fails(true);
    process.die(9);
    assert_eq!(pauses(&mut version, 3).await, [0, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn restarts_after_deaths_back_off() {
    let (mut version, process) = started().await;
    let since = Instant::now();
    let process = loaded_after_deaths(&mut version, process, 4).await;
    assert_eq!((process.at - since).as_secs(), 4, "after 0, 1, 1 and 2 s");
}

/// A version whose circuit is open after five deaths in a row.
async fn crash_looping() -> Version {
    let (mut version, process) = started().await;
    loaded_after_deaths(&mut version, process, 4).await.die(11);
    settled().await;
    version
}

/// Asserts that a request is refused at once, and returns for how many seconds.
async fn refused_for(version: &Version) -> u64 {
    let asked = Instant::now();
    let refusal = version.refusal().await;
    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert_eq!(refusal.kind(), Kind::CrashLoop, "{refusal}");
    refusal.retry_after().unwrap().as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_opens_the_circuit_until_a_request_was_answered() {
    let mut version = crash_looping().await;
    assert_eq!(version.runtime.circuit(), CircuitState::Open);
    assert_eq!(refused_for(&version).await, 10);
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(refused_for(&version).await, 3);
    let mut process = version.next().await;
    assert_eq!(refused_for(&version).await, 1, "while the process loads");
    process.load().await;
    settled().await;
    assert_eq!(version.runtime.circuit(), CircuitState::HalfOpen);
    let first = version.call("first");
    let id = process.peer.call().await.id;
    assert_eq!(refused_for(&version).await, 1, "one at a time");
    process.peer.reply(id, b"").await;
    first.await.unwrap().unwrap();
    settled().await;
    assert_eq!(version.runtime.circuit(), CircuitState::Closed);
    let calls = [version.call("a"), version.call("b")];
    for id in [process.peer.call().await.id, process.peer.call().await.id] {
        process.peer.reply(id, b"").await;
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_the_handler_answers_closes_the_circuit() {
    let mut version = crash_looping().await;
    let mut process = version.next().await;
    process.load().await;
    settled().await;
    let call = version.call("a");
    let id = process.peer.call().await.id;
    process.refuse(id).await;
    assert_eq!(
        call.await.unwrap().unwrap_err().kind(),
        Kind::HandlerTrapped
    );
    settled().await;
    assert_eq!(version.runtime.circuit(), CircuitState::Closed);
    assert!(version.runtime.status().last_error.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_gets_no_answer_leaves_the_turn_to_the_next() {
    let mut version = crash_looping().await;
    let mut process = version.next().await;
    process.load().await;
    settled().await;
    let leaves = version.call("leaves");
    process.peer.call().await;
    leaves.abort();
    settled().await;
    assert_eq!(version.runtime.circuit(), CircuitState::HalfOpen);
    let stays = version.call("stays");
    assert!(matches!(process.peer.order().await, Order::Cancel { .. }));
    let id = process.peer.call().await.id;
    process.peer.reply(id, b"").await;
    stays.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_while_the_circuit_is_half_open_opens_it_for_longer() {
    let mut version = crash_looping().await;
    for pause in [20, 40, 80, 160, 300, 300] {
        let mut process = version.next().await;
        process.load().await;
        settled().await;
        let call = version.call(&format!("killer {pause} {:?}", process.at));
        process.peer.call().await;
        process.die(11);
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), Kind::CrashLoop);
        assert_eq!(error.detail(), Some("killed by signal 11"));
        assert_eq!(refused_for(&version).await, pause);
        let reason = version.runtime.status().last_error.unwrap();
        let text = format!("the next one is started after {pause} s");
        assert!(reason.message().contains(&text), "{reason}");
    }
    assert!(!version.runtime.status().given_up);
}

#[tokio::test(start_paused = true)]
async fn a_circuit_closes_without_requests_when_the_process_has_served_for_a_while() {
    let mut version = crash_looping().await;
    let mut process = version.next().await;
    process.load().await;
    process.live(59).await;
    assert_eq!(version.runtime.circuit(), CircuitState::HalfOpen);
    process.live(2).await;
    assert_eq!(version.runtime.circuit(), CircuitState::Closed);
    version.answered_by(&mut process).await;
}

#[tokio::test(start_paused = true)]
async fn a_version_that_does_not_load_after_a_crash_loop_is_given_up() {
    let mut version = crash_looping().await;
    version.programs.set_fails(true);
    assert_eq!(pauses(&mut version, 2).await, [9, 20]);
    assert_eq!(version.refusal().await.kind(), Kind::NoWorker);
    assert!(version.runtime.status().given_up);
}

#[tokio::test(start_paused = true)]
async fn scaling_closes_an_open_circuit_and_starts_a_process_at_once() {
    let mut version = crash_looping().await;
    let asked = Instant::now();
    let scaled = version.scale(1);
    let mut process = version.next().await;
    process.load().await;
    process.scaled().await;
    scaled.await.unwrap().unwrap();
    assert_eq!(asked.elapsed().as_secs(), 0);
    assert_eq!(version.runtime.circuit(), CircuitState::Closed);
    version.answered_by(&mut process).await;
}

#[tokio::test(start_paused = true)]
async fn scaling_closes_a_half_open_circuit() {
    let mut version = crash_looping().await;
    let mut process = version.next().await;
    process.load().await;
    settled().await;
    let scaled = version.scale(1);
    process.scaled().await;
    scaled.await.unwrap().unwrap();
    assert_eq!(version.runtime.circuit(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn draining_ends_an_open_circuit_at_once() {
    let version = crash_looping().await;
    let begun = Instant::now();
    version.drain(WINDOW).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 0);
    assert_eq!(version.refusal().await.kind(), Kind::Draining);
}

#[tokio::test(start_paused = true)]
async fn deaths_of_loaded_processes_are_counted() {
    let version = crash_looping().await;
    assert_eq!(version.counts.take_deaths(), 5);
}

#[tokio::test(start_paused = true)]
async fn scaling_during_a_start_is_done_when_the_process_is_up() {
    let (mut version, process) = started().await;
    process.die(9);
    let mut process = version.next().await;
    assert_eq!(process.started().await.min, 1);
    let scaled = version.scale(3);
    settled().await;
    process.ready(1).await;
    let bounds = process.scaled().await;
    assert_eq!(bounds, messages::Bounds { min: 3, max: 3 });
    scaled.await.unwrap().unwrap();
    assert_eq!(version.runtime.workers_ready(), 3);
}

#[tokio::test(start_paused = true)]
async fn scaling_to_none_during_a_start_calls_it_off() {
    let (mut version, process) = started().await;
    process.die(9);
    let mut process = version.next().await;
    process.started().await;
    version.scale(0).await.unwrap().unwrap();
    process.killed().await;
    assert_eq!(version.refusal().await.kind(), Kind::NoWorker);
}

#[tokio::test(start_paused = true)]
async fn draining_waits_for_requests_and_lets_the_process_exit() {
    let (version, mut process) = started().await;
    let call = version.call("a");
    let id = process.peer.call().await.id;
    let drained = version.drain(WINDOW);
    settled().await;
    assert_eq!(version.refusal().await.kind(), Kind::Draining);
    process.peer.reply(id, b"").await;
    call.await.unwrap().unwrap();
    assert!(matches!(process.peer.order().await, Order::Drain { .. }));
    assert!(!drained.is_finished());
    process.die(0);
    drained.await.unwrap();
    assert_eq!(version.refusal().await.kind(), Kind::Draining);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_does_not_drain_is_killed() {
    let (version, process) = started().await;
    let begun = Instant::now();
    let drained = version.drain(Duration::from_secs(10));
    process.killed().await;
    drained.await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 12);
}

#[tokio::test(start_paused = true)]
async fn draining_during_a_pause_ends_at_once() {
    let mut version = failing().await;
    pauses(&mut version, 5).await;
    let begun = Instant::now();
    version.drain(WINDOW).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 0);
    assert!(version.processes.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_to_the_next_process_when_its_own_dies() {
    let (mut version, mut process) = started().await;
    let call = version.call("a");
    process.peer.call().await;
    process.die(11);
    let mut process = version.next().await;
    process.load().await;
    let again = process.peer.call().await;
    assert_eq!(again.request, "a");
    process.peer.reply(again.id, b"").await;
    call.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_saw_two_processes_die_is_not_sent_again() {
    let (mut version, mut process) = started().await;
    let call = version.call("killer");
    process.peer.call().await;
    process.die(11);
    let mut process = version.next().await;
    process.load().await;
    process.peer.call().await;
    process.die(6);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.message(), "Worker died: killed by signal 6");
    let mut process = version.next().await;
    process.load().await;
    version.answered_by(&mut process).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_takes_too_long_is_ended() {
    let (starting, mut process) = starting().await;
    process.started().await;
    let error = starting.await.unwrap().err().unwrap();
    assert_eq!(error.kind(), Kind::LoadFailed);
    let text = error.message();
    assert!(text.contains("did not respond in given time"), "{text}");
    process.killed().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_process_is_replaced() {
    let (mut version, process) = started().await;
    let begun = Instant::now();
    process.killed().await;
    assert_eq!(begun.elapsed().as_secs(), 30);
    let mut process = version.next().await;
    process.load().await;
    version.answered_by(&mut process).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_its_process_does_not_answer_is_answered_by_the_front() {
    let (version, mut process) = started().await;
    let mut late = request("late");
    late.deadline = (Instant::now() + Duration::from_secs(2)).into_std();
    let runtime = version.runtime.clone();
    let call = tokio::spawn(async move { runtime.call(late).await });
    process.peer.call().await;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Expired);
    assert!(matches!(process.peer.order().await, Order::Cancel { .. }));
}

/// Has the request `poison` cost `process` and the next one, beside requests that come before each death. Returns the one after them.
async fn cost_two_processes(
    version: &mut Version,
    mut process: FakeProcess,
    besides: [&[&str]; 2],
) -> FakeProcess {
    let call = version.call("poison");
    let mut others = Vec::new();
    for besides in besides {
        others.extend(besides.iter().map(|id| version.call(id)));
        for _ in 0..=others.len() {
            process.peer.call().await;
        }
        process.die(11);
        process = version.next().await;
        process.load().await;
    }
    assert_eq!(call.await.unwrap().unwrap_err().kind(), Kind::WorkerDied);
    others.iter().for_each(JoinHandle::abort);
    settled().await;
    process
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cost_two_processes_is_refused_at_once_for_some_minutes() {
    let (mut version, process) = started().await;
    let mut process = cost_two_processes(&mut version, process, [&[], &[]]).await;
    let refusal = version.call("poison").await.unwrap().unwrap_err();
    assert_eq!(refusal.kind(), Kind::WorkerDied);
    assert!(refusal.message().contains("an equal request"), "{refusal}");
    version.answered_by(&mut process).await;
    assert_eq!(version.counts.take_deaths(), 2);
}

#[tokio::test(start_paused = true)]
async fn those_that_come_beside_the_second_attempt_of_a_request_do_not_protect_it() {
    let (mut version, process) = started().await;
    let _process = cost_two_processes(&mut version, process, [&[], &["a", "b"]]).await;
    version.call("poison").await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn of_two_that_were_in_both_processes_none_is_remembered() {
    let (mut version, process) = started().await;
    let mut process = cost_two_processes(&mut version, process, [&["bystander"], &[]]).await;
    for sent in ["poison", "bystander"] {
        let call = version.call(sent);
        let id = process.peer.call().await.id;
        process.peer.reply(id, b"").await;
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_to_blame_for_processes_that_were_asked_to_end() {
    let (mut version, mut process) = started().await;
    let call = version.call("poison");
    for _ in 0..2 {
        process.peer.call().await;
        process.die(0);
        process = version.next().await;
        process.load().await;
    }
    assert_eq!(call.await.unwrap().unwrap_err().kind(), Kind::WorkerDied);
    let again = version.call("poison");
    let id = process.peer.call().await.id;
    process.peer.reply(id, b"").await;
    again.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_twice_costs_the_process_of_a_half_open_circuit_is_refused() {
    let mut version = crash_looping().await;
    for _ in 0..2 {
        let mut process = version.next().await;
        process.load().await;
        settled().await;
        let call = version.call("poison");
        process.peer.call().await;
        process.die(11);
        call.await.unwrap().unwrap_err();
    }
    let refusal = version.call("poison").await.unwrap().unwrap_err();
    assert_eq!(refusal.kind(), Kind::WorkerDied);
    let mut process = version.next().await;
    process.load().await;
    settled().await;
    version.answered_by(&mut process).await;
}

/// Whoever has taken a process over sends signs of life as fast as they are read.
fn sign_of_life() -> messages::Report<&'static str> {
    let stuck = Duration::ZERO;
    messages::Report::Alive { stuck }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_floods_is_replaced_and_the_reason_names_what_it_sent() {
    let (mut version, mut process) = started().await;
    process.peer.flood(&sign_of_life()).await;
    process.killed().await;
    let mut next = version.next().await;
    let reason = version.runtime.status().last_error.unwrap();
    let message = reason.message();
    assert!(message.contains("signs of life"), "{message}");
    assert!(
        message.contains("of which it may send 16 a second"),
        "{message}"
    );
    next.load().await;
    version.answered_by(&mut next).await;
    assert_eq!(version.counts.take_floods(), 1);
    assert!(version.counts.take_dropped(ReportKind::Alive) > 0);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_floods_before_it_has_loaded_does_not_start() {
    let (starting, mut process) = starting().await;
    process.started().await;
    process.peer.flood(&sign_of_life()).await;
    let error = starting.await.unwrap().err().unwrap();
    assert_eq!(error.kind(), Kind::LoadFailed);
    assert!(error.message().contains("signs of life"), "{error}");
}
