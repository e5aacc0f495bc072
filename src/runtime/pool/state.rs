//! What the pool's lock guards: the jobs that wait, the workers, and who runs the next batch.
//!
//! It decides and returns what is to be done: which thread to wake, whether to start an inline run, which workers to start,
//! whom to answer. It takes no lock, starts no thread and runs nothing, so that it can be tested without them.

use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::failures::{no_worker, worker_died};
use super::pace::Pace;
use super::scale::{Bounds, Demand, LONGEST_WAIT};
use super::session::{Condition, RunResult, WorkerSession};
use super::workers::{Worker, Workers};
use crate::error::{Error, Kind};
use crate::model::{Device, ModelSpec};
use crate::runtime::WorkerStatus;
use crate::runtime::batcher::{Batcher, BatcherConfig, Job};
use crate::runtime::inline_runs::LONG;

/// At most this many runs are left behind at a time: their threads cannot be ended.
pub(super) const MOST_LEFT_BEHIND: usize = 2;

/// What the pool's lock guards.
pub(super) struct State {
    model: Arc<ModelSpec>,
    batcher: Batcher,
    workers: Workers,
    pace: Pace,
    /// Why no job is accepted any more.
    closed: Option<Error>,
    /// The last failure of a worker.
    last_error: Option<Error>,
    /// Since when no worker takes jobs.
    without_worker_since: Option<Instant>,
    /// The bounds within which demand decides on the number of workers.
    bounds: Bounds,
    /// An inline run was called for and has not begun yet.
    is_inline_run_coming: bool,
    /// Runs that were left behind and have not ended.
    left_behind: usize,
    /// Why the process should end: a run does not, and its worker cannot be replaced.
    unending: Option<Error>,
}

/// Who runs the next batch.
pub(super) enum Runner {
    /// Nobody has to be called.
    Nobody,
    /// This worker's thread, which is to be woken.
    Worker(Thread),
    /// A task, which is to be started.
    InlineRun {
        /// Whether it yields once before, so that other tasks can push jobs.
        yields_first: bool,
    },
}

/// What a worker's thread has to do.
pub(super) enum Order {
    /// Run the session's batch, which was taken at that time.
    Run(WorkerSession, Instant),
    /// Make the session again.
    Rebuild(WorkerSession),
    /// Sleep until it is woken, or until then.
    Sleep(Option<Instant>),
    /// End; another worker may have to be woken, and jobs to be answered.
    End(Option<Departure>),
}

/// What a worker that ended leaves.
pub(super) struct Departure {
    /// Its session is dropped with it, which may take a while: not under the lock.
    pub(super) worker: Option<Worker>,
    /// The thread to wake for the jobs that wait.
    pub(super) successor: Option<Thread>,
    /// Jobs that no worker is left for.
    pub(super) stranded: Vec<Job>,
}

/// How a run ended for its worker.
pub(super) struct RunEnd {
    /// The worker's thread, if it has to be woken.
    pub(super) owner: Option<Thread>,
    /// Whether the run had counted as one that does not end.
    pub(super) was_unending: bool,
}

/// What has to be done about overdue runs.
pub(super) struct Overdue {
    /// Workers that were removed because their run does not end.
    pub(super) left_behind: Vec<LeftBehind>,
    /// Whether any worker's state changed.
    pub(super) has_changed: bool,
    /// When to look again.
    pub(super) pause: Duration,
}

/// A worker that was removed because its run does not end.
pub(super) struct LeftBehind {
    pub(super) id: u32,
    pub(super) worker: Worker,
    /// How long its run has taken.
    pub(super) took: Duration,
    /// Whether another worker is to be started in its place.
    pub(super) is_replaced: bool,
}

/// What demand asks for.
pub(super) enum Look {
    /// The pool accepts no more jobs.
    Closed,
    /// The bounds fix the number of workers until they change.
    Fixed,
    /// Demand decides within these bounds.
    Demand(Demand, Bounds),
}

