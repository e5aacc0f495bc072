//! REST: what clients of TorchServe and of Open Inference Protocol speak, and nothing else.
//!
//! Only this module knows HTTP. One decoder holds every size limit, one table holds every route, and one function
//! turns a failure into a response. It does not know what a runtime is: it asks the catalog.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Uri, Version};
use tokio::sync::Semaphore;

use crate::catalog::Catalog;
use crate::error::{Error, Fault, Kind};
use crate::listen::Peer;
use crate::metrics::{Answered, Metrics};
use crate::token::Tokens;

mod access;
mod authority;
mod connection;
mod decode;
mod document;
pub mod grpc;
mod health;
mod inference;
mod lenient;
mod linger;
mod malformed;
mod manage;
mod management;
mod oip;
mod parameters;
mod reply;
mod rotate;
pub mod routes;
mod sagemaker;
mod scrape;
mod stamp;
mod uri;

pub use access::{AccessLine, AccessLog};
pub use connection::{Protocol, serve, within_tls};
pub use reply::{BadHeader, Cors};
pub use routes::Listener;
pub use sagemaker::SageMaker;

use authority::Authority;
use decode::Decoder;
use manage::Operations;
use reply::{CommonHeaders, Manner};
use routes::{Endpoint, Matched, Params, Router, Surface};

/// A response on its way to the wire.
type Response = hyper::Response<Full<Bytes>>;

/// Settings of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Bytes that a body may have.
    pub max_request_size: usize,
    /// Bytes that a handler's response may have.
    pub max_response_size: usize,
    /// Whether models may be registered and unregistered.
    pub enable_model_api: bool,
    /// Headers for browsers.
    pub cors: Cors,
    /// What `SageMaker` asks of a container, if it runs this one.
    pub sagemaker: Option<SageMaker>,
    /// Whether Open Inference Protocol is spoken under `/v2`.
    pub oip: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_request_size: 6_553_500,
            max_response_size: 6_553_500,
            enable_model_api: false,
            cors: Cors::default(),
            sagemaker: None,
            oip: true,
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
    /// Takes a line for each request, if anybody wants them.
    pub access: Option<AccessLog>,
}

/// The API of one listener.
pub struct Api {
    services: Services,
    cfg: Config,
    router: Router,
    authority: Authority,
    decoder: Decoder,
    operations: Operations,
    common: CommonHeaders,
    /// Whether a worker was ready when `SageMaker` asked.
    was_ready: AtomicBool,
    /// Scrapes take turns.
    scraping: Semaphore,
}

/// One request on its way to an endpoint.
struct Call {
    id: String,
    arrival: Instant,
    head: Parts,
    body: Incoming,
}

impl Api {
    /// The API of a socket that serves `listeners`.
    pub fn new(listeners: &[Listener], services: Services, cfg: Config) -> Arc<Self> {
        let surface = Surface {
            oip: cfg.oip,
            sagemaker: cfg.sagemaker.is_some(),
        };
        Arc::new(Self {
            router: Router::new(listeners, surface),
            authority: Authority::new(services.tokens.clone(), cfg.enable_model_api),
            was_ready: AtomicBool::new(false),
            decoder: Decoder::new(cfg.max_request_size),
            operations: Operations::new(services.catalog.clone(), cfg.enable_model_api),
            common: CommonHeaders::new(&cfg.cors),
            scraping: Semaphore::new(1),
            services,
            cfg,
        })
    }

    /// Answers one request. Never fails: a failure is an answer.
    async fn respond(&self, request: hyper::Request<Incoming>, peer: Peer) -> Response {
        let arrival = Instant::now();
        let id = reply::new_id();
        let (head, body) = request.into_parts();
        let manner = Manner::of(&head);
        let line = self
            .services
            .access
            .as_ref()
            .map(|log| (log, access::begin(peer, &head)));
        let is_oip = self.cfg.oip && oip::owns(head.uri.path());
        let call = Call {
            id: id.clone(),
            arrival,
            head,
            body,
        };
        let mut response = match self.answer(call).await {
            Ok(response) => response,
            Err(error) if is_oip => {
                log_failure(&error, &id);
                oip::failure(&error)
            }
            Err(error) if reply::is_bare(error.kind()) => return reply::bare(error.kind()),
            Err(error) => {
                log_failure(&error, &id);
                reply::error(&error)
            }
        };
        self.common.add_to(&mut response, &id, manner);
        let status = response.status().as_u16();
        self.services.metrics.answered(Answered::of(status));
        if let Some((log, line)) = line {
            log.finish(line, id, status, arrival.elapsed());
        }
        response
    }

