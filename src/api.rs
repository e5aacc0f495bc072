//! REST, and gRPC in [`grpc`]: what clients of TorchServe and of Open Inference Protocol speak, and nothing else.
//!
//! Only this module knows HTTP. Each socket has an axum `Router` made from one table of routes, within layers; bytes that
//! are not HTTP are answered below it. One decoder holds every size limit, and one function turns a failure into a
//! response. It does not know what a runtime is: it asks the catalog.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{self, IntoResponse as _};
use bytes::Bytes;
use hyper::{HeaderMap, Uri, Version};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::Span;

use crate::catalog::Catalog;
use crate::error::{Error, Fault, Kind};
use crate::listen::Peer;
use crate::metrics::{Answered, Metrics};
use crate::refusals::Refusals;
use crate::tenants::{Access, Tenants};
use crate::token::Tokens;

mod access;
mod archives;
mod audit;
mod authority;
mod begun;
mod connection;
mod decode;
mod delivery;
mod document;
mod extract;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub mod grpc;
mod health;
mod host;
mod http2;
mod inference;
mod kserve;
mod layers;
mod lenient;
mod linger;
mod logs;
mod malformed;
mod manage;
mod management;
mod oip;
mod pace;
mod parameters;
mod pieces;
mod reply;
mod rotate;
pub mod routes;
mod sagemaker;
mod scrape;
mod tenants;
mod uri;

pub use access::{AccessLine, AccessLog};
pub use audit::{AuditLine, AuditLog};
pub use connection::{Protocol, serve, within_tls};
pub use logs::Followers;
pub use reply::{BadHeader, Cors};
pub use routes::Listener;
pub use sagemaker::SageMaker;

use audit::Notes;
use authority::Authority;
use decode::Decoder;
use extract::RequestContext;
use layers::HttpService;
use manage::Operations;
use reply::CommonHeaders;
use routes::{Permission, Route, RouteTable, Surface};

/// A response on its way to the wire.
type Response = response::Response;

/// What endpoints work with, as axum hands it to them.
type ApiState = axum::extract::State<Arc<Api>>;

/// What endpoints end in.
type EndpointResult = Result<Response, Error>;

/// Settings of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting")]
pub struct Config {
    /// Bytes that a body may have.
    pub max_request_size: usize,
    /// Whether models may be registered and unregistered.
    pub enable_model_api: bool,
    /// Headers for browsers.
    pub cors: Cors,
    /// What `SageMaker` asks of a container, if it runs this one.
    pub sagemaker: Option<SageMaker>,
    /// Whether Open Inference Protocol is spoken under `/v2`.
    pub oip: bool,
    /// Whether KServe runs this server, or requests come in its envelopes: it takes `GET /` for a sign of life.
    pub kserve: bool,
    /// Whether a client's `x-request-id` becomes the id of its request.
    pub adopt_request_id: bool,
    /// How long a connection over HTTP/1 may stay without the head of its next request.
    pub keep_alive: Duration,
    /// How long the head of a request may take from its first byte on.
    pub head_timeout: Duration,
    /// How long a body may take for what little must come of it.
    pub body_timeout: Duration,
    /// How long a client may take nothing of its answer.
    pub write_timeout: Duration,
    /// Limits on connections over HTTP/2.
    pub http2: Http2Limits,
}

/// What the client of one connection over HTTP/2 may do at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2Limits {
    /// Calls under way. Clients keep further ones waiting on their side.
    pub streams: u32,
    /// Calls taken back before the server has looked at them.
    pub resets: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_request_size: 6_553_500,
            enable_model_api: false,
            cors: Cors::default(),
            sagemaker: None,
            oip: true,
            kserve: false,
            adopt_request_id: false,
            keep_alive: Duration::from_secs(75),
            head_timeout: Duration::from_secs(20),
            body_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(30),
            http2: Http2Limits {
                streams: 256,
                resets: 20,
            },
        }
    }
}

