//! gRPC: the same operations as REST, for clients that speak protobuf over HTTP/2.
//!
//! A listener has one axum `Router` with a route for each row of [`routes`](super::routes), behind the layers that REST
//! has, too. Rows lead to the servers that tonic generates, which decode messages within limits. What a method does is its
//! service's business: each has a file of its own. It does not know sockets: `api::connection` accepts.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tower::ServiceExt as _;

use super::audit::{self, AuditedCall};
use super::authority::{Authority, named};
use super::extract::RequestContext;
use super::layers::{self, HttpService};
use super::routes::grpc::{GrpcRoute, GrpcTable, Messages};
use super::{Listener, Services};
use crate::error::{Error, Kind};

mod call;
pub mod codec;
mod connection;
mod contents;
mod framing;
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

use super::http2::Connected;
use call::Caller;
use inbound::{Inbound, InboundLimits};
#[cfg(any(test, feature = "fuzzing"))]
pub(super) use open_inference::fuzz;
use outbound::{Line, Outbound};
use servers::GrpcServer;

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
    table: GrpcTable,
    authority: Authority,
    api: super::Config,
    pub(super) cfg: Config,
    stop: CancellationToken,
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
        Arc::new(Self {
            table: GrpcTable::new(listener, api.oip),
            authority: Authority::new(&services, api.enable_model_api),
            services,
            api: api.clone(),
            cfg,
            stop: stop.clone(),
        })
    }

    /// What answers the calls of a listener, each with its [`RequestContext`]: the router, and the layers around it.
    pub(super) fn service(self: &Arc<Self>) -> impl HttpService + use<> {
        let api = Arc::clone(self);
        layers::around(servers::router(self), move |router, request| {
            answer(Arc::clone(&api), router, request)
        })
    }

    fn inbound_limits(&self) -> InboundLimits {
        InboundLimits {
            message: self.api.max_request_size,
            timeout: self.api.body_timeout,
            refusals: self.services.refusals.clone(),
        }
    }

    /// Replaces tonic's refusal of a message over the limit, whose code is not gRPC's own, and failures of layers. What a
    /// service answers passes.
    fn checked(&self, response: hyper::Response<Body>, caller: &Caller) -> hyper::Response<Body> {
        let refused = response.extensions().get::<Status>();
        let is_limit = refused.is_some_and(|status| status.code() == Code::OutOfRange);
        if is_limit && !caller.has_failed() {
            let status = caller.fail(&status::too_large(self.api.max_request_size));
            return status.into_http();
        }
        if let Some(error) = response.extensions().get::<Error>() {
            return caller.fail(error).into_http();
        }
        response
    }
}

