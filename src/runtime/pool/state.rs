//! What the pool's lock guards: the jobs that wait, the workers, and who runs the next batch.
//!
//! It decides and returns what is to be done: whom to wake for a batch, whether to start an inline run, how many workers to
//! start, whom to answer. It takes no lock, starts no thread and runs nothing, so that it can be tested without them.

use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::pace::Pace;
use super::scale::{Bounds, Demand, LONGEST_WAIT};
use super::session::{Condition, RunResult, WorkerSession};
use super::workers::{Phase, Worker, Workers};
use crate::error::{Error, Kind};
use crate::model::ModelSpec;
use crate::runtime::WorkerState;
use crate::runtime::batcher::{Batcher, BatcherConfig, Job};
use crate::runtime::failures::{no_worker, worker_lost};
use crate::runtime::inline_runs::LONG;

/// At most this many runs are left behind at a time: their threads cannot be ended.
pub(super) const MOST_LEFT_BEHIND: usize = 2;

/// What the pool's lock guards.
pub(super) struct State {
    model: Arc<ModelSpec>,
    pub(super) batcher: Batcher,
    pub(super) workers: Workers,
    pub(super) pace: Pace,
    /// Why no job is accepted any more.
    pub(super) closed: Option<Error>,
    /// The last failure of a worker.
    pub(super) last_error: Option<Error>,
    /// Since when no worker takes jobs.
    pub(super) without_worker_since: Option<Instant>,
    /// The bounds within which demand decides on the number of workers.
    pub(super) bounds: Bounds,
    /// An inline run was called for and has not begun yet.
    pub(super) is_inline_run_coming: bool,
    /// Runs that were left behind and have not ended.
    pub(super) left_behind: usize,
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
    /// End. The worker is to be dropped without the lock, and jobs to be answered that no worker is left for. `None` if the
    /// worker's run was left behind.
    End(Option<(Worker, Vec<Job>)>),
}