/// What endpoints work with.
#[derive(Clone)]
pub struct Services {
    /// All models.
    pub catalog: Catalog,
    /// All metrics.
    pub metrics: Metrics,
    /// Keys, if requests need one.
    pub tokens: Option<Arc<Tokens>>,
    /// Tenants, if there are any. What else is here is the operator's.
    pub tenants: Option<Arc<Tenants>>,
    /// Takes a line for each request, if there is an access log.
    pub access: Option<AccessLog>,
    /// Takes a line for each call that manages, if there is an audit log.
    pub audit: Option<AuditLog>,
    /// Who follows logs.
    pub followers: Followers,
    /// Counts what limits refuse.
    pub refusals: Refusals,
}

/// The API of one listener, for the models of the operator or of one tenant.
#[derive(Clone)]
pub struct Api {
    services: Services,
    operations: Operations,
    /// What the key of a tenant opened.
    access: Option<Access>,
    /// What is found out of a call for the audit log.
    notes: Option<Notes>,
    /// Whether a worker was ready when `SageMaker` asked.
    was_ready: Arc<AtomicBool>,
    common: Arc<Common>,
}

/// What is the same for everybody.
struct Common {
    cfg: Config,
    table: RouteTable,
    authority: Authority,
    decoder: Decoder,
    headers: CommonHeaders,
    /// One scrape is written at a time.
    scraping: Semaphore,
    /// Cancelled when the server stops: what has no end of its own ends then.
    stop: CancellationToken,
}

impl Api {
    /// The same for one call, of which `notes` are taken.
    fn noting(&self, notes: &Notes) -> Self {
        notes.tenant(self.access.as_ref().and_then(|access| access.tenant.name()));
        Self {
            operations: self.operations.clone().noting(notes.clone()),
            notes: Some(notes.clone()),
            ..self.clone()
        }
    }

    /// The API of a socket that serves `listeners`. What has no end of its own ends with `stop`.
    pub fn new(
        listeners: &[Listener],
        services: Services,
        cfg: Config,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let surface = Surface {
            oip: cfg.oip,
            sagemaker: cfg.sagemaker.is_some(),
            kserve: cfg.kserve,
            tenants: services.tenants.is_some(),
        };
        Arc::new(Self {
            operations: Operations::new(services.catalog.clone(), cfg.enable_model_api),
            common: Arc::new(Common {
                table: RouteTable::new(listeners, surface),
                authority: Authority::new(&services, cfg.enable_model_api),
                decoder: Decoder::new(
                    cfg.max_request_size,
                    cfg.body_timeout,
                    services.refusals.clone(),
                ),
                headers: CommonHeaders::new(&cfg.cors),
                scraping: Semaphore::new(1),
                stop,
                cfg,
            }),
            access: None,
            notes: None,
            was_ready: Arc::default(),
            services,
        })
    }

    /// Whether whoever sends this request may still do so: what takes long asks again.
    fn check_access(&self) -> Result<(), Error> {
        self.access.as_ref().map_or(Ok(()), Access::check)
    }

    /// The API for the models that are there for whoever sends a request with `headers`, if that has `permission`.
    fn of_whoever_asks(
        self: Arc<Self>,
        permission: Permission,
        headers: &HeaderMap,
    ) -> Result<Arc<Self>, Error> {
        Ok(match self.common.authority.check(permission, headers)? {
            Some(access) => {
                record_tenant(&access);
                Arc::new(self.of_tenant(access))
            }
            None => self,
        })
    }

    fn of_tenant(&self, access: Access) -> Self {
        Self {
            operations: Operations::new(access.catalog.clone(), self.common.cfg.enable_model_api),
            services: Services {
                catalog: access.catalog.clone(),
                metrics: access.tenant.metrics().clone(),
                tenants: None,
                ..self.services.clone()
            },
            access: Some(access),
            notes: None,
            was_ready: Arc::default(),
            common: Arc::clone(&self.common),
        }
    }

