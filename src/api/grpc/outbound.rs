//! A response on its way to the wire, and what is written down when it ends: a line of the access log, and a count.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::{HeaderMap, StatusCode};
use tonic::{Code, Status};

use super::call::Caller;
use super::{Response, Services};
use crate::api::access::{self, AccessLog};
use crate::api::delivery::PART;
use crate::api::http2::Call;
use crate::budget::Account;
use crate::listen::Peer;
use crate::metrics::{Answered, Metrics};

/// A response's body.
pub(super) struct Outbound {
    body: axum::body::Body,
    /// What is left of a piece of it.
    rest: Bytes,
    account: Account,
    line: Option<Line>,
    /// Tells the connection that the call goes on, and how.
    call: Option<Call>,
}

/// Said of a response whose pieces are charged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Charged;

/// What is written down of a call. Dropped before the call has ended, it says that the client left.
pub(super) struct Line {
    caller: Caller,
    metrics: Metrics,
    log: Option<AccessLog>,
    /// The beginning of the line, until it is written.
    begun: Option<access::LineStart>,
}

impl Line {
    /// The line of a call to `path`.
    pub(super) fn begin(services: &Services, caller: &Caller, peer: Peer, path: &str) -> Self {
        let log = services.access.clone();
        Self {
            caller: caller.clone(),
            metrics: services.metrics.clone(),
            begun: log.is_some().then(|| access::begin_grpc(peer, path)),
            log,
        }
    }

    /// The call has ended.
    fn end(mut self, code: Code) {
        let status = match (code, self.caller.failure()) {
            (Code::Ok, None) => 200,
            // What no service has said was wrong with the message.
            (_, None) => StatusCode::BAD_REQUEST.as_u16(),
            (_, Some(failure)) => failure,
        };
        self.metrics.answered(Answered::of(status));
        self.write(code as u16);
    }

    fn write(&mut self, code: u16) {
        if let (Some(log), Some(begun)) = (&self.log, self.begun.take()) {
            let took = self.caller.arrival().elapsed();
            log.finish(begun, self.caller.ids(), code, took);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.write(Code::Cancelled as u16);
    }
}

/// A response as it goes out. One without a body has its status in the head, and ends here.
pub(super) fn finish(
    mut response: hyper::Response<axum::body::Body>,
    line: Line,
    call: Option<Call>,
) -> Response {
    let account = match response.extensions_mut().remove::<Charged>() {
        Some(Charged) => Account::default(),
        None => line.caller.account().clone(),
    };
    let line = match code(response.headers()) {
        Some(code) => {
            line.end(code);
            None
        }
        None => Some(line),
    };
    response.map(|body| Outbound {
        body,
        rest: Bytes::new(),
        account,
        line,
        call,
    })
}

/// A status of HTTP and nothing else, for what is not gRPC.
pub(super) fn bare(status: StatusCode, line: Line, call: Option<Call>) -> Response {
    line.caller.record_status(status.as_u16());
    line.end(Code::Unknown);
    let mut response = hyper::Response::new(Outbound {
        body: axum::body::Body::empty(),
        rest: Bytes::new(),
        account: Account::default(),
        line: None,
        call,
    });
    *response.status_mut() = status;
    response
}

fn code(headers: &HeaderMap) -> Option<Code> {
    let value = headers.get(Status::GRPC_STATUS)?;
    Some(Code::from_bytes(value.as_bytes()))
}

impl Outbound {
    /// The next part of a piece, which is charged until the client has it.
    fn next_part(&mut self) -> Frame<Bytes> {
        let part = self.rest.split_to(self.rest.len().min(PART));
        if let Some(call) = &mut self.call {
            call.delivery.given();
        }
        Frame::data(part)
    }

    fn end(&mut self, code: Code) {
        if let Some(line) = self.line.take() {
            line.end(code);
        }
    }
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(call) = &mut self.call {
            call.delivery.asked();
        }
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.next_part())));
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.end(Code::Unknown);
                return Poll::Ready(Some(Err(error)));
            }
            None => {
                self.end(Code::Ok);
                return Poll::Ready(None);
            }
        };
        match frame.into_data() {
            Ok(piece) => {
                // What it was made of was charged, and is gone.
                self.rest = self.account.hold_anyway(piece);
                Poll::Ready(Some(Ok(self.next_part())))
            }
            Err(frame) => {
                if let Some(code) = frame.trailers_ref().and_then(code) {
                    self.end(code);
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
