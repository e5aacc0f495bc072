//! The thread that advances the engine's epoch, at which running calls are interrupted to check their CPU time.
//!
//! It ticks while calls are under way and parks soon after the last one, so that an idle server sleeps. It holds the
//! engine weakly and ends with [`Ticker`]. What a call does at a tick is not decided here.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::EngineWeak;

/// Time between two increments of the epoch.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// The same while no call is under way: one that begins meanwhile is looked at that much later, and a server whose time goes into its
/// models wakes less often for nothing.
const QUIET_TICK: Duration = Duration::from_millis(4);

/// Ticks without any call after which the thread parks. Waking it costs a system call, so it must not park in the short
/// gaps between the requests of a busy server.
const IDLE_TICKS: u32 = 50;

/// One start of a call. The upper bits of [`TickerState::calls`] count starts.
const STARTED: u64 = 1 << ACTIVE_BITS;

/// How many lower bits of [`TickerState::calls`] count the calls under way.
const ACTIVE_BITS: u32 = 24;

/// Owns the thread; dropping it ends the thread.
pub(super) struct Ticker {
    shared: Arc<TickerState>,
    thread: Thread,
}

#[derive(Default)]
struct TickerState {
    /// Starts of calls in the upper bits, calls under way in the lower ones: one word, so that a call makes one addition.
    calls: AtomicU64,
    is_parked: AtomicBool,
    is_stopped: AtomicBool,
}

/// While it exists, the ticker ticks. Held whenever guest code may run.
pub(super) struct Awake<'a> {
    shared: &'a TickerState,
}

impl Ticker {
    /// Starts the thread that ticks for `engine`.
    pub fn start(engine: EngineWeak) -> io::Result<Self> {
        let shared = Arc::new(TickerState::default());
        let theirs = Arc::clone(&shared);
        let handle = thread::Builder::new()
            .name("epoch-ticker".to_owned())
            .spawn(move || tick_until_stopped(&theirs, &engine))?;
        Ok(Self {
            shared,
            thread: handle.thread().clone(),
        })
    }

    /// Wakes the thread if it is parked. The result must be held whenever guest code runs.
    pub fn keep_awake(&self) -> Awake<'_> {
        // Sequentially consistent with `park`: either the thread sees this call, or this call sees it parked.
        self.shared.calls.fetch_add(STARTED | 1, Ordering::SeqCst);
        if self.shared.is_parked.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Awake {
            shared: &self.shared,
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        self.shared.calls.fetch_sub(1, Ordering::Release);
    }
}

fn tick_until_stopped(shared: &TickerState, engine: &EngineWeak) {
    let mut seen = 0;
    let mut idle_ticks = 0;
    while !shared.is_stopped.load(Ordering::SeqCst) {
        let is_quiet = active(seen) == 0;
        thread::park_timeout(if is_quiet { QUIET_TICK } else { TICK });
        let Some(engine) = engine.upgrade() else {
            return;
        };
        engine.increment_epoch();
        let calls = shared.calls.load(Ordering::SeqCst);
        let is_idle = calls == seen && active(calls) == 0;
        idle_ticks = if is_idle { idle_ticks + 1 } else { 0 };
        seen = calls;
        if idle_ticks > IDLE_TICKS {
            drop(engine);
            park(shared);
            idle_ticks = 0;
        }
    }
}

/// Parks until a call starts or the ticker is stopped.
fn park(shared: &TickerState) {
    shared.is_parked.store(true, Ordering::SeqCst);
    while active(shared.calls.load(Ordering::SeqCst)) == 0
        && !shared.is_stopped.load(Ordering::SeqCst)
    {
        thread::park();
    }
    shared.is_parked.store(false, Ordering::SeqCst);
}

const fn active(calls: u64) -> u64 {
    calls & (STARTED - 1)
}

#[cfg(test)]
mod tests {
    use wasmtime::Engine;

    use super::*;

    fn wait_until(condition: impl Fn() -> bool) {
        while !condition() {
            thread::yield_now();
        }
    }

    #[test]
    fn it_parks_when_idle_and_wakes_for_a_call() {
        let engine = Engine::default();
        let ticker = Ticker::start(engine.weak()).unwrap();
        let is_parked = || ticker.shared.is_parked.load(Ordering::SeqCst);
        wait_until(is_parked);
        let awake = ticker.keep_awake();
        wait_until(|| !is_parked());
        drop(awake);
        wait_until(is_parked);
    }

    #[test]
    fn it_ends_when_dropped() {
        let engine = Engine::default();
        let ticker = Ticker::start(engine.weak()).unwrap();
        wait_until(|| ticker.shared.is_parked.load(Ordering::SeqCst));
        let shared = Arc::clone(&ticker.shared);
        drop(ticker);
        wait_until(|| Arc::strong_count(&shared) == 1);
    }
}
