//! Whether a client that has begun the head of a request sends the rest of it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use super::connections::Activity;
use crate::refusals::Limit;

/// Watches the heads of the requests of one connection, where these come one after the other.
#[derive(Debug)]
pub(super) struct HeadWatch {
    timeout: Duration,
    /// How many requests had begun when the first byte of the next came.
    begun: Option<usize>,
    /// Made when the rest of a head has to be waited for, which is seldom.
    timer: Option<Pin<Box<Sleep>>>,
}

impl HeadWatch {
    /// Heads may take `timeout` each.
    pub(super) const fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            begun: None,
            timer: None,
        }
    }

    /// Bytes came.
    pub(super) fn arrived(&mut self, activity: &Activity) {
        if !activity.is_busy() && self.begun.is_none() {
            self.begun = Some(activity.begun());
        }
    }

    /// More bytes have to be waited for. Ready if that has been so for too long within a head.
    pub(super) fn poll_late(&mut self, activity: &Activity, context: &mut Context<'_>) -> Poll<()> {
        if self.begun != Some(activity.begun()) {
            (self.begun, self.timer) = (None, None);
            return Poll::Pending;
        }
        let timeout = self.timeout;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        let late = timer.as_mut().poll(context);
        if late.is_ready() {
            let what = format_args!("the head of a request that took longer than {timeout:?}");
            activity.refusals().count(Limit::HeadTime, what);
        }
        late
    }
}
