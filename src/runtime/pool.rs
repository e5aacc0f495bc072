//! The pool: the batcher and the workers of one version, and who runs which batch on which thread.
//!
//! It knows jobs, sessions and threads; it knows neither handlers nor requests. All state is behind one lock, which is
//! held to move a job or a session and never while a session runs.
//!
//! # Who runs a batch
//!
//! A worker is an OS thread and a session. While a worker is idle its session lies in the pool, for whoever comes first:
//!
//! - If runs of this model are **short** (see [`Pace`]), a task leads: a leader is called, yields once, so that other
//!   tasks that are ready finish their preprocess and push their jobs, then takes the session and the whole batch, runs
//!   it, and answers everybody. Waking a thread and being woken by it costs 40–50 µs each, which is as much as such a
//!   run takes; led, a lone call costs 1 to 2 µs beyond handler and session (`benches/pipeline.rs`, `one caller`). Where runs
//!   cost less than yielding does there is nothing to gain from company, and the leader does not yield.
//! - Otherwise the worker's own thread is woken and runs it, and tokio's threads stay free.
//!
//! Either way a session never rests while a job could run: every push with an idle session calls a leader or wakes a thread,
//! and so does every return of a session with jobs left. Both decisions are made under the lock, so none is missed.
//!
//! # When a run takes longer than expected
//!
//! A led run holds its thread of tokio, and nobody knows beforehand how long. So a leader is a task of its own, and the
//! request's task stays free to keep its deadline; it needs one of the places in [`InlineRuns`], which are fewer than
//! tokio's threads; and it runs one batch. While any run of the pool is under way for longer than `LONG` of [`pace`], no
//! run is called short. What has been left on the held thread is freed by [`InlineRuns`] within a few milliseconds more. A run
//! that outlives its requests is ended or left behind ([`overdue`]).

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::batcher::{Answer, Batcher, BatcherConfig, Job};
use super::batching::{self, Batching, Decision, Verdict, Verdicts};
use super::inline_runs::InlineRuns;
use super::{WorkerIds, WorkerStatus};
use crate::backend::{BackendError, ModelState, Signature};
use crate::error::{Error, Kind};
use crate::model::{Device, ModelSpec};
use crate::payload::Priority;
use crate::tensor::NamedTensor;

pub(super) mod loader;
mod overdue;
pub(super) mod pace;
mod scale;
pub(super) mod session;
mod state;
mod warmup;
pub(super) mod worker;

pub use scale::Bounds;

use loader::Loader;
use pace::Pace;
use session::{Compared, Condition, Ran, WorkerSession};
use state::State;
use worker::Worker;

/// Batcher and workers of one version.
pub(crate) struct Pool {
    pub(super) state: Mutex<State>,
    pub(super) loader: Loader,
    pub(super) model: Arc<ModelSpec>,
    signature: OnceLock<Arc<Signature>>,
    decision: Decision,
    verdicts: Verdicts,
    pace: Pace,
    inline_runs: Arc<InlineRuns>,
    tasks: Handle,
    ids: Arc<WorkerIds>,
    /// Counts changes of workers; waiters look at the state again.
    changes: watch::Sender<u64>,
}

/// A request's place among those that wait for the model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// When its run stops being of use to begin.
    pub(crate) begin_by: Instant,
    /// When it is answered, whatever its run does.
    pub(crate) deadline: Instant,
    /// Who goes first.
    pub(crate) priority: Priority,
}

impl Pool {
    /// A pool without workers. Must be called within a tokio runtime.
    pub(crate) fn new(
        loader: Loader,
        model: Arc<ModelSpec>,
        ids: Arc<WorkerIds>,
        verdicts: Verdicts,
        inline_runs: &Arc<InlineRuns>,
    ) -> Arc<Self> {
        let settings = &model.settings;
        let batcher = Batcher::new(BatcherConfig {
            // Nothing is stacked before it is known whether that is right.
            batch_size: 1,
            max_batch_delay: settings.max_batch_delay,
            wait_for_full_batches: settings.wait_for_full_batches,
        });
        let pace = Pace::new(!settings.wait_for_full_batches);
        let pool = Arc::new(Self {
            state: Mutex::new(State::new(batcher)),
            loader,
            model,
            signature: OnceLock::new(),
            decision: Decision::default(),
            verdicts,
            pace,
            inline_runs: Arc::clone(inline_runs),
            tasks: Handle::current(),
            ids,
            changes: watch::Sender::new(0),
        });
        inline_runs.watch(&pool, &pool.tasks);
        pool
    }

