//! When a worker process that failed is started again, and when it is given up.

use std::time::Duration;

use tokio::time::Instant;

/// TorchServe's pauses between restarts, in seconds.
const PAUSES: [u64; 18] = [
    0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597,
];

/// A process that served for so long had recovered: what came before is forgotten. Longer than the pauses before a circuit
/// opens take together, so that a crash loop does not pass for recovery.
pub const RECOVERED: Duration = Duration::from_mins(1);

/// Counts failures in a row: deaths of processes that had loaded, and starts that failed.
#[derive(Debug)]
pub struct Backoff {
    window: Duration,
    failures: usize,
    /// When the time began for which no process has loaded.
    failing_since: Option<Instant>,
}

impl Backoff {
    /// Gives up when no process has loaded for `window` after a failure.
    pub const fn new(window: Duration) -> Self {
        Self {
            window,
            failures: 0,
            failing_since: None,
        }
    }

    /// A process died that had served for `served`: how long to pause before the next start. As it had loaded, the version is
    /// not given up for it.
    pub fn died(&mut self, now: Instant, served: Duration) -> Duration {
        if served >= RECOVERED {
            self.reset();
        }
        self.begin(now)
    }

    /// A process did not load: how long to pause before the next start, `None` when the version is given up.
    pub fn did_not_load(&mut self, now: Instant) -> Option<Duration> {
        let since = *self.failing_since.get_or_insert(now);
        if now.saturating_duration_since(since) > self.window {
            return None;
        }
        Some(self.next_pause())
    }

    /// There is no process from now on: how long to pause before the next start.
    pub fn begin(&mut self, now: Instant) -> Duration {
        self.failing_since = Some(now);
        self.next_pause()
    }

    /// What came before does not count any more.
    pub const fn reset(&mut self) {
        self.failures = 0;
        self.failing_since = None;
    }

    fn next_pause(&mut self) -> Duration {
        let pause = PAUSES[self.failures.min(PAUSES.len() - 1)];
        self.failures += 1;
        Duration::from_secs(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_the_window_has_passed() {
        let mut backoff = Backoff::new(Duration::from_secs(20));
        let mut pauses = Vec::new();
        while let Some(pause) = backoff.did_not_load(Instant::now()) {
            tokio::time::sleep(pause).await;
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [0, 1, 1, 2, 3, 5, 8, 13]);
        backoff.reset();
        assert_eq!(backoff.begin(Instant::now()), Duration::ZERO);
        let next = backoff.did_not_load(Instant::now());
        assert_eq!(next, Some(Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_pause_repeats() {
        let mut backoff = Backoff::new(Duration::from_secs(1 << 30));
        let pauses = (0..20).map_while(|_| backoff.did_not_load(Instant::now()));
        assert_eq!(pauses.last(), Some(Duration::from_secs(1597)));
    }

    #[tokio::test(start_paused = true)]
    async fn deaths_count_until_a_process_has_served_for_a_while() {
        let mut backoff = Backoff::new(Duration::ZERO);
        let mut died = |served| backoff.died(Instant::now(), served).as_secs();
        let short = Duration::from_secs(59);
        let pauses = [short; 6].map(&mut died);
        assert_eq!(pauses, [0, 1, 1, 2, 3, 5]);
        assert_eq!([RECOVERED, short, short].map(died), [0, 1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_begins_with_the_last_process_that_had_loaded() {
        let window = Duration::from_secs(20);
        let mut backoff = Backoff::new(window);
        for _ in 0..3 {
            tokio::time::advance(window).await;
            backoff.died(Instant::now(), Duration::ZERO);
        }
        assert!(backoff.did_not_load(Instant::now()).is_some());
        tokio::time::advance(window + Duration::from_secs(1)).await;
        assert!(backoff.did_not_load(Instant::now()).is_none());
    }
}
