//! The pool: the batcher and the workers of one version, and who runs which batch on which thread.
//!
//! It knows jobs, lanes and threads; it knows neither handlers nor requests. All state is behind one lock, which is
//! held to move a job or a lane and never while a session runs.
//!
//! # Who runs a batch
//!
//! A worker is an OS thread and a lane. While a worker is idle its lane lies in the pool, for whoever comes first:
//!
//! - If runs of this model are **short** (see [`Pace`]), the request's own task leads: it yields once, so that other
//!   tasks that are ready finish their preprocess and push their jobs, then takes the lane and the whole batch, runs
//!   it, and answers everybody. Waking a thread and being woken by it costs 40–50 µs each, which is as much as such a
//!   run takes; led, a lone call costs 1 µs beyond handler and session (`benches/pipeline.rs`, `one caller`). Where runs cost
//!   less than yielding does there is nothing to gain from company, and the leader does not yield. A task that finds
//!   every lane taken just waits: whoever returns a lane and sees work left goes on or calls a leader.
//! - Otherwise the worker's own thread is woken and runs it, and tokio's threads stay free.
//!
//! Either way a lane never rests while a job could run: every push with an idle lane leads or wakes, and so does
//! every return of a lane with jobs left. Both decisions are made under the lock, so none is missed.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::batcher::{Answer, Batcher, BatcherConfig, Job};
use super::batching::{Batching, Decision, Verdict, Verdicts};
use super::lane::{Compared, Condition, Lane, Ran};
use super::loader::Loader;
use super::pace::Pace;
use super::worker::Worker;
use super::{WorkerIds, WorkerStatus};
use crate::backend::{BackendError, Signature};
use crate::error::{Error, Kind};
use crate::model::{Device, ModelSpec};
use crate::payload::Priority;
use crate::tensor::NamedTensor;

mod state;

pub(super) use state::State;

/// How often runs that do not end are looked for.
const STUCK_TICK: Duration = Duration::from_secs(1);

/// How long a leader goes on with batches that came meanwhile before it sees to its own request.
const STINT: Duration = Duration::from_micros(20);

/// Batcher and workers of one version.
pub(crate) struct Pool {
    pub(super) state: Mutex<State>,
    pub(super) loader: Loader,
    pub(super) model: Arc<ModelSpec>,
    signature: OnceLock<Arc<Signature>>,
    decision: Decision,
    verdicts: Verdicts,
    pace: Pace,
    tasks: Handle,
    ids: Arc<WorkerIds>,
    /// Counts changes of workers; waiters look at the state again.
    changes: watch::Sender<u64>,
}

/// What a task that pushed a job does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Come back and run what waits.
    Lead,
    /// Wait for the answer.
    Wait,
}

impl Pool {
    /// A pool without workers. Must be called within a tokio runtime.
    pub(crate) fn new(
        loader: Loader,
        model: Arc<ModelSpec>,
        ids: Arc<WorkerIds>,
        verdicts: Verdicts,
    ) -> Arc<Self> {
        let settings = &model.settings;
        let batcher = Batcher::new(BatcherConfig {
            // Nothing is stacked before it is known whether that is right.
            batch_size: 1,
            max_batch_delay: settings.max_batch_delay,
            wait_for_full_batches: settings.wait_for_full_batches,
        });
        let pace = Pace::new(!settings.wait_for_full_batches);
        Arc::new(Self {
            state: Mutex::new(State::new(batcher)),
            loader,
            model,
            signature: OnceLock::new(),
            decision: Decision::default(),
            verdicts,
            pace,
            tasks: Handle::current(),
            ids,
            changes: watch::Sender::new(0),
        })
    }

    /// Runs inputs, which are in the model's order and have `rows` rows in common or none, together with what else waits;
    /// not if the run cannot begin before `deadline`. Dropping the future abandons the job.
    pub(crate) async fn infer(
        self: &Arc<Self>,
        inputs: Vec<NamedTensor>,
        rows: Option<usize>,
        deadline: Instant,
        priority: Priority,
    ) -> Result<Answer, Error> {
        let (reply, answer) = oneshot::channel();
        let turn = self.push(Job {
            inputs,
            rows: rows.unwrap_or(1),
            stacks: rows.is_some(),
            arrival: Instant::now(),
            deadline,
            priority,
            is_alone: false,
            reply,
        })?;
        let mut waiting = Waiting {
            pool: self,
            answer,
            is_answered: false,
        };
        if turn == Turn::Lead {
            if self.pace.is_worth_company() {
                tokio::task::yield_now().await;
            }
            self.lead();
        }
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
    pub(super) fn learn(&self, lane: &mut Lane) -> Result<(), BackendError> {
        let settled = self.decision.settle(&self.model, lane, &self.verdicts);
        settled.map_err(BackendError::Load)?;
        if let Some(batching) = self.decision.status() {
            self.apply(&batching);
        }
        let signature = lane.model().signature();
        self.signature.get_or_init(|| Arc::new(signature.clone()));
        Ok(())
    }

    /// How requests are stacked, once a worker loaded the model.
    pub(crate) fn batching(&self) -> Option<Batching> {
        self.decision.status()
    }

    /// What was found out about stacking, if anything.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.verdicts.of(&self.model.digest)
    }