    /// Runs inputs, which are in the model's order and have `rows` rows in common or none, together with what else waits;
    /// not if the run cannot begin in time. Dropping the future abandons the job.
    pub(crate) async fn infer(
        self: &Arc<Self>,
        inputs: Vec<NamedTensor>,
        rows: Option<usize>,
        standing: Standing,
    ) -> Result<Answer, Error> {
        let (reply, answer) = oneshot::channel();
        self.push(Job {
            inputs,
            rows: rows.unwrap_or(1),
            stacks: rows.is_some(),
            arrival: Instant::now(),
            deadline: standing.begin_by,
            expires: standing.deadline,
            priority: standing.priority,
            is_alone: false,
            reply,
        })?;
        let mut waiting = Waiting {
            pool: self,
            answer,
            is_answered: false,
        };
        waiting.answer().await
    }

    /// Whether a job pushed now would be taken in; the reason if not.
    pub(crate) fn admit(&self) -> Result<(), Error> {
        self.state.lock().admit(&self.model)
    }

    /// Inputs and outputs of the model, once a worker loaded it.
    pub(crate) fn signature(&self) -> Option<&Arc<Signature>> {
        self.signature.get()
    }

    /// Takes note of what the model is, and finds out whether its requests may be stacked.
    pub(super) fn learn(&self, session: &mut WorkerSession) -> Result<(), BackendError> {
        let settled = self.decision.settle(&self.model, session, &self.verdicts);
        settled.map_err(BackendError::Refused)?;
        if let Some(batching) = self.decision.status() {
            self.apply(&batching);
        }
        let signature = session.model().signature();
        if signature.state == ModelState::Locked {
            self.state.lock().takes_turns = true;
            // A run may still wait for the trial run of a worker that loads, which is no place for a thread of tokio.
            self.pace.forbid();
        }
        self.signature.get_or_init(|| Arc::new(signature.clone()));
        Ok(())
    }

    /// How requests are stacked, once a worker loaded the model.
    pub(crate) fn batching(&self) -> Option<Batching> {
        self.decision.status()
    }

