//! The pool: the jobs and workers of one version, and who runs which batch on which thread.
//!
//! It knows jobs, sessions and threads; it knows neither handlers nor requests. Its files depend on each other in one
//! direction: [`pace`], [`scale`] and [`session`] ← [`workers`] ← [`state`] ← [`Pool`] ← [`worker`] ← [`supervisor`].
//! [`State`] decides under the lock and returns what is to be done. [`Pool`] holds the lock, runs batches and wakes threads.
//! The lock is never held while a session runs.
//!
//! # Words
//!
//! - **session**: what runs batches. Each worker has one; whoever runs a batch holds it meanwhile, on whichever thread.
//! - **inline run**: a run on one of tokio's threads instead of the worker's own. It has nothing to do with
//!   `hosting: inline`, which says in which process the model is.
//! - **slot**: what an inline run needs from [`InlineRuns`]. There are fewer slots than tokio threads.
//! - **overdue run**: a run that no request waits for any more. One that does not end is **left behind**.
//!
//! # Who runs a batch
//!
//! A worker is an OS thread and a session. While a worker is idle, its session is in the pool for whoever comes first:
//!
//! - If runs of this model are **short** (see [`pace`]), a task runs the batch inline. It first yields once, so that other
//!   tasks that are ready finish their preprocess and push their jobs. Then it takes a session and the whole batch, runs it
//!   and answers each job. Waking a thread and being woken by it costs 40–50 µs each, which is as much as such a run takes.
//!   Inline, a single call costs 1 to 2 µs beyond handler and session (`benches/pipeline.rs`, `one caller`). Where runs cost
//!   less than yielding does, a larger batch saves nothing, and the task does not yield.
//! - Otherwise the worker's own thread is woken to run the batch, and tokio's threads stay free.
//!
//! No session stays idle while a job could run: every push that finds an idle session starts an inline run or wakes a
//! thread, and so does every return of a session while jobs are left. Both decisions are made under the lock, so that none
//! is missed.
//!
//! # When a run takes longer than expected
//!
//! An inline run holds its tokio thread, and nobody knows beforehand for how long. So it is a task of its own, which leaves
//! the request's task free to keep its deadline; it needs a slot; and it runs one batch. While any run of the pool has been
//! under way for [`LONG`](super::inline_runs::LONG), no further one is inline. What the held thread keeps from others is
//! freed by [`InlineRuns`] within a few milliseconds more. A run that outlives its requests is ended or left behind
//! ([`supervisor`]).

use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tracing::Span;

use super::WorkerStatus;
use super::batcher::{Answer, Job};
use super::batching::{Batching, Decision, Verdict, Verdicts};
use super::failures::{no_worker, worker_lost};
use super::inline_runs::{InlineRuns, WakeWorkers};
use crate::backend::{BackendError, ModelState, Signature};
use crate::error::Error;
use crate::model::ModelSpec;
use crate::payload::Priority;
use crate::tensor::NamedTensor;

mod failures;
pub(super) mod loader;
mod pace;
mod scale;
pub(super) mod session;
mod state;
mod supervisor;
mod warmup;
mod worker;
mod workers;

pub use scale::Bounds;
pub(super) use supervisor::WorkerSupervisor;

use session::{Comparison, Condition, RunResult, WorkerSession};
use state::{Order, Runner, State};
use workers::Worker;

/// The jobs and workers of one version.
pub(crate) struct Pool {
    model: Arc<ModelSpec>,
    state: Mutex<State>,
    signature: OnceLock<Arc<Signature>>,
    decision: Decision,
    inline_runs: Arc<InlineRuns>,
    tasks: Handle,
    /// Counts changes of workers. Whoever waits for one looks at the state again.
    changes: watch::Sender<u64>,
}

/// When a request's job is of use, and which job goes first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JobOptions {
    /// A run that begins later is of no use.
    pub(crate) begin_by: Instant,
    /// When the request is answered, whatever its run does.
    pub(crate) deadline: Instant,
    pub(crate) priority: Priority,
}

