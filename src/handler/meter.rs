//! CPU time of one call.
//!
//! A call runs in segments: one for each time the runtime polls it. A segment stays on one thread, the next may
//! be on another, so each is measured with its own thread's clock. The epoch callback reads the meter at each
//! tick, so a call ends at most two ticks past its limit.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::UpdateDeadline;

use super::fault::Exceeded;
use super::ticker::{TICK, Ticker};

/// A call that has run for less than this since it was polled goes on at a tick; one that ran longer yields.
const SLICE: Duration = TICK.checked_div(2).expect("two is not zero");

/// How long a task that yielded may stay on a thread that a model's run holds.
const HELD: Duration = Duration::from_millis(10);

/// CPU time used and allowed. Shared by the store's callback and the future that polls the call.
///
/// One thread at a time touches it, the one that polls the call; the atomics carry it from thread to thread.
#[derive(Debug, Default)]
pub(super) struct Meter {
    limit: AtomicU64,
    used: AtomicU64,
    segment: AtomicU64,
}

impl Meter {
    /// Starts a call that may use `limit` of CPU time.
    pub fn reset(&self, limit: Duration) {
        self.limit.store(nanos(limit), Ordering::Relaxed);
        self.used.store(0, Ordering::Relaxed);
    }

    /// What to do at a tick.
    pub fn at_tick(&self) -> wasmtime::Result<UpdateDeadline> {
        let segment = self.segment();
        let used = self.used.load(Ordering::Relaxed).saturating_add(segment);
        let limit = self.limit.load(Ordering::Relaxed);
        if used > limit {
            return Err(Exceeded::Cpu(Duration::from_nanos(limit)).into());
        }
        if segment < nanos(SLICE) {
            return Ok(UpdateDeadline::Continue(1));
        }
        // tokio's own yield lets its thread look at sockets and timers before the call goes on.
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(yield_now())))
    }

    /// Polls `call` to its end, and charges each segment.
    pub async fn run<F: Future>(&self, ticker: &Ticker, call: F) -> F::Output {
        let mut call = pin!(call);
        poll_fn(|ctx| {
            let _awake = ticker.keep_awake();
            self.segment.store(thread_nanos(), Ordering::Relaxed);
            let poll = call.as_mut().poll(ctx);
            if poll.is_pending() {
                self.used.fetch_add(self.segment(), Ordering::Relaxed);
            }
            poll
        })
        .await
    }

    /// CPU time since the segment began.
    fn segment(&self) -> u64 {
        thread_nanos().saturating_sub(self.segment.load(Ordering::Relaxed))
    }
}

/// Yields as tokio's own does, but for no longer than [`HELD`]: a model's run may hold the thread before it comes back.
pub(crate) async fn yield_now() {
    let _ = tokio::time::timeout(HELD, tokio::task::yield_now()).await;
}

fn thread_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000_000_000 + rest
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