    /// What was found out about stacking, if anything.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.verdicts.of(&self.verdict_key())
    }

    fn verdict_key(&self) -> String {
        batching::key(&self.model.digest, self.model.settings.batch_size)
    }

    fn apply(&self, batching: &Batching) {
        let batch_size = batching.batch_size(self.model.settings.batch_size);
        self.state.lock().batcher.set_batch_size(batch_size);
    }

    /// Takes note of what a run showed about stacking.
    fn note_comparison(&self, ran: &Ran) {
        let Some(Compared { finding, rows }) = &ran.compared else {
            return;
        };
        let Some(verdict) = self.decision.learn(finding, *rows, &self.model) else {
            return;
        };
        self.apply(&verdict.batching());
        self.verdicts
            .keep_soon(&self.verdict_key(), verdict, &self.tasks);
        self.announce();
    }

    /// Resolves at the next change of a worker after the receiver was last looked at.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes note of a change of workers, and tells those who wait for one. The state must not be locked.
    pub(super) fn announce(&self) {
        self.state.lock().note_readiness(Instant::now());
        self.changes.send_modify(|count| *count += 1);
    }

    /// Refuses jobs from now on, answers those that wait with `reason`, and stops all workers after their batch.
    pub(crate) fn close(&self, reason: &Error) {
        let (jobs, stopped) = {
            let mut state = self.state.lock();
            state.closed.get_or_insert_with(|| reason.clone());
            (state.batcher.take_all(), state.stop_all())
        };
        for job in jobs {
            job.answer(Err(reason.clone()));
        }
        stopped.iter().for_each(std::thread::Thread::unpark);
        self.announce();
    }

    /// Workers, the last failure, and whether the pool cannot go on.
    pub(crate) fn report(&self) -> (Vec<WorkerStatus>, Option<Error>, bool) {
        let (pid, memory) = (std::process::id(), resident_memory());
        let state = self.state.lock();
        let workers = state.workers.iter();
        let workers = workers.map(|worker| worker.status(pid, memory)).collect();
        (workers, state.last_error.clone(), state.lost().is_some())
    }

    /// How many workers take jobs.
    pub(crate) fn workers_ready(&self) -> usize {
        self.state.lock().workers_ready()
    }

    /// Since when no worker takes jobs; `None` while one does.
    pub(crate) fn without_worker_since(&self) -> Option<Instant> {
        self.state.lock().without_worker_since
    }

    /// Resolves with the reason when the device or the process is lost, or when so many runs do not end that only the
    /// end of the process helps.
    pub(crate) async fn failure(&self) -> Error {
        let mut changes = self.changes();
        loop {
            if let Some(error) = self.state.lock().beyond_help() {
                return error.clone();
            }
            // The pool holds the sender, so this waits.
            let _ = changes.changed().await;
        }
    }

    /// Resolves when all workers of a closed pool have ended, and joins their threads.
    pub(crate) async fn ended(&self) {
        let mut changes = self.changes();
        while !self.state.lock().workers.iter().all(Worker::has_ended) {
            if changes.changed().await.is_err() {
                return;
            }
        }
        let threads = std::mem::take(&mut self.state.lock().threads);
        let join = move || threads.into_iter().for_each(|thread| drop(thread.join()));
        let _ = tokio::task::spawn_blocking(join).await;
    }

    fn push(self: &Arc<Self>, job: Job) -> Result<(), Error> {
        let mut state = self.state.lock();
        state.admit(&self.model)?;
        let now = job.arrival;
        state.batcher.push(job);
        if !state.has_idle_session() {
            return Ok(());
        }
        if self.may_lead(&state, now) {
            let is_called = state.call_leader();
            drop(state);
            if is_called {
                self.start_leader(self.pace.is_worth_company());
            }
            return Ok(());
        }
        let woken = state.wake_for_push(now);
        drop(state);
        if let Some(thread) = woken {
            thread.unpark();
        }
        Ok(())
    }

    /// Whether the next run may hold a thread of tokio.
    fn may_lead(&self, state: &State, now: Instant) -> bool {
        self.may_hold_thread(state, now) && self.inline_runs.has_free_slot()
    }

    /// Whether the next run is expected to be short. On trial, several jobs make a run each and one more.
    fn may_hold_thread(&self, state: &State, now: Instant) -> bool {
        let is_one_run = state.batcher.len() <= 1 || !self.decision.is_trial();
        self.pace.is_short() && is_one_run && !state.has_long_run(now)
    }

    /// Starts the leader that was called. With company it yields first, so that requests that were just answered may go on
    /// and others join.
    fn start_leader(self: &Arc<Self>, has_company: bool) {
        let pool = Arc::clone(self);
        self.tasks.spawn(async move {
            if has_company {
                tokio::task::yield_now().await;
            }
            pool.lead();
        });
    }

    /// Runs the next batch on this thread, if there is one, a session is idle and runs are short.
    fn lead(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.leader_called = false;
        // Read under the lock: an earlier time would let jobs through whose deadline has passed since.
        let now = Instant::now();
        let may_lead = self.may_hold_thread(&state, now);
        let Some(_place) = may_lead.then(|| self.inline_runs.begin(now)).flatten() else {
            return Self::wake_runner(&mut state, now);
        };
        let jobs = state.batcher.len();
        let Some((id, session)) = state.check_out(None, now) else {
            return;
        };
        let has_answered = jobs != state.batcher.len() + session.batch.len();
        let has_called = self.call_runner(&mut state, now);
        drop(state);
        if has_answered || has_called {
            // Tasks that were woken here since this one began: the last of them has a slot that other threads do not look
            // into. A further one takes its place, and it goes to where they do.
            self.tasks.spawn(async {});
        }
        self.run(id, session, now, false);
    }

    /// Runs the session's batch, and further ones until nothing waits if it goes on; returns the session then.
    pub(super) fn run(
        self: &Arc<Self>,
        id: u32,
        mut session: WorkerSession,
        mut taken: Instant,
        goes_on: bool,
    ) {
        loop {
            let ran = if self.decision.compares(session.batch.len()) {
                session.run_both_ways(taken)
            } else {
                session.run(taken)
            };
            self.note_comparison(&ran);
            self.pace.note(ran.infer);
            match self.check_in(id, session, ran, goes_on) {
                Some(next) => (session, taken) = next,
                None => return,
            }
        }
    }

    /// Returns a session. A caller who goes on gets it back with the next batch in it, and when that was taken.
    fn check_in(
        self: &Arc<Self>,
        id: u32,
        mut session: WorkerSession,
        ran: Ran,
        goes_on: bool,
    ) -> Option<(WorkerSession, Instant)> {
        let mut state = self.state.lock();
        if state.worker(id).is_none() {
            self.note_abandoned_end(state, id, ran.condition);
            return None;
        }
        let was_lost = state.note_end(id);
        let now = Instant::now();
        if ran.again {
            state.batcher.push_back_alone(session.batch.drain(..));
        }
        let needs_owner = ran.condition != Condition::Usable;
        let owner = state.check_in(id, session, &ran.condition);
        if let Condition::Fatal(text) = &ran.condition {
            state.last_error = Some(worker_died(text));
        }
        let next = goes_on.then(|| state.check_out(Some(id), now)).flatten();
        self.call_runner(&mut state, now);
        drop(state);
        if let Some(owner) = owner {
            owner.unpark();
        }
        if let Condition::Fatal(text) = ran.condition {
            self.lose(id, &text);
        } else if needs_owner {
            tracing::warn!(worker = id, "the session panicked and is made anew");
            self.announce();
        } else if was_lost {
            self.announce();
        }
        next.map(|(_, session)| (session, now))
    }

    /// Takes note of the end of a run that was left behind. Its session is not used again.
    fn note_abandoned_end(&self, mut state: MutexGuard<'_, State>, id: u32, condition: Condition) {
        state.abandoned -= 1;
        if let Condition::Fatal(text) = &condition {
            state.last_error = Some(worker_died(text));
        }
        drop(state);
        tracing::info!(worker = id, "a run that was left behind has ended");
        if let Condition::Fatal(text) = condition {
            self.lose(id, &text);
        }
    }

    /// Goes on no more, as the device or the process is lost.
    fn lose(&self, id: u32, text: &str) {
        tracing::error!(worker = id, error = text, "the device or process is lost");
        self.close(&worker_died(text));
    }

    /// Sees to it that somebody comes for the jobs that wait, if a session is idle. Returns whether it called a leader.
    pub(super) fn call_runner(self: &Arc<Self>, state: &mut State, now: Instant) -> bool {
        if !state.has_idle_session() || !state.batcher.is_ready(now) {
            return false;
        }
        if !self.may_lead(state, now) {
            Self::wake_runner(state, now);
            return false;
        }
        let is_called = state.call_leader();
        if is_called {
            self.start_leader(true);
        }
        is_called
    }

    /// Wakes a worker's thread for the jobs that wait.
    fn wake_runner(state: &mut State, now: Instant) {
        if state.batcher.is_ready(now)
            && let Some(thread) = state.wake_one()
        {
            thread.unpark();
        }
    }

    /// Wakes workers' threads for the jobs that wait, because a thread of tokio is held: a leader who was called may be
    /// stuck there.
    pub(super) fn rescue(&self) {
        let mut state = self.state.lock();
        state.leader_called = false;
        let now = Instant::now();
        for _ in 0..state.batcher.batches() {
            Self::wake_runner(&mut state, now);
        }
    }

    /// A new worker's id, and its device: the round-robin place of the first gap.
    pub(super) fn assign(&self, state: &State) -> (u32, Device) {
        let devices = &self.model.settings.devices;
        let load = |device: &Device| {
            let workers = state.workers.iter();
            workers.filter(|worker| worker.device == *device).count()
        };
        let device = devices.iter().min_by_key(|device| load(device));
        (self.ids.next(), device.copied().unwrap_or(Device::Cpu))
    }

    /// How long runs take.
    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }
}

