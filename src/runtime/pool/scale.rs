//! How many workers there are: on order, and by demand between the version's bounds.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::worker::{Phase, Worker};
use super::{Pool, State};
use crate::error::Error;
use crate::runtime::WorkerState;

/// How often demand is looked at.
const TICK: Duration = Duration::from_millis(100);
/// Looks in a row at which a job has waited too long before a worker is added: a burst is not demand.
const TICKS_TO_GROW: u32 = 3;
/// Looks in a row at which a worker was never needed before one is taken away: half a minute.
const TICKS_TO_SHRINK: u32 = 300;
/// A job that waits longer than this, beyond the delay the operator grants, has waited too long.
const PRESSING_WAIT: Duration = Duration::from_millis(50);

/// How many workers a version may have; between the two, demand decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// `min_worker`: as many are started.
    pub min: usize,
    /// `max_worker`: at least `min`.
    pub max: usize,
}

impl Bounds {
    /// So many workers, whatever demand is.
    pub const fn exactly(workers: usize) -> Self {
        Self {
            min: workers,
            max: workers,
        }
    }

    /// The number within bounds that is nearest to `workers`.
    pub(crate) fn hold(self, workers: usize) -> usize {
        workers.clamp(self.min, self.max)
    }

    /// Bounds within which demand decides: it never takes the last worker, which only demand could bring back.
    /// `None` where they leave it no choice.
    fn of_demand(self) -> Option<Self> {
        let min = self.min.max(1);
        (min < self.max).then_some(Self { min, ..self })
    }
}

/// What demand looked like since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Demand {
    /// Workers that are ready or loading.
    workers: usize,
    /// Whether one is loading.
    is_loading: bool,
    /// Most sessions in use at a time.
    busiest: usize,
    /// Whether a job has waited too long.
    is_pressing: bool,
}

/// Decides on the number of workers. Adds one when jobs have been waiting for a while, takes one away when one was
/// not needed for much longer; so it does not swing.
#[derive(Debug, Default)]
struct Scaler {
    pressing_ticks: u32,
    slack_ticks: u32,
}

impl Scaler {
    /// The number of workers there should be.
    fn decide(&mut self, demand: Demand, bounds: Bounds) -> usize {
        let Demand { workers, .. } = demand;
        let has_slack = demand.busiest < workers && !demand.is_pressing;
        self.pressing_ticks = count(demand.is_pressing, self.pressing_ticks);
        self.slack_ticks = count(has_slack, self.slack_ticks);
        let wanted = if self.pressing_ticks >= TICKS_TO_GROW && !demand.is_loading {
            workers + 1
        } else if self.slack_ticks >= TICKS_TO_SHRINK {
            workers.saturating_sub(1)
        } else {
            return workers;
        };
        *self = Self::default();
        bounds.hold(wanted)
    }
}

fn count(is_so: bool, ticks: u32) -> u32 {
    if is_so { ticks + 1 } else { 0 }
}

impl Pool {
    /// Starts or stops workers until there are as many as `bounds` allow; waits until the new ones are ready. The
    /// first that does not load is the error, and is off the list at the next call.
    pub(crate) async fn scale(self: &Arc<Self>, bounds: Bounds) -> Result<(), Error> {
        let mut changes = self.changes();
        let started = self.launch(bounds);
        while !self.state.lock().are_ready(&started)? {
            if changes.changed().await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Starts or stops workers until there are as many as `bounds` allow, which demand keeps to from now on; returns
    /// the ids of new ones.
    pub(crate) fn launch(self: &Arc<Self>, bounds: Bounds) -> Vec<u32> {
        let mut state = self.state.lock();
        state.bounds = bounds;
        let workers = bounds.hold(state.staying().count());
        let started = self.resize(&mut state, workers);
        drop(state);
        self.announce();
        started
    }

    /// Waits until a worker is ready; an error if none is going to be.
    pub(crate) async fn first_ready(&self) -> Result<(), Error> {
        let mut changes = self.changes();
        while !self.state.lock().is_any_ready(&self.model)? {
            if changes.changed().await.is_err() {
                break;
            }
        }
        Ok(())
    }

    fn resize(self: &Arc<Self>, state: &mut State, workers: usize) -> Vec<u32> {
        if state.closed.is_some() {
            return Vec::new();
        }
        state
            .workers
            .retain(|worker| !matches!(worker.phase, Phase::Failed));
        let staying = state.staying().count();
        state.stop(staying.saturating_sub(workers));
        (staying..workers)
            .map(|_| self.start_worker(state))
            .collect()
    }

    /// Follows demand, whenever the bounds leave it a choice, until the pool is closed or gone.
    pub(crate) fn follow_demand(self: &Arc<Self>) {
        let patience = self.model.settings.max_batch_delay + PRESSING_WAIT;
        tokio::spawn(follow(Arc::downgrade(self), self.changes(), patience));
    }

    fn look(self: &Arc<Self>, scaler: &mut Scaler, patience: Duration) -> Sight {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            return Sight::Gone;
        }
        let Some(bounds) = state.bounds.of_demand() else {
            *scaler = Scaler::default();
            return Sight::NoChoice;
        };
        let demand = state.demand(patience, Instant::now());
        let wanted = scaler.decide(demand, bounds);
        if wanted != demand.workers {
            tracing::info!(
                model = %self.model.name,
                from = demand.workers,
                to = wanted,
                "the number of workers follows demand"
            );
            self.resize(&mut state, wanted);
        }
        Sight::Choice
    }
}

/// What a look at the pool found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// Demand decides; it is to be looked at again soon.
    Choice,
    /// The bounds fix the number, until they change.
    NoChoice,
    /// The pool takes no more jobs.
    Gone,
}