impl State {
    /// Without workers and jobs. Nothing is stacked before [`Self::set_batch_size`]: it is not known whether that is right.
    pub(super) fn new(model: Arc<ModelSpec>) -> Self {
        let settings = &model.settings;
        let batcher = Batcher::new(BatcherConfig {
            batch_size: 1,
            max_batch_delay: settings.max_batch_delay,
            wait_for_full_batches: settings.wait_for_full_batches,
        });
        Self {
            batcher,
            workers: Workers::default(),
            pace: Pace::new(!settings.wait_for_full_batches),
            closed: None,
            last_error: None,
            without_worker_since: None,
            bounds: Bounds::exactly(0),
            is_inline_run_coming: false,
            left_behind: 0,
            unending: None,
            model,
        }
    }

    /// Whether a job pushed now would be accepted; the reason if not.
    pub(super) fn admit(&self) -> Result<(), Error> {
        if let Some(error) = &self.closed {
            return Err(error.clone());
        }
        if self.has_workers() {
            return Ok(());
        }
        Err(no_worker(&self.model))
    }

    /// Adds a job to those that wait.
    pub(super) fn push(&mut self, job: Job) -> Result<(), Error> {
        self.admit()?;
        self.batcher.push(job);
        Ok(())
    }

    /// How many jobs wait.
    pub(super) const fn jobs(&self) -> usize {
        self.batcher.len()
    }

    pub(super) fn note_abandoned(&mut self) {
        self.batcher.note_abandoned();
    }

    pub(super) const fn set_batch_size(&mut self, batch_size: usize) {
        self.batcher.set_batch_size(batch_size);
    }

    /// Notes that runs change the model: the workers of a device take turns. A run may then wait for the trial run of a
    /// worker that loads, so none is run inline.
    pub(super) const fn set_take_turns(&mut self) {
        self.workers.set_take_turns();
        self.pace.forbid_short();
    }

    /// Whether a session could be used now.
    pub(super) fn has_idle_session(&self) -> bool {
        self.workers.is_any_runnable()
    }

    /// Whether a session is idle and a batch need not wait for more jobs.
    pub(super) fn has_next_run(&self, now: Instant) -> bool {
        self.has_idle_session() && self.batcher.is_ready(now)
    }

    /// Whether the next run is expected to be short. On trial, several jobs make a run each and one more.
    pub(super) fn expects_short_run(&self, is_trial: bool, now: Instant) -> bool {
        let is_one_run = self.batcher.len() <= 1 || !is_trial;
        self.pace.is_short() && is_one_run && !self.workers.has_run_since(LONG, now)
    }

    /// Decides who runs the job that was just pushed.
    pub(super) fn runner_after_push(&mut self, is_inline: bool, now: Instant) -> Runner {
        if is_inline {
            return self.inline_run(self.pace.is_worth_yielding());
        }
        let woken = self.workers.woken();
        let is_delayed = self.workers.is_any_waiting_until_due() && !self.batcher.is_ready(now);
        // Each thread that was woken takes a batch.
        if is_delayed || (woken > 0 && self.batcher.batches() <= woken) {
            return Runner::Nobody;
        }
        Runner::of(self.workers.wake_one())
    }

    /// Decides who runs the next batch.
    pub(super) fn next_runner(&mut self, is_inline: bool) -> Runner {
        if is_inline {
            return self.inline_run(true);
        }
        Runner::of(self.workers.wake_one())
    }

    fn inline_run(&mut self, yields_first: bool) -> Runner {
        if std::mem::replace(&mut self.is_inline_run_coming, true) {
            return Runner::Nobody;
        }
        Runner::InlineRun { yields_first }
    }

    /// Notes that the inline run that was called for has begun, or cannot be waited for.
    pub(super) const fn clear_inline_run(&mut self) {
        self.is_inline_run_coming = false;
    }