impl Pool {
    /// A pool without workers. Must be called within a tokio runtime.
    pub(crate) fn new(
        model: Arc<ModelSpec>,
        verdicts: Verdicts,
        inline_runs: &Arc<InlineRuns>,
    ) -> Arc<Self> {
        let pool = Arc::new(Self {
            state: Mutex::new(State::new(Arc::clone(&model))),
            signature: OnceLock::new(),
            decision: Decision::new(Arc::clone(&model), verdicts),
            inline_runs: Arc::clone(inline_runs),
            tasks: Handle::current(),
            changes: watch::Sender::new(0),
            model,
        });
        let weak = Arc::downgrade(&pool);
        inline_runs.add_pool(weak, &pool.tasks);
        pool
    }

    /// Runs inputs, which are in the model's order and have `rows` rows in common or none, in a batch with other jobs that
    /// wait; not if the run cannot begin in time. Dropping the future abandons the job.
    pub(crate) async fn infer(
        self: &Arc<Self>,
        inputs: Vec<NamedTensor>,
        rows: Option<usize>,
        options: JobOptions,
    ) -> Result<Answer, Error> {
        let (reply, answer) = oneshot::channel();
        self.push(Job {
            inputs,
            rows: rows.unwrap_or(1),
            stacks: rows.is_some(),
            arrival: Instant::now(),
            deadline: options.begin_by,
            expires: options.deadline,
            priority: options.priority,
            is_alone: false,
            span: Span::current(),
            reply,
        })?;
        let mut pending = PendingJob {
            pool: self,
            answer,
            is_answered: false,
        };
        pending.answer().await
    }

    pub(crate) const fn model(&self) -> &Arc<ModelSpec> {
        &self.model
    }

    /// Whether a job would be accepted now; the reason if not.
    pub(crate) fn admit(&self) -> Result<(), Error> {
        self.state.lock().admit()
    }

    /// The model's inputs and outputs, once a worker loaded it.
    pub(crate) fn signature(&self) -> Option<&Arc<Signature>> {
        self.signature.get()
    }

    /// How requests are stacked, once a worker loaded the model.
    pub(crate) fn batching(&self) -> Option<Batching> {
        self.decision.status()
    }

