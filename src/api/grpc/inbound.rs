//! A request's body on its way to the decoder: its bytes are charged before more are read, it may not stall within a message,
//! and streams without an end end when the server stops.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body as Incoming;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use super::call::Caller;
use super::framing::Framing;
use crate::api::pace::Pace;
use crate::budget::Charge;
use crate::error::{Error, Kind};
use crate::refusals::{Limit, Refusals};

/// A body.
pub(super) struct Inbound {
    body: Incoming,
    caller: Caller,
    limits: InboundLimits,
    framing: Framing,
    /// Of the message that is being read.
    charge: Charge,
    room: Option<WaitForRoom>,
    stall: Stall,
    /// The end of a stream.
    stopped: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// Limits on bodies.
#[derive(Debug, Clone)]
pub(super) struct InboundLimits {
    /// Bytes of a message, after unpacking.
    pub message: usize,
    /// How long a message may take for what little must come of it.
    pub timeout: Duration,
    /// Counts those that stall.
    pub refusals: Refusals,
}

/// A charge that waited for room, and whether there was some.
type Charged = (Charge, Result<(), Error>);

/// A piece that was read, and waits for room.
struct WaitForRoom {
    piece: Bytes,
    charged: Pin<Box<dyn Future<Output = Charged> + Send>>,
}

/// When a message has stalled. The timer is made when the body first has to be waited for.
struct Stall {
    pace: Pace,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Inbound {
    /// The body of `caller`'s call: a stream that ends with `stop`; without it, the body of one message.
    pub(super) fn new(
        body: Incoming,
        caller: Caller,
        limits: InboundLimits,
        stop: Option<CancellationToken>,
    ) -> Self {
        Self {
            charge: caller.account().open(),
            framing: Framing::default(),
            room: None,
            stall: Stall {
                pace: Pace::new(limits.timeout),
                timer: None,
            },
            stopped: stop.map(|stop| Box::pin(stop.cancelled_owned())),
            body,
            caller,
            limits,
        }
    }

    /// Charges a piece that was read. Ready with it once there was room.
    fn poll_charged(
        &mut self,
        piece: Bytes,
        context: &mut Context<'_>,
    ) -> Poll<Result<Bytes, Status>> {
        let unpacked = self.framing.take(&piece, self.limits.message);
        let bytes = self.charge.bytes() + piece.len() + unpacked;
        if self.charge.grow_now(bytes) {
            self.hand_over();
            return Poll::Ready(Ok(piece));
        }
        let mut charge = std::mem::take(&mut self.charge);
        let charged = Box::pin(async move {
            let grown = charge.grow_to(bytes).await;
            (charge, grown)
        });
        self.room = Some(WaitForRoom { piece, charged });
        self.poll_room(context)
    }

    /// Ready once there was room for the piece that waits, or there was none for too long.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        let Some(room) = &mut self.room else {
            return Poll::Ready(Ok(Bytes::new()));
        };
        let (charge, grown) = ready!(room.charged.as_mut().poll(context));
        let piece = std::mem::take(&mut room.piece);
        self.room = None;
        self.charge = charge;
        self.stall.restart();
        if let Err(error) = grown {
            return Poll::Ready(Err(self.caller.fail(&error)));
        }
        self.hand_over();
        Poll::Ready(Ok(piece))
    }

    /// The charge of a message that is all there is the call's.
    fn hand_over(&mut self) {
        if self.framing.is_between_messages() {
            let next = self.caller.account().open();
            self.caller.keep(std::mem::replace(&mut self.charge, next));
        }
    }

    /// What the body ends with, if it must.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Option<Status>> {
        if let Some(stopped) = &mut self.stopped {
            if stopped.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            if self.framing.is_between_messages() {
                self.stall.restart();
                return Poll::Pending;
            }
        }
        ready!(self.stall.poll(context));
        let timeout = self.limits.timeout;
        let what = format_args!("a message that stalled for {timeout:?}");
        self.limits.refusals.count(Limit::BodyTime, what);
        let message = format!("The message stalled for {} s", timeout.as_secs());
        let error = Error::new(Kind::BodyTimedOut, message);
        Poll::Ready(Some(self.caller.fail(&error)))
    }
}

impl Stall {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let until = self.pace.deadline();
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until.into())));
        timer.as_mut().poll(context)
    }

    fn arrived(&mut self, bytes: usize) {
        if self.pace.arrived(bytes) {
            self.timer = None;
        }
    }

    fn restart(&mut self) {
        self.pace.restart();
        self.timer = None;
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.room.is_some() {
            let piece = ready!(self.poll_room(context));
            return Poll::Ready(Some(piece.map(Frame::data)));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            return self.poll_end(context).map(|end| end.map(Err));
        };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(broken(&error)))),
            None => return Poll::Ready(None),
        };
        match frame.into_data() {
            Ok(piece) => {
                self.stall.arrived(piece.len());
                let piece = ready!(self.poll_charged(piece, context));
                Poll::Ready(Some(piece.map(Frame::data)))
            }
            Err(trailers) => Poll::Ready(Some(Ok(trailers))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.room.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.room.is_some() {
            return SizeHint::default();
        }
        self.body.size_hint()
    }
}

/// The client left, or broke HTTP/2's rules: no one receives this status.
fn broken(error: &axum::Error) -> Status {
    tracing::debug!("a call's body broke off: {error}");
    Status::cancelled("The body broke off")
}
