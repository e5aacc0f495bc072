//! Inline runs: how many batches may run on tokio's threads at a time, and what is done when one takes longer than expected.
//!
//! The pool has short runs made by a task, on a thread of tokio (see [`super::pool`]). The thread does nothing else
//! meanwhile, and how long a run takes is known only when it has ended. So a run needs a slot, of which there are fewer than
//! threads, and a thread of this module watches the slots. When a run has been under way for [`LONG`], the watcher frees what
//! the held thread keeps from others:
//!
//! - **Sockets and timers.** One thread of tokio at a time asks the system for events, and only before it goes to sleep. If
//!   it is held instead, nobody asks until another thread wakes and finds nothing to do. The watcher wakes one.
//! - **Tasks in its queue.** A thread that wakes steals them. It cannot steal the task that was woken last, which tokio keeps
//!   in a place of its own: [`super::pool`] puts an empty task there before a run begins.
//! - **Tasks that yielded there.** They wait for this thread alone, unless they wait for something else as well: for their
//!   socket, or for a short while ([`crate::handler::yield_now`]).
//! - **Jobs that wait for an inline run that was to begin there.** [`WakeWorkers`] wakes the workers' threads for them.
//!
//! One more running thread of tokio slows short runs down where cores are few, as it takes over the waiting for events from
//! the thread that answers them. So the thread that is to take over from a held one is kept from running until it is needed
//! ([`InlineRuns::keep_spare_thread`]).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;

use spare::Spare;

mod spare;
#[cfg(test)]
mod tests;

/// A run of this length shows that runs are not short, and holds its thread for too long.
pub(super) const LONG: Duration = Duration::from_millis(5);

/// The pause between two checks of the slots.
const TICK: Duration = Duration::from_millis(5);
/// When no run began for this long, there is nothing to watch.
const QUIET: Duration = Duration::from_millis(250);
/// When a run has been under way for this long, everything it kept from others was freed.
const FREED: Duration = Duration::from_secs(1);

/// The slots for inline runs. One value per process, shared by its pools; bound to the tokio runtime of the first.
pub struct InlineRuns {
    epoch: Instant,
    bound: OnceLock<Bound>,
    pools: Mutex<Vec<Weak<dyn WakeWorkers>>>,
    spare: Spare,
    /// The watcher has nothing to watch and sleeps until it is woken.
    is_asleep: AtomicBool,
}

/// A pool whose inline run may be waiting for a thread that is held.
pub(super) trait WakeWorkers: Send + Sync {
    /// Wakes workers' threads for the jobs that wait. Called from the watcher's thread.
    fn wake_workers(&self);
}

/// What depends on the tokio runtime.
struct Bound {
    tasks: Handle,
    slots: Box<[Slot]>,
    watcher: Option<Thread>,
}

/// When the last run in this slot began, in nanoseconds since the epoch, and whether it is still under way.
#[derive(Default)]
struct Slot(AtomicU64);

/// An inline run under way. Its slot is free again when this is dropped.
pub(super) struct InlineRun<'a>(&'a Slot);

impl Default for InlineRuns {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            bound: OnceLock::new(),
            pools: Mutex::default(),
            spare: Spare::default(),
            is_asleep: AtomicBool::new(false),
        }
    }
}

impl InlineRuns {
    /// Keeps one of the threads of `tasks` from running tasks until a run holds another thread. To be called once, before
    /// there are other tasks. The tokio runtime needs one more thread for it, and must not wait for its threads to end.
    pub(crate) fn keep_spare_thread(self: &Arc<Self>, tasks: &Handle) {
        self.bind(tasks);
        self.spare.keep(tasks);
    }

    /// Has `pool` wake its workers when a thread is held.
    pub(super) fn add_pool(self: &Arc<Self>, pool: Weak<dyn WakeWorkers>, tasks: &Handle) {
        self.bind(tasks);
        let mut pools = self.pools.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(pool);
    }

    /// Whether a slot is free.
    pub(super) fn has_free_slot(&self) -> bool {
        let is_free = |slot: &Slot| !slot.last(Ordering::Relaxed).is_under_way;
        self.slots().iter().any(is_free)
    }

