//! Durations as whole nanoseconds, as they are counted in atomics and sent between processes.

use std::time::Duration;

/// As many nanoseconds as fit: 584 years.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
