//! Endpoints of the management listener: from HTTP to the parameters of an operation, and from its outcome to HTTP.

use hyper::header;
use hyper::{HeaderMap, StatusCode};

use super::extract::{Call, PathParams, Query, RequestContext};
use super::manage::{
    self, DescribeParams, ListParams, Outcome, Progress, RegisterParams, ScaleParams,
};
use super::parameters::Parameters;
use super::{Api, ApiState, EndpointResult, Response, document, reply};
use crate::error::{Error, Kind};

/// The document of the socket.
pub(super) async fn api_description(api: ApiState) -> Response {
    document::listener(&api.common.table)
}

pub(super) async fn list_models(api: ApiState, query: Query) -> EndpointResult {
    let page = api.operations.list(page(query)?);
    Ok(reply::json(StatusCode::OK, &page))
}

pub(super) async fn model_readiness(api: ApiState, path: PathParams) -> EndpointResult {
    let readiness = api.operations.readiness(&path.model)?;
    Ok(reply::json(StatusCode::OK, &readiness))
}

pub(super) async fn list_workflows(api: ApiState, query: Query) -> EndpointResult {
    let page = api.operations.list_workflows(page(query)?);
    Ok(reply::json(StatusCode::OK, &page))
}

pub(super) async fn register_workflow() -> Error {
    manage::workflow_not_registered()
}

pub(super) async fn workflow(path: PathParams) -> Error {
    manage::workflow_not_found(&path.model)
}

pub(super) async fn describe_model(
    api: ApiState,
    path: PathParams,
    Query(query): Query,
    context: RequestContext,
) -> EndpointResult {
    let described = api.operations.describe(DescribeParams {
        model: path.model,
        version: path.version,
        customized: Parameters::Query(query).flag("customized"),
        request: context.id,
    });
    Ok(reply::json(StatusCode::OK, &described.await?))
}

pub(super) async fn register_model(
    api: ApiState,
    Query(query): Query,
    call: Call,
) -> EndpointResult {
    let given = parameters(&api, query, call).await?;
    let registered = api.operations.register(RegisterParams {
        url: given.text("url"),
        model_name: given.text("model_name"),
        handler: given.text("handler"),
        runtime: given.text("runtime"),
        batch_size: given.integer("batch_size")?,
        max_batch_delay: given.integer("max_batch_delay")?,
        initial_workers: given.integer("initial_workers")?,
        response_timeout: given.integer("response_timeout")?,
        startup_timeout: given.integer("startup_timeout")?,
        service_envelope: given.text("service_envelope"),
        synchronous: given.flag("synchronous"),
    });
    Ok(answer(&registered.await?))
}

pub(super) async fn scale_model(
    api: ApiState,
    path: PathParams,
    Query(query): Query,
) -> EndpointResult {
    let query = Parameters::Query(query);
    let scaled = api.operations.scale(ScaleParams {
        model: path.model,
        version: path.version.or_else(|| query.text("model_version")),
        min_worker: query.integer("min_worker")?,
        max_worker: query.integer("max_worker")?,
        synchronous: query.flag("synchronous"),
    });
    Ok(answer(&scaled.await?))
}

pub(super) async fn unregister_model(api: ApiState, path: PathParams) -> EndpointResult {
    let version = path.version.as_deref();
    let outcome = api.operations.unregister(&path.model, version).await?;
    Ok(answer(&outcome))
}

pub(super) async fn set_default(api: ApiState, path: PathParams) -> EndpointResult {
    let version = path.version.as_deref().unwrap_or("");
    let outcome = api.operations.set_default(&path.model, version).await?;
    Ok(answer(&outcome))
}

pub(super) async fn model_description(api: ApiState, path: PathParams) -> EndpointResult {
    let catalog = &api.services.catalog;
    catalog.check_known(&path.model, path.version.as_deref())?;
    Ok(document::management(&api.common.table, &path.model))
}

fn page(Query(query): Query) -> Result<ListParams, Error> {
    let query = Parameters::Query(query);
    Ok(ListParams {
        limit: query.integer("limit")?,
        next_page_token: query.integer("next_page_token")?,
    })
}

/// Parameters in the body, if there is one and it is said to be JSON: then the query string does not count. Many clients
/// label every request so, those without a body included.
async fn parameters(
    api: &Api,
    query: Vec<(String, String)>,
    call: Call,
) -> Result<Parameters, Error> {
    if !has_json(&call.headers) {
        if query.is_empty() {
            check_label(
                &api.common
                    .decoder
                    .body(&call.account, &call.headers, call.body)
                    .await?,
            )?;
        }
        return Ok(Parameters::Query(query));
    }
    let body = api
        .common
        .decoder
        .body(&call.account, &call.headers, call.body)
        .await?;
    if body.is_empty() {
        return Ok(Parameters::Query(query));
    }
    Parameters::from_json(&body)
}

/// Fails for JSON that is labelled otherwise, as `curl -d` does, where it is all that the client sent.
fn check_label(body: &[u8]) -> Result<(), Error> {
    if !body.trim_ascii_start().starts_with(b"{") {
        return Ok(());
    }
    let message = "Parameter url is required. The body looks like JSON: send it with the header Content-Type: application/json";
    Err(Error::new(Kind::BadRequest, message))
}

fn has_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| {
        let media = value.as_bytes().split(|byte| *byte == b';').next();
        let media = media.unwrap_or_default().trim_ascii();
        media.eq_ignore_ascii_case(b"application/json")
    })
}

fn answer(outcome: &Outcome) -> Response {
    let code = match outcome.progress {
        Progress::Done => StatusCode::OK,
        Progress::UnderWay => StatusCode::ACCEPTED,
        Progress::Partial => StatusCode::PARTIAL_CONTENT,
    };
    reply::status(code, &outcome.message)
}
