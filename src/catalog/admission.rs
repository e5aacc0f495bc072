//! Admission to one version: how many requests may be under way, and why one is refused.
//!
//! The queue that admission bounds is counted here, in front: what was admitted and not answered, less what the
//! workers can run at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::runtime::{InFlight, InFlightTicket};

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There are no workers.
    NoWorker,
    /// The queue is full.
    Full,
    /// The version is on its way out.
    Closed,
}

/// Admits requests to one version and counts them. Written by every request, so without a lock.
pub(super) struct Admission {
    queue: usize,
    running: AtomicUsize,
    in_flight: InFlight,
}

impl Admission {
    /// Lets `queue` requests wait beyond those that run.
    pub(super) fn new(queue: usize) -> Self {
        Self {
            queue,
            running: AtomicUsize::new(0),
            in_flight: InFlight::default(),
        }
    }

    /// Admits one request until the ticket is dropped, or says why not.
    pub(super) fn enter(&self) -> Result<InFlightTicket<'_>, Refusal> {
        let ticket = self.in_flight.enter().ok_or(Refusal::Closed)?;
        match self.running.load(Ordering::Relaxed) {
            0 => Err(Refusal::NoWorker),
            running if ticket.ahead >= self.queue.saturating_add(running) => Err(Refusal::Full),
            _ => Ok(ticket),
        }
    }

    /// How many requests the workers run at once; with 0 none is admitted. Whether that is another number than before.
    pub(super) fn set_running(&self, running: usize) -> bool {
        self.running.swap(running, Ordering::Relaxed) != running
    }

    /// Refuses all requests from now on.
    pub(super) fn close(&self) {
        self.in_flight.close();
    }

    /// Admits requests again.
    pub(super) fn open(&self) {
        self.in_flight.open();
    }

    /// Whether all requests are refused.
    pub(super) fn is_closed(&self) -> bool {
        self.in_flight.is_closed()
    }

    /// Waits, while closed, until no request is under way, at most `timeout`. Whether none is.
    pub(super) async fn wait_empty(&self, timeout: Duration) -> bool {
        let emptied = self.in_flight.emptied();
        tokio::time::timeout(timeout, emptied).await.is_ok()
    }

    /// Requests that were admitted and not answered.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.count()
    }

    /// Requests that wait.
    pub(super) fn queued(&self) -> usize {
        self.in_flight()
            .saturating_sub(self.running.load(Ordering::Relaxed))
            .min(self.queue)
    }

    /// Requests that may yet wait.
    pub(super) fn remaining(&self) -> usize {
        self.queue - self.queued()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(queue: usize, running: usize) -> Admission {
        let admission = Admission::new(queue);
        admission.set_running(running);
        admission
    }

    fn refusal(admission: &Admission) -> Option<Refusal> {
        admission.enter().err()
    }

    #[test]
    fn as_many_are_admitted_as_may_wait_and_run() {
        let admission = admission(2, 1);
        let mut tickets: Vec<_> = (0..3).map(|_| admission.enter().unwrap()).collect();
        assert_eq!(refusal(&admission), Some(Refusal::Full));
        assert_eq!((admission.queued(), admission.remaining()), (2, 0));
        tickets.pop();
        assert_eq!(refusal(&admission), None);
    }

    #[test]
    fn without_workers_none_is_admitted() {
        let admission = admission(2, 0);
        assert_eq!(refusal(&admission), Some(Refusal::NoWorker));
        assert_eq!((admission.queued(), admission.remaining()), (0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_version_waits_for_the_requests_under_way() {
        let admission = admission(2, 1);
        let ticket = admission.enter().unwrap();
        admission.close();
        assert_eq!(refusal(&admission), Some(Refusal::Closed));
        assert!(!admission.wait_empty(Duration::from_secs(1)).await);
        let (is_empty, ()) = tokio::join!(admission.wait_empty(Duration::from_secs(1)), async {
            tokio::task::yield_now().await;
            drop(ticket);
        });
        assert!(is_empty);
    }
}
