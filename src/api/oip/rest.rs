//! The protocol over REST: JSON, and tensors as they are behind it.

use std::ops::Range;

use axum::body::Body;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{self, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::json::{self, Encoded, Form};
use super::{InferResponse, Origin, Target, config, metadata, repository, size, statistics};
use crate::api::decode::{self, Division, RouteHeaders};
use crate::api::extract::{Call, PathParams, RequestContext};
use crate::api::pieces::Pieces;
use crate::api::{Api, ApiState, EndpointResult, Response, inference, reply};
use crate::error::{Error, Kind};
use crate::model::Envelope;
use crate::tensor::NamedTensor;

mod binary;
mod coding;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzz;
mod request;

use binary::JsonLength;
use coding::Coding;

/// Says how many bytes of a body are JSON.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// Bodies over this many bytes are read and written on a thread that may block.
const LARGE: usize = 256 << 10;

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

/// What the path names.
fn target(path: &PathParams) -> Target<'_> {
    Target {
        model: &path.model,
        version: path.version.as_deref(),
    }
}

/// Whether the server lives.
pub(in crate::api) async fn live() -> Response {
    ok(&json!({ "live": true }))
}

/// Whether every model serves.
pub(in crate::api) async fn ready(api: ApiState) -> Response {
    let ready = api.services.catalog.is_ready();
    json_of(status_of(ready), &json!({ "ready": ready }))
}

/// What the server is.
pub(in crate::api) async fn server_metadata() -> Response {
    let metadata = metadata::server();
    ok(&Server {
        extenstion: metadata.extensions,
        metadata,
    })
}

/// What a model takes and gives, once it has loaded.
pub(in crate::api) async fn model_metadata(
    api: ApiState,
    path: PathParams,
    context: RequestContext,
) -> EndpointResult {
    let catalog = &api.services.catalog;
    target(&path).loaded(catalog, context.arrival, None).await?;
    Ok(ok(&metadata::model(catalog, target(&path))?))
}

/// A model's configuration, once it has loaded.
pub(in crate::api) async fn model_config(
    api: ApiState,
    path: PathParams,
    context: RequestContext,
) -> EndpointResult {
    let catalog = &api.services.catalog;
    target(&path).loaded(catalog, context.arrival, None).await?;
    Ok(ok(&config::config(catalog, target(&path))?))
}

/// Whether a version serves.
pub(in crate::api) async fn model_ready(api: ApiState, path: PathParams) -> EndpointResult {
    let ready = super::is_ready(&api.services.catalog, target(&path))?;
    let body = json!({ "name": path.model, "ready": ready });
    Ok(json_of(status_of(ready), &body))
}

/// What a model has done.
pub(in crate::api) async fn model_statistics(
    api: ApiState,
    path: PathParams,
    context: RequestContext,
) -> EndpointResult {
    let catalog = &api.services.catalog;
    let of_model = statistics::of_model(catalog, target(&path), context.arrival);
    Ok(ok(&of_model.await?))
}

/// What all models have done.
pub(in crate::api) async fn statistics(api: ApiState) -> Response {
    ok(&statistics::of_server(&api.services.catalog))
}

/// An inference. Where the version has the envelope of this protocol, its handler takes the request out of it.
pub(in crate::api) async fn infer(api: ApiState, path: PathParams, call: Call) -> EndpointResult {
    let (catalog, target) = (&api.services.catalog, target(&path));
    target.loaded(catalog, call.arrival, None).await?;
    let entry = target.find(catalog)?;
    if entry.spec().settings.envelope == Envelope::KServeV2 {
        return inference::predict_kserve(api, path, call).await;
    }
    let json = JsonLength::of(&call.headers);
    let division = Division {
        at: json.division(),
        room: &|length| entry.room(length),
    };
    let body = api
        .common
        .decoder
        .body_in_two(&call.account, &call.headers, call.body, division)
        .await?;
    let account = call.account.clone();
    let coding = coding::accepted(&call.headers);
    let parts = json.parts(body)?;
    let signature = entry.signature();
    let (is_large, body) = (parts.json_length() > LARGE, parts.place());
    let (request, form) = blocking_if(is_large, move || request::decode(parts, &signature)).await?;
    let origin = Origin {
        id: call.id,
        headers: decode::headers_for_handler(&call.headers, RouteHeaders::Explain),
        arrival: call.arrival,
        deadline: None,
        account: account.clone(),
        wants_bytes: form.is_all_binary() && coding.is_none(),
    };
    let made = bytes_beside(&body, &request.inputs);
    let _charge = account.charge(made).await?;
    let response = super::infer(catalog, target, request, origin).await?;
    let is_large = size(&response.outputs) > LARGE && (!form.is_all_binary() || coding.is_some());
    let mut encoded = blocking_if(is_large, move || encoded(&response, &form, coding)).await?;
    let charge = account.charge(encoded.uncharged()).await?;
    encoded.hold(charge);
    Ok(answer(encoded, coding))
}

