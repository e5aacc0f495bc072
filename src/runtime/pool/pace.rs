//! How long runs of a model take, and whether that is short enough to run them inline.
//!
//! An inline run holds up the other tasks of its tokio thread. It pays where a run costs less than waking a worker's thread
//! and being woken by it, some 80 to 100 µs together, and does no harm where it ends before other tasks notice. So runs
//! count as short while their moving average is below [`SHORT`]; one run of [`LONG`] or more ends that at once.
//!
//! The average is an estimate from runs that have ended, and inputs decide how long the next one takes. The pool does not
//! wait for the end of a long run to correct the estimate ([`super`]), and [`crate::runtime::inline_runs`] takes care of
//! the thread that such a run is on.

use std::time::Duration;

use crate::runtime::inline_runs::LONG;

/// Runs are short if they take less than this on average.
const SHORT: Duration = Duration::from_micros(200);
/// A run that takes less than this costs no more than yielding to other tasks first.
const TRIVIAL: Duration = Duration::from_micros(5);
/// Longer runs count as this long, so that one that was preempted does not outweigh a hundred that were not.
const CLIP: u32 = 400_000;
/// The latest run has a weight of one in this many.
const WINDOW: u32 = 16;

/// A moving average of run times.
#[derive(Debug)]
pub(super) struct Pace {
    average_nanos: u32,
    may_be_short: bool,
}

impl Pace {
    /// No run is known yet, so the next one is not expected to be short. It never is unless `may_be_short`.
    pub(super) const fn new(may_be_short: bool) -> Self {
        Self {
            average_nanos: CLIP,
            may_be_short,
        }
    }

    /// Whether the next run is expected to be short.
    pub(super) fn is_short(&self) -> bool {
        self.may_be_short && self.average() < SHORT
    }

    /// Expects no short run from now on.
    pub(super) const fn forbid_short(&mut self) {
        self.may_be_short = false;
    }

    /// Whether a larger batch saves more than yielding to the tasks that would join it costs.
    pub(super) fn is_worth_yielding(&self) -> bool {
        self.average() >= TRIVIAL
    }

    /// Adds a run to the average.
    pub(super) fn note(&mut self, run: Duration) {
        let average = self.average_nanos;
        self.average_nanos = if run >= LONG {
            CLIP
        } else {
            average - average / WINDOW + clipped(run) / WINDOW
        };
    }

    /// Starts the average from a run that is known to be typical, as the last one of a warm-up is.
    pub(super) fn set(&mut self, run: Duration) {
        self.average_nanos = clipped(run);
    }

    fn average(&self) -> Duration {
        Duration::from_nanos(self.average_nanos.into())
    }
}

fn clipped(run: Duration) -> u32 {
    u32::try_from(run.as_nanos()).map_or(CLIP, |nanos| nanos.min(CLIP))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(20);

    fn quick() -> Pace {
        let mut pace = Pace::new(true);
        pace.set(QUICK);
        pace
    }

    #[test]
    fn runs_are_not_short_before_many_were() {
        let mut pace = Pace::new(true);
        let needed = (0..100).find(|_| {
            pace.note(QUICK);
            pace.is_short()
        });
        assert!(matches!(needed, Some(8..=20)), "{needed:?}");
    }

    #[test]
    fn a_preempted_run_is_forgiven_and_a_long_one_is_not() {
        let mut pace = quick();
        pace.note(Duration::from_millis(3));
        assert!(pace.is_short());
        pace.note(LONG);
        assert!(!pace.is_short());
    }

    #[test]
    fn yielding_is_worth_it_unless_runs_are_trivial() {
        let mut pace = quick();
        assert!(pace.is_worth_yielding());
        pace.set(Duration::from_micros(2));
        assert!(!pace.is_worth_yielding());
    }

    #[test]
    fn slow_runs_end_it_within_a_few() {
        let mut pace = quick();
        let needed = (0..100).find(|_| {
            pace.note(Duration::from_millis(1));
            !pace.is_short()
        });
        assert!(matches!(needed, Some(0..=15)), "{needed:?}");
    }

    #[test]
    fn after_a_run_that_did_not_end_none_is_short() {
        let mut pace = quick();
        pace.forbid_short();
        pace.set(QUICK);
        assert!(!pace.is_short());
    }

    #[test]
    fn runs_that_must_not_be_short_never_are() {
        let mut pace = Pace::new(false);
        pace.set(QUICK);
        assert!(!pace.is_short());
    }
}
