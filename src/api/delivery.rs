//! Whether the client of a connection over HTTP/2 takes its answers.
//!
//! Such a client says for each answer how much of it may be sent, so an answer that it does not want blocks no socket. But
//! hyper asks a body for more only when its client takes more. So it is watched how long none of the answers that are not
//! finished is asked.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::http2::Call;

/// Bytes that are handed over at once. What is longer is handed over in parts, so that it is seen whether the client takes them.
pub(super) const PART: usize = 64 << 10;

/// The answers of one connection. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Deliveries(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Answers whose next part waits for their client.
    held_up: AtomicUsize,
    /// How often one moved on.
    moved: AtomicU64,
}

/// One answer on its way.
#[derive(Debug)]
pub(super) struct Delivery {
    counts: Arc<Counts>,
    is_held_up: bool,
}

impl Deliveries {
    /// An answer begins.
    pub(super) fn begin(&self) -> Delivery {
        Delivery {
            counts: Arc::clone(&self.0),
            is_held_up: false,
        }
    }

    /// Returns once answers were held up for `timeout`, and none moved on.
    pub(super) async fn stalled(&self, timeout: Duration) {
        loop {
            let before = self.0.moved.load(Relaxed);
            tokio::time::sleep(timeout).await;
            if self.0.held_up.load(Relaxed) > 0 && self.0.moved.load(Relaxed) == before {
                return;
            }
        }
    }
}

impl Delivery {
    /// The client takes more.
    pub(super) fn asked(&mut self) {
        self.moved(false);
    }

    /// The client got a part, and has to ask for the next.
    pub(super) fn given(&mut self) {
        self.moved(true);
    }

    fn moved(&mut self, is_held_up: bool) {
        self.counts.moved.fetch_add(1, Relaxed);
        match (
            std::mem::replace(&mut self.is_held_up, is_held_up),
            is_held_up,
        ) {
            (false, true) => drop(self.counts.held_up.fetch_add(1, Relaxed)),
            (true, false) => drop(self.counts.held_up.fetch_sub(1, Relaxed)),
            _ => {}
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.asked();
    }
}

/// The body of an answer, handed over in parts.
pub(super) struct Delivered<B> {
    body: B,
    /// What is left of a piece of it.
    rest: Bytes,
    call: Call,
}

impl<B> Delivered<B> {
    /// `body`, the answer of `call`.
    pub(super) const fn new(body: B, call: Call) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            call,
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Delivered<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        this.call.delivery.asked();
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => this.rest = piece,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return Poll::Ready(other),
            }
        }
        let part = this.rest.split_to(this.rest.len().min(PART));
        this.call.delivery.given();
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    async fn is_stalled(deliveries: &Deliveries) -> bool {
        let stalled = deliveries.stalled(TIMEOUT);
        tokio::time::timeout(3 * TIMEOUT, stalled).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_answer_that_its_client_does_not_take_is_stalled() {
        let deliveries = Deliveries::default();
        let mut delivery = deliveries.begin();
        delivery.asked();
        assert!(!is_stalled(&deliveries).await, "the server has nothing yet");
        delivery.given();
        assert!(is_stalled(&deliveries).await);
        delivery.asked();
        assert!(!is_stalled(&deliveries).await, "the client took it");
        delivery.given();
        drop(delivery);
        assert!(!is_stalled(&deliveries).await, "the answer has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_is_not_cut() {
        let deliveries = Deliveries::default();
        let mut delivery = deliveries.begin();
        let slow = async {
            loop {
                delivery.asked();
                delivery.given();
                tokio::time::sleep(TIMEOUT / 30 * 29).await;
            }
        };
        tokio::select! {
            () = slow => {}
            is_stalled = is_stalled(&deliveries) => assert!(!is_stalled),
        }
    }
}
