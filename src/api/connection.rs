//! Connections: accepting, serving, and ending without losing a request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::linger::Lingering;
use super::{Api, reply};

/// How long a client may take to send a head, and a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);
/// A connection's buffer. Heads are limited by the decoder, well below this.
const BUFFER: usize = 256 << 10;
/// How long connections are served on when the server stops: what a client had sent before is read by then.
const GRACE: Duration = Duration::from_millis(100);
/// How long accepting waits after it failed for want of a resource.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `api` on `listener` until `stop`; then finishes what clients have sent, and returns when every connection
/// has ended.
pub async fn serve(listener: TcpListener, api: Arc<Api>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn(connection(stream, peer, Arc::clone(&api), stop.clone()));
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // The kernel has accepted these already: their clients may have sent a request.
    while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
        connections.spawn(connection(stream, peer, Arc::clone(&api), stop.clone()));
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connection(stream: TcpStream, peer: SocketAddr, api: Arc<Api>, stop: CancellationToken) {
    // Only latency suffers where this fails.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let (api, stop) = (Arc::clone(&api), stop.clone());
        async move {
            let mut response = api.respond(request, peer).await;
            if stop.is_cancelled() {
                reply::close_after(&mut response);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(Lingering::new(stream)), service);
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => Some(ended),
        () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => None,
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        served.as_mut().graceful_shutdown();
        served.await
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, "connection ended: {error}");
    }
}
