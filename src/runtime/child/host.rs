//! Calls in a worker process: each is a task, from the order to its answer.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dashmap::DashMap;
use futures_util::FutureExt;
use tokio::task::AbortHandle;
use tracing::{Instrument, Span};

use super::super::local::LocalRuntime;
use super::super::protocol::Violation;
use super::super::protocol::convert::{
    call_from_wire, failure_to_wire, reply_to_wire, spent_to_wire, workers_to_wire,
};
use super::super::protocol::messages::{Call, Report};
use super::super::protocol::outbox::{Outbox, Urgency};
use crate::error::{Error, Kind};
use crate::payload::{Meter, Output, Reply, Spent, Timings, request_span};
use crate::runtime::Bounds;

/// Calls under way beyond which nobody polls for the next: cores have work to do.
const FEW: usize = 2;

/// A handler says what it is within this time, whatever the front allows: it keeps instants from overflowing.
const LONGEST_DESCRIPTION: Duration = Duration::from_hours(1);

/// What becomes an answer.
trait CallFuture: Future<Output = Result<Reply, Error>> + Send + 'static {}

impl<F: Future<Output = Result<Reply, Error>> + Send + 'static> CallFuture for F {}

/// A version and the calls under way in it.
pub struct Host {
    runtime: LocalRuntime,
    outbox: Arc<Outbox>,
    calls: DashMap<u64, AbortHandle>,
    /// How many calls are listed. It is asked at every message, and the map would lock all its shards to say so.
    under_way: AtomicUsize,
    begun: AtomicU64,
}

impl Host {
    /// Answers go to `outbox`.
    pub fn new(runtime: LocalRuntime, outbox: Arc<Outbox>) -> Self {
        Self {
            runtime,
            outbox,
            calls: DashMap::new(),
            under_way: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
        }
    }

    /// Starts to answer a call.
    pub fn call(self: &Arc<Self>, call: Call<String>, body: Bytes) {
        let id = call.id;
        match call_from_wire(call, body) {
            Ok(request) => {
                let (runtime, span) = (self.runtime.clone(), request_span(&request.id));
                let meter = request.meter.clone();
                self.start(id, span, meter, async move { runtime.call(request).await });
            }
            Err(violation) => {
                self.refuse(id, Spent::default(), &malformed(&violation), Urgency::Now);
            }
        }
    }

    /// Starts to ask the handler what it says of its model.
    pub fn describe(self: &Arc<Self>, id: u64, request_id: String, left: Duration) {
        let runtime = self.runtime.clone();
        let deadline = Instant::now() + left.min(LONGEST_DESCRIPTION);
        let span = request_span(&request_id);
        self.start(id, span, Meter::default(), async move {
            let response = runtime.describe(&request_id, deadline).await?;
            Ok(Reply {
                output: Output::Response(response),
                timings: Timings::default(),
            })
        });
    }

    /// Ends a call that nobody waits for.
    pub fn cancel(&self, id: u64) {
        if let Some(call) = self.remove(id) {
            call.abort();
        }
    }

    /// Has the version start or stop workers, and answers when it has.
    pub fn scale(self: &Arc<Self>, id: u64, bounds: Bounds) {
        let host = self.clone();
        tokio::spawn(async move {
            let scaled = host.runtime.scale(bounds).await;
            let failure = scaled.as_ref().err().map(failure_to_wire);
            // Before the answer: whoever waits for it sees the workers it is about.
            let workers = workers_to_wire(&host.runtime.status().workers);
            super::send(&host.outbox, &Report::Workers(workers), Urgency::Now);
            super::send(&host.outbox, &Report::Scaled { id, failure }, Urgency::Now);
        });
    }

    /// Waits at most `timeout` for the calls under way, and ends the workers.
    pub async fn drain(&self, timeout: Duration) {
        self.runtime.drain(timeout).await;
    }

    /// Whether a call may be expected soon: few are under way, so that a core is free to poll for it.
    pub fn is_lively(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) <= FEW
    }

    /// Whether no call is under way.
    pub fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) == 0
    }

    /// How many calls have begun.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    fn start(self: &Arc<Self>, id: u64, span: Span, meter: Meter, answering: impl CallFuture) {
        let host = self.clone();
        // Locks the id until the task is listed, so that it cannot end before.
        let place = self.calls.entry(id);
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let answered = async move { host.answer(id, &meter, answering).await };
        let task = tokio::spawn(answered.instrument(span));
        place.insert(task.abort_handle());
    }

    /// Takes a call off the list; whoever finds it there counts it out.
    fn remove(&self, id: u64) -> Option<AbortHandle> {
        let (_, call) = self.calls.remove(&id)?;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        Some(call)
    }

    async fn answer(&self, id: u64, meter: &Meter, answering: impl CallFuture) {
        let answering = AssertUnwindSafe(answering).catch_unwind().await;
        self.remove(id);
        let is_last = self.under_way.load(Ordering::Relaxed) == 0;
        let urgency = if is_last { Urgency::Now } else { Urgency::Soon };
        match answering.unwrap_or_else(|_| Err(panicked())) {
            Ok(reply) => self.reply(id, meter.spent(), &reply, urgency),
            Err(error) => self.refuse(id, meter.spent(), &error, urgency),
        }
    }

    fn reply(&self, id: u64, spent: Spent, reply: &Reply, urgency: Urgency) {
        let (report, body) = reply_to_wire(id, reply, spent);
        if let Err(violation) = self.outbox.send(&report, &body, urgency) {
            self.refuse(id, spent, &too_large(&reply.output, &violation), urgency);
        }
    }

    fn refuse(&self, id: u64, spent: Spent, error: &Error, urgency: Urgency) {
        let report = Report::Refused {
            id,
            spent: spent_to_wire(spent),
            failure: failure_to_wire(error),
        };
        super::send(&self.outbox, &report, urgency);
    }
}

fn malformed(violation: &Violation) -> Error {
    Error::new(
        Kind::Internal,
        "the request did not reach its worker intact",
    )
    .with_detail(violation)
}

fn panicked() -> Error {
    Error::new(
        Kind::Internal,
        "the server failed while it answered the request",
    )
}

fn too_large(output: &Output, violation: &Violation) -> Error {
    let (kind, what) = match output {
        Output::Response(_) => (Kind::HandlerOutput, "the handler's response is"),
        Output::Tensors(_) => (Kind::InferenceFailed, "the model's outputs are"),
    };
    Error::new(kind, format!("{what} larger than a response may be")).with_detail(violation)
}
