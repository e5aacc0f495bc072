//! How long runs of a model take, and whether that is short enough to run them on the thread that is awake.
//!
//! A run on a tokio thread holds up the other tasks of that thread. It pays where a run costs less than waking a
//! worker's thread and being woken by it, some 80 to 100 µs together, and does no harm where it ends before other
//! tasks notice. So runs are short while their moving average is below [`SHORT`], and a single one beyond [`LONG`] ends
//! that at once.
//!
//! That is a guess from runs that have ended, and inputs decide how long the next one takes. The pool does not wait for
//! a long run's end to give the guess up ([`super`]), and what is done for the thread it is on is in
//! [`crate::runtime::inline_runs`].

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Runs below this, on average, are short.
const SHORT: Duration = Duration::from_micros(200);
/// Runs below this cost no more than letting other tasks go first.
const TRIVIAL: Duration = Duration::from_micros(5);
/// One run of this length proves that runs are not short.
pub(in crate::runtime) const LONG: Duration = Duration::from_millis(5);
/// Longer runs count as this long, so that one that was preempted does not outweigh a hundred that were not.
const CLIP: u32 = 400_000;
/// One over the weight of the latest run.
const WINDOW: u32 = 16;

/// A moving average of run times. Races between runs lose one of them, which does not matter.
#[derive(Debug)]
pub(crate) struct Pace {
    average_nanos: AtomicU32,
    may_be_short: AtomicBool,
}

impl Pace {
    /// Knows of no run yet, and so calls none short. Never does if not `may_be_short`.
    pub(crate) const fn new(may_be_short: bool) -> Self {
        Self {
            average_nanos: AtomicU32::new(CLIP),
            may_be_short: AtomicBool::new(may_be_short),
        }
    }

    /// Whether the next run may be expected to be short.
    pub(crate) fn is_short(&self) -> bool {
        self.may_be_short.load(Ordering::Relaxed) && self.average() < SHORT
    }

    /// Calls no run short any more: one did not end.
    pub(crate) fn forbid(&self) {
        self.may_be_short.store(false, Ordering::Relaxed);
    }

    /// Whether sharing a run saves more than waiting for company costs.
    pub(crate) fn is_worth_company(&self) -> bool {
        self.average() >= TRIVIAL
    }

    /// Takes a run into the average.
    pub(crate) fn note(&self, run: Duration) {
        let average = self.average_nanos.load(Ordering::Relaxed);
        let next = if run >= LONG {
            CLIP
        } else {
            let run = clipped(run);
            average - average / WINDOW + run / WINDOW
        };
        self.average_nanos.store(next, Ordering::Relaxed);
    }

    fn average(&self) -> Duration {
        Duration::from_nanos(self.average_nanos.load(Ordering::Relaxed).into())
    }

    /// Starts the average from a run that is known to be typical, as the last of a warm-up is.
    pub(crate) fn set(&self, run: Duration) {
        self.average_nanos.store(clipped(run), Ordering::Relaxed);
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
        let pace = Pace::new(true);
        pace.set(QUICK);
        pace
    }

    #[test]
    fn runs_are_not_short_before_many_were() {
        let pace = Pace::new(true);
        let needed = (0..100).find(|_| {
            pace.note(QUICK);
            pace.is_short()
        });
        assert!(matches!(needed, Some(8..=20)), "{needed:?}");
    }

    #[test]
    fn a_preempted_run_is_forgiven_and_a_long_one_is_not() {
        let pace = quick();
        pace.note(Duration::from_millis(3));
        assert!(pace.is_short());
        pace.note(LONG);
        assert!(!pace.is_short());
    }

    #[test]
    fn company_is_worth_it_unless_runs_are_trivial() {
        let pace = quick();
        assert!(pace.is_worth_company());
        pace.set(Duration::from_micros(2));
        assert!(!pace.is_worth_company());
    }

    #[test]
    fn slow_runs_end_it_within_a_few() {
        let pace = quick();
        let needed = (0..100).find(|_| {
            pace.note(Duration::from_millis(1));
            !pace.is_short()
        });
        assert!(matches!(needed, Some(0..=15)), "{needed:?}");
    }

    #[test]
    fn after_a_run_that_did_not_end_none_is_short() {
        let pace = quick();
        pace.forbid();
        pace.set(QUICK);
        assert!(!pace.is_short());
    }

    #[test]
    fn full_batches_never_run_on_the_thread_that_is_awake() {
        let pace = Pace::new(false);
        pace.set(QUICK);
        assert!(!pace.is_short());
    }
}
