//! Measures the CPU time of one call into a handler, and limits it.
//!
//! A call runs in segments, one for each time that tokio polls it. A segment stays on one thread, but the next may run
//! on another, so each is measured with the CPU clock of its own thread. The epoch callback reads the meter at each
//! tick, so a call ends at most two ticks past its limit, or the first tick after it began, which may be 4 ms away. Work that the host does for the call on other threads is added.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::UpdateDeadline;

use super::fault::Exceeded;
use super::ticker::{TICK, Ticker};
use crate::nanos::nanos;

/// A call that has run for less than this since it was polled continues at a tick; one that ran longer yields.
const SLICE: Duration = TICK.checked_div(2).expect("two is not zero");

/// The longest time that a call waits after it yielded, if the thread it yielded on runs something else.
const LONGEST_YIELD: Duration = Duration::from_millis(10);

/// CPU time that a call has used and may use, in nanoseconds. The store's epoch callback and the future that polls the
/// call share it.
///
/// Only the thread that polls the call uses it, and that thread may change between polls; hence the atomics.
#[derive(Debug, Default)]
pub(super) struct CpuMeter {
    limit: AtomicU64,
    used: AtomicU64,
    /// The thread's CPU clock when the current segment began.
    segment_start: AtomicU64,
}

impl CpuMeter {
    /// Begins a call that may use `limit` of CPU time.
    pub fn reset(&self, limit: Duration) {
        self.limit.store(nanos(limit), Ordering::Relaxed);
        self.used.store(0, Ordering::Relaxed);
    }

    /// Decides at a tick whether the call continues, yields, or fails because it used more than its limit.
    pub fn at_tick(&self) -> wasmtime::Result<UpdateDeadline> {
        let segment = self.segment();
        self.check(segment)?;
        if segment < nanos(SLICE) {
            return Ok(UpdateDeadline::Continue(1));
        }
        // tokio's own yield lets its thread poll sockets and timers before the call continues.
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(yield_now())))
    }

    /// Adds CPU time that another thread used for the call. Fails if the call has used more than its limit by then.
    pub fn charge(&self, took: Duration) -> wasmtime::Result<()> {
        self.used.fetch_add(nanos(took), Ordering::Relaxed);
        self.check(self.segment())
    }

    /// Polls `call` until it completes, and adds up the CPU time of its segments.
    pub async fn run<F: Future>(&self, ticker: &Ticker, call: F) -> F::Output {
        let mut call = pin!(call);
        poll_fn(|ctx| {
            let _awake = ticker.keep_awake();
            self.segment_start.store(thread_nanos(), Ordering::Relaxed);
            let poll = call.as_mut().poll(ctx);
            self.used.fetch_add(self.segment(), Ordering::Relaxed);
            poll
        })
        .await
    }

    /// What the call has used, up to the last time that it was polled.
    pub fn used(&self) -> Duration {
        Duration::from_nanos(self.used.load(Ordering::Relaxed))
    }

    /// Fails if the call has used more than its limit; `segment` is what the current segment has used.
    fn check(&self, segment: u64) -> wasmtime::Result<()> {
        let used = self.used.load(Ordering::Relaxed).saturating_add(segment);
        let limit = self.limit.load(Ordering::Relaxed);
        if used > limit {
            return Err(Exceeded::Cpu(Duration::from_nanos(limit)).into());
        }
        Ok(())
    }

    /// CPU time since the current segment began.
    fn segment(&self) -> u64 {
        thread_nanos().saturating_sub(self.segment_start.load(Ordering::Relaxed))
    }
}

/// What `work` gives, and the CPU time of this thread that it took.
pub(super) fn measured<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = thread_nanos();
    let done = work();
    (
        done,
        Duration::from_nanos(thread_nanos().saturating_sub(start)),
    )
}

/// Yields for at most [`LONGEST_YIELD`]: a run of a model may occupy the thread before it polls the call again.
pub(crate) async fn yield_now() {
    let _ = tokio::time::timeout(LONGEST_YIELD, tokio::task::yield_now()).await;
}

fn thread_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000_000_000 + rest
}