    /// Takes a slot for a run that begins now; `None` if there is none.
    pub(super) fn begin(&self, now: Instant) -> Option<InlineRun<'_>> {
        let began = self.nanos(now);
        let slot = self.slots().iter().find(|slot| slot.take(began))?;
        if self.is_asleep.load(Ordering::SeqCst) && self.is_asleep.swap(false, Ordering::SeqCst) {
            self.wake_watcher();
        }
        Some(InlineRun(slot))
    }

    fn bind(self: &Arc<Self>, tasks: &Handle) {
        let slots = tasks.metrics().num_workers().saturating_sub(1);
        self.bind_with(tasks, slots);
    }

    /// With this many slots, whatever the number of threads.
    #[cfg(test)]
    pub(super) fn with_slots(slots: usize, tasks: &Handle) -> Arc<Self> {
        let inline_runs = Arc::<Self>::default();
        inline_runs.bind_with(tasks, slots);
        inline_runs
    }

    fn bind_with(self: &Arc<Self>, tasks: &Handle, slots: usize) {
        self.bound.get_or_init(|| {
            let watcher = (slots > 0).then(|| self.start_watcher()).flatten();
            // No run is inline unless it is watched.
            let slots = watcher.as_ref().map_or(0, |_| slots);
            Bound {
                tasks: tasks.clone(),
                slots: (0..slots).map(|_| Slot::default()).collect(),
                watcher,
            }
        });
    }

    fn start_watcher(self: &Arc<Self>) -> Option<Thread> {
        let inline_runs = Arc::downgrade(self);
        let watcher = std::thread::Builder::new().name("watcher".to_owned());
        match watcher.spawn(move || watch(&inline_runs)) {
            Ok(watcher) => Some(watcher.thread().clone()),
            Err(error) => {
                tracing::warn!(%error, "no thread could be started; every run is on a worker's thread");
                None
            }
        }
    }

    fn wake_watcher(&self) {
        let watcher = self.bound.get().and_then(|bound| bound.watcher.as_ref());
        if let Some(watcher) = watcher {
            watcher.unpark();
        }
    }

    fn slots(&self) -> &[Slot] {
        self.bound.get().map_or(&[], |bound| &bound.slots)
    }

    fn nanos(&self, at: Instant) -> u64 {
        let nanos = at.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX >> 1)
    }

    /// Checks every slot, and frees what held threads keep from others; `handed_over` is when it last did so. Returns
    /// whether there is nothing to watch before another run begins.
    fn check_slots(&self, handed_over: &mut Option<Instant>) -> bool {
        let now = Instant::now();
        if self.is_any_under_way(now, LONG, FREED) {
            *handed_over = Some(now);
            self.hand_over();
            return false;
        }
        let is_over = handed_over.is_some_and(|at| now - at > QUIET);
        if is_over && !self.is_any_under_way(now, LONG, Duration::MAX) {
            *handed_over = None;
            self.keep_spare_again();
        }
        handed_over.is_none() && self.may_sleep(now)
    }

    fn may_sleep(&self, now: Instant) -> bool {
        if !self.is_quiet(now) {
            return false;
        }
        self.is_asleep.store(true, Ordering::SeqCst);
        // A slot that was taken before this store is seen here. Whoever takes one later sees that the watcher sleeps.
        let is_quiet = self.is_quiet(now);
        if !is_quiet {
            self.is_asleep.store(false, Ordering::SeqCst);
        }
        is_quiet
    }

    /// Whether a run has been under way for at least `from` and less than `to`.
    fn is_any_under_way(&self, now: Instant, from: Duration, to: Duration) -> bool {
        self.slots().iter().any(|slot| {
            let last = slot.last(Ordering::SeqCst);
            last.is_under_way && (from..to).contains(&self.age(last, now))
        })
    }

    /// Whether no slot was taken for a while, those of runs that are known to be long aside.
    fn is_quiet(&self, now: Instant) -> bool {
        self.slots().iter().all(|slot| {
            let last = slot.last(Ordering::SeqCst);
            let quiet = if last.is_under_way { FREED } else { QUIET };
            self.age(last, now) >= quiet
        })
    }

    fn age(&self, last: Last, now: Instant) -> Duration {
        Duration::from_nanos(self.nanos(now).saturating_sub(last.began))
    }

    /// Has another thread take over from the held one. This is repeated while a run is newly long: it costs little, and the
    /// thread that was woken may itself be held by now.
    fn hand_over(&self) {
        self.spare.release();
        if let Some(bound) = self.bound.get() {
            // A task that is spawned from outside of the tokio runtime wakes a thread.
            bound.tasks.spawn(async {});
        }
        for pool in self.existing_pools() {
            pool.wake_workers();
        }
    }

    /// The pools that exist. The list is not locked while they are used, as the last reference to a pool frees it.
    fn existing_pools(&self) -> Vec<Arc<dyn WakeWorkers>> {
        let pools = self.pools.lock();
        pools.iter().filter_map(Weak::upgrade).collect()
    }

    fn keep_spare_again(&self) {
        if let Some(bound) = self.bound.get() {
            self.spare.keep_again(&bound.tasks);
        }
    }
}

impl Drop for InlineRuns {
    fn drop(&mut self) {
        self.spare.release();
        self.wake_watcher();
    }
}

fn watch(inline_runs: &Weak<InlineRuns>) {
    let mut handed_over = None;
    while let Some(inline_runs) = inline_runs.upgrade() {
        let sleeps = inline_runs.check_slots(&mut handed_over);
        drop(inline_runs);
        if sleeps {
            std::thread::park();
        } else {
            std::thread::park_timeout(TICK);
        }
    }
}

/// The last run in a slot.
#[derive(Debug, Clone, Copy)]
struct Last {
    /// In nanoseconds since the epoch.
    began: u64,
    is_under_way: bool,
}

impl Slot {
    const UNDER_WAY: u64 = 1;

    fn last(&self, ordering: Ordering) -> Last {
        let packed = self.0.load(ordering);
        Last {
            began: packed >> 1,
            is_under_way: packed & Self::UNDER_WAY != 0,
        }
    }

    fn take(&self, began: u64) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let next = began << 1 | Self::UNDER_WAY;
        last & Self::UNDER_WAY == 0
            && self
                .0
                .compare_exchange(last, next, Ordering::SeqCst, Ordering::Relaxed)
                .is_ok()
    }
}

impl Drop for InlineRun<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_and(!Slot::UNDER_WAY, Ordering::Release);
    }
}
