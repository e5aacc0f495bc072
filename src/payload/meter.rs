//! What a request has used of the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::nanos::nanos;

/// Counts what one request uses, wherever that is. Clones count together, so that rows of one request do.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Counts>);

/// Nanoseconds.
#[derive(Debug, Default)]
struct Counts {
    handler: AtomicU64,
    inference: AtomicU64,
}

/// What a request has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// CPU time of its handler's calls, failed ones included.
    pub handler: Duration,
    /// Its part of the time of the runs that it was in.
    pub inference: Duration,
}

impl Meter {
    /// A call of the handler took so much CPU time.
    pub fn add_handler(&self, time: Duration) {
        self.0.handler.fetch_add(nanos(time), Ordering::Relaxed);
    }

    /// A run with `rows` of its rows among `batch_rows` took so long.
    pub fn add_run(&self, time: Duration, rows: usize, batch_rows: usize) {
        let part = u128::from(nanos(time)) * rows as u128 / batch_rows.max(1) as u128;
        let part = u64::try_from(part).unwrap_or(u64::MAX);
        self.0.inference.fetch_add(part, Ordering::Relaxed);
    }

    /// Another process counted so much more.
    pub fn add(&self, spent: Spent) {
        self.add_handler(spent.handler);
        self.add_run(spent.inference, 1, 1);
    }

    /// What was counted so far.
    pub fn spent(&self) -> Spent {
        let time = |count: &AtomicU64| Duration::from_nanos(count.load(Ordering::Relaxed));
        Spent {
            handler: time(&self.0.handler),
            inference: time(&self.0.inference),
        }
    }
}

impl Spent {
    /// The same, of which neither is more than `most`. A worker process may say otherwise.
    #[must_use]
    pub fn within(self, most: Duration) -> Self {
        Self {
            handler: self.handler.min(most),
            inference: self.inference.min(most),
        }
    }

    /// Both together.
    pub fn total(self) -> Duration {
        self.handler.saturating_add(self.inference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_count_together_and_a_run_is_divided_by_rows() {
        let meter = Meter::default();
        let row = meter.clone();
        row.add_handler(Duration::from_millis(3));
        row.add_run(Duration::from_millis(8), 1, 4);
        meter.add_run(Duration::from_millis(8), 2, 4);
        meter.add(Spent {
            handler: Duration::from_millis(1),
            inference: Duration::from_millis(1),
        });
        let spent = meter.spent();
        assert_eq!(spent.handler, Duration::from_millis(4));
        assert_eq!(spent.inference, Duration::from_millis(7));
        assert_eq!(spent.total(), Duration::from_millis(11));
    }
}
