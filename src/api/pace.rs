//! How fast a body must arrive, so that one that stalls, or trickles, does not hold its connection and memory for long.

use std::time::{Duration, Instant};

/// Bytes that must arrive in each second of the time that there is.
const LEAST_RATE: usize = 512;

/// A body's progress.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    timeout: Duration,
    began: Instant,
    arrived: usize,
}

impl Pace {
    /// From now on, enough must arrive within each `timeout`.
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            began: Instant::now(),
            arrived: 0,
        }
    }

    /// When it is too slow, unless more arrives.
    pub(super) fn deadline(&self) -> Instant {
        self.began + self.timeout
    }

    /// So many bytes arrived. Returns whether the deadline is another one.
    pub(super) fn arrived(&mut self, bytes: usize) -> bool {
        self.arrived = self.arrived.saturating_add(bytes);
        let seconds = usize::try_from(self.timeout.as_secs()).unwrap_or(usize::MAX);
        let is_enough = self.arrived >= LEAST_RATE.saturating_mul(seconds).max(1);
        if is_enough {
            self.restart();
        }
        is_enough
    }

    /// The client was kept waiting until now.
    pub(super) fn restart(&mut self) {
        *self = Self::new(self.timeout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_enough_gives_more_time() {
        let mut pace = Pace::new(Duration::from_secs(4));
        let first = pace.deadline();
        assert!(!pace.arrived(4 * LEAST_RATE - 1));
        assert_eq!(pace.deadline(), first);
        assert!(pace.arrived(1));
        assert!(pace.deadline() >= first);
        assert!(!pace.arrived(1));
    }
}
