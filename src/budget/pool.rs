//! A number of bytes that many take from and give back to, and a line of those who wait for room.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::{Mutex, Notify};

/// Bytes, some of which are used.
#[derive(Debug)]
pub(super) struct Pool {
    limit: usize,
    used: AtomicUsize,
    /// Those who stand in line, or are about to.
    waiting: AtomicUsize,
    /// Held by the first in line.
    first: Mutex<()>,
    /// Tells the first in line that something was given back.
    returned: Notify,
}

/// What was taken, given back if it is dropped.
#[must_use]
pub(super) struct Taken<'a> {
    pool: &'a Pool,
    bytes: usize,
}

/// Somebody who stands in line.
struct InLine<'a>(&'a Pool);

impl Pool {
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            first: Mutex::const_new(()),
            returned: Notify::const_new(),
        }
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(SeqCst)
    }

    /// Whether `bytes` more are within the limit. One that is larger than all of it may go alone.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.after(self.used(), bytes, 0).is_some()
    }

    /// What is used after `bytes` were taken by somebody who has `own` already; `None` if there is no room.
    fn after(&self, used: usize, bytes: usize, own: usize) -> Option<usize> {
        let after = used.saturating_add(bytes);
        (after <= self.limit || used <= own).then_some(after)
    }

    fn try_take(&self, bytes: usize, own: usize) -> bool {
        let after = |used| self.after(used, bytes, own);
        self.used.fetch_update(SeqCst, SeqCst, after).is_ok()
    }

    /// Takes `bytes`, unless there is no room or others wait for it.
    pub(super) fn take_now(&self, bytes: usize, own: usize) -> bool {
        self.waiting.load(SeqCst) == 0 && self.try_take(bytes, own)
    }

    /// Takes `bytes` once there is room, and nobody waits who came before.
    pub(super) async fn take(&self, bytes: usize, own: usize) -> Taken<'_> {
        let _in_line = InLine::new(self);
        let _first = self.first.lock().await;
        loop {
            // Asked for first, so that nothing that is given back meanwhile is missed.
            let returned = self.returned.notified();
            if self.try_take(bytes, own) {
                return Taken { pool: self, bytes };
            }
            returned.await;
        }
    }

    /// Takes `bytes` beyond the limit if need be.
    pub(super) fn take_anyway(&self, bytes: usize) {
        self.used.fetch_add(bytes, SeqCst);
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, SeqCst);
        if self.waiting.load(SeqCst) > 0 {
            self.returned.notify_one();
        }
    }
}

impl Taken<'_> {
    /// What was taken stays taken.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.pool.give_back(self.bytes);
    }
}

impl<'a> InLine<'a> {
    fn new(pool: &'a Pool) -> Self {
        pool.waiting.fetch_add(1, SeqCst);
        Self(pool)
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}
