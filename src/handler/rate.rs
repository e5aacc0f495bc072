//! How much of something may happen in a second.

use std::time::{Duration, Instant};

/// Admits so much a second. What is left unused is kept for later, up to a bound.
#[derive(Debug, Clone)]
pub struct RateLimit {
    per_second: f64,
    /// The most that may come at once.
    burst: f64,
    left: f64,
    filled: Option<Instant>,
}

impl RateLimit {
    /// Admits `per_second` a second, and no more at once.
    pub fn new(per_second: u32) -> Self {
        Self::with_burst(per_second, per_second)
    }

    /// Admits `per_second` a second, and `burst` at once.
    pub fn with_burst(per_second: u32, burst: u32) -> Self {
        Self {
            per_second: f64::from(per_second),
            burst: f64::from(burst),
            left: f64::from(burst),
            filled: None,
        }
    }

    /// Whether `amount` more is admitted. An amount beyond what is left is admitted if anything is, and the next ones wait
    /// for longer.
    pub fn admit(&mut self, amount: u32, now: Instant) -> bool {
        self.fill(now);
        let amount = f64::from(amount);
        if self.left < amount.min(1.0) {
            return false;
        }
        self.left -= amount;
        true
    }

    /// Takes `amount`, whether that much is left or not.
    pub fn charge(&mut self, amount: u32, now: Instant) {
        self.fill(now);
        self.left -= f64::from(amount);
    }

    /// Whether more was taken than was left, when last looked at.
    pub const fn is_overdrawn(&self) -> bool {
        self.left < 0.0
    }

    /// How long it takes until what was taken too much is made up for.
    pub fn owed(&mut self, now: Instant) -> Duration {
        self.fill(now);
        let seconds = (-self.left / self.per_second).max(0.0);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    fn fill(&mut self, now: Instant) {
        let since = self.filled.replace(now).unwrap_or(now);
        let passed = now.saturating_duration_since(since).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.burst);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn admitted(limit: &mut RateLimit, amount: u32, now: Instant) -> usize {
        (0..100).filter(|_| limit.admit(amount, now)).count()
    }

    #[test]
    fn a_burst_is_admitted_and_then_the_rate() {
        let start = Instant::now();
        let mut limit = RateLimit::with_burst(2, 4);
        assert_eq!(admitted(&mut limit, 1, start), 4);
        let later = start + Duration::from_millis(500);
        assert_eq!(admitted(&mut limit, 1, later), 1);
        let much_later = start + Duration::from_mins(1);
        assert_eq!(admitted(&mut limit, 1, much_later), 4);
    }

    #[test]
    fn a_large_amount_is_paid_back_before_the_next() {
        let start = Instant::now();
        let mut limit = RateLimit::new(10);
        assert!(limit.admit(25, start));
        assert_eq!(limit.owed(start), Duration::from_millis(1500));
        assert!(!limit.admit(1, start + Duration::from_millis(1500)));
        assert!(limit.admit(1, start + Duration::from_millis(1600)));
    }

    #[test]
    fn without_a_rate_nothing_is_admitted_but_nothing() {
        let now = Instant::now();
        let mut none = RateLimit::new(0);
        assert!(none.admit(0, now) && !none.admit(1, now));
    }

    proptest! {
        /// Over any stretch no more comes through than a burst, the rate, and the last amount.
        #[test]
        fn no_more_is_admitted_than_the_rate(
            steps in prop::collection::vec((0u64..400, 0u32..50), 1..200),
        ) {
            let start = Instant::now();
            let mut limit = RateLimit::with_burst(20, 40);
            let (mut now, mut total) = (start, 0.0);
            for (millis, amount) in steps {
                now += Duration::from_millis(millis);
                if limit.admit(amount, now) {
                    total += f64::from(amount);
                }
            }
            let passed = (now - start).as_secs_f64();
            prop_assert!(total <= 40.0 + 20.0 * passed + 50.0);
        }
    }
}
