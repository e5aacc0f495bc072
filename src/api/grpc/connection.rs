//! One HTTP/2 connection: its limits, its age, and its end.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio_util::io::InspectReader;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::Grpc;
use crate::api::extract::RequestContext;
use crate::api::layers::HttpService;
use crate::listen::{Peer, Stream};

/// Calls at the same time on one connection. Clients keep further ones waiting on their side.
const STREAMS: u32 = 256;
/// Bytes of all headers of a call, as HTTP/2 counts them.
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
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves one connection until its client closes it; until `stop`, or until it is too old, and then until its calls
/// have been answered.
pub(in crate::api) async fn serve(
    stream: Stream,
    peer: Peer,
    api: Arc<Grpc>,
    service: impl HttpService,
    stop: CancellationToken,
) {
    let (cfg, adopts) = (&api.cfg, api.api.adopt_request_id);
    let received = Arc::new(AtomicUsize::new(0));
    let calls = Calls::default();
    let each = calls.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        let context = RequestContext::of_head(peer, request.headers(), adopts);
        request.extensions_mut().insert(context);
        request.extensions_mut().insert(each.clone());
        service.clone().oneshot(request)
    });
    let counted = Arc::clone(&received);
    let io = TokioIo::new(InspectReader::new(stream, move |bytes: &[u8]| {
        counted.fetch_add(bytes.len(), Ordering::Relaxed);
    }));
    let mut served = pin!(builder().serve_connection(io, service));
    let grace = tokio::select! {
        ended = served.as_mut() => return log(peer, ended),
        () = no_preface(&received) => return tracing::debug!(%peer, "no HTTP/2 preface"),
        () = stop.cancelled() => None,
        () = elapsed(cfg.max_connection_age) => cfg.max_connection_age_grace,
    };
    served.as_mut().graceful_shutdown();
    tokio::select! {
        ended = served => log(peer, ended),
        () = elapsed(grace) => tracing::debug!(%peer, "calls took longer than the connection may last"),
        () = calls.idle() => tracing::debug!(%peer, "the client keeps the connection open without calls"),
    }
}

/// The calls of one connection: a clone for each that is not answered, and two that belong to the connection.
#[derive(Clone, Default)]
pub(super) struct Calls(Arc<()>);

impl Calls {
    /// Returns once there was none for a while. A well-behaved client has closed the connection by then.
    async fn idle(&self) {
        loop {
            tokio::time::sleep(IDLE_TIMEOUT).await;
            if Arc::strong_count(&self.0) <= 2 {
                return;
            }
        }
    }
}

fn builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

fn log(peer: Peer, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%peer, "connection ended: {error}");
    }
}

/// Returns if the client sends no preface in time. hyper sends no pings before the preface.
async fn no_preface(received: &AtomicUsize) {
    tokio::time::sleep(PREFACE_TIMEOUT).await;
    if received.load(Ordering::Relaxed) >= PREFACE {
        std::future::pending::<()>().await;
    }
}

/// Returns after `age`, if there is one.
async fn elapsed(age: Option<Duration>) {
    match age {
        Some(age) => tokio::time::sleep(age).await,
        None => std::future::pending().await,
    }
}
