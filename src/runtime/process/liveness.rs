//! Whether a worker process is alive: it may be stopped by a signal, silent, or stuck.
//!
//! The kernel says for certain that a process is stopped. Silence is weaker evidence: the machine may be busy or swapping.
//! Time in which this process itself could not check does not count as silence.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// Time between two checks.
pub const INTERVAL: Duration = Duration::from_millis(250);

/// A process that was stopped for so long does not continue by itself.
const STOPPED: Duration = Duration::from_secs(2);

/// A process that sent nothing for so long hangs: a thread of its own sends a message every second.
const SILENT: Duration = Duration::from_secs(30);

/// The most that counts of the time since the last check.
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// Why a worker process is taken for dead although it has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unresponsive {
    /// A signal stopped it, for so long.
    Stopped(Duration),
    /// It sent nothing for so long.
    Silent(Duration),
    /// It sends signs of life, but none of its runtime threads has done anything for so long.
    Stuck(Duration),
}

impl fmt::Display for Unresponsive {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped(time) => {
                write!(
                    formatter,
                    "was stopped by a signal for {} s",
                    time.as_secs()
                )
            }
            Self::Silent(time) => {
                write!(formatter, "gave no sign of life for {} s", time.as_secs())
            }
            Self::Stuck(time) => write!(formatter, "did nothing for {} s", time.as_secs()),
        }
    }
}

/// What is known of a process at one check.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessActivity {
    /// Messages that came from it so far.
    pub received: u64,
    /// How long its runtime threads have done nothing, as it says itself.
    pub stuck: Duration,
    /// Whether a signal stopped it.
    pub is_stopped: bool,
}

/// Checks one process at intervals.
#[derive(Debug)]
pub struct Liveness {
    checked: Instant,
    received: u64,
    silent: Duration,
    stopped: Duration,
    /// A process that is stuck for longer does not recover.
    stuck_limit: Duration,
}

impl Liveness {
    /// A process that is alive now. Runs of its model take at most `longest_run`.
    pub fn new(longest_run: Duration) -> Self {
        Self {
            checked: Instant::now(),
            received: 0,
            silent: Duration::ZERO,
            stopped: Duration::ZERO,
            stuck_limit: longest_run.saturating_add(SILENT),
        }
    }

    /// Takes what was observed into account; `Some` if the process has to be replaced.
    pub fn check(&mut self, observed: ProcessActivity) -> Option<Unresponsive> {
        let now = Instant::now();
        let step = (now - self.checked).min(LONGEST_STEP);
        self.checked = now;
        let is_silent = observed.received == self.received;
        self.received = observed.received;
        self.silent = lasted(self.silent, step, is_silent);
        self.stopped = lasted(self.stopped, step, observed.is_stopped);
        if self.stopped >= STOPPED {
            return Some(Unresponsive::Stopped(self.stopped));
        }
        if self.silent >= SILENT {
            return Some(Unresponsive::Silent(self.silent));
        }
        (observed.stuck > self.stuck_limit).then_some(Unresponsive::Stuck(observed.stuck))
    }
}

/// How long a condition has lasted that had lasted for `so_far` at the last check, `step` ago.
fn lasted(so_far: Duration, step: Duration, is_so: bool) -> Duration {
    if is_so { so_far + step } else { Duration::ZERO }
}

/// Resolves when the process has been stopped for so long that it has to be replaced. For a process that does not send signs
/// of life yet.
pub async fn stopped(pid: u32) -> Unresponsive {
    let mut liveness = Liveness::new(Duration::MAX);
    let mut received = 0;
    loop {
        tokio::time::sleep(INTERVAL).await;
        received += 1;
        let observed = ProcessActivity {
            received,
            is_stopped: is_stopped(pid),
            ..ProcessActivity::default()
        };
        if let Some(unresponsive) = liveness.check(observed) {
            return unresponsive;
        }
    }
}

/// Whether a signal stopped the process. One that a debugger holds is not stopped in this sense.
pub fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| state(&stat) == Some('T'))
}

/// The state in a line of `/proc/PID/stat`. The name before it is the process's own to choose.
fn state(stat: &str) -> Option<char> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Duration = Duration::from_mins(2);

    /// When a process is found unresponsive of which `at` is observed, by the number of the check, within so many checks.
    async fn unresponsive_after(
        checks: u64,
        at: impl Fn(u64) -> ProcessActivity,
    ) -> Option<(Duration, Unresponsive)> {
        let start = Instant::now();
        let mut liveness = Liveness::new(RUN);
        for check in 1..=checks {
            tokio::time::advance(INTERVAL).await;
            if let Some(unresponsive) = liveness.check(at(check)) {
                return Some((start.elapsed(), unresponsive));
            }
        }
        None
    }

    fn alive(check: u64) -> ProcessActivity {
        ProcessActivity {
            received: check / 4,
            ..ProcessActivity::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_process_is_found_within_three_seconds() {
        let found = unresponsive_after(100, |_| ProcessActivity {
            is_stopped: true,
            ..ProcessActivity::default()
        });
        let (after, unresponsive) = found.await.expect("it is unresponsive");
        assert!(after < Duration::from_secs(3), "{after:?}");
        assert_eq!(unresponsive.to_string(), "was stopped by a signal for 2 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_continues_is_not() {
        let found = unresponsive_after(400, |check| ProcessActivity {
            is_stopped: check % 7 != 0,
            ..alive(check)
        });
        assert_eq!(found.await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_forgiven_for_longer() {
        let (after, unresponsive) = unresponsive_after(400, |_| ProcessActivity::default())
            .await
            .expect("it is unresponsive");
        assert_eq!(after, SILENT);
        assert_eq!(unresponsive.to_string(), "gave no sign of life for 30 s");
        assert_eq!(unresponsive_after(400, alive).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_checked_does_not_count() {
        let mut liveness = Liveness::new(RUN);
        for _ in 0..20 {
            tokio::time::advance(Duration::from_mins(1)).await;
            assert_eq!(liveness.check(ProcessActivity::default()), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_may_be_busy_for_as_long_as_a_run_may_take() {
        let busy_for = |stuck| {
            unresponsive_after(1, move |check| ProcessActivity {
                stuck,
                ..alive(check)
            })
        };
        assert_eq!(busy_for(RUN + SILENT).await, None);
        let longer = RUN + SILENT + Duration::from_secs(1);
        let (_, unresponsive) = busy_for(longer).await.expect("it is unresponsive");
        assert_eq!(unresponsive, Unresponsive::Stuck(longer));
    }

    #[test]
    fn the_state_is_found_behind_any_name() {
        assert_eq!(state("12 (lantern) S 1 12"), Some('S'));
        assert_eq!(state("12 (a) T (b) R) T 1 12"), Some('T'));
        assert_eq!(state(""), None);
        assert!(!is_stopped(std::process::id()));
    }
}
