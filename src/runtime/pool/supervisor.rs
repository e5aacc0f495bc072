//! The supervisor: starts and stops the workers of one version, on order and on demand, and replaces those whose run does
//! not end.
//!
//! A request is answered at its deadline, whatever its run does. The run may keep its worker for longer: it is asked to end
//! when the last of its requests has expired, which ONNX Runtime does between two operators and TorchScript does not.
//! Clients choose their deadlines, so a run that outlives a short one is no fault of its worker. If the run has taken
//! [`GRACE`](super::workers::GRACE) longer than the version's response timeout, it is left behind: its worker is replaced by
//! a new one on another thread, so that the other requests are served, and its result is dropped. The new worker has a new
//! id, since the old one's thread is still there, and what it does must not be taken for the new one's.
//!
//! Only the end of its process ends such a thread, which takes processor time and memory until then. So there are at most
//! [`MOST_LEFT_BEHIND`](super::state::MOST_LEFT_BEHIND) at a time. With one more a worker process ends, and the front has
//! its other requests answered by the next one; in the server's process the worker is replaced when another such run ends.
//!
//! Where workers take turns, because they share a model that runs change, another worker could not run either while such a
//! run continues. So it is not replaced, and a worker process ends at the first such run; what the model kept is lost.

use std::sync::{Arc, Weak};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::Pool;
use super::loader::Loader;
use super::scale::{Bounds, Scaler, TICK};
use super::state::State;
use super::worker::WorkerThread;
use super::workers::{CHECK_INTERVAL, Worker};
use crate::error::Error;
use crate::runtime::WorkerIds;
use crate::runtime::failures::{draining, load_failed};

/// The workers of one pool. Dropping it closes the pool.
pub(crate) struct WorkerSupervisor {
    pool: Arc<Pool>,
    loader: Arc<Loader>,
    ids: Arc<WorkerIds>,
    /// The threads of workers by id, those that ended a while ago left out. Locked after the pool's state.
    pub(super) threads: Mutex<Vec<(u32, JoinHandle<()>)>>,
}

impl WorkerSupervisor {
    /// Starts no worker yet.
    pub(crate) fn new(pool: Arc<Pool>, loader: Loader, ids: Arc<WorkerIds>) -> Arc<Self> {
        Arc::new(Self {
            pool,
            loader: Arc::new(loader),
            ids,
            threads: Mutex::default(),
        })
    }

    pub(crate) const fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Starts `bounds.min` workers and waits until the first is ready.
    pub(crate) async fn start(&self, bounds: Bounds) -> Result<(), Error> {
        if bounds.min == 0 {
            return Ok(());
        }
        self.launch(bounds);
        self.pool.first_ready().await
    }

    /// Starts or stops workers until there are as many as `bounds` allow; waits until the new ones are ready. If one does not
    /// load, that is the error, and the worker is off the list at the next call.
    pub(crate) async fn scale(&self, bounds: Bounds) -> Result<(), Error> {
        let started = self.launch(bounds);
        self.pool
            .wait_until(|state| state.are_ready(&started))
            .await
    }

    /// Adapts the number of workers to demand whenever the bounds leave a choice, until the pool is closed.
    pub(crate) fn follow_demand(self: &Arc<Self>) {
        tokio::spawn(follow_demand(Arc::downgrade(self), self.pool.changes()));
    }

    /// Ends or replaces overdue runs for as long as the supervisor exists.
    pub(crate) fn watch_overdue_runs(self: &Arc<Self>) {
        tokio::spawn(watch_overdue_runs(Arc::downgrade(self)));
    }

    /// Waits until all workers of a closed pool have ended, and joins their threads.
    pub(crate) async fn ended(&self) {
        let all_ended = |state: &State| Ok(state.workers.iter().all(Worker::has_failed));
        let _ = self.pool.wait_until(all_ended).await;
        let threads = std::mem::take(&mut *self.threads.lock());
        let join = move || {
            for (_, thread) in threads {
                let _ = thread.join();
            }
        };
        let _ = tokio::task::spawn_blocking(join).await;
    }

    /// Sets the bounds, and starts or stops workers. Returns the ids of new ones.
    fn launch(&self, bounds: Bounds) -> Vec<u32> {
        let mut state = self.pool.state.lock();
        state.bounds = bounds;
        let workers = bounds.hold(state.workers.staying().count());
        let started = self.resize(&mut state, workers);
        drop(state);
        self.pool.announce();
        started
    }

