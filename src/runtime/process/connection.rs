//! The front's end of the socket to one worker process: calls out, answers in, and who waits for which.
//!
//! It lives as long as one process. It knows neither how processes are started nor what becomes of requests whose
//! process died: it says [`Lost`], and the caller decides.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::liveness::ProcessActivity;
use super::reports::{ReportReceiver, answer_bytes};
use crate::error::Error;
use crate::model::ModelSpec;
use crate::payload::{Body, Meter, Reply, Request, Spent};
use crate::runtime::Bounds;
use crate::runtime::failures::{draining, expired, too_large, worker_died};
use crate::runtime::protocol::convert::{
    bounds_to_wire, call_to_wire, failure_from_wire, has_any_bytes, inferred_from_wire,
    reply_from_wire, spent_from_wire,
};
use crate::runtime::protocol::frame::FrameLimits;
use crate::runtime::protocol::incoming::{Ending, Incoming, Received};
use crate::runtime::protocol::messages::{self, Order, Report};
use crate::runtime::protocol::outbox::{Outbox, Urgency};
use crate::runtime::protocol::{GREETING, ORDER_LIMITS, REPORT_HEADER_LIMIT, Violation};
use crate::runtime::shared::{Ends, Gathered, Release};

/// With so few requests under way a frame is written at once; with more it is worth waiting for others to go along.
const FEW: usize = 2;

/// The process is gone, and this request's answer with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Why the process is gone; `None` when the request never reached it.
    pub reason: Option<Arc<str>>,
    /// Whether the process is likely to have died of this request: of those that it had, no other was suspected.
    pub is_suspect: bool,
    /// Whether a call had been cancelled in the process. Native code goes on after that: the process may have died of it.
    pub had_cancelled: bool,
}

impl Lost {
    /// The process was gone before the request reached it.
    const UNSENT: Self = Self {
        reason: None,
        is_suspect: false,
        had_cancelled: false,
    };

    /// The failure of a caller that does not try again.
    pub fn error(&self, model: &ModelSpec) -> Error {
        let reason = self.reason.as_deref();
        reason.map_or_else(|| draining(model), worker_died)
    }
}

/// Calls to one worker process.
#[derive(Debug)]
pub struct Connection {
    outbox: Arc<Outbox>,
    waiting: Mutex<Waiting>,
    /// Messages that came so far.
    received: AtomicU64,
    /// Milliseconds that the process's runtime threads have done nothing, as it says.
    stuck: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    by_id: HashMap<u64, Waiter>,
    /// Calls that nobody waits for any more and that the process has not answered: it may be about to.
    given_up: u64,
    /// Nothing more will be read.
    is_closed: bool,
    /// Whether a call was cancelled.
    had_cancelled: bool,
}

/// Where the answer to a call goes.
type Answer = oneshot::Sender<Result<Result<Reply, Error>, Lost>>;

/// Who waits for an answer.
enum Awaited {
    By(Waiter),
    /// Nobody any more.
    GivenUp,
    /// Nobody: it came before.
    Answered,
}

#[derive(Debug)]
enum Waiter {
    Call {
        deadline: Instant,
        is_suspected: bool,
        looks_into: LooksInto,
        meter: Meter,
        answer: Answer,
    },
    Scale(oneshot::Sender<Result<Result<(), Error>, Lost>>),
}

/// What this process looks into of an answer, and does not only pass on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LooksInto {
    responses: bool,
    tensors: bool,
}

impl LooksInto {
    const ALL: Self = Self {
        responses: true,
        tensors: true,
    };

    /// What it looks into of the answer to `request`. Tensors are made of a response to tensors.
    const fn of(request: &Request) -> Self {
        Self {
            responses: matches!(request.body, Body::Tensors(_)),
            tensors: !request.passes_tensors_on,
        }
    }
}

impl Connection {
    /// Talks to the process behind `stream`, with large bodies in `shared` memory if there is some. Both parts are needed: calls go
    /// through the first, and nothing is answered unless somebody reads from the second.
    pub fn new(
        stream: UnixStream,
        longest_response: usize,
        shared: Option<Ends>,
    ) -> (Arc<Self>, Incoming) {
        let stream = Arc::new(stream);
        let (arena, view) = shared.map(|ends| (ends.out, ends.into)).unzip();
        let outbox = Outbox::new(stream.clone(), ORDER_LIMITS, arena, &GREETING);
        let outbox = Arc::new(outbox);
        if let Some(view) = &view {
            view.on_release(tells_of_release(&outbox));
        }
        let connection = Self {
            outbox,
            waiting: Mutex::default(),
            received: AtomicU64::new(0),
            stuck: AtomicU64::new(0),
        };
        let limits = FrameLimits {
            header: REPORT_HEADER_LIMIT,
            body: longest_response,
        };
        (Arc::new(connection), Incoming::new(stream, limits, view))
    }