/// Answers one call: refuses what is no gRPC, gives failures of layers their form, and writes down how the call ended.
async fn answer(
    api: Arc<Grpc>,
    inner: impl HttpService,
    mut request: Request,
) -> Result<Response, Infallible> {
    let context = RequestContext::of(request.extensions());
    let call = request.extensions_mut().remove::<Connected>();
    let call = call.map(Connected::begin);
    let (peer, catalog) = (context.peer, api.services.catalog.clone());
    let caller = Caller::new(context, catalog, api.stop.clone());
    let line = Line::begin(&api.services, &caller, peer, request.uri().path());
    if let Some(refusal) = refusal(&request) {
        return Ok(outbound::bare(refusal, line, call));
    }
    request.extensions_mut().insert(caller.clone());
    let mut response = inner.oneshot(request).await?.map(Body::new);
    // axum sets it where there is no body, which in gRPC says nothing.
    response.headers_mut().remove(header::CONTENT_LENGTH);
    let mut response = api.checked(response, &caller);
    if let Ok(id) = HeaderValue::from_str(caller.id()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    Ok(outbound::finish(response, line, call))
}

/// Has `server` answer a call to the method of `route`, if the call may be made, until the client stops waiting.
async fn call<S>(
    api: Arc<Grpc>,
    route: GrpcRoute,
    server: S,
    request: Request,
) -> Result<hyper::Response<tonic::body::Body>, Status>
where
    S: GrpcServer,
{
    let caller = Caller::within(request.extensions())?;
    let Some(call) = audited(&api, route, request.headers(), &caller) else {
        return answered(api, route, server, request, caller).await;
    };
    let caller = caller.noting(call.notes().clone());
    let answer = answered(api, route, server, request, caller.clone()).await;
    call.ended(status_of(&answer, &caller));
    answer
}

/// The call as the audit log has it, if it is for that.
fn audited(
    api: &Grpc,
    route: GrpcRoute,
    headers: &HeaderMap,
    caller: &Caller,
) -> Option<AuditedCall> {
    let log = api.services.audit.as_ref();
    let log = log.filter(|_| audit::is_audited(route.permission))?;
    let name = format!("gRPC {}/{}", route.service, route.method);
    let principal = api.authority.principal(headers);
    let context = caller.context().clone();
    let call = AuditedCall::begin(log.clone(), principal, name, context);
    call.notes().named_tenant(named(headers));
    Some(call)
}

/// The status of HTTP that an answer would have over REST.
fn status_of<B>(answer: &Result<hyper::Response<B>, Status>, caller: &Caller) -> u16 {
    let has_failed = match answer {
        Ok(response) => {
            let code = response.headers().get(Status::GRPC_STATUS);
            code.is_some_and(|code| code != "0")
        }
        Err(_) => true,
    };
    if has_failed && !caller.has_failed() {
        // No service failed: the message was none.
        caller.note_failure(Kind::BadRequest);
        return Kind::BadRequest.wire().status;
    }
    caller.failure().unwrap_or(200)
}

async fn answered<S>(
    api: Arc<Grpc>,
    route: GrpcRoute,
    server: S,
    request: Request,
    caller: Caller,
) -> Result<hyper::Response<tonic::body::Body>, Status>
where
    S: GrpcServer,
{
    let (mut head, body) = request.into_parts();
    let access = api.authority.check(route.permission, &head.headers);
    let access = access.map_err(|error| caller.refuse(&error))?;
    let caller = match access {
        Some(access) => {
            super::record_tenant(&access);
            caller.with_access(access)
        }
        None => caller,
    };
    let deadline = timeout::deadline(&head.headers, caller.arrival());
    let deadline = deadline.map_err(|error| caller.fail(&error))?;
    head.extensions.insert(caller.clone().until(deadline));
    let is_stream = route.messages == Messages::Stream;
    let stop = is_stream.then(|| api.stop.clone());
    let body = Inbound::new(body, caller.clone(), api.inbound_limits(), stop);
    let answer = server.oneshot(hyper::Request::from_parts(head, body));
    let answer = match deadline {
        None => answer.await,
        Some(deadline) => tokio::time::timeout_at(timeout::with_grace(deadline), answer)
            .await
            .map_err(|_| caller.fail(&timeout::expired()))?,
    };
    if !is_stream {
        // It was answered: what it sent is not needed any more.
        drop(caller.take_kept());
    }
    answer.map_err(|never| match never {})
}

/// The HTTP status that refuses what is not gRPC, as gRPC's specification asks.
fn refusal(request: &Request) -> Option<StatusCode> {
    if request.method() != Method::POST {
        return Some(StatusCode::METHOD_NOT_ALLOWED);
    }
    (!is_call(request.headers())).then_some(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

/// Whether a request with `headers` is a call of gRPC.
pub(super) fn is_call(headers: &HeaderMap) -> bool {
    let media = headers.get(header::CONTENT_TYPE);
    media.is_some_and(|media| is_protobuf(media.as_bytes()))
}

/// The answer to a call where REST alone is spoken. Clients of gRPC would take REST's for broken messages.
pub(super) fn only_rest() -> hyper::Response<Body> {
    let text = "REST is spoken at this address; gRPC has ports of its own (grpc_inference_port, grpc_management_port)";
    Status::unimplemented(text).into_http()
}

/// `application/grpc`, `application/grpc+proto`, each with parameters or without.
fn is_protobuf(media: &[u8]) -> bool {
    let essence = media.split(|byte| *byte == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii();
    essence.eq_ignore_ascii_case(b"application/grpc")
        || essence.eq_ignore_ascii_case(b"application/grpc+proto")
}
