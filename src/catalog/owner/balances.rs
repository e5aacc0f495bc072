//! What an owner's processes used, beside what its requests say that they used: who says nothing pays all the same.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What worker processes used beyond what requests said of themselves, and beyond what their turns cost: not yet charged, or charged before it
/// was used. In nanoseconds.
#[derive(Debug)]
pub(super) struct Balances {
    pub(super) since: Instant,
    unpaid: AtomicI64,
    untold: AtomicI64,
    /// Requests that are computed, and the sum of the times when each began.
    under_way: Mutex<(u32, u128)>,
}

/// A request that is computed. It is counted until it is dropped.
pub(in crate::catalog) struct Computing<'a>(Option<(&'a Balances, u128)>);

impl<'a> Computing<'a> {
    /// One begins; where nothing is shared it is not counted.
    pub(super) fn begin(balances: Option<&'a Balances>) -> Self {
        Self(balances.map(|balances| (balances, balances.begin())))
    }
}

impl Drop for Computing<'_> {
    fn drop(&mut self) {
        if let Some((balances, begun)) = self.0 {
            let mut under_way = balances.under_way.lock();
            *under_way = (under_way.0 - 1, under_way.1 - begun);
        }
    }
}

impl Balances {
    /// What is charged too early and may count later, at most.
    const EARLY: i64 = 60_000_000_000;

    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            unpaid: AtomicI64::new(0),
            untold: AtomicI64::new(0),
            under_way: Mutex::default(),
        }
    }

    fn begin(&self) -> u128 {
        let now = self.since.elapsed().as_nanos();
        let mut under_way = self.under_way.lock();
        *under_way = (under_way.0 + 1, under_way.1 + now);
        now
    }

    pub(super) fn ended(&self, spent: Duration, cost: Duration) {
        for (balance, time) in [(&self.untold, spent), (&self.unpaid, cost)] {
            balance.fetch_sub(signed(time), Ordering::Relaxed);
        }
    }

    /// What of `cpu`, and of what was used before, nobody has accounted for or is going to: unpaid, and untold.
    pub(super) fn settle(&self, cpu: Duration) -> (Duration, Duration) {
        let (count, begun) = *self.under_way.lock();
        let expected = self.since.elapsed().as_nanos() * u128::from(count);
        let expected = expected.saturating_sub(begun);
        let expected = i64::try_from(expected).unwrap_or(i64::MAX);
        let rest = |balance: &AtomicI64| {
            let now = balance.fetch_add(signed(cpu), Ordering::Relaxed) + signed(cpu);
            let rest = now.saturating_sub(expected).max(0);
            let early = (-Self::EARLY - now).max(0);
            balance.fetch_add(early - rest, Ordering::Relaxed);
            Duration::from_nanos(rest.unsigned_abs())
        };
        (rest(&self.unpaid), rest(&self.untold))
    }
}

fn signed(time: Duration) -> i64 {
    // Sums stay far from the end of what fits.
    i64::try_from(time.as_nanos()).map_or(i64::MAX / 4, |nanos| nanos.min(i64::MAX / 4))
}