    fn resize(&self, state: &mut State, workers: usize) -> Vec<u32> {
        let missing = 0..state.resize(workers);
        missing.map(|_| self.start_worker(state)).collect()
    }

    /// Starts one more worker. Returns its id.
    fn start_worker(&self, state: &mut State) -> u32 {
        let id = self.ids.next();
        let devices = &self.pool.model.settings.devices;
        let device = state.workers.least_used(devices);
        let worker = WorkerThread {
            pool: Arc::clone(&self.pool),
            loader: Arc::clone(&self.loader),
            id,
            device,
        };
        let thread = match worker.spawn() {
            Ok(handle) => Some(self.keep_thread(id, handle)),
            Err(error) => {
                state.last_error = Some(load_failed("no thread could be started", &error));
                None
            }
        };
        state.workers.add(id, device, thread);
        id
    }

    fn keep_thread(&self, id: u32, handle: JoinHandle<()>) -> Thread {
        let thread = handle.thread().clone();
        let mut threads = self.threads.lock();
        threads.retain(|(_, thread)| !thread.is_finished());
        threads.push((id, handle));
        thread
    }

    /// Adapts the number of workers to demand once.
    fn adapt(&self, scaler: &mut Scaler) -> Scaling {
        let mut state = self.pool.state.lock();
        if state.closed.is_some() {
            return Scaling::Closed;
        }
        let Some(bounds) = state.bounds.of_demand() else {
            *scaler = Scaler::default();
            return Scaling::Fixed;
        };
        let demand = state.demand(Instant::now());
        let wanted = scaler.decide(demand, bounds);
        if wanted != demand.workers {
            tracing::info!(
                model = %self.pool.model.name,
                from = demand.workers,
                to = wanted,
                "the number of workers follows demand"
            );
            self.resize(&mut state, wanted);
        }
        Scaling::Demand
    }

    /// Asks overdue runs to end and replaces the workers whose run did not. Returns when to call this again.
    pub(super) fn end_overdue_runs(&self, now: Instant) -> Duration {
        let mut state = self.pool.state.lock();
        let (removed, has_changed) = state.end_overdue_runs(now);
        for worker in &removed {
            self.replace(worker, &mut state);
        }
        let has_left = !removed.is_empty();
        let unserved = has_left.then(|| state.take_unserved());
        let pause = state.workers.until_overdue(now);
        drop(state);
        self.pool.answer_unserved(unserved.unwrap_or_default());
        if has_left || has_changed {
            self.pool.announce();
        }
        pause
    }

    /// Starts another worker in the place of one that was removed, unless that was stopping.
    fn replace(&self, removed: &Worker, state: &mut State) {
        self.threads.lock().retain(|(id, _)| *id != removed.id);
        // If the run is on another thread, this one sleeps. It finds that its worker was removed, and ends.
        removed.unpark();
        if !removed.is_stopping && state.closed.is_none() {
            self.start_worker(state);
        }
    }
}

/// What decides on the number of workers.
enum Scaling {
    /// Demand decides on the number of workers.
    Demand,
    /// The bounds fix the number of workers until they change.
    Fixed,
    /// The pool accepts no more jobs.
    Closed,
}

impl Drop for WorkerSupervisor {
    fn drop(&mut self) {
        self.pool.close(&draining(&self.pool.model));
    }
}

async fn follow_demand(supervisor: Weak<WorkerSupervisor>, mut changes: watch::Receiver<u64>) {
    let mut scaler = Scaler::default();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let scaling = supervisor.upgrade().map(|one| one.adapt(&mut scaler));
        match scaling {
            Some(Scaling::Demand) => {}
            // New bounds are announced as changes of workers are, so that a fixed number costs no ticks.
            Some(Scaling::Fixed) if changes.changed().await.is_ok() => {}
            Some(Scaling::Fixed | Scaling::Closed) | None => return,
        }
    }
}

async fn watch_overdue_runs(supervisor: Weak<WorkerSupervisor>) {
    let mut pause = CHECK_INTERVAL;
    loop {
        tokio::time::sleep(pause).await;
        match supervisor.upgrade() {
            Some(supervisor) => pause = supervisor.end_overdue_runs(Instant::now()),
            None => return,
        }
    }
}
