//! Connections that speak HTTP/1: serving requests, and ending without losing one.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::extract::RequestContext;
use super::grpc::{self, Grpc};
use super::layers::HttpService;
use super::malformed::ReplacedRefusals;
use super::{Api, Listener, reply};
use crate::listen::{self, Peer, Socket, Stream};

/// A connection's buffer. Heads are limited by the decoder, well below this.
const BUFFER: usize = 256 << 10;
/// How long connections are served on when the server stops: what a client had sent before is read by then.
const GRACE: Duration = Duration::from_millis(100);

/// What is spoken on a listener.
#[derive(Clone)]
pub enum Protocol {
    /// REST over HTTP/1.
    Rest(Arc<Api>),
    /// gRPC over HTTP/2.
    Grpc(Arc<Grpc>),
}

/// Serves `api` on `socket` until `stop`; then finishes what clients have sent, and returns when every connection
/// has ended.
pub async fn serve(socket: Socket, api: Protocol, stop: CancellationToken) {
    let stopped = stop.clone();
    match api {
        Protocol::Rest(api) => {
            let service = api.service();
            let each = move |stream, peer| {
                let (api, service) = (Arc::clone(&api), service.clone());
                connection(stream, peer, api, service, stop.clone())
            };
            listen::accept(socket, stopped, each).await;
        }
        Protocol::Grpc(api) => {
            let service = api.service();
            let each = move |stream, peer| {
                grpc::serve(
                    stream,
                    peer,
                    Arc::clone(&api),
                    service.clone(),
                    stop.clone(),
                )
            };
            listen::accept(socket, stopped, each).await;
        }
    }
}

/// What is agreed on within TLS on `listener`, and what a client gets that speaks none.
pub fn within_tls(listener: Listener) -> (&'static [&'static [u8]], Bytes) {
    if listener.is_grpc() {
        return (&[b"h2"], Bytes::new());
    }
    (&[b"http/1.1"], reply::not_tls())
}

async fn connection(
    stream: Stream,
    peer: Peer,
    api: Arc<Api>,
    service: impl HttpService,
    stop: CancellationToken,
) {
    let (stop, is_answered) = (&stop, &AtomicBool::new(false));
    let service = service_fn(|request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        let adopts = api.cfg.adopt_request_id;
        let context = RequestContext::of_head(peer, request.headers(), adopts);
        request.extensions_mut().insert(context);
        let answered = service.clone().oneshot(request);
        async move {
            let mut response = answered.await?;
            if stop.is_cancelled() {
                reply::close_after(&mut response);
            }
            is_answered.store(true, Ordering::Relaxed);
            Ok::<_, Infallible>(response)
        }
    });
    let stream = ReplacedRefusals::new(stream, is_answered, || api.refuse(peer));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(api.cfg.keep_alive)
        .max_buf_size(BUFFER)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
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