    /// The answer to bytes that are not HTTP, as it stands on the wire. TorchServe logs them as a request of its own making.
    fn refuse(&self, peer: Peer) -> Bytes {
        let (mut head, ()) = hyper::Request::new(()).into_parts();
        head.uri = Uri::from_static("/bad-request");
        head.version = Version::HTTP_10;
        let mut response = reply::error(&decode::invalid_message());
        let (id, manner) = (reply::new_id(), Manner::default());
        self.common.add_to(&mut response, &id, manner);
        let status = response.status().as_u16();
        self.services.metrics.answered(Answered::of(status));
        if let Some(log) = &self.services.access {
            log.finish(access::begin(peer, &head), id, status, Duration::ZERO);
        }
        malformed::written(response)
    }

    async fn answer(&self, call: Call) -> Result<Response, Error> {
        self.decoder.check_head(&call.head)?;
        let uri = call.head.uri.clone();
        let path = uri::decode_path(&uri)?;
        let matched = self.router.find(&call.head.method, &path);
        self.authority
            .check(self.router.permission(&matched), &call.head.headers)?;
        let (endpoint, params) = match matched {
            Matched::Route(route, params) => (route.endpoint, params),
            Matched::OtherMethod(_) => return Err(method_not_allowed()),
            Matched::Nothing => return Err(not_found()),
        };
        self.dispatch(endpoint, call, params).await
    }

    async fn dispatch(
        &self,
        endpoint: Endpoint,
        call: Call,
        params: Params<'_>,
    ) -> Result<Response, Error> {
        match endpoint {
            Endpoint::ApiDescription => Ok(document::listener(&self.router)),
            Endpoint::Ping => Ok(self.ping()),
            Endpoint::Live => Ok(health::live()),
            Endpoint::Ready => Ok(self.ready()),
            Endpoint::Predict => self.predict(call, params).await,
            Endpoint::PredictKServe => self.predict_kserve(call, params).await,
            Endpoint::Invoke => self.invoke(call, params).await,
            Endpoint::Invocations => self.invocations(call).await,
            Endpoint::Explain => self.explain(params),
            Endpoint::SageMakerPing => Ok(self.sagemaker_ping()),
            Endpoint::ExecutionParameters => Ok(self.execution_parameters()),
            Endpoint::PredictDescription => self.predict_description(&call, params).await,
            Endpoint::ListModels => self.list_models(&call),
            Endpoint::RegisterModel => self.register_model(call).await,
            Endpoint::DescribeModel => self.describe_model(&call, params).await,
            Endpoint::ScaleModel => self.scale_model(&call, params).await,
            Endpoint::UnregisterModel => self.unregister_model(params).await,
            Endpoint::ModelDescription => self.model_description(params),
            Endpoint::SetDefault => self.set_default(params).await,
            Endpoint::ModelReadiness => self.model_readiness(params),
            Endpoint::ListWorkflows => self.list_workflows(&call),
            Endpoint::RegisterWorkflow => Err(manage::workflow_not_registered()),
            Endpoint::Workflow | Endpoint::PredictWorkflow => {
                Err(manage::workflow_not_found(params.model))
            }
            Endpoint::RotateToken => self.rotate_token(&call).await,
            Endpoint::OpenInference(endpoint) => self.open_inference(endpoint, call, params).await,
            Endpoint::Scrape => self.scrape(&call).await,
        }
    }
}

/// Failures that are not the client's doing belong in the log, with what the client is not told; of handlers, the
/// model's log tells that already.
fn log_failure(error: &Error, request_id: &str) {
    match error.kind().fault() {
        Fault::Client => tracing::debug!(request_id, "{error}"),
        Fault::Handler => tracing::warn!(request_id, "{}", error.message()),
        Fault::Model | Fault::Server => tracing::warn!(request_id, "{error}"),
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