    /// Decides which worker's thread is woken for the next batch.
    pub(super) fn wake_worker(&mut self, now: Instant) -> Option<Thread> {
        let is_ready = self.batcher.is_ready(now);
        is_ready.then(|| self.workers.wake_one()).flatten()
    }

    /// Decides which workers' threads are woken for all batches, because an inline run that was called for may be stuck.
    pub(super) fn wake_workers(&mut self, now: Instant) -> Vec<Thread> {
        self.clear_inline_run();
        let batches = 0..self.batcher.batches();
        batches.filter_map(|_| self.wake_worker(now)).collect()
    }

    /// Starts a run of worker `of`, or of any worker, with the next batch. Jobs that expired are answered.
    pub(super) fn start_run(
        &mut self,
        of: Option<u32>,
        now: Instant,
    ) -> Option<(u32, WorkerSession)> {
        if self.batcher.is_empty() {
            return None;
        }
        let batcher = &mut self.batcher;
        self.workers
            .start_run(of, now, |batch| batcher.take(now, batch))
    }

    /// Takes the session back after a run. Jobs that were not answered are run again, one by one. If the run was left behind,
    /// the session is given back: it is not used again, and dropping it may take a while.
    pub(super) fn end_run(
        &mut self,
        id: u32,
        mut session: WorkerSession,
        result: &RunResult,
    ) -> Result<RunEnd, WorkerSession> {
        self.pace.note(result.infer);
        if let Condition::Fatal(text) = &result.condition {
            self.last_error = Some(worker_died(text));
        }
        let Some(worker) = self.workers.worker(id) else {
            self.left_behind -= 1;
            return Err(session);
        };
        let was_unending = worker.unmark_unending();
        self.batcher.push_back_alone(session.batch.drain(..));
        let owner = worker.end_run(session, &result.condition);
        self.forget_ended_runs();
        Ok(RunEnd {
            owner,
            was_unending,
        })
    }

    /// What a worker's thread has to do.
    pub(super) fn next_order(&mut self, id: u32, now: Instant) -> Order {
        let Some(worker) = self.workers.worker(id) else {
            return Order::End(None);
        };
        worker.note_awake();
        if worker.is_stopping() && !worker.is_busy() {
            return Order::End(Some(self.dismiss(id)));
        }
        if let Some(session) = worker.take_broken_session() {
            return Order::Rebuild(session);
        }
        match self.start_run(Some(id), now) {
            Some((_, session)) => Order::Run(session, now),
            None => Order::Sleep(self.wait_until_due(id)),
        }
    }

    /// Where batches wait to be full, one idle worker sleeps no longer than until the oldest job is due.
    pub(super) fn wait_until_due(&mut self, id: u32) -> Option<Instant> {
        if !self.batcher.waits_for_full_batches() || self.workers.is_any_waiting_until_due() {
            return None;
        }
        let due = self.batcher.next_due()?;
        self.workers.wait_until_due(id).then_some(due)
    }

    /// Adds a worker that loads the model on `thread`, or one that failed.
    pub(super) fn add_worker(&mut self, id: u32, device: Device, thread: Result<Thread, Error>) {
        let thread = thread.map_err(|error| self.last_error = Some(error));
        self.workers.add(id, device, thread.ok());
    }

    /// Makes the new session of a worker available.
    pub(super) fn set_session(&mut self, id: u32, session: WorkerSession) {
        if let Some(worker) = self.workers.worker(id) {
            worker.set_session(session);
        }
    }

    /// Notes how long runs are expected to take.
    pub(super) fn set_pace(&mut self, run: Duration) {
        self.pace.set(run);
    }

    /// Notes that a worker cannot serve.
    pub(super) fn set_failed(&mut self, id: u32) {
        if let Some(worker) = self.workers.worker(id) {
            worker.fail();
        }
    }