/// A job that was pushed; abandons it when dropped before its answer.
struct Waiting<'a> {
    pool: &'a Pool,
    answer: oneshot::Receiver<Result<Answer, Error>>,
    is_answered: bool,
}

impl Waiting<'_> {
    async fn answer(&mut self) -> Result<Answer, Error> {
        let answer = (&mut self.answer).await;
        self.is_answered = true;
        answer.unwrap_or_else(|_| {
            Err(Error::new(
                Kind::Internal,
                "The request was lost by its worker",
            ))
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.answer.close();
            self.pool.state.lock().batcher.note_abandoned();
        }
    }
}

/// The failure of a request for a version that has no worker, in TorchServe's words.
pub(crate) fn no_worker(model: &ModelSpec) -> Error {
    Error::new(
        Kind::NoWorker,
        format!(
            "Model \"{}\" has no worker to serve inference request. Please use scale workers API to add workers. \
             If this is a sequence inference, please check if it is closed, or expired; or exceeds \
             maxSequenceJobQueueSize",
            model.name
        ),
    )
}

/// The failure of requests in a runtime that cannot go on.
pub(crate) fn worker_died(text: &str) -> Error {
    Error::new(Kind::WorkerDied, "Worker died.").with_detail(text)
}

/// Resident memory of this process in bytes; 0 where that is unknown.
fn resident_memory() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(0);
    pages.unwrap_or(0u64).saturating_mul(page)
}

#[cfg(test)]
mod tests;
