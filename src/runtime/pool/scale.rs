//! How many workers a version should have: what was ordered, and what demand asks for within those bounds.

use std::time::Duration;

/// How often demand is looked at.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// A job that waits longer than this, beyond the delay that the operator grants, has waited too long.
pub(super) const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// A worker is added when a job has waited too long in this many ticks in a row, so that a burst does not count as demand.
const TICKS_TO_GROW: u32 = 3;
/// A worker is stopped when one was not needed in this many ticks in a row, which is half a minute.
const TICKS_TO_SHRINK: u32 = 300;

/// How many workers a version may have. Demand decides between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// `min_worker`: this many are started.
    pub min: usize,
    /// `max_worker`: at least `min`.
    pub max: usize,
}

impl Bounds {
    /// This many workers, whatever the demand is.
    pub const fn exactly(workers: usize) -> Self {
        Self {
            min: workers,
            max: workers,
        }
    }

    /// The number within the bounds that is nearest to `workers`.
    pub(crate) fn hold(self, workers: usize) -> usize {
        workers.clamp(self.min, self.max)
    }

    /// The bounds for demand, which never stops the last worker: it could not start it again, as nothing waits for a version
    /// without workers. `None` if there is nothing to decide.
    pub(super) fn of_demand(self) -> Option<Self> {
        let min = self.min.max(1);
        (min < self.max).then_some(Self { min, ..self })
    }
}

/// The demand since the last tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Demand {
    /// Workers that are ready or loading.
    pub(super) workers: usize,
    /// Whether one of them is loading.
    pub(super) is_loading: bool,
    /// The most sessions that were in use at a time.
    pub(super) busiest: usize,
    /// Whether a job has waited too long.
    pub(super) is_pressing: bool,
}

/// Decides on the number of workers. It adds one when jobs have waited too long for a while, and stops one when one was not
/// needed for much longer, so that the number does not swing.
#[derive(Debug, Default)]
pub(super) struct Scaler {
    pressing_ticks: u32,
    slack_ticks: u32,
}

impl Scaler {
    /// The number of workers there should be.
    pub(super) fn decide(&mut self, demand: Demand, bounds: Bounds) -> usize {
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

const fn count(holds: bool, ticks: u32) -> u32 {
    if holds { ticks + 1 } else { 0 }
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