    /// Notes that a worker cannot continue. Returns the jobs that no worker is left for.
    pub(super) fn give_up(&mut self, id: u32, error: &Error) -> Vec<Job> {
        self.set_failed(id);
        self.last_error = Some(error.clone());
        self.take_stranded()
    }

    pub(super) fn is_stopping(&mut self, id: u32) -> bool {
        let worker = self.workers.worker(id);
        worker.is_none_or(|worker| worker.is_stopping())
    }

    fn dismiss(&mut self, id: u32) -> Departure {
        let worker = self.workers.remove(id);
        let is_needed = !self.batcher.is_empty();
        Departure {
            worker,
            successor: is_needed.then(|| self.workers.wake_one()).flatten(),
            stranded: self.take_stranded(),
        }
    }

    /// Takes the jobs that no worker is left for.
    pub(super) fn take_stranded(&mut self) -> Vec<Job> {
        if self.has_workers() {
            return Vec::new();
        }
        self.batcher.take_all()
    }

    fn has_workers(&self) -> bool {
        self.workers.staying().next().is_some()
    }

    /// Accepts no more jobs and stops all workers after their run. Returns the jobs to answer and the threads to wake.
    pub(super) fn close(&mut self, reason: &Error) -> (Vec<Job>, Vec<Thread>) {
        self.closed.get_or_insert_with(|| reason.clone());
        (self.batcher.take_all(), self.workers.stop_all())
    }

    /// Sets the bounds that demand keeps to. Returns the number of workers there should be.
    pub(super) fn set_bounds(&mut self, bounds: Bounds) -> usize {
        self.bounds = bounds;
        bounds.hold(self.workers.staying().count())
    }

    /// Stops the newest workers if there are more than `workers`. Returns how many are missing, and the threads to wake.
    pub(super) fn resize(&mut self, workers: usize) -> (usize, Vec<Thread>) {
        if self.closed.is_some() {
            return (0, Vec::new());
        }
        self.workers.remove_failed();
        let staying = self.workers.staying().count();
        let stopped = self.workers.stop_newest(staying.saturating_sub(workers));
        (workers.saturating_sub(staying), stopped)
    }

    /// The device of the next worker.
    pub(super) fn next_device(&self) -> Device {
        self.workers.least_used(&self.model.settings.devices)
    }

    /// What demand asks for since this was last called.
    pub(super) fn look(&mut self, now: Instant) -> Look {
        if self.closed.is_some() {
            return Look::Closed;
        }
        let Some(bounds) = self.bounds.of_demand() else {
            return Look::Fixed;
        };
        let longest = self.model.settings.max_batch_delay + LONGEST_WAIT;
        let wait = self.batcher.oldest_wait(now);
        let busiest = self.workers.take_busiest();
        let demand = Demand {
            workers: self.workers.staying().count(),
            is_loading: self.workers.staying().any(Worker::is_loading),
            busiest,
            is_pressing: wait.is_some_and(|wait| wait > longest),
        };
        Look::Demand(demand, bounds)
    }

    /// Whether all of these workers are ready or gone again; the error of the last that failed.
    pub(super) fn are_ready(&self, ids: &[u32]) -> Result<bool, Error> {
        if let Some(error) = &self.closed {
            return Err(error.clone());
        }
        match &self.last_error {
            Some(error) if self.workers.has_any_failed(ids) => Err(error.clone()),
            _ => Ok(!self.workers.is_any_loading(ids)),
        }
    }

    /// Whether a worker is ready; the reason if none is going to be.
    pub(super) fn is_any_ready(&self) -> Result<bool, Error> {
        if let Some(error) = &self.closed {
            return Err(error.clone());
        }
        if !self.has_workers() {
            let error = self.last_error.clone();
            return Err(error.unwrap_or_else(|| no_worker(&self.model)));
        }
        Ok(self.workers.staying().any(Worker::is_ready))
    }

