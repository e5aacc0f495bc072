//! One HTTP/2 connection, of REST or of gRPC: its limits, its age, and its end.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::io::{InspectReader, InspectWriter};
use tokio_util::sync::CancellationToken;

use super::Http2Limits;
use super::delivery::{Deliveries, Delivery};
use super::linger::Lingers;
use crate::listen::{Activity, Busy, Peer};
use crate::refusals::{Limit, Refusals};

/// Bytes of all headers of a call, as HTTP/2 counts them: more than any head has that is within the limits over HTTP/1.
const HEADERS: u32 = 16 << 10;
/// Bytes that a client may send ahead: of one call, and of all calls of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// How long a client may take for its preface.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
/// The preface: 24 bytes that say HTTP/2, and the head of a SETTINGS frame.
const PREFACE: usize = 24 + 9;
/// How often a silent client is asked whether it is still there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_mins(1);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a client without calls may keep a connection that it was asked to close.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lifetime {
    /// Its age, if it has a limit.
    pub age: Option<Duration>,
    /// How long calls may take when it is too old.
    pub grace: Option<Duration>,
    /// How long it may be without a call.
    pub idle: Option<Duration>,
}

/// What a connection is served within.
pub(super) struct Rules {
    /// How long it may last.
    pub lifetime: Lifetime,
    /// What its client may do at the same time.
    pub limits: Http2Limits,
    /// How long its client may take nothing of its answers.
    pub write_timeout: Duration,
    /// Counts what breaks a rule.
    pub refusals: Refusals,
}

/// Serves one connection of `peer` until its client closes it; until `stop`, or until it is too old or was idle for too long,
/// and then until its calls have been answered. Each request goes to `answer`, which begins a [`Call`] that lasts until the
/// answer was handed over.
pub(super) async fn serve<S, F, B>(
    stream: S,
    (peer, activity): (Peer, Activity),
    rules: Rules,
    answer: impl Fn(Request<Body>, Connected) -> F + Clone + Send + 'static,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Result<hyper::Response<B>, Infallible>> + Send + 'static,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let (calls, traffic) = (Calls::default(), Arc::new(Traffic::default()));
    let deliveries = Deliveries::default();
    let connected = Connected {
        calls: calls.clone(),
        deliveries: deliveries.clone(),
        activity,
    };
    let service = service_fn(move |request: Request<Incoming>| {
        answer(request.map(Body::new), connected.clone())
    });
    let io = TokioIo::new(traffic.watching(Lingers::new(stream)));
    let mut served = pin!(builder(rules.limits).serve_connection(io, service));
    let Rules {
        lifetime,
        write_timeout,
        refusals,
        ..
    } = &rules;
    let grace = tokio::select! {
        ended = served.as_mut() => return log(peer, refusals, ended),
        () = traffic.no_preface() => return tracing::debug!(%peer, "no HTTP/2 preface"),
        () = stop.cancelled() => None,
        () = deliveries.stalled(*write_timeout) => return cut(*write_timeout, refusals),
        () = elapsed(lifetime.age) => lifetime.grace,
        () = calls.idle(lifetime.idle) => None,
    };
    served.as_mut().graceful_shutdown();
    tokio::select! {
        ended = served => log(peer, refusals, ended),
        () = deliveries.stalled(*write_timeout) => cut(*write_timeout, refusals),
        () = elapsed(grace) => tracing::debug!(%peer, "calls took longer than the connection may last"),
        () = abandoned(&calls, &traffic) => tracing::debug!(%peer, "the client keeps the connection open without calls"),
    }
}

/// Counts a connection whose client takes nothing.
fn cut(timeout: Duration, refusals: &Refusals) {
    let what =
        format_args!("a client that took nothing of its answers over HTTP/2 for {timeout:?}");
    refusals.count(Limit::WriteTime, what);
}