    /// What answers the requests of a socket, each with its [`RequestContext`]: the router, and the layers around it.
    ///
    /// Request ids are made where requests are read: the layers of `tower-http` would keep any id that a client sent, and
    /// show ours to handlers.
    fn service(self: &Arc<Self>) -> impl HttpService + use<> {
        let api = Arc::clone(self);
        let attach = |methods, route: &Route| (route.endpoint.attach)(methods, route);
        let router = self.common.table.router(Arc::clone(self), attach);
        layers::around(router, move |router, request| {
            answer(Arc::clone(&api), router, request)
        })
    }

    /// The answer to bytes that are not HTTP, as it stands on the wire. TorchServe logs them as a request of its own making.
    fn refuse(&self, peer: Peer) -> Bytes {
        let mut request = Request::new(());
        *request.uri_mut() = Uri::from_static("/bad-request");
        *request.version_mut() = Version::HTTP_10;
        let mut response = reply::error(&decode::invalid_message());
        let id = RequestContext::new(peer).id;
        self.common.headers.add_to(&mut response, &id, true);
        let status = response.status().as_u16();
        self.services.metrics.answered(Answered::of(status));
        if let Some(log) = &self.services.access {
            let ids = access::Ids {
                own: id,
                client: None,
            };
            log.finish(access::begin(peer, &request), ids, status, Duration::ZERO);
        }
        malformed::written(response)
    }
}

/// Answers one request: refuses a head that is over the limits, gives a failure its form, adds the headers that every
/// response has, counts, and writes the line of the access log.
async fn answer(
    api: Arc<Api>,
    inner: impl HttpService,
    request: Request,
) -> Result<Response, Infallible> {
    let context = RequestContext::of(request.extensions());
    let closes = reply::closes(&request);
    let is_oip = api.common.cfg.oip && oip::owns(request.uri().path());
    let line = api.services.access.as_ref();
    let line = line.map(|log| (log, access::begin(context.peer, &request)));
    // An archive has a limit of its own.
    let has_limit = api.services.tenants.is_none() || !archives::is_sent(&request);
    let sound =
        host::check(&request).and_then(|()| api.common.decoder.check_head(&request, has_limit));
    let mut response = match sound {
        Ok(()) => inner.oneshot(request).await?.map(Body::new),
        Err(error) => error.into_response(),
    };
    match response.extensions_mut().remove::<Error>() {
        Some(error) if !is_oip && reply::is_bare(error.kind()) => {
            return Ok(reply::bare(error.kind()));
        }
        Some(error) => {
            log_failure(&error, &context.id);
            if is_oip {
                response = oip::failure(&error);
            }
        }
        None => {}
    }
    api.common
        .headers
        .add_to(&mut response, &context.id, closes);
    let status = response.status().as_u16();
    api.services.metrics.answered(Answered::of(status));
    if let Some((log, line)) = line {
        let took = context.arrival.elapsed();
        log.finish(line, context.into(), status, took);
    }
    Ok(response)
}

/// Names in the request's span whose models it is for.
fn record_tenant(access: &Access) {
    if let Some(tenant) = access.tenant.name() {
        Span::current().record("tenant", tenant.as_str());
    }
}

/// Failures that the client did not cause are logged as warnings, with the detail that the client does not get. A
/// handler's detail is in the model's log already.
fn log_failure(error: &Error, request_id: &str) {
    match error.kind().fault() {
        Fault::Client => tracing::debug!(request_id, "{error}"),
        Fault::Handler => tracing::warn!(request_id, "{}", error.message()),
        Fault::Model | Fault::Server => tracing::warn!(request_id, "{error}"),
    }
    if let Some(frames) = error.frames() {
        tracing::debug!(request_id, "{frames}");
    }
}

fn not_found() -> Error {
    let message = "Requested resource is not found, please refer to API document.";
    Error::new(Kind::ResourceNotFound, message)
}

fn method_not_allowed() -> Error {
    let message = "Requested method is not allowed, please refer to API document.";
    Error::new(Kind::MethodNotAllowed, message)
}