impl State {
    /// Without workers and jobs. Nothing is stacked before it is known whether that is right.
    pub(super) fn new(model: Arc<ModelSpec>) -> Self {
        let settings = &model.settings;
        let batcher = Batcher::new(BatcherConfig {
            batch_size: 1,
            max_batch_elements: settings.max_batch_elements,
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
        match &self.closed {
            Some(error) => Err(error.clone()),
            None if self.has_workers() => Ok(()),
            None => Err(no_worker(&self.model)),
        }
    }

    /// Whether a session is idle and a batch need not wait for more jobs.
    pub(super) fn has_next_run(&self, now: Instant) -> bool {
        self.workers.is_any_runnable() && self.batcher.is_ready(now)
    }

    /// Whether the next run is expected to be short. On trial, several jobs make a run each and one more.
    pub(super) fn expects_short_run(&self, is_trial: bool, now: Instant) -> bool {
        let is_one_run = self.batcher.len() <= 1 || !is_trial;
        let mut runs = self.workers.runs();
        self.pace.is_short() && is_one_run && !runs.any(|(_, run)| run.age(now) >= LONG)
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

    /// Decides which worker's thread is woken for the next batch.
    pub(super) fn wake_worker(&mut self, now: Instant) -> Option<Thread> {
        let is_ready = self.batcher.is_ready(now);
        is_ready.then(|| self.workers.wake_one()).flatten()
    }

    /// Decides which workers' threads are woken for all batches, because an inline run that was called for may be stuck.
    pub(super) fn wake_workers(&mut self, now: Instant) -> Vec<Thread> {
        self.is_inline_run_coming = false;
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
        let fill = |batch: &mut _| self.batcher.take(now, batch);
        self.workers.start_run(of, now, fill)
    }

    /// Takes the session back after a run. Jobs that were not answered are run again, one by one. Returns whether the run had
    /// counted as one that does not end. If it was left behind, the session is returned: it is not used again, and is to be
    /// dropped without the lock.
    pub(super) fn end_run(
        &mut self,
        id: u32,
        mut session: WorkerSession,
        result: &RunResult,
    ) -> Result<bool, WorkerSession> {
        self.pace.note(result.infer);
        if let Condition::Fatal(text) = &result.condition {
            self.last_error = Some(worker_lost(text));
        }
        let Some(worker) = self.workers.worker(id) else {
            self.left_behind -= 1;
            return Err(session);
        };
        let was_unending = worker.run().is_some_and(|run| run.is_unending);
        self.batcher.push_back_alone(session.batch.drain(..));
        worker.end_run(session, &result.condition);
        self.note_unending_runs();
        Ok(was_unending)
    }

    /// What a worker's thread has to do.
    pub(super) fn next_order(&mut self, id: u32, now: Instant) -> Order {
        let Some(worker) = self.workers.worker(id) else {
            return Order::End(None);
        };
        worker.note_awake();
        if worker.is_stopping && !worker.is_busy() {
            return Order::End(self.dismiss(id));
        }
        if let Some(session) = worker.take_broken_session() {
            return Order::Rebuild(session);
        }
        match self.start_run(Some(id), now) {
            Some((_, session)) => Order::Run(session, now),
            None => Order::Sleep(self.wait_until_due(id)),
        }
    }

    /// Removes a worker. Another one is woken for the jobs that wait.
    fn dismiss(&mut self, id: u32) -> Option<(Worker, Vec<Job>)> {
        let worker = self.workers.remove(id)?;
        if !self.batcher.is_empty()
            && let Some(thread) = self.workers.wake_one()
        {
            thread.unpark();
        }
        Some((worker, self.take_unserved()))
    }

    /// Where batches wait to be full, one idle worker sleeps no longer than until the oldest job is due.
    pub(super) fn wait_until_due(&mut self, id: u32) -> Option<Instant> {
        if !self.batcher.waits_for_full_batches() || self.workers.is_any_waiting_until_due() {
            return None;
        }
        let due = self.batcher.next_due()?;
        self.workers.wait_until_due(id).then_some(due)
    }

    /// Makes the new session of a worker available.
    pub(super) fn set_session(&mut self, id: u32, session: WorkerSession) {
        if let Some(worker) = self.workers.worker(id) {
            worker.set_session(session);
        }
    }

    /// Notes that a worker cannot serve. Returns whether it is to stay.
    pub(super) fn set_failed(&mut self, id: u32) -> bool {
        let worker = self.workers.worker(id);
        worker.is_some_and(|worker| {
            worker.phase = Phase::Failed;
            !worker.is_stopping
        })
    }

    /// Takes the jobs that no worker is left for.
    pub(super) fn take_unserved(&mut self) -> Vec<Job> {
        if self.has_workers() {
            return Vec::new();
        }
        self.batcher.take_all()
    }

    fn has_workers(&self) -> bool {
        self.workers.staying().next().is_some()
    }

    /// Accepts no more jobs and stops all workers after their run. Returns the jobs that wait.
    pub(super) fn close(&mut self, reason: &Error) -> Vec<Job> {
        self.closed.get_or_insert_with(|| reason.clone());
        self.workers.stop_all();
        self.batcher.take_all()
    }

    /// Stops the newest workers if there are more than `workers`. Returns how many are missing.
    pub(super) fn resize(&mut self, workers: usize) -> usize {
        if self.closed.is_some() {
            return 0;
        }
        self.workers.remove_failed();
        let staying = self.workers.staying().count();
        self.workers.stop_newest(staying.saturating_sub(workers));
        workers.saturating_sub(staying)
    }

    /// The demand since this was last called.
    pub(super) fn demand(&mut self, now: Instant) -> Demand {
        let longest = self.model.settings.max_batch_delay + LONGEST_WAIT;
        let wait = self.batcher.oldest_wait(now);
        let busiest = self.workers.take_busiest();
        let is_loading = |worker: &Worker| worker.state() == WorkerState::Loading;
        Demand {
            workers: self.workers.staying().count(),
            is_loading: self.workers.staying().any(is_loading),
            busiest,
            is_pressing: wait.is_some_and(|wait| wait > longest),
        }
    }

    /// Whether none of these workers loads the model any more; the reason if one of them failed.
    pub(super) fn are_ready(&self, ids: &[u32]) -> Result<bool, Error> {
        if let Some(error) = &self.closed {
            return Err(error.clone());
        }
        let meant = || self.workers.iter().filter(|one| ids.contains(&one.id));
        match &self.last_error {
            Some(error) if meant().any(Worker::has_failed) => Err(error.clone()),
            _ => Ok(meant().all(|one| one.state() != WorkerState::Loading || one.is_stopping)),
        }
    }

    /// Whether a worker is ready; the reason if none is going to be.
    pub(super) fn is_any_ready(&self) -> Result<bool, Error> {
        match (&self.closed, &self.last_error) {
            (Some(error), _) => Err(error.clone()),
            (None, Some(error)) if !self.has_workers() => Err(error.clone()),
            (None, None) if !self.has_workers() => Err(no_worker(&self.model)),
            _ => Ok(self
                .workers
                .staying()
                .any(|worker| worker.state() == WorkerState::Ready)),
        }
    }

    /// Asks overdue runs to end and removes the workers whose run did not. Returns these, and whether the state of another
    /// worker changed.
    pub(super) fn end_overdue_runs(&mut self, now: Instant) -> (Vec<Worker>, bool) {
        self.workers.interrupt_overdue(now);
        let longest = self.model.settings.response_timeout;
        let (mut removed, mut has_changed) = (Vec::new(), false);
        for id in self.workers.unending(longest, now) {
            if self.left_behind < MOST_LEFT_BEHIND && !self.workers.take_turns {
                removed.extend(self.leave_behind(id, now));
            } else {
                has_changed |= self.mark_unending(id, now);
            }
        }
        (removed, has_changed)
    }

    fn leave_behind(&mut self, id: u32, now: Instant) -> Option<Worker> {
        let worker = self.workers.remove(id)?;
        let took = worker.run().map(|run| run.age(now)).unwrap_or_default();
        tracing::error!(model = %self.model.name, worker = id, seconds = took.as_secs(),
            "a run does not end, and nobody waits for it: its worker is replaced");
        self.note_unending_runs();
        self.left_behind += 1;
        self.last_error = Some(worker_lost(&took_too_long(took)));
        // Whichever thread the run is on: no further one is to hold a tokio thread.
        self.pace.forbid_short();
        Some(worker)
    }

    /// Notes that a run does not end and that its worker cannot be replaced. Returns whether that was not known.
    fn mark_unending(&mut self, id: u32, now: Instant) -> bool {
        let run = self.workers.worker(id).and_then(Worker::run_mut);
        let Some(run) = run.filter(|run| !run.is_unending) else {
            return false;
        };
        run.is_unending = true;
        let text = took_too_long(run.age(now));
        tracing::error!(worker = id, "{text}, and its worker cannot be replaced");
        self.unending = Some(worker_lost(&text));
        true
    }

    fn note_unending_runs(&mut self) {
        if self.unending.is_some() && !self.workers.runs().any(|(_, run)| run.is_unending) {
            self.unending = None;
        }
    }

    /// Notes whether a worker takes jobs.
    pub(super) fn note_readiness(&mut self, now: Instant) {
        self.without_worker_since = match self.workers.ready() {
            0 => self.without_worker_since.or(Some(now)),
            _ => None,
        };
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
