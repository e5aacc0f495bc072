//! The protocol over REST: JSON, and tensors as they are behind it.

use hyper::StatusCode;
use hyper::header::{self, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::json::{self, Encoded, Form};
use super::{InferResponse, Origin, Target, config, metadata, repository, statistics};
use crate::api::routes::Params;
use crate::api::{Api, Call, Response, decode, reply};
use crate::error::{Error, Kind};

mod binary;
mod coding;
mod endpoint;
mod request;

pub use endpoint::Endpoint;

use coding::Coding;

/// Says how many bytes of a body are JSON.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// Bodies over this many bytes are read and written on a thread that may block.
const LARGE: usize = 256 << 10;

#[derive(Serialize)]
struct Live {
    live: bool,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
}

#[derive(Serialize)]
struct ModelReady<'a> {
    name: &'a str,
    ready: bool,
}

/// What the server is, as this protocol says it and, misspelled, as TorchServe does.
#[derive(Serialize)]
struct Server {
    #[serde(flatten)]
    metadata: metadata::ServerMetadata,
    extenstion: &'static [&'static str],
}

#[derive(Default, Deserialize)]
struct IndexRequest {
    #[serde(default)]
    ready: bool,
}

#[derive(Default, Deserialize)]
struct RepositoryRequest {
    #[serde(default)]
    parameters: serde_json::Map<String, serde_json::Value>,
}

impl Api {
    /// Answers one request of Open Inference Protocol.
    pub(in crate::api) async fn open_inference(
        &self,
        endpoint: Endpoint,
        call: Call,
        params: Params<'_>,
    ) -> Result<Response, Error> {
        let catalog = &self.services.catalog;
        let target = Target {
            model: params.model,
            version: params.version,
        };
        if endpoint.needs_loaded_model() {
            target.loaded(catalog, call.arrival, None).await?;
        }
        match endpoint {
            Endpoint::ServerMetadata => Ok(server_metadata()),
            Endpoint::Live => Ok(json_of(StatusCode::OK, &Live { live: true })),
            Endpoint::Ready => Ok(ready(catalog.is_ready())),
            Endpoint::ModelMetadata => Ok(ok(&metadata::model(catalog, target)?)),
            Endpoint::ModelReady => self.model_ready(target),
            Endpoint::ModelConfig => Ok(ok(&config::config(catalog, target)?)),
            Endpoint::ModelStatistics => {
                let of_model = statistics::of_model(catalog, target, call.arrival).await?;
                Ok(ok(&of_model))
            }
            Endpoint::Statistics => Ok(ok(&statistics::of_server(catalog))),
            Endpoint::Infer => self.infer(target, call).await,
            Endpoint::Index => self.repository_index(call).await,
            Endpoint::Load => self.load(target, call).await,
            Endpoint::Unload => self.unload(target, call).await,
        }
    }

    fn model_ready(&self, target: Target<'_>) -> Result<Response, Error> {
        let ready = super::is_ready(&self.services.catalog, target)?;
        let body = ModelReady {
            name: target.model,
            ready,
        };
        Ok(json_of(status_of(ready), &body))
    }

    async fn infer(&self, target: Target<'_>, call: Call) -> Result<Response, Error> {
        let entry = target.find(&self.services.catalog)?;
        let headers = &call.head.headers;
        let body = self.decoder.body(headers, call.body).await?;
        let coding = coding::accepted(headers);
        let parts = binary::divide(headers, body)?;
        let origin = Origin {
            id: call.id,
            headers: decode::headers_for_handler(headers, decode::Told::Explain),
            arrival: call.arrival,
            deadline: None,
        };
        let signature = entry.signature();
        let is_large = parts.json_length() > LARGE;
        let (request, form) =
            at_leisure(is_large, move || request::decode(parts, &signature)).await?;
        let response = super::infer(&self.services.catalog, target, request, origin).await?;
        let is_large = size(&response) > LARGE && (!form.is_all_binary() || coding.is_some());
        at_leisure(is_large, move || encoded(&response, &form, coding)).await
    }

