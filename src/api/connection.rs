//! Connections that speak REST: which version of HTTP, serving requests over it, and ending without losing one.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::begun::Begun;
use super::delivery::Delivered;
use super::extract::RequestContext;
use super::grpc::{self, Grpc};
use super::http2::{self, Connected, Lifetime, Rules};
use super::layers::HttpService;
use super::linger::Lingers;
use super::malformed::ReplacedRefusals;
use super::{Api, Listener, host, reply};
use crate::listen::{self, Peer, Socket, Stream};

/// A connection's buffer. Heads are limited by the decoder, well below this.
const BUFFER: usize = 256 << 10;
/// HTTP/2 as clients and the server agree on it within TLS.
const HTTP_2: &[u8] = b"h2";
/// How long connections are served on when the server stops: what a client had sent before is read by then.
const GRACE: Duration = Duration::from_millis(100);

/// What is spoken on a listener.
#[derive(Clone)]
pub enum Protocol {
    /// REST over HTTP/1 and HTTP/2.
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
        return (&[HTTP_2], Bytes::new());
    }
    (&[HTTP_2, b"http/1.1"], reply::not_tls())
}

/// Serves one connection in the version of HTTP that its client speaks.
async fn connection(
    stream: Stream,
    peer: Peer,
    api: Arc<Api>,
    service: impl HttpService,
    stop: CancellationToken,
) {
    let agreed = stream.agreed_protocol().map(|name| name == HTTP_2);
    let mut stream = Begun::new(stream.with_heads_within(api.common.cfg.head_timeout));
    let is_http2 = match agreed {
        Some(is_http2) => Some(is_http2),
        None => is_http2(&mut stream, api.common.cfg.keep_alive, &stop).await,
    };
    match is_http2 {
        None => tracing::debug!(%peer, "no request"),
        Some(false) => http1_connection(stream, peer, api, service, stop).await,
        Some(true) => Box::pin(http2_connection(stream, peer, api, service, stop)).await,
    }
}

/// Whether the client speaks HTTP/2; `None` if it says nothing within `keep_alive`, or until the server stops.
async fn is_http2(
    stream: &mut Begun<Stream>,
    keep_alive: Duration,
    stop: &CancellationToken,
) -> Option<bool> {
    tokio::select! {
        biased;
        begun = tokio::time::timeout(keep_alive, stream.is_http2()) => begun.ok()?.ok(),
        // What has begun by then is most likely the request of an HTTP/1 client.
        () = grace(stop) => stream.has_begun().then_some(false),
    }
}

async fn http2_connection(
    stream: Begun<Stream>,
    peer: Peer,
    api: Arc<Api>,
    service: impl HttpService,
    stop: CancellationToken,
) {
    let rules = Rules {
        lifetime: Lifetime {
            idle: Some(api.common.cfg.keep_alive),
            ..Lifetime::default()
        },
        limits: api.common.cfg.http2,
        write_timeout: api.common.cfg.write_timeout,
        refusals: api.services.refusals.clone(),
    };
    let adopts = api.common.cfg.adopt_request_id;
    let stream = stream.map(Stream::without_heads);
    let account = stream.get_ref().account().clone();
    let activity = stream.get_ref().activity().clone();
    let answer = move |mut request: Request<Body>, connected: Connected| {
        let call = connected.begin();
        host::add(&mut request);
        let is_grpc = grpc::is_call(request.headers());
        let context = RequestContext::of_head(peer, request.headers(), adopts);
        let context = context.of_account(account.clone());
        request.extensions_mut().insert(context);
        let answered = service.clone().oneshot(request);
        async move {
            let mut response = answered.await?.map(Body::new);
            // It is about a connection over HTTP/1.
            response.headers_mut().remove(header::CONNECTION);
            if is_grpc && response.status().as_u16() >= 400 {
                response = grpc::only_rest();
            }
            Ok::<_, Infallible>(response.map(|body| Delivered::new(body, call)))
        }
    };
    http2::serve(stream, (peer, activity), rules, answer, stop).await;
}

async fn http1_connection(
    stream: Begun<Stream>,
    peer: Peer,
    api: Arc<Api>,
    service: impl HttpService,
    stop: CancellationToken,
) {
    let (stop, is_answered) = (&stop, &AtomicBool::new(false));
    let account = stream.get_ref().account().clone();
    let activity = stream.get_ref().activity().clone();
    let service = service_fn(|request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        let adopts = api.common.cfg.adopt_request_id;
        let context = RequestContext::of_head(peer, request.headers(), adopts);
        let context = context.of_account(account.clone());
        request.extensions_mut().insert(context);
        let busy = activity.begin();
        let answered = service.clone().oneshot(request);
        async move {
            let mut response = answered.await?;
            if stop.is_cancelled() {
                reply::close_after(&mut response);
            }
            is_answered.store(true, Ordering::Relaxed);
            drop(busy);
            Ok::<_, Infallible>(response)
        }
    });
    let stream = ReplacedRefusals::new(Lingers::new(stream), is_answered, || api.refuse(peer));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(api.common.cfg.keep_alive)
        .max_buf_size(BUFFER)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => Some(ended),
        () = grace(stop) => None,
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

/// Returns when the server has been stopping for a moment.
async fn grace(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(GRACE).await;
}
