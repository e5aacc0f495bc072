//! What the pool's lock guards: who waits, who is idle, and who is woken for whom. Decides; runs nothing.

use std::thread::{JoinHandle, Thread};
use std::time::Instant;

use super::no_worker;
use super::pace::LONG;
use super::scale::Bounds;
use super::session::{Condition, WorkerSession};
use super::worker::{Phase, Worker};
use crate::error::{Error, Kind};
use crate::model::ModelSpec;
use crate::runtime::WorkerState;
use crate::runtime::batcher::{Batcher, Job};

/// What the pool's lock guards.
pub(in crate::runtime) struct State {
    pub(in crate::runtime) batcher: Batcher,
    pub(in crate::runtime) workers: Vec<Worker>,
    pub(in crate::runtime) threads: Vec<JoinHandle<()>>,
    /// Why no job is taken any more, once it is so.
    pub(in crate::runtime) closed: Option<Error>,
    /// The last failure of a worker.
    pub(in crate::runtime) last_error: Option<Error>,
    /// Since when no worker takes jobs.
    pub(super) without_worker_since: Option<Instant>,
    /// Bounds within which demand decides on the number of workers.
    pub(in crate::runtime) bounds: Bounds,
    /// Most sessions in use at a time since it was last asked.
    pub(in crate::runtime) busiest: usize,
    /// A leader was called and has not come yet.
    pub(super) leader_called: bool,
    /// Workers of one device share a model that runs change: one of them runs at a time.
    pub(in crate::runtime) takes_turns: bool,
    /// Runs that were left behind and have not ended.
    pub(in crate::runtime) abandoned: usize,
    /// Why the process should end: a run does not, and its worker cannot be replaced.
    pub(in crate::runtime) runaway: Option<Error>,
}

impl State {
    pub(super) fn new(batcher: Batcher) -> Self {
        Self {
            batcher,
            workers: Vec::new(),
            threads: Vec::new(),
            closed: None,
            last_error: None,
            without_worker_since: None,
            bounds: Bounds::exactly(0),
            busiest: 0,
            leader_called: false,
            takes_turns: false,
            abandoned: 0,
            runaway: None,
        }
    }

