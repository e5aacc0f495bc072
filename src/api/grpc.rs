//! gRPC: the same operations as REST, for clients that speak protobuf over HTTP/2.
//!
//! Calls are looked up in the table of [`routes`](super::routes), checked, timed and logged here, and then handed to
//! the servers that tonic generates, which decode messages within limits. What a method does is its service's
//! business: each has a file of its own. It does not know sockets: `api::connection` accepts.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::authority::Authority;
use super::routes::grpc::{GrpcRoute, GrpcRouter, Messages};
use super::{Listener, Services, reply};
use crate::error::Error;
use crate::listen::Peer;

mod call;
mod connection;
mod health;
mod inbound;
mod inference;
mod management;
mod open_inference;
mod outbound;
pub mod proto;
mod servers;
mod status;
mod timeout;

pub(super) use connection::serve;

use call::Caller;
use inbound::Inbound;
use outbound::{Line, Outbound};
use servers::Servers;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A response on its way to the wire.
type Response = hyper::Response<Outbound>;

/// Settings of one gRPC listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// How old a connection may become before its client is asked to make another; `None` for any age.
    pub max_connection_age: Option<Duration>,
    /// How long calls may go on after that; `None` for as long as they take.
    pub max_connection_age_grace: Option<Duration>,
}

/// The gRPC API of one listener.
pub struct Grpc {
    services: Services,
    router: GrpcRouter,
    authority: Authority,
    servers: Servers,
    cfg: Config,
    stop: CancellationToken,
    max_request_size: usize,
}

impl Grpc {
    /// The API of `listener`. Streams that have no end of their own end with `stop`.
    pub fn new(
        listener: Listener,
        services: Services,
        api: &super::Config,
        cfg: Config,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let router = GrpcRouter::new(listener, api.oip);
        Arc::new(Self {
            servers: Servers::new(&router, &services, api),
            authority: Authority::new(services.tokens.clone(), api.enable_model_api),
            services,
            router,
            cfg,
            stop: stop.clone(),
            max_request_size: api.max_request_size,
        })
    }

    /// Answers one call. Never fails: a failure is an answer.
    async fn respond(&self, request: hyper::Request<Incoming>, peer: Peer) -> Response {
        let (head, body) = request.into_parts();
        let caller = Caller::new(self.stop.clone());
        let line = Line::begin(&self.services, &caller, peer, head.uri.path());
        if let Some(refusal) = refusal(&head) {
            return outbound::bare(refusal, line);
        }
        let mut response = match self.answer(head, body, &caller).await {
            Ok(response) => self.checked(response, &caller),
            Err(status) => status.into_http(),
        };
        if let Ok(id) = HeaderValue::from_str(caller.id()) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        outbound::finish(response, line)
    }

    async fn answer(
        &self,
        mut head: Parts,
        body: Incoming,
        caller: &Caller,
    ) -> Result<hyper::Response<tonic::body::Body>, Status> {
        let route = self.route(&head).map_err(|error| caller.fail(&error))?;
        let permitted = self.authority.check(route.permission, &head.headers);
        permitted.map_err(|error| caller.refuse(&error))?;
        let deadline = timeout::deadline(&head.headers, caller.arrival());
        let deadline = deadline.map_err(|error| caller.fail(&error))?;
        let caller = caller.clone().until(deadline);
        head.extensions.insert(caller.clone());
        let stop = (route.messages == Messages::Stream).then(|| self.stop.clone());
        let request = hyper::Request::from_parts(head, Inbound::new(body, stop));
        let served = self.servers.call(&route, request);
        match deadline {
            None => Ok(served.await),
            Some(deadline) => {
                let served = tokio::time::timeout_at(timeout::with_grace(deadline), served).await;
                served.map_err(|_| caller.fail(&timeout::expired()))
            }
        }
    }

    /// The row of the method that is called.
    fn route(&self, head: &Parts) -> Result<GrpcRoute, Error> {
        let path = head.uri.path();
        let found = self.router.find(path);
        found.ok_or_else(|| status::no_such_method(path))
    }

    /// tonic refuses messages over the limit as out of range; gRPC's own word is another. What a service says passes.
    fn checked(
        &self,
        response: hyper::Response<tonic::body::Body>,
        caller: &Caller,
    ) -> hyper::Response<tonic::body::Body> {
        let refused = response.extensions().get::<Status>();
        let is_limit = refused.is_some_and(|status| status.code() == Code::OutOfRange);
        if is_limit && !caller.has_failed() {
            return caller
                .fail(&status::too_large(self.max_request_size))
                .into_http();
        }
        response
    }
}

/// What is no gRPC at all is refused in HTTP's words, as gRPC's specification asks.
fn refusal(head: &Parts) -> Option<StatusCode> {
    if head.method != Method::POST {
        return Some(StatusCode::METHOD_NOT_ALLOWED);
    }
    let media = head.headers.get(header::CONTENT_TYPE);
    let is_grpc = media.is_some_and(|media| is_protobuf(media.as_bytes()));
    (!is_grpc).then_some(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

/// `application/grpc`, `application/grpc+proto`, each with parameters or without.
fn is_protobuf(media: &[u8]) -> bool {
    let essence = media.split(|byte| *byte == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii();
    essence.eq_ignore_ascii_case(b"application/grpc")
        || essence.eq_ignore_ascii_case(b"application/grpc+proto")
}
