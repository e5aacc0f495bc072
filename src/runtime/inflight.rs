//! Requests under way: counted in and out, refused once closed, and waited for.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts requests under way. Written by every request, so without a lock.
#[derive(Debug, Default)]
pub struct InFlight {
    count: AtomicUsize,
    is_closed: AtomicBool,
    emptied: Notify,
}

/// One request under way; counted out when dropped.
#[derive(Debug)]
pub struct InFlightTicket<'a> {
    in_flight: &'a InFlight,
    /// Requests that were under way before this one.
    pub ahead: usize,
}

impl InFlight {
    /// Counts a request in; `None` while closed.
    pub fn enter(&self) -> Option<InFlightTicket<'_>> {
        let ticket = InFlightTicket {
            in_flight: self,
            ahead: self.count.fetch_add(1, Ordering::SeqCst),
        };
        // Read after the count was raised, and set before the count is read: whoever closes either waits for this request, or
        // this request sees that it is closed.
        (!self.is_closed()).then_some(ticket)
    }

    /// Requests under way.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Refuses requests from now on.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
    }

    /// Admits requests again.
    pub fn open(&self) {
        self.is_closed.store(false, Ordering::SeqCst);
    }

    /// Whether requests are refused.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Resolves when no request is under way. To be awaited while closed.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Drop for InFlightTicket<'_> {
    fn drop(&mut self) {
        let in_flight = self.in_flight;
        if in_flight.count.fetch_sub(1, Ordering::SeqCst) == 1 && in_flight.is_closed() {
            in_flight.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_one_refuses_new_requests_and_waits_for_old_ones() {
        let in_flight = InFlight::default();
        let ticket = in_flight.enter();
        assert_eq!(ticket.as_ref().map(|ticket| ticket.ahead), Some(0));
        in_flight.close();
        let mut emptied = Box::pin(in_flight.emptied());
        assert!(futures_util::poll!(&mut emptied).is_pending());
        assert!(in_flight.enter().is_none());
        assert_eq!(in_flight.count(), 1);
        assert!(futures_util::poll!(&mut emptied).is_pending());
        drop(ticket);
        emptied.await;
        in_flight.open();
        assert!(in_flight.enter().is_some());
    }
}