    fn apply(&self, batching: &Batching) {
        let batch_size = batching.batch_size(self.model.settings.batch_size);
        self.state.lock().batcher.set_batch_size(batch_size);
    }

    /// Takes note of what a run showed about stacking.
    fn heed(&self, ran: &Ran) {
        let Some(Compared { finding, rows }) = &ran.compared else {
            return;
        };
        let learned = self
            .decision
            .learn(finding, *rows, &self.model, &self.verdicts);
        if let Some(batching) = learned {
            self.apply(&batching);
            self.announce();
        }
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

    /// Resolves with the reason when the device or the process is lost, or when a worker has been in one run for so
    /// long that it is not coming back.
    pub(crate) async fn failure(&self) -> Error {
        let mut changes = self.changes();
        loop {
            if let Some(error) = self.state.lock().lost() {
                return error.clone();
            }
            if let Some(error) = self.stuck() {
                return error;
            }
            // A changed receiver whose sender is gone would not wait; the pool holds the sender.
            let _ = tokio::time::timeout(STUCK_TICK, changes.changed()).await;
        }
    }

    /// The failure of a run that outlived every request in it.
    fn stuck(&self) -> Option<Error> {
        let patience = self.model.settings.response_timeout + STUCK_TICK;
        let longest = self.state.lock().longest_run(Instant::now())?;
        (longest > patience).then(|| {
            worker_died(&format!(
                "a run has taken {} s, which is more than the response timeout",
                longest.as_secs()
            ))
        })
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

    fn push(self: &Arc<Self>, job: Job) -> Result<Turn, Error> {
        let mut state = self.state.lock();
        state.admit(&self.model)?;
        let now = job.arrival;
        state.batcher.push(job);
        if !state.has_idle_lane() {
            return Ok(Turn::Wait);
        }
        if self.pace.is_short() {
            return Ok(Turn::Lead);
        }
        let woken = state.wake_for_push(now);
        drop(state);
        if let Some(thread) = woken {
            thread.unpark();
        }
        Ok(Turn::Wait)
    }

    /// Runs the next batch on this thread, if there is one, a lane is idle and runs are short.
    fn lead(self: &Arc<Self>) {
        let (checked_out, now) = {
            let mut state = self.state.lock();
            // Read under the lock: an earlier time would let jobs through whose deadline has passed since.
            let now = Instant::now();
            if !self.pace.is_short() {
                self.call_runner(&mut state, now);
                return;
            }
            let checked_out = state.check_out(None, now);
            self.call_runner(&mut state, now);
            (checked_out, now)
        };
        if let Some((id, lane)) = checked_out {
            self.run(id, lane, now, Some(now + STINT));
        }
    }

    /// Runs the lane's batch, and further ones until nothing waits or it is later than `until`; returns the lane then.
    pub(super) fn run(
        self: &Arc<Self>,
        id: u32,
        mut lane: Lane,
        mut taken: Instant,
        until: Option<Instant>,
    ) {
        loop {
            let ran = if self.decision.is_trial() {
                lane.run_both_ways(taken)
            } else {
                lane.run(taken)
            };
            self.heed(&ran);
            self.pace.note(ran.infer);
            match self.check_in(id, lane, ran, until) {
                Some(next) => (lane, taken) = next,
                None => return,
            }
        }
    }

    /// Returns a lane. Until that time the caller gets it back with the next batch in it, and when that was taken.
    fn check_in(
        self: &Arc<Self>,
        id: u32,
        mut lane: Lane,
        ran: Ran,
        until: Option<Instant>,
    ) -> Option<(Lane, Instant)> {
        let mut state = self.state.lock();
        let now = Instant::now();
        if ran.again {
            state.batcher.push_back_alone(lane.batch.drain(..));
        }
        let needs_owner = ran.condition != Condition::Usable;
        let owner = state.check_in(id, lane, &ran.condition);
        if let Condition::Fatal(text) = &ran.condition {
            state.last_error = Some(worker_died(text));
        }
        let goes_on = until.is_none_or(|until| now < until);
        let next = goes_on.then(|| state.check_out(Some(id), now)).flatten();
        self.call_runner(&mut state, now);
        drop(state);
        if let Some(owner) = owner {
            owner.unpark();
        }
        if let Condition::Fatal(text) = ran.condition {
            tracing::error!(worker = id, error = text, "the device or process is lost");
            self.close(&worker_died(&text));
        } else if needs_owner {
            tracing::warn!(worker = id, "the session panicked and is made anew");
            self.announce();
        }
        next.map(|(_, lane)| (lane, now))
    }

    /// Sees to it that somebody comes for the jobs that wait, if a lane is idle.
    pub(super) fn call_runner(self: &Arc<Self>, state: &mut State, now: Instant) {
        if !state.has_idle_lane() || !state.batcher.is_ready(now) {
            return;
        }
        if !self.pace.is_short() {
            if let Some(thread) = state.wake_one() {
                thread.unpark();
            }
        } else if !state.leader_called {
            state.leader_called = true;
            self.tasks.spawn(Arc::clone(self).lead_on());
        }
    }

    /// Leads until nothing waits. Yields first, so that requests that were just answered may go on and others join.
    async fn lead_on(self: Arc<Self>) {
        tokio::task::yield_now().await;
        self.state.lock().leader_called = false;
        self.lead();
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