    /// What was found out about stacking, if anything.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.decision.verdict()
    }

    /// Resolves at the next change of a worker after the receiver was last looked at.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits until a worker is ready; an error if none is going to be.
    pub(crate) async fn first_ready(&self) -> Result<(), Error> {
        self.wait_until(State::is_any_ready).await
    }

    /// Resolves with the reason when the device or the process is lost, or when so many runs do not end that only the end of
    /// the process helps.
    pub(crate) async fn failure(&self) -> Error {
        let mut changes = self.changes();
        loop {
            if let Some(error) = self.state.lock().should_exit() {
                return error.clone();
            }
            // The pool has the sender, so this waits.
            let _ = changes.changed().await;
        }
    }

    /// The workers, the last failure, and whether the pool cannot continue.
    pub(crate) fn report(&self) -> (Vec<WorkerStatus>, Option<Error>, bool) {
        let pid = std::process::id();
        let state = self.state.lock();
        let workers = state.workers.iter();
        let workers = workers.map(|worker| worker.status(pid)).collect();
        (workers, state.last_error.clone(), state.lost().is_some())
    }

    /// How many workers take jobs.
    pub(crate) fn workers_ready(&self) -> usize {
        self.state.lock().workers.ready()
    }

    /// Since when no worker takes jobs; `None` while one does.
    pub(crate) fn without_worker_since(&self) -> Option<Instant> {
        self.state.lock().without_worker_since
    }

    /// Accepts no more jobs, answers those that wait with `reason`, and stops all workers after their run.
    pub(crate) fn close(&self, reason: &Error) {
        let jobs = self.state.lock().close(reason);
        answer_all(jobs, reason);
        self.announce();
    }

    /// Waits until `holds`; an error if it never will.
    async fn wait_until(&self, holds: impl Fn(&State) -> Result<bool, Error>) -> Result<(), Error> {
        let mut changes = self.changes();
        while !holds(&self.state.lock())? {
            if changes.changed().await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Notes a change of workers and wakes whoever waits for one. The state must not be locked.
    fn announce(&self) {
        self.state.lock().note_readiness(Instant::now());
        self.changes.send_modify(|count| *count += 1);
    }

    /// Finds out what the model is and whether its requests may be stacked. `run` is how long a run took in the warm-up.
    fn learn(
        &self,
        session: &mut WorkerSession,
        run: Option<Duration>,
    ) -> Result<(), BackendError> {
        if let Some(run) = run {
            self.state.lock().pace.set(run);
        }
        let settled = self.decision.settle(session);
        settled.map_err(BackendError::Refused)?;
        let signature = session.model().signature();
        let mut state = self.state.lock();
        state.batcher.set_batch_size(self.decision.batch_size());
        if signature.state == ModelState::Locked {
            state.workers.take_turns = true;
            // A run may have to wait for the trial run of a worker that loads, which would hold a tokio thread.
            state.pace.forbid_short();
        }
        drop(state);
        self.signature.get_or_init(|| Arc::new(signature.clone()));
        Ok(())
    }

    /// Makes a worker's new session available.
    fn set_session(self: &Arc<Self>, id: u32, session: WorkerSession) {
        let mut state = self.state.lock();
        state.set_session(id, session);
        let runner = self.next_runner(&mut state, Instant::now());
        drop(state);
        self.call(runner);
        self.announce();
    }

    /// Notes that a worker cannot serve at present. Returns whether it is to stay.
    fn set_failed(&self, id: u32) -> bool {
        let stays = self.state.lock().set_failed(id);
        self.announce();
        stays
    }

    /// Notes that a worker cannot continue, and answers the jobs that no worker is left for.
    fn give_up(&self, id: u32, error: &Error) {
        let mut state = self.state.lock();
        state.set_failed(id);
        state.last_error = Some(error.clone());
        let unserved = state.take_unserved();
        drop(state);
        answer_all(unserved, error);
        self.announce();
    }

    /// What a worker's thread has to do.
    fn next_order(self: &Arc<Self>, id: u32) -> Order {
        let mut state = self.state.lock();
        let now = Instant::now();
        let order = state.next_order(id, now);
        let runner = match order {
            Order::Run(..) => self.next_runner(&mut state, now),
            _ => Runner::Nobody,
        };
        drop(state);
        self.call(runner);
        order
    }

    /// Completes the end of a worker.
    fn drop_worker(&self, worker: Worker, unserved: Vec<Job>) {
        drop(worker);
        self.answer_unserved(unserved);
        self.announce();
    }

    fn answer_unserved(&self, jobs: Vec<Job>) {
        answer_all(jobs, &no_worker(&self.model));
    }

    fn push(self: &Arc<Self>, job: Job) -> Result<(), Error> {
        let mut state = self.state.lock();
        let now = job.arrival;
        state.admit()?;
        state.batcher.push(job);
        if !state.workers.is_any_runnable() {
            return Ok(());
        }
        let is_inline = self.may_run_inline(&state, now);
        let runner = state.runner_after_push(is_inline, now);
        drop(state);
        self.call(runner);
        Ok(())
    }

    /// Decides who runs the next batch, if there is one and a session is idle. The caller has to [`Self::call`] the runner.
    fn next_runner(&self, state: &mut State, now: Instant) -> Runner {
        if !state.has_next_run(now) {
            return Runner::Nobody;
        }
        let is_inline = self.may_run_inline(state, now);
        state.next_runner(is_inline)
    }

    fn may_run_inline(&self, state: &State, now: Instant) -> bool {
        state.expects_short_run(self.decision.is_trial(), now) && self.inline_runs.has_free_slot()
    }

    fn call(self: &Arc<Self>, runner: Runner) {
        match runner {
            Runner::Nobody => {}
            Runner::Worker(thread) => thread.unpark(),
            Runner::InlineRun { yields_first } => self.start_inline_run(yields_first),
        }
    }

    fn start_inline_run(self: &Arc<Self>, yields_first: bool) {
        let pool = Arc::clone(self);
        self.tasks.spawn(async move {
            if yields_first {
                tokio::task::yield_now().await;
            }
            pool.run_inline();
        });
    }

    /// Runs the next batch on this thread if there is one, a session is idle, and the run is expected to be short.
    fn run_inline(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.is_inline_run_coming = false;
        // Read under the lock: with an earlier time, jobs would run whose deadline has passed since.
        let now = Instant::now();
        let is_short = state.expects_short_run(self.decision.is_trial(), now);
        let Some(_slot) = is_short.then(|| self.inline_runs.begin(now)).flatten() else {
            let woken = state.wake_worker(now);
            drop(state);
            return self.call(Runner::of(woken));
        };
        let jobs = state.batcher.len();
        let Some((id, session)) = state.start_run(None, now) else {
            return;
        };
        let has_answered = jobs != state.batcher.len() + session.batch.len();
        let runner = self.next_runner(&mut state, now);
        drop(state);
        let has_woken_task = has_answered || matches!(runner, Runner::InlineRun { .. });
        self.call(runner);
        if has_woken_task {
            // tokio keeps the task that was woken last in a place that other threads do not look into. An empty task takes
            // that place, and the other one moves to where they do.
            self.tasks.spawn(async {});
        }
        self.run(id, session, now, false);
    }

    /// Runs the session's batch, and if it `continues` further ones until none is left. Returns the session then.
    fn run(
        self: &Arc<Self>,
        id: u32,
        mut session: WorkerSession,
        mut taken: Instant,
        continues: bool,
    ) {
        loop {
            let result = if self.decision.compares(session.batch.len()) {
                session.run_both_ways(taken)
            } else {
                session.run(taken)
            };
            self.note_comparison(&result);
            match self.end_run(id, session, &result, continues) {
                Some(next) => (session, taken) = next,
                None => return,
            }
        }
    }

    /// Returns a session. If the caller `continues`, it gets the session with the next batch, and when that was taken.
    fn end_run(
        self: &Arc<Self>,
        id: u32,
        session: WorkerSession,
        result: &RunResult,
        continues: bool,
    ) -> Option<(WorkerSession, Instant)> {
        let mut state = self.state.lock();
        let was_unending = match state.end_run(id, session, result) {
            Ok(was_unending) => was_unending,
            Err(unused) => {
                drop(state);
                drop(unused);
                tracing::info!(worker = id, "a run that was left behind has ended");
                if let Condition::Fatal(text) = &result.condition {
                    self.close_as_lost(id, text);
                }
                return None;
            }
        };
        let now = Instant::now();
        let next = continues.then(|| state.start_run(Some(id), now)).flatten();
        let runner = self.next_runner(&mut state, now);
        drop(state);
        self.call(runner);
        match &result.condition {
            Condition::Fatal(text) => self.close_as_lost(id, text),
            Condition::Broken => {
                tracing::warn!(worker = id, "the session panicked and is made again");
                self.announce();
            }
            Condition::Usable if was_unending => self.announce(),
            Condition::Usable => {}
        }
        next.map(|(_, session)| (session, now))
    }

    fn close_as_lost(&self, id: u32, text: &str) {
        tracing::error!(worker = id, error = text, "the device or process is lost");
        self.close(&worker_lost(text));
    }

    /// Applies what a run showed about stacking.
    fn note_comparison(&self, result: &RunResult) {
        let Some(Comparison { finding, rows }) = &result.comparison else {
            return;
        };
        if self.decision.learn(finding, *rows, &self.tasks) {
            let batch_size = self.decision.batch_size();
            self.state.lock().batcher.set_batch_size(batch_size);
            self.announce();
        }
    }

    #[cfg(test)]
    pub(super) fn waiting_jobs(&self) -> usize {
        self.state.lock().batcher.len()
    }
}

impl WakeWorkers for Pool {
    fn wake_workers(&self) {
        let woken = self.state.lock().wake_workers(Instant::now());
        woken.iter().for_each(Thread::unpark);
    }
}

/// A job that was pushed. It is abandoned when this is dropped before the answer.
struct PendingJob<'a> {
    pool: &'a Pool,
    answer: oneshot::Receiver<Result<Answer, Error>>,
    is_answered: bool,
}

impl PendingJob<'_> {
    async fn answer(&mut self) -> Result<Answer, Error> {
        let answer = (&mut self.answer).await;
        self.is_answered = true;
        answer.unwrap_or_else(|_| Err(failures::lost()))
    }
}

impl Drop for PendingJob<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.answer.close();
            self.pool.state.lock().batcher.note_abandoned();
        }
    }
}

fn answer_all(jobs: Vec<Job>, error: &Error) {
    for job in jobs {
        job.answer(Err(error.clone()));
    }
}

#[cfg(test)]
mod tests;