    /// Has everything written that waits for company, and gives up memory that is not needed: to be called from time to time.
    pub fn tidy(&self) {
        self.outbox.tidy();
    }

    /// Writes what callers leave to be written. To be run once, in a task of its own.
    pub async fn run_flusher(&self) {
        self.outbox.run_flusher().await;
    }

    /// Sends an order that nobody waits for.
    pub fn order(&self, order: &Order<&str>) -> Result<(), Violation> {
        self.outbox.send(order, &[], Urgency::Now)
    }

    /// Room for a body of `length` bytes in memory that the process sees, if it is large and there is some.
    pub fn gather(&self, length: usize) -> Option<Gathered> {
        self.outbox.gather(length)
    }

    /// Has one request answered. It `is_suspected` if an earlier process may have died of it, or if it is alone in this one.
    /// Dropping the future cancels the call in the process.
    pub async fn call(
        &self,
        request: &Request,
        is_suspected: bool,
    ) -> Result<Result<Reply, Error>, Lost> {
        let send = |id, urgency| {
            let (call, body) = call_to_wire(id, request);
            self.outbox.send(&Order::Call(call), &body, urgency)
        };
        let waiter = |answer| Waiter::Call {
            deadline: request.deadline.into(),
            is_suspected,
            looks_into: LooksInto::of(request),
            meter: request.meter.clone(),
            answer,
        };
        self.answered(waiter, send).await
    }

    /// Asks the handler what it says of its model. Dropping the future cancels the call in the process.
    pub async fn describe(
        &self,
        request_id: &str,
        deadline: Instant,
    ) -> Result<Result<Reply, Error>, Lost> {
        let send = |id, _| {
            let order = Order::Describe {
                id,
                request: request_id,
                left: deadline.saturating_duration_since(Instant::now()),
            };
            self.outbox.send(&order, &[], Urgency::Now)
        };
        let waiter = |answer| Waiter::Call {
            deadline,
            is_suspected: false,
            looks_into: LooksInto::ALL,
            meter: Meter::default(),
            answer,
        };
        self.answered(waiter, send).await
    }

    /// Waits for the answer to what `send` sends under an id of its own.
    async fn answered(
        &self,
        waiter: impl FnOnce(Answer) -> Waiter,
        send: impl FnOnce(u64, Urgency) -> Result<(), Violation>,
    ) -> Result<Result<Reply, Error>, Lost> {
        let (sender, answer) = oneshot::channel();
        let pending = self.register(waiter(sender))?;
        if let Err(violation) = send(pending.id, pending.urgency) {
            return Ok(Err(too_large(&violation)));
        }
        answer.await.unwrap_or(Err(Lost::UNSENT))
    }

    /// Has the process start or stop workers.
    pub async fn scale(&self, bounds: Bounds) -> Result<Result<(), Error>, Lost> {
        let (sender, answer) = oneshot::channel();
        let pending = self.register(Waiter::Scale(sender))?;
        let order = Order::<&str>::Scale {
            id: pending.id,
            workers: bounds_to_wire(bounds),
        };
        let sent = self.outbox.send(&order, &[], Urgency::Now);
        debug_assert!(sent.is_ok(), "a few bytes are within any limit");
        answer.await.unwrap_or(Err(Lost::UNSENT))
    }

    /// Answers requests whose deadline passed `grace` ago: the process should have done it, and did not.
    pub fn expire(&self, grace: Duration) {
        let now = Instant::now();
        let is_late = |_: &u64, waiter: &mut Waiter| match waiter {
            Waiter::Call { deadline, .. } => {
                deadline.checked_add(grace).is_some_and(|end| now >= end)
            }
            Waiter::Scale(_) => false,
        };
        let late: Vec<_> = {
            let mut waiting = self.waiting.lock();
            let late: Vec<_> = waiting.by_id.extract_if(is_late).collect();
            waiting.given_up += late.len() as u64;
            late
        };
        for (id, waiter) in late {
            self.cancel(id);
            waiter.expire();
        }
    }

    /// Tells everybody who waits that the process is gone, perhaps of a request as `may_be_poison` says.
    ///
    /// A request that merely was in a process when another one killed it must not be taken for the killer. So only one that
    /// was suspected is a suspect, and only if it was the only such: of two that were both in two processes, either may be
    /// innocent. Nobody is where a call was cancelled, which may run on.
    pub fn lose(&self, reason: &Arc<str>, may_be_poison: bool) {
        let (waiters, had_cancelled) = {
            let mut waiting = self.waiting.lock();
            waiting.is_closed = true;
            (std::mem::take(&mut waiting.by_id), waiting.had_cancelled)
        };
        self.outbox.give_up_memory();
        let suspected = waiters.values().filter(|waiter| waiter.is_suspected());
        let is_one = suspected.count() == 1;
        for waiter in waiters.into_values() {
            waiter.lose(|is_suspected| Lost {
                reason: Some(reason.clone()),
                is_suspect: may_be_poison && is_one && is_suspected && !had_cancelled,
                had_cancelled,
            });
        }
    }