    /// Asks overdue runs to end and removes the workers whose run did not.
    pub(super) fn end_overdue_runs(&mut self, now: Instant) -> Overdue {
        self.workers.interrupt_overdue(now);
        let longest = self.model.settings.response_timeout;
        let mut left_behind = Vec::new();
        let mut has_changed = false;
        for id in self.workers.unending(longest, now) {
            if self.left_behind < MOST_LEFT_BEHIND && !self.workers.take_turns() {
                left_behind.extend(self.leave_behind(id, now));
            } else {
                has_changed |= self.mark_unending(id, now);
            }
        }
        Overdue {
            has_changed: has_changed || !left_behind.is_empty(),
            left_behind,
            pause: self.workers.until_overdue(now),
        }
    }

    fn leave_behind(&mut self, id: u32, now: Instant) -> Option<LeftBehind> {
        let worker = self.workers.remove(id)?;
        let took = worker.run_age(now);
        self.forget_ended_runs();
        self.left_behind += 1;
        self.last_error = Some(worker_died(&took_too_long(took)));
        // Whichever thread the run is on: no further one is to hold a tokio thread.
        self.pace.forbid_short();
        Some(LeftBehind {
            id,
            took,
            is_replaced: !worker.is_stopping() && self.closed.is_none(),
            worker,
        })
    }

    /// Notes that a run does not end and that its worker cannot be replaced. Returns whether that was not known.
    fn mark_unending(&mut self, id: u32, now: Instant) -> bool {
        let worker = self.workers.worker(id);
        let Some(took) = worker.and_then(|worker| worker.mark_unending(now)) else {
            return false;
        };
        let text = took_too_long(took);
        tracing::error!(worker = id, "{text}, and its worker cannot be replaced");
        self.unending = Some(worker_died(&text));
        true
    }

    fn forget_ended_runs(&mut self) {
        if self.unending.is_some() && !self.workers.has_unending_run() {
            self.unending = None;
        }
    }

    /// Notes whether a worker takes jobs.
    pub(super) fn note_readiness(&mut self, now: Instant) {
        self.without_worker_since = match self.ready_workers() {
            0 => self.without_worker_since.or(Some(now)),
            _ => None,
        };
    }

    /// How many workers take jobs.
    pub(super) fn ready_workers(&self) -> usize {
        self.workers.ready()
    }

    /// Since when no worker takes jobs.
    pub(super) const fn without_worker_since(&self) -> Option<Instant> {
        self.without_worker_since
    }

    pub(super) fn statuses(&self, pid: u32, memory: u64) -> Vec<WorkerStatus> {
        self.workers.statuses(pid, memory)
    }

    pub(super) fn last_error(&self) -> Option<Error> {
        self.last_error.clone()
    }

    /// Whether the threads of all workers have nothing more to do.
    pub(super) fn have_all_ended(&self) -> bool {
        self.workers.have_all_failed()
    }

    /// Why the device or the process is lost, if it is.
    pub(super) fn lost(&self) -> Option<&Error> {
        let closed = self.closed.as_ref();
        closed.filter(|error| error.kind() == Kind::WorkerDied)
    }

    /// Why the process should end, if it should.
    pub(super) fn should_exit(&self) -> Option<&Error> {
        self.lost().or(self.unending.as_ref())
    }

    #[cfg(test)]
    pub(super) const fn workers(&self) -> &Workers {
        &self.workers
    }

    #[cfg(test)]
    pub(super) const fn pace(&self) -> &Pace {
        &self.pace
    }

    #[cfg(test)]
    pub(super) const fn left_behind_mut(&mut self) -> &mut usize {
        &mut self.left_behind
    }
}

impl Runner {
    pub(super) fn of(thread: Option<Thread>) -> Self {
        thread.map_or(Self::Nobody, Self::Worker)
    }
}

fn took_too_long(took: Duration) -> String {
    format!(
        "a run has taken {} s, which is more than its requests were given",
        took.as_secs()
    )
}

#[cfg(test)]
mod tests;
