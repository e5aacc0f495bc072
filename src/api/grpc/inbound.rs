//! A request's body on its way to the decoder: it may not stall, and streams without an end end when the server stops.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body as Incoming;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

/// How long a client may let the rest of its message wait.
const PIECE_TIMEOUT: Duration = Duration::from_mins(1);

/// A body.
pub(super) struct Inbound {
    body: Incoming,
    end: End,
}

/// What ends a body before its client does.
enum End {
    /// One message: it stalled. The timer is made when the body first has to be waited for.
    Stalled(Option<Pin<Box<Sleep>>>),
    /// A stream of messages: the server stops.
    Stopped(Pin<Box<WaitForCancellationFutureOwned>>),
}

impl Inbound {
    /// A stream that ends with `stop`; without it, the body of one message.
    pub(super) fn new(body: Incoming, stop: Option<CancellationToken>) -> Self {
        let end = stop.map_or(End::Stalled(None), |stop| {
            End::Stopped(Box::pin(stop.cancelled_owned()))
        });
        Self { body, end }
    }
}

impl End {
    /// What the body ends with, if it must.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Status>> {
        match self {
            Self::Stopped(stopped) => stopped.as_mut().poll(context).map(|()| None),
            Self::Stalled(timer) => {
                let timer =
                    timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(PIECE_TIMEOUT)));
                timer.as_mut().poll(context).map(|()| Some(stalled()))
            }
        }
    }

    /// The body has moved on.
    fn moved(&mut self) {
        if let Self::Stalled(timer) = self {
            *timer = None;
        }
    }
}

fn stalled() -> Status {
    let seconds = PIECE_TIMEOUT.as_secs();
    Status::deadline_exceeded(format!("The message stalled for {seconds} s"))
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.end.moved();
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| broken(&error))));
        }
        self.end.poll(context).map(|end| end.map(Err))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The client left, or broke HTTP/2's rules: no one receives this status.
fn broken(error: &axum::Error) -> Status {
    tracing::debug!("a call's body broke off: {error}");
    Status::cancelled("The body broke off")
}
