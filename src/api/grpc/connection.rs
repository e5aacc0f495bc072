//! One HTTP/2 connection: its limits, its age, and its end.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use super::Grpc;
use crate::listen::Peer;

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
/// What a client without calls gets to go when it is asked to.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves one connection until its client closes it; until `stop`, or until it is too old, and then until its calls
/// have been answered.
pub(in crate::api) async fn serve<S>(stream: S, peer: Peer, api: Arc<Grpc>, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let heard = Arc::new(AtomicUsize::new(0));
    let cfg = api.cfg.clone();
    let calls = Calls::default();
    let each = calls.clone();
    let service = service_fn(move |request| {
        let (api, call) = (Arc::clone(&api), each.clone());
        async move {
            let response = api.respond(request, peer).await;
            Ok::<_, Infallible>(response.map(|body| body.of_call(call)))
        }
    });
    let io = TokioIo::new(Heard {
        stream,
        bytes: Arc::clone(&heard),
    });
    let mut served = pin!(builder().serve_connection(io, service));
    let grace = tokio::select! {
        ended = served.as_mut() => return log(peer, ended),
        () = silence(&heard) => return tracing::debug!(%peer, "no HTTP/2 preface"),
        () = stop.cancelled() => None,
        () = old(cfg.max_connection_age) => cfg.max_connection_age_grace,
    };
    served.as_mut().graceful_shutdown();
    tokio::select! {
        ended = served => log(peer, ended),
        () = old(grace) => tracing::debug!(%peer, "calls took longer than the connection may last"),
        () = calls.idle() => tracing::debug!(%peer, "the client does not go, and calls nothing"),
    }
}

/// The calls of one connection: a clone for each that is not answered, and two that belong to the connection.
#[derive(Clone, Default)]
pub(super) struct Calls(Arc<()>);

impl Calls {
    /// Returns once there was none for a while. An honest client has gone by then.
    async fn idle(&self) {
        loop {
            tokio::time::sleep(FAREWELL).await;
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

/// Returns if the client does not speak; then nobody pings it either.
async fn silence(heard: &AtomicUsize) {
    tokio::time::sleep(PREFACE_TIMEOUT).await;
    if heard.load(Ordering::Relaxed) >= PREFACE {
        std::future::pending::<()>().await;
    }
}

/// Returns after `age`, if there is one.
async fn old(age: Option<Duration>) {
    match age {
        Some(age) => tokio::time::sleep(age).await,
        None => std::future::pending().await,
    }
}

/// A stream that counts what was read from it.
struct Heard<S> {
    stream: S,
    bytes: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        let bytes = buffer.filled().len() - before;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