/// The list of models.
pub(in crate::api) async fn repository_index(api: ApiState, call: Call) -> EndpointResult {
    let request: IndexRequest = document(&api, call).await?;
    let index = repository::index(&api.services.catalog, request.ready);
    Ok(ok(&index.await?))
}

/// Has a model serve.
pub(in crate::api) async fn load(api: ApiState, path: PathParams, call: Call) -> EndpointResult {
    let request: RepositoryRequest = document(&api, call).await?;
    let names = request.parameters.keys().map(String::as_str);
    let catalog = &api.services.catalog;
    repository::load(catalog, &api.operations, &path.model, names).await?;
    Ok(Response::default())
}

/// Has a model serve no more.
pub(in crate::api) async fn unload(api: ApiState, path: PathParams, call: Call) -> EndpointResult {
    let _: RepositoryRequest = document(&api, call).await?;
    repository::unload(&api.services.catalog, &api.operations, &path.model).await?;
    Ok(Response::default())
}

/// The document in a body; the default if there is none.
async fn document<T: Default + serde::de::DeserializeOwned>(
    api: &Api,
    call: Call,
) -> Result<T, Error> {
    let body = api
        .common
        .decoder
        .body(&call.account, &call.headers, call.body)
        .await?;
    if body.is_empty() {
        return Ok(T::default());
    }
    json::parse(&body)
}

/// Runs what may take long on a thread that may block.
async fn blocking_if<T: Send + 'static>(
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

/// Bytes of the tensors that do not lie in a `body` any more, with which the others were charged.
fn bytes_beside(body: &Range<usize>, tensors: &[NamedTensor]) -> usize {
    let data = tensors.iter().map(|input| input.tensor.data());
    let beside = data.filter(|data| !body.contains(&data.as_ptr().addr()));
    beside.map(Bytes::len).sum()
}

/// The body of an answer, packed if the client wants that.
fn encoded(
    response: &InferResponse,
    form: &Form,
    coding: Option<Coding>,
) -> Result<Encoded, Error> {
    let encoded = json::encode(response, form)?;
    let Some(coding) = coding else {
        return Ok(encoded);
    };
    let first = coding.pack(&encoded.pieces().collect::<Vec<_>>())?;
    Ok(Encoded {
        first,
        binary: Vec::new(),
        ..encoded
    })
}

fn answer(encoded: Encoded, coding: Option<Coding>) -> Response {
    let json_length = encoded.json_length;
    let media = if json_length.is_some() { OCTETS } else { JSON };
    let pieces = std::iter::once(encoded.first).chain(encoded.binary);
    let body = Body::new(Pieces::new(pieces));
    let mut response = reply::with_type(StatusCode::OK, media, body);
    let headers = response.headers_mut();
    if let Some(length) = json_length {
        headers.insert(JSON_LENGTH, HeaderValue::from(length));
    }
    if let Some(coding) = coding {
        headers.insert(header::CONTENT_ENCODING, coding.name());
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    response
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

/// Whether a path is this protocol's, so that failures there have its form.
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
    let mut response = json_of(status, &json!({ "error": text }));
    reply::add_retry(&mut response, error);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::oip::readable;
    use crate::tensor::{DType, Tensor};

    #[test]
    fn copies_are_charged_and_what_is_still_in_the_body_is_not() {
        let body = Bytes::from(vec![1; 64]);
        let place = body.as_ptr_range();
        let place = place.start.addr()..place.end.addr();
        for (dtype, shape, charged) in [(DType::F32, 4, 0), (DType::Bool, 16, 16)] {
            let data = readable(dtype, body.slice(8..24));
            let tensor = Tensor::new(dtype, vec![shape], data).unwrap();
            let tensors = [NamedTensor::new("x", tensor)];
            assert_eq!(bytes_beside(&place, &tensors), charged, "{dtype}");
        }
    }
}