    async fn repository_index(&self, call: Call) -> Result<Response, Error> {
        let request: IndexRequest = self.document(call).await?;
        let index = repository::index(&self.services.catalog, request.ready);
        Ok(ok(&index.await?))
    }

    async fn load(&self, target: Target<'_>, call: Call) -> Result<Response, Error> {
        let request: RepositoryRequest = self.document(call).await?;
        let names = request.parameters.keys().map(String::as_str);
        let catalog = &self.services.catalog;
        repository::load(catalog, &self.operations, target.model, names).await?;
        Ok(Response::default())
    }

    async fn unload(&self, target: Target<'_>, call: Call) -> Result<Response, Error> {
        let _: RepositoryRequest = self.document(call).await?;
        repository::unload(&self.services.catalog, &self.operations, target.model).await?;
        Ok(Response::default())
    }

    /// The document in a body; the default if there is none.
    async fn document<T: Default + serde::de::DeserializeOwned>(
        &self,
        call: Call,
    ) -> Result<T, Error> {
        let body = self.decoder.body(&call.head.headers, call.body).await?;
        if body.is_empty() {
            return Ok(T::default());
        }
        json::parse(&body)
    }
}

/// Runs what may take long on a thread that may block.
async fn at_leisure<T: Send + 'static>(
    is_long: bool,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    if !is_long {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| {
        Err(Error::new(Kind::Internal, "The request could not be processed").with_detail(panic))
    })
}

fn size(response: &InferResponse) -> usize {
    let outputs = response.outputs.iter();
    outputs.map(|output| output.tensor.data().len()).sum()
}

fn encoded(
    response: &InferResponse,
    form: &Form,
    coding: Option<Coding>,
) -> Result<Response, Error> {
    let Encoded { body, json_length } = json::encode(response, form)?;
    let media = if json_length.is_some() { OCTETS } else { JSON };
    let body = coding.map_or(Ok(body.clone()), |coding| coding.pack(&body))?;
    let mut response = reply::with_type(StatusCode::OK, media, body);
    let headers = response.headers_mut();
    if let Some(length) = json_length {
        headers.insert(JSON_LENGTH, HeaderValue::from(length));
    }
    if let Some(coding) = coding {
        headers.insert(header::CONTENT_ENCODING, coding.name());
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    Ok(response)
}

fn server_metadata() -> Response {
    let metadata = metadata::server();
    ok(&Server {
        extenstion: metadata.extensions,
        metadata,
    })
}

fn ready(ready: bool) -> Response {
    json_of(status_of(ready), &Ready { ready })
}

/// Clients look at the status alone; this one tells load balancers to go elsewhere.
const fn status_of(ready: bool) -> StatusCode {
    if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

fn ok(value: &impl Serialize) -> Response {
    json_of(StatusCode::OK, value)
}

fn json_of(status: StatusCode, value: &impl Serialize) -> Response {
    // Writing to memory does not fail, and the values written here have string keys.
    let body = serde_json::to_vec(value).unwrap_or_default();
    reply::with_type(status, JSON, body)
}

#[derive(Serialize)]
struct Failure<'a> {
    error: &'a str,
}

/// Whether a path is this protocol's, so that failures there are told in its form.
pub(in crate::api) fn owns(path: &str) -> bool {
    path.strip_prefix("/v2")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A failure in this protocol's form.
pub(in crate::api) fn failure(error: &Error) -> Response {
    let wire = error.kind().open_inference();
    let status = StatusCode::from_u16(wire.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = match error.message() {
        // Some failures have no text of their own, and clients need one.
        "" => status.canonical_reason().unwrap_or("failed"),
        text => text,
    };
    let mut response = json_of(status, &Failure { error: text });
    reply::add_retry(&mut response, error.kind());
    response
}
