//! Whether a worker process is still to be reckoned with: whether it is stopped, silent or stuck.
//!
//! A stopped process is known at once and for certain, because the kernel says so. That nothing is heard of a process is
//! much weaker: the machine may be busy or swapping. Time in which this process could not look itself is not held against
//! the other one.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// Between two looks.
pub const INTERVAL: Duration = Duration::from_millis(250);

/// A process that is stopped for so long does not go on by itself: it takes part in nothing for less.
const STOPPED: Duration = Duration::from_secs(2);

/// A process of which nothing is heard for so long hangs. It gives a sign of life every second, from a thread of its own.
const SILENT: Duration = Duration::from_secs(30);

/// What counts of the time since the last look.
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// What a worker process suffers from that does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ailment {
    /// A signal stopped it, so long ago.
    Stopped(Duration),
    /// Nothing was heard of it for so long.
    Silent(Duration),
    /// It lives, but none of its runtime threads does anything, for so long.
    Stuck(Duration),
}

impl fmt::Display for Ailment {
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

/// What is known of a process at one look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Signs {
    /// Messages that came from it so far.
    pub heard: u64,
    /// How long its runtime threads have done nothing, as it says itself.
    pub stuck: Duration,
    /// Whether a signal stopped it.
    pub is_stopped: bool,
}

/// Feels the pulse of one process.
#[derive(Debug)]
pub struct Pulse {
    looked: Instant,
    heard: u64,
    silent: Duration,
    stopped: Duration,
    /// A process that is stuck for longer is ill.
    patience: Duration,
}

impl Pulse {
    /// Of a process that is well. A run of its model may take `longest_run`, and none takes longer.
    pub fn new(longest_run: Duration) -> Self {
        Self {
            looked: Instant::now(),
            heard: 0,
            silent: Duration::ZERO,
            stopped: Duration::ZERO,
            patience: longest_run.saturating_add(SILENT),
        }
    }

    /// Looks at the process.
    pub fn look(&mut self, signs: Signs) -> Option<Ailment> {
        let now = Instant::now();
        let step = (now - self.looked).min(LONGEST_STEP);
        self.looked = now;
        let is_silent = signs.heard == self.heard;
        self.heard = signs.heard;
        self.silent = lasted(self.silent, step, is_silent);
        self.stopped = lasted(self.stopped, step, signs.is_stopped);
        if self.stopped >= STOPPED {
            return Some(Ailment::Stopped(self.stopped));
        }
        if self.silent >= SILENT {
            return Some(Ailment::Silent(self.silent));
        }
        (signs.stuck > self.patience).then_some(Ailment::Stuck(signs.stuck))
    }
}

/// How long something lasts that lasted for `so_far` at the last look, `step` ago.
fn lasted(so_far: Duration, step: Duration, is_so: bool) -> Duration {
    if is_so { so_far + step } else { Duration::ZERO }
}

/// Comes back when the process has been stopped for so long that it must be given up. For one that is not to give signs of
/// life yet.
pub async fn stopped(pid: u32) -> Ailment {
    let mut pulse = Pulse::new(Duration::MAX);
    let mut heard = 0;
    loop {
        tokio::time::sleep(INTERVAL).await;
        heard += 1;
        let signs = Signs {
            heard,
            is_stopped: is_stopped(pid),
            ..Signs::default()
        };
        if let Some(ailment) = pulse.look(signs) {
            return ailment;
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

    /// When a process falls ill that shows the signs of `at`, given looks since the start, within so many looks.
    async fn falls_ill(looks: u64, at: impl Fn(u64) -> Signs) -> Option<(Duration, Ailment)> {
        let start = Instant::now();
        let mut pulse = Pulse::new(RUN);
        for look in 1..=looks {
            tokio::time::advance(INTERVAL).await;
            if let Some(ailment) = pulse.look(at(look)) {
                return Some((start.elapsed(), ailment));
            }
        }
        None
    }

    fn well(look: u64) -> Signs {
        Signs {
            heard: look / 4,
            ..Signs::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_process_is_ill_within_three_seconds() {
        let ill = falls_ill(100, |_| Signs {
            is_stopped: true,
            ..Signs::default()
        });
        let (after, ailment) = ill.await.expect("it is ill");
        assert!(after < Duration::from_secs(3), "{after:?}");
        assert_eq!(ailment.to_string(), "was stopped by a signal for 2 s");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_goes_on_is_not() {
        let ill = falls_ill(400, |look| Signs {
            is_stopped: look % 7 != 0,
            ..well(look)
        });
        assert_eq!(ill.await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_forgiven_for_longer() {
        let (after, ailment) = falls_ill(400, |_| Signs::default())
            .await
            .expect("it is ill");
        assert_eq!(after, SILENT);
        assert_eq!(ailment.to_string(), "gave no sign of life for 30 s");
        assert_eq!(falls_ill(400, well).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_looked_is_not_held_against_it() {
        let mut pulse = Pulse::new(RUN);
        for _ in 0..20 {
            tokio::time::advance(Duration::from_mins(1)).await;
            assert_eq!(pulse.look(Signs::default()), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_may_be_busy_for_as_long_as_a_run_may_take() {
        let busy_for = |stuck| {
            falls_ill(1, move |look| Signs {
                stuck,
                ..well(look)
            })
        };
        assert_eq!(busy_for(RUN + SILENT).await, None);
        let longer = RUN + SILENT + Duration::from_secs(1);
        let (_, ailment) = busy_for(longer).await.expect("it is ill");
        assert_eq!(ailment, Ailment::Stuck(longer));
    }

    #[test]
    fn the_state_is_found_behind_any_name() {
        assert_eq!(state("12 (lantern) S 1 12"), Some('S'));
        assert_eq!(state("12 (a) T (b) R) T 1 12"), Some('T'));
        assert_eq!(state(""), None);
        assert!(!is_stopped(std::process::id()));
    }
}