    /// What has been observed of the process, which sends a message every second.
    pub fn observed(&self) -> ProcessActivity {
        ProcessActivity {
            received: self.received.load(Ordering::Relaxed),
            stuck: Duration::from_millis(self.stuck.load(Ordering::Relaxed)),
            is_stopped: false,
        }
    }

    /// Hands out answers and passes other reports to `reports`, until the process is gone or breaks a rule.
    pub async fn read(&self, mut incoming: Incoming, mut reports: ReportReceiver) -> Ending {
        let ending = loop {
            match incoming.next(|| self.is_lively()).await {
                Ok((report, body)) => {
                    self.received.fetch_add(1, Ordering::Relaxed);
                    let taken = match self.take(report, body, &mut reports) {
                        Ok(()) => reports.pace().await,
                        refused => refused,
                    };
                    if let Err(violation) = taken {
                        break violation.into();
                    }
                }
                Err(ending) => break ending,
            }
        };
        self.waiting.lock().is_closed = true;
        ending
    }

    fn take(
        &self,
        report: Report<String>,
        body: Received,
        reports: &mut ReportReceiver,
    ) -> Result<(), Violation> {
        let bytes = answer_bytes(&report, body.length());
        if let Received::Shared(_) = body
            && let Some(id) = self.unawaited(&report)
        {
            return match self.remove(id)? {
                Awaited::Answered => reports.take_unasked(bytes),
                Awaited::By(_) | Awaited::GivenUp => Ok(()),
            };
        }
        let is_awaited = match report {
            Report::Reply(reply) => {
                let (id, spent) = (reply.id, spent_from_wire(reply.spent)?);
                let body = self.body(&reply, body);
                let reply = reply_from_wire(reply, body)?;
                self.answer_call(id, spent, Ok(reply))?
            }
            Report::Inferred(inferred) => {
                let (id, spent) = (inferred.id, spent_from_wire(inferred.spent)?);
                let body = self.data(&inferred, body);
                let reply = inferred_from_wire(inferred, body)?;
                self.answer_call(id, spent, Ok(reply))?
            }
            Report::Refused { id, spent, failure } => {
                let spent = spent_from_wire(spent)?;
                self.answer_call(id, spent, Err(failure_from_wire(&failure)))?
            }
            Report::Scaled { id, failure } => {
                self.answer_scale(id, failure.as_ref().map(failure_from_wire))?
            }
            Report::Released { offset } => {
                let was_given = self.outbox.released(offset);
                let wrong = || Violation::Message(format!("nothing was shared at {offset}"));
                return was_given.then_some(()).ok_or_else(wrong);
            }
            other => {
                self.note_stuck(&other);
                return reports.take(other, body.length());
            }
        };
        if is_awaited {
            return Ok(());
        }
        reports.take_unasked(bytes)
    }

    fn note_stuck(&self, report: &Report<String>) {
        if let Report::Alive { stuck } = report {
            let millis = u64::try_from(stuck.as_millis()).unwrap_or(u64::MAX);
            self.stuck.store(millis, Ordering::Relaxed);
        }
    }

    /// The body of a reply. One that this process only passes on stays where it is; what a reply says of a failure is read.
    fn body(&self, reply: &messages::Reply<String>, body: Received) -> Bytes {
        let is_passed_on =
            || (200..300).contains(&reply.status) && !self.looks_into(reply.id).responses;
        match body {
            Received::Shared(bytes) if is_passed_on() => bytes,
            other => other.copied(),
        }
    }

    /// The data of tensors. It stays where it is if this process only passes it on, and need not look at it to know that it is
    /// valid.
    fn data(&self, inferred: &messages::Inferred<String>, body: Received) -> Bytes {
        let mut tensors = inferred.tensors.iter();
        match body {
            Received::Shared(bytes)
                if tensors.all(has_any_bytes) && !self.looks_into(inferred.id).tensors =>
            {
                bytes
            }
            other => other.copied(),
        }
    }

    /// What `report` answers, if nobody waits for that: then it is not worth a copy.
    fn unawaited(&self, report: &Report<String>) -> Option<u64> {
        let (Report::Reply(messages::Reply { id, .. })
        | Report::Inferred(messages::Inferred { id, .. })) = report
        else {
            return None;
        };
        let is_awaited = self.waiting.lock().by_id.contains_key(id);
        (!is_awaited).then_some(*id)
    }

