//! Admission to one version: how many requests are inside, how many may be, and whether it is closed.
//!
//! The queue that admission bounds is counted here, in front: what was admitted and not answered, less what the
//! workers can run at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

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

/// Counts requests in and out. Written by every request, so without a lock.
pub(super) struct Admission {
    queue: usize,
    inside: AtomicUsize,
    running: AtomicUsize,
    closed: AtomicBool,
    emptied: Notify,
}

impl Admission {
    /// Lets `queue` requests wait beyond those that run.
    pub(super) fn new(queue: usize) -> Self {
        Self {
            queue,
            inside: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            emptied: Notify::new(),
        }
    }

    /// Lets one request in, or says why not. Who is let in must [`Self::leave`].
    pub(super) fn enter(&self) -> Result<(), Refusal> {
        let before = self.inside.fetch_add(1, Ordering::SeqCst);
        let refusal = match self.running.load(Ordering::Relaxed) {
            // Read after the count was raised: whoever closes then waits for this request.
            _ if self.closed.load(Ordering::SeqCst) => Refusal::Closed,
            0 => Refusal::NoWorker,
            running if before >= self.queue.saturating_add(running) => Refusal::Full,
            _ => return Ok(()),
        };
        self.leave();
        Err(refusal)
    }

    /// One request is out.
    pub(super) fn leave(&self) {
        if self.inside.fetch_sub(1, Ordering::SeqCst) == 1 && self.closed.load(Ordering::SeqCst) {
            self.emptied.notify_waiters();
        }
    }

    /// How many requests the workers run at once; with 0 nobody is let in. Whether that is another number than before.
    pub(super) fn set_running(&self, running: usize) -> bool {
        self.running.swap(running, Ordering::Relaxed) != running
    }

    /// Lets nobody in from now on.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Lets requests in again.
    pub(super) fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }

    /// Whether nobody is let in.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Waits until everybody is out, at most `patience`. The admission must be closed. Whether everybody is out.
    pub(super) async fn wait_empty(&self, patience: Duration) -> bool {
        let emptied = async {
            loop {
                let notified = self.emptied.notified();
                if self.inside.load(Ordering::SeqCst) == 0 {
                    return;
                }
                notified.await;
            }
        };
        tokio::time::timeout(patience, emptied).await.is_ok()
    }

    /// Requests that are in.
    pub(super) fn inside(&self) -> usize {
        self.inside.load(Ordering::Relaxed)
    }

    /// Requests that wait.
    pub(super) fn queued(&self) -> usize {
        self.inside()
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

    #[test]
    fn as_many_enter_as_may_wait_and_run() {
        let admission = admission(2, 1);
        for _ in 0..3 {
            assert_eq!(admission.enter(), Ok(()));
        }
        assert_eq!(admission.enter(), Err(Refusal::Full));
        assert_eq!((admission.queued(), admission.remaining()), (2, 0));
        admission.leave();
        assert_eq!(admission.enter(), Ok(()));
    }

    #[test]
    fn without_workers_nobody_enters() {
        let admission = admission(2, 0);
        assert_eq!(admission.enter(), Err(Refusal::NoWorker));
        assert_eq!((admission.queued(), admission.remaining()), (0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_door_waits_for_those_inside() {
        let admission = admission(2, 1);
        assert_eq!(admission.enter(), Ok(()));
        admission.close();
        assert_eq!(admission.enter(), Err(Refusal::Closed));
        assert!(!admission.wait_empty(Duration::from_secs(1)).await);
        let (is_empty, ()) = tokio::join!(admission.wait_empty(Duration::from_secs(1)), async {
            tokio::task::yield_now().await;
            admission.leave();
        });
        assert!(is_empty);
    }
}
