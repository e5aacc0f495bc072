//! Requests under way: counted in and out, and refused once the runtime drains.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts requests.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    count: AtomicUsize,
    is_draining: AtomicBool,
    changed: Notify,
}

/// One request under way; gone when dropped.
#[derive(Debug)]
pub(crate) struct Ticket<'a>(&'a InFlight);

impl InFlight {
    /// Counts a request in; `None` while draining.
    pub(crate) fn enter(&self) -> Option<Ticket<'_>> {
        // Counted before the flag is read, and the flag set before the count is read: one of the two sees the other.
        self.count.fetch_add(1, Ordering::SeqCst);
        let ticket = Ticket(self);
        (!self.is_draining.load(Ordering::SeqCst)).then_some(ticket)
    }

    /// Requests under way.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Lets no request in from now on; resolves when none is under way.
    pub(crate) async fn drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
        loop {
            let changed = self.changed.notified();
            if self.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let before = self.0.count.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.0.is_draining.load(Ordering::SeqCst) {
            self.0.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn draining_refuses_new_requests_and_waits_for_old_ones() {
        let in_flight = InFlight::default();
        let ticket = in_flight.enter();
        assert!(ticket.is_some());
        let mut drained = Box::pin(in_flight.drain());
        assert!(futures_util::poll!(&mut drained).is_pending());
        assert!(in_flight.enter().is_none());
        assert_eq!(in_flight.count(), 1);
        assert!(futures_util::poll!(&mut drained).is_pending());
        drop(ticket);
        drained.await;
    }
}