    fn looks_into(&self, id: u64) -> LooksInto {
        match self.waiting.lock().by_id.get(&id) {
            Some(Waiter::Call { looks_into, .. }) => *looks_into,
            Some(Waiter::Scale(_)) | None => LooksInto::ALL,
        }
    }

    /// Whether an answer may be expected soon: few requests are under way, so that a core is free to poll for it.
    fn is_lively(&self) -> bool {
        (1..=FEW).contains(&self.waiting.lock().by_id.len())
    }

    fn register(&self, waiter: Waiter) -> Result<PendingCall<'_>, Lost> {
        let mut waiting = self.waiting.lock();
        if waiting.is_closed {
            return Err(Lost::UNSENT);
        }
        let id = waiting.next;
        waiting.next += 1;
        waiting.by_id.insert(id, waiter);
        let urgency = if waiting.by_id.len() <= FEW {
            Urgency::Now
        } else {
            Urgency::Soon
        };
        Ok(PendingCall {
            connection: self,
            id,
            urgency,
        })
    }

    /// Answers a call. Whether the answer was due, though perhaps nobody waits for it any more.
    fn answer_call(
        &self,
        id: u64,
        spent: Spent,
        result: Result<Reply, Error>,
    ) -> Result<bool, Violation> {
        match self.remove(id)? {
            Awaited::By(Waiter::Call { answer, meter, .. }) => {
                meter.add(spent);
                drop(answer.send(Ok(result)));
            }
            Awaited::By(Waiter::Scale(_)) => {
                return Err(Violation::Message(format!(
                    "order {id} was answered as a call"
                )));
            }
            Awaited::GivenUp => {}
            Awaited::Answered => return Ok(false),
        }
        Ok(true)
    }

    /// The same for an order to scale.
    fn answer_scale(&self, id: u64, failure: Option<Error>) -> Result<bool, Violation> {
        match self.remove(id)? {
            Awaited::By(Waiter::Scale(answer)) => {
                drop(answer.send(Ok(failure.map_or(Ok(()), Err))));
            }
            Awaited::By(Waiter::Call { .. }) => {
                return Err(Violation::Message(format!(
                    "call {id} was answered as an order"
                )));
            }
            Awaited::GivenUp => {}
            Awaited::Answered => return Ok(false),
        }
        Ok(true)
    }

    /// Who waits for `id`. An id that was never given out breaks a rule.
    fn remove(&self, id: u64) -> Result<Awaited, Violation> {
        let mut waiting = self.waiting.lock();
        if id >= waiting.next {
            return Err(Violation::Message(format!("{id} was never asked")));
        }
        if let Some(waiter) = waiting.by_id.remove(&id) {
            return Ok(Awaited::By(waiter));
        }
        if waiting.given_up == 0 {
            return Ok(Awaited::Answered);
        }
        waiting.given_up -= 1;
        Ok(Awaited::GivenUp)
    }

    fn cancel(&self, id: u64) {
        let sent = self
            .outbox
            .send(&Order::<&str>::Cancel { id }, &[], Urgency::Soon);
        debug_assert!(sent.is_ok(), "a few bytes are within any limit");
    }
}

/// Tells the other process what is not read any more, with the next frame.
fn tells_of_release(outbox: &Arc<Outbox>) -> Release {
    let outbox = Arc::downgrade(outbox);
    Box::new(move |offset| {
        if let Some(outbox) = outbox.upgrade() {
            let order = Order::<&str>::Released { offset };
            let sent = outbox.send(&order, &[], Urgency::Whenever);
            debug_assert!(sent.is_ok(), "a few bytes are within any limit");
        }
    })
}

impl Waiter {
    const fn is_suspected(&self) -> bool {
        matches!(
            self,
            Self::Call {
                is_suspected: true,
                ..
            }
        )
    }

    fn lose(self, lost: impl FnOnce(bool) -> Lost) {
        let lost = lost(self.is_suspected());
        match self {
            Self::Call { answer, .. } => drop(answer.send(Err(lost))),
            Self::Scale(answer) => drop(answer.send(Err(lost))),
        }
    }

    fn expire(self) {
        if let Self::Call { answer, .. } = self {
            drop(answer.send(Ok(Err(expired("before it was answered")))));
        }
    }
}

/// A call that waits for its answer. When it is dropped before, the call is cancelled in the process.
struct PendingCall<'a> {
    connection: &'a Connection,
    id: u64,
    urgency: Urgency,
}

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        let mut waiting = self.connection.waiting.lock();
        if waiting.by_id.remove(&self.id).is_some() {
            waiting.had_cancelled = true;
            waiting.given_up += 1;
            drop(waiting);
            self.connection.cancel(self.id);
        }
    }
}

#[cfg(test)]
mod tests;
