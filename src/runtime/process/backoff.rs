//! When a worker process that failed is started again, and when it is given up.

use std::time::Duration;

use tokio::time::Instant;

/// TorchServe's pauses between restarts, in seconds.
const PAUSES: [u64; 18] = [
    0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597,
];

/// Counts failures since the last successful load.
#[derive(Debug)]
pub struct Backoff {
    window: Duration,
    failures: usize,
    first_failure: Option<Instant>,
}

impl Backoff {
    /// Gives up `window` after the first failure.
    pub const fn new(window: Duration) -> Self {
        Self {
            window,
            failures: 0,
            first_failure: None,
        }
    }

    /// The process failed: how long to pause before the next start, `None` when it is given up.
    pub fn failed(&mut self, now: Instant) -> Option<Duration> {
        let first = *self.first_failure.get_or_insert(now);
        if now.saturating_duration_since(first) > self.window {
            return None;
        }
        let pause = PAUSES[self.failures.min(PAUSES.len() - 1)];
        self.failures += 1;
        Some(Duration::from_secs(pause))
    }

    /// The process loaded its model, or somebody asks to try afresh.
    pub const fn reset(&mut self) {
        self.failures = 0;
        self.first_failure = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_the_window_has_passed() {
        let mut backoff = Backoff::new(Duration::from_secs(20));
        let mut pauses = Vec::new();
        while let Some(pause) = backoff.failed(Instant::now()) {
            tokio::time::sleep(pause).await;
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [0, 1, 1, 2, 3, 5, 8, 13]);
        backoff.reset();
        assert_eq!(backoff.failed(Instant::now()), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_pause_repeats() {
        let mut backoff = Backoff::new(Duration::from_secs(1 << 30));
        let pauses = (0..20).map_while(|_| backoff.failed(Instant::now()));
        assert_eq!(pauses.last(), Some(Duration::from_secs(1597)));
    }
}
