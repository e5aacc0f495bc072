//! How much may come in a second: a bucket that empties at a steady rate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::nanos::nanos;

/// A second, in which rates are said.
const SECOND: u128 = 1_000_000_000;

/// How fast a bucket empties, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    /// What it empties by in a second; at least 1.
    pub(super) per_second: usize,
    /// What it holds; at least 1.
    pub(super) burst: usize,
}

impl Rate {
    /// One that lets in at once what it lets in in a second.
    pub(super) const fn even(per_second: usize) -> Self {
        Self {
            per_second,
            burst: per_second,
        }
    }

    /// How long it takes until `amount` is gone, in nanoseconds.
    fn time_of(self, amount: usize) -> u64 {
        let time = amount as u128 * SECOND / self.per_second.max(1) as u128;
        u64::try_from(time).unwrap_or(u64::MAX)
    }
}

/// A bucket. It is one number: when it is going to be empty, in nanoseconds of whoever asks. So it needs no lock, and its rate may change.
#[derive(Debug, Default)]
pub(super) struct Bucket(AtomicU64);

impl Bucket {
    /// Puts `amount` in at `now`; or says how long that has to wait. What is more than the bucket holds fits once it is empty.
    pub(super) fn put(&self, amount: usize, rate: Rate, now: Duration) -> Result<(), Duration> {
        let now = nanos(now);
        let (more, most) = (rate.time_of(amount), rate.time_of(rate.burst));
        let mut empty_at = self.0.load(Ordering::Relaxed);
        loop {
            let level = empty_at.saturating_sub(now);
            let over = level.saturating_add(more.min(most)).saturating_sub(most);
            if over > 0 {
                return Err(Duration::from_nanos(over));
            }
            let next = now.saturating_add(level).saturating_add(more);
            let swapped =
                self.0
                    .compare_exchange_weak(empty_at, next, Ordering::Relaxed, Ordering::Relaxed);
            match swapped {
                Ok(_) => return Ok(()),
                Err(other) => empty_at = other,
            }
        }
    }

    /// From now on what is in it goes at another rate; without a rate before or from now on it is empty.
    pub(super) fn change(&self, before: Option<Rate>, after: Option<Rate>, now: Duration) {
        let now = nanos(now);
        let changed = |empty_at: u64| {
            let (before, after) = (before?, after?);
            let level = u128::from(empty_at.saturating_sub(now));
            let level = level * before.per_second as u128 / after.per_second.max(1) as u128;
            Some(now.saturating_add(u64::try_from(level).unwrap_or(u64::MAX)))
        };
        let empty_at = self.0.load(Ordering::Relaxed);
        self.0
            .store(changed(empty_at).unwrap_or(0), Ordering::Relaxed);
    }

    /// Puts `amount` in at `now`, however full it is: it has been used already.
    pub(super) fn pour(&self, amount: usize, rate: Rate, now: Duration) {
        let now = nanos(now);
        let more = rate.time_of(amount);
        let poured = |empty_at: u64| Some(empty_at.max(now).saturating_add(more));
        // It is never refused.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, poured);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate() -> impl Strategy<Value = Rate> {
        (1usize..1000, 1usize..100).prop_map(|(per_second, burst)| Rate { per_second, burst })
    }

    proptest! {
        /// In any stretch of time no more comes through than the rate and one burst.
        #[test]
        fn no_more_comes_than_the_rate_and_a_burst(
            rate in rate(),
            steps in prop::collection::vec((0u64..50, 1usize..20), 1..200),
        ) {
            let bucket = Bucket::default();
            let (mut now, mut let_in) = (Duration::from_secs(5), Vec::new());
            for (pause, amount) in steps {
                now += Duration::from_millis(pause);
                if bucket.put(amount, rate, now).is_ok() {
                    let_in.push((now, amount));
                }
            }
            let largest = let_in.iter().map(|(_, amount)| *amount).max().unwrap_or(0);
            for (from, (begin, _)) in let_in.iter().enumerate() {
                let mut total = 0;
                for (end, amount) in &let_in[from..] {
                    total += amount;
                    let time = end.saturating_sub(*begin).as_nanos();
                    // One that is larger than the bucket comes whole, and each is rounded by less than a nanosecond.
                    let burst = rate.burst.max(largest) as u128 * SECOND;
                    let most = (time + 200) * rate.per_second as u128 + burst;
                    prop_assert!(total as u128 * SECOND <= most, "{total} of {most}");
                }
            }
        }

        /// Whoever waits as long as was said is let in, and not a moment before.
        #[test]
        fn what_was_said_to_wait_is_enough_and_needed(rate in rate(), fill in 1usize..300, amount in 1usize..50) {
            let bucket = Bucket::default();
            let now = Duration::from_secs(5);
            for _ in 0..fill {
                let _ = bucket.put(1, rate, now);
            }
            if let Err(wait) = bucket.put(amount, rate, now) {
                let early = wait.saturating_sub(Duration::from_nanos(1));
                prop_assert!(bucket.put(amount, rate, now + early).is_err());
                prop_assert!(bucket.put(amount, rate, now + wait).is_ok());
            }
        }
    }

    #[test]
    fn what_is_owed_is_paid_at_the_rate_that_holds() {
        let (bucket, now) = (Bucket::default(), Duration::from_secs(1));
        let (slow, fast) = (Rate::even(1), Rate::even(1000));
        bucket.pour(5000, slow, now);
        assert!(bucket.put(0, slow, now).is_err());
        bucket.change(Some(slow), Some(fast), now);
        assert_eq!(bucket.put(0, fast, now), Err(Duration::from_secs(4)));
        bucket.change(Some(fast), None, now);
        bucket.change(None, Some(slow), now);
        assert_eq!(bucket.put(0, slow, now), Ok(()));
    }

    #[test]
    fn a_bucket_fills_and_empties() {
        let (bucket, rate) = (
            Bucket::default(),
            Rate {
                per_second: 10,
                burst: 2,
            },
        );
        let at = Duration::from_millis;
        assert_eq!(bucket.put(1, rate, at(0)), Ok(()));
        assert_eq!(bucket.put(1, rate, at(0)), Ok(()));
        assert_eq!(bucket.put(1, rate, at(0)), Err(at(100)));
        assert_eq!(bucket.put(1, rate, at(100)), Ok(()));
        assert_eq!(bucket.put(5, rate, at(200)), Err(at(100)));
        // More than it holds: when it is empty, and then there is a debt.
        assert_eq!(bucket.put(5, rate, at(300)), Ok(()));
        assert_eq!(bucket.put(1, rate, at(300)), Err(at(400)));
    }
}