    pub(in crate::runtime) fn worker(&mut self, id: u32) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|worker| worker.id == id)
    }

    /// Takes an idle session, `of` a certain worker or of any, with the batch that goes next in it.
    pub(in crate::runtime) fn check_out(
        &mut self,
        of: Option<u32>,
        now: Instant,
    ) -> Option<(u32, WorkerSession)> {
        let is_meant = |worker: &Worker| of.is_none_or(|id| worker.id == id);
        let mut workers = self.workers.iter();
        let place = workers.position(|worker| is_meant(worker) && self.may_run(worker))?;
        if self.batcher.is_empty() {
            return None;
        }
        let worker = &mut self.workers[place];
        let id = worker.id;
        let mut session = worker.take_session(now)?;
        self.batcher.take(now, &mut session.batch);
        if session.batch.is_empty() {
            worker.phase = Phase::Idle(session);
            return None;
        }
        if let Some(run) = worker.run_mut() {
            let expires = session.batch.iter().map(|job| job.expires).max();
            run.expires = expires.unwrap_or(now);
        }
        let busy = self.workers.iter().filter(|worker| worker.is_busy());
        self.busiest = self.busiest.max(busy.count());
        Some((id, session))
    }

    /// Puts a session back. Returns its worker's thread if that has to look after it.
    pub(super) fn check_in(
        &mut self,
        id: u32,
        session: WorkerSession,
        condition: &Condition,
    ) -> Option<Thread> {
        let worker = self.worker(id)?;
        worker.phase = match condition {
            Condition::Usable => Phase::Idle(session),
            Condition::Broken => Phase::Broken(session),
            Condition::Fatal(_) => Phase::Failed,
        };
        let is_wanted = worker.is_stopping || *condition != Condition::Usable;
        is_wanted.then(|| worker.thread.clone()).flatten()
    }

    /// Whether a run under way shows already that runs are not short.
    pub(super) fn has_long_run(&self, now: Instant) -> bool {
        let mut runs = self.workers.iter().filter_map(Worker::run);
        runs.any(|run| run.age(now) >= LONG)
    }

    /// Why the device or the process is lost, if it is.
    pub(super) fn lost(&self) -> Option<&Error> {
        let closed = self.closed.as_ref();
        closed.filter(|error| error.kind() == Kind::WorkerDied)
    }

    /// Why the process should end, if it should.
    pub(super) fn beyond_help(&self) -> Option<&Error> {
        self.lost().or(self.runaway.as_ref())
    }

    /// Whether jobs are taken in; the reason if not.
    pub(super) fn admit(&self, model: &ModelSpec) -> Result<(), Error> {
        if let Some(error) = &self.closed {
            return Err(error.clone());
        }
        if self.has_workers() {
            return Ok(());
        }
        Err(no_worker(model))
    }

    /// Whether a job pushed now has a worker to wait for.
    pub(super) fn has_workers(&self) -> bool {
        self.workers.iter().any(Worker::will_take_jobs)
    }

    /// How many workers take jobs.
    pub(super) fn workers_ready(&self) -> usize {
        let is_ready = |worker: &&Worker| worker.state() == WorkerState::Ready;
        self.workers.iter().filter(is_ready).count()
    }

    /// Takes note of whether a worker takes jobs.
    pub(super) fn note_readiness(&mut self, now: Instant) {
        self.without_worker_since = match self.workers_ready() {
            0 => self.without_worker_since.or(Some(now)),
            _ => None,
        };
    }

    /// Takes the jobs that have no worker to wait for any more.
    pub(in crate::runtime) fn take_stranded(&mut self) -> Vec<Job> {
        if self.has_workers() {
            return Vec::new();
        }
        self.batcher.take_all()
    }

    /// Has an idle worker sleep only until the oldest job is due, where batches wait and no other worker does so.
    pub(in crate::runtime) fn watch(&mut self, id: u32) -> Option<Instant> {
        if !self.batcher.waits_for_full_batches() || self.workers.iter().any(|w| w.is_watching) {
            return None;
        }
        let due = self.batcher.next_due()?;
        let place = self.workers.iter().position(|worker| worker.id == id)?;
        if !self.may_run(&self.workers[place]) {
            return None;
        }
        self.workers[place].is_watching = true;
        Some(due)
    }

    pub(super) fn has_idle_session(&self) -> bool {
        self.workers.iter().any(|worker| self.may_run(worker))
    }

    /// Whether a worker's session may be taken: it is idle, and it is its turn where workers take turns.
    fn may_run(&self, worker: &Worker) -> bool {
        let is_in_its_way = |other: &Worker| other.is_busy() && other.device == worker.device;
        worker.is_idle() && !(self.takes_turns && self.workers.iter().any(is_in_its_way))
    }

    /// Calls a leader unless one is coming already; whether it did.
    pub(super) const fn call_leader(&mut self) -> bool {
        !std::mem::replace(&mut self.leader_called, true)
    }

    /// After a push: the thread to wake, unless as many are on their way as batches wait.
    pub(super) fn wake_for_push(&mut self, now: Instant) -> Option<Thread> {
        let on_their_way = self.workers.iter().filter(|worker| worker.is_woken).count();
        let is_watched = self.workers.iter().any(|worker| worker.is_watching);
        if is_watched && !self.batcher.is_ready(now) {
            return None;
        }
        if on_their_way > 0 && self.batcher.batches() <= on_their_way {
            return None;
        }
        self.wake_one()
    }

    pub(in crate::runtime) fn wake_one(&mut self) -> Option<Thread> {
        let sleeps = |worker: &Worker| self.may_run(worker) && !worker.is_woken;
        let place = self.workers.iter().position(sleeps)?;
        let worker = &mut self.workers[place];
        worker.is_woken = true;
        worker.thread.clone()
    }

    /// Marks every worker as stopping.
    pub(super) fn stop_all(&mut self) -> Vec<Thread> {
        let stop = |worker: &mut Worker| {
            worker.is_stopping = true;
            worker.thread.clone()
        };
        self.workers.iter_mut().filter_map(stop).collect()
    }
}