async fn follow(pool: Weak<Pool>, mut changes: watch::Receiver<u64>, patience: Duration) {
    let mut scaler = Scaler::default();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let look = |pool: Arc<Pool>| pool.look(&mut scaler, patience);
        match pool.upgrade().map_or(Sight::Gone, look) {
            Sight::Choice => {}
            // New bounds are announced as changes of workers are, so a fixed pool costs no ticks.
            Sight::NoChoice if changes.changed().await.is_ok() => {}
            Sight::NoChoice | Sight::Gone => return,
        }
    }
}

impl State {
    fn staying(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter().filter(|worker| worker.will_take_jobs())
    }

    /// Marks the `surplus` newest workers as stopping.
    fn stop(&mut self, surplus: usize) {
        let workers = self.workers.iter_mut().rev();
        let staying = workers.filter(|worker| worker.will_take_jobs());
        for worker in staying.take(surplus) {
            worker.is_stopping = true;
            if let Some(thread) = &worker.thread {
                thread.unpark();
            }
        }
    }

    /// Whether all of these workers are ready or gone again; the error of the first that failed.
    fn are_ready(&self, ids: &[u32]) -> Result<bool, Error> {
        let workers = self.workers.iter();
        let mut meant = workers.filter(|worker| ids.contains(&worker.id));
        if let Some(error) = &self.closed {
            return Err(error.clone());
        }
        if meant.clone().any(|w| matches!(w.phase, Phase::Failed))
            && let Some(error) = &self.last_error
        {
            return Err(error.clone());
        }
        Ok(meant.all(|worker| worker.state() != WorkerState::Loading || worker.is_stopping))
    }

    fn is_any_ready(&self, model: &crate::model::ModelSpec) -> Result<bool, Error> {
        if let Some(error) = &self.closed {
            return Err(error.clone());
        }
        if self.staying().next().is_none() {
            let error = self.last_error.clone();
            return Err(error.unwrap_or_else(|| super::no_worker(model)));
        }
        Ok(self
            .staying()
            .any(|worker| worker.state() == WorkerState::Ready))
    }

    fn demand(&mut self, patience: Duration, now: Instant) -> Demand {
        let busy = self
            .workers
            .iter()
            .filter(|worker| worker.is_busy())
            .count();
        let busiest = std::mem::replace(&mut self.busiest, busy);
        let wait = self.batcher.oldest_wait(now);
        Demand {
            workers: self.staying().count(),
            is_loading: self.staying().any(|w| w.state() == WorkerState::Loading),
            busiest,
            is_pressing: wait.is_some_and(|wait| wait > patience),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { min: 1, max: 3 };

    fn demand(workers: usize, busiest: usize, is_pressing: bool) -> Demand {
        Demand {
            workers,
            is_loading: false,
            busiest,
            is_pressing,
        }
    }

    /// Ticks until the scaler wants another number than there is, and the number.
    fn change(scaler: &mut Scaler, demand: Demand) -> Option<(u32, usize)> {
        (1..=2 * TICKS_TO_SHRINK).find_map(|tick| {
            let wanted = scaler.decide(demand, BOUNDS);
            (wanted != demand.workers).then_some((tick, wanted))
        })
    }

    #[test]
    fn waiting_jobs_add_one_worker_at_a_time_up_to_the_ceiling() {
        let mut scaler = Scaler::default();
        for workers in 1..3 {
            let grown = change(&mut scaler, demand(workers, workers, true));
            assert_eq!(grown, Some((TICKS_TO_GROW, workers + 1)));
        }
        assert_eq!(change(&mut scaler, demand(3, 3, true)), None);
    }

    #[test]
    fn a_burst_adds_no_worker() {
        let mut scaler = Scaler::default();
        for tick in 0..100 {
            let is_pressing = tick % TICKS_TO_GROW != 0;
            assert_eq!(scaler.decide(demand(1, 1, is_pressing), BOUNDS), 1);
        }
    }

    #[test]
    fn no_worker_is_added_while_one_loads() {
        let mut scaler = Scaler::default();
        let loading = Demand {
            is_loading: true,
            ..demand(2, 1, true)
        };
        assert_eq!(change(&mut scaler, loading), None);
        assert_eq!(scaler.decide(demand(2, 2, true), BOUNDS), 3);
    }

    #[test]
    fn unneeded_workers_go_one_at_a_time_down_to_the_floor() {
        let mut scaler = Scaler::default();
        for workers in [3, 2] {
            let shrunk = change(&mut scaler, demand(workers, 1, false));
            assert_eq!(shrunk, Some((TICKS_TO_SHRINK, workers - 1)));
        }
        assert_eq!(change(&mut scaler, demand(1, 0, false)), None);
    }

    #[test]
    fn one_busy_moment_keeps_the_worker() {
        let mut scaler = Scaler::default();
        for tick in 0..4 * TICKS_TO_SHRINK {
            let busiest = if tick % (TICKS_TO_SHRINK - 1) == 0 {
                2
            } else {
                1
            };
            assert_eq!(scaler.decide(demand(2, busiest, false), BOUNDS), 2);
        }
    }
}