fn builder(limits: Http2Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(limits.streams)
        .max_pending_accept_reset_streams(limits.resets)
        .max_header_list_size(HEADERS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// The calls of one connection.
#[derive(Debug, Clone, Default)]
struct Calls(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    since: Instant,
    open: AtomicUsize,
    /// When the last call ended, in ms.
    ended: AtomicU64,
}

/// The connection of a call, as the call finds it.
#[derive(Debug, Clone)]
pub(super) struct Connected {
    calls: Calls,
    deliveries: Deliveries,
    activity: Activity,
}

impl Connected {
    /// A call begins.
    pub(super) fn begin(self) -> Call {
        Call {
            delivery: self.deliveries.begin(),
            _busy: self.activity.begin(),
            _open: self.calls.begin(),
        }
    }
}

/// What goes with a call until its answer was handed over.
pub(super) struct Call {
    /// How far its answer gets.
    pub(super) delivery: Delivery,
    _busy: Busy,
    _open: OpenCall,
}

/// One call that is not answered.
#[derive(Debug)]
struct OpenCall(Arc<Counted>);

impl Default for Counted {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            open: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
        }
    }
}

impl Calls {
    fn begin(&self) -> OpenCall {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        OpenCall(Arc::clone(&self.0))
    }

    fn are_open(&self) -> bool {
        self.0.open.load(Ordering::Relaxed) > 0
    }

    /// Returns once there was none for `time`, if that is limited.
    async fn idle(&self, time: Option<Duration>) {
        let Some(time) = time else {
            return std::future::pending().await;
        };
        let mut left = time;
        while !left.is_zero() {
            tokio::time::sleep(left).await;
            left = if self.are_open() {
                time
            } else {
                time.saturating_sub(self.0.idle_for())
            };
        }
    }
}

impl Counted {
    /// How long it is since a call ended, or since the beginning.
    fn idle_for(&self) -> Duration {
        let ended = Duration::from_millis(self.ended.load(Ordering::Relaxed));
        self.since.elapsed().saturating_sub(ended)
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.ended.store(now, Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The bytes of one connection, counted.
#[derive(Debug, Default)]
struct Traffic {
    received: AtomicUsize,
    sent: AtomicUsize,
}

impl Traffic {
    /// `stream`, whose bytes are counted here.
    fn watching<S: AsyncRead + AsyncWrite>(
        self: &Arc<Self>,
        stream: S,
    ) -> impl AsyncRead + AsyncWrite + use<S> {
        let (reads, writes) = (Arc::clone(self), Arc::clone(self));
        let stream = InspectReader::new(stream, move |bytes: &[u8]| {
            reads.received.fetch_add(bytes.len(), Ordering::Relaxed);
        });
        InspectWriter::new(stream, move |bytes: &[u8]| {
            writes.sent.fetch_add(bytes.len(), Ordering::Relaxed);
        })
    }

    /// Returns if the client sends no preface in time. hyper sends no pings before the preface.
    async fn no_preface(&self) {
        tokio::time::sleep(PREFACE_TIMEOUT).await;
        if self.received.load(Ordering::Relaxed) >= PREFACE {
            std::future::pending::<()>().await;
        }
    }
}

/// Returns once there were no calls for a while and nothing more was sent. A well-behaved client has closed the connection
/// by then.
async fn abandoned(calls: &Calls, traffic: &Traffic) {
    loop {
        let before = traffic.sent.load(Ordering::Relaxed);
        tokio::time::sleep(CLOSING_TIMEOUT).await;
        if !calls.are_open() && traffic.sent.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

/// Returns after `time`, if there is one.
async fn elapsed(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// The reason that a connection ends with whose client only keeps the server busy, as it is called in HTTP/2.
const BUSYNESS: &str = "ENHANCE_YOUR_CALM";

fn log(peer: Peer, refusals: &Refusals, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        if format!("{error:?}").contains(BUSYNESS) {
            refusals.count(
                Limit::Http2,
                format_args!("a connection of {peer} whose client took back too many calls"),
            );
        }
        tracing::debug!(%peer, "connection ended: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_with_a_call_is_not_idle() {
        let calls = Calls::default();
        let call = calls.begin();
        let second = calls.begin();
        let idle = calls.idle(Some(Duration::from_millis(10)));
        let mut idle = pin!(idle);
        let mut waited = async |ms| {
            tokio::time::timeout(Duration::from_millis(ms), idle.as_mut())
                .await
                .is_ok()
        };
        assert!(!waited(100).await);
        drop(call);
        assert!(!waited(100).await, "another call goes on");
        drop(second);
        assert!(waited(100_000).await);
    }
}
