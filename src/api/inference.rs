//! Endpoints of the inference listener: predictions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body as HttpBody;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};

use super::decode::{Division, RouteHeaders};
use super::extract::{Call, PathParams, Query, RequestContext};
use super::{Api, ApiState, EndpointResult, Response, decode, document};
use crate::budget::Account;
use crate::catalog::{Entry, Room};
use crate::error::{Error, Kind};
use crate::model::HandlerHeaders;
use crate::payload::{self, Body, Meter, Request, Schedule};

/// The parameter and the field that name a model where the path does not.
const MODEL_NAME: &str = "model_name";
/// How long a body may take that names the model itself.
const UNNAMED_TIMEOUT: Duration = Duration::from_mins(1);

/// What a route says of a prediction, beside which version runs.
struct PredictionRoute {
    headers: RouteHeaders,
    /// Query parameters that the handler gets as fields.
    fields: Vec<(String, String)>,
    names_version: bool,
}

/// A prediction's request, read whole.
struct Received {
    id: String,
    arrival: Instant,
    account: Account,
    headers: HeaderMap,
    content_type: Option<String>,
    body: Body,
}

/// `/predictions/{model}[/{version}[/rest]]`.
pub(super) async fn predict(api: ApiState, mut path: PathParams, call: Call) -> EndpointResult {
    let headers = RouteHeaders::ExplainAndPath(std::mem::take(&mut path.rest));
    api.predict(&path, headers, Vec::new(), call).await
}

/// `KServe`'s `/v1/models/{model}:predict` and `/v2/models/{model}/infer`.
pub(super) async fn predict_kserve(api: ApiState, path: PathParams, call: Call) -> EndpointResult {
    api.predict(&path, RouteHeaders::Explain, Vec::new(), call)
        .await
}

/// `/models/{model}/invoke`, and the paths of TorchServe's predecessor: query parameters are fields.
pub(super) async fn invoke(
    api: ApiState,
    path: PathParams,
    Query(fields): Query,
    call: Call,
) -> EndpointResult {
    api.predict(&path, RouteHeaders::Nothing, fields, call)
        .await
}

/// `/invocations`: the model is named by the query, or is the only one that was loaded at start-up, or is named by a
/// field of the body.
pub(super) async fn invocations(api: ApiState, Query(fields): Query, call: Call) -> EndpointResult {
    let named = api.invoked(call.arrival, &fields).await?;
    let route = PredictionRoute {
        headers: RouteHeaders::Nothing,
        fields,
        names_version: false,
    };
    if let Some(entry) = named {
        return api.run(&entry, call, route).await;
    }
    let (arrival, until) = (call.arrival, call.arrival + UNNAMED_TIMEOUT);
    let received = api.receive(call, until, Room::own).await?;
    let model = field_of(&received.body, MODEL_NAME).ok_or_else(model_required)?;
    let catalog = &api.services.catalog;
    let entry = catalog.awaited(&model, None, arrival, None).await?;
    ask(&entry, received, route).await
}

/// An explanation, which no handler gives yet; of what is not there, that is said instead.
pub(super) async fn explain(
    api: ApiState,
    PathParams { model, version, .. }: PathParams,
) -> EndpointResult {
    let catalog = &api.services.catalog;
    catalog.check_known(&model, version.as_deref())?;
    let message =
        format!("Model \"{model}\" does not explain: its handler answers predictions alone");
    Err(Error::new(Kind::CannotExplain, message))
}

/// The document of one model's predictions. A path without a model means what `/invocations` would take.
pub(super) async fn predict_description(
    api: ApiState,
    PathParams { model, version, .. }: PathParams,
    Query(query): Query,
    context: RequestContext,
) -> EndpointResult {
    if model.is_empty() {
        let entry = api.invoked(context.arrival, &query).await?;
        let entry = entry.ok_or_else(model_required)?;
        let model = entry.spec().name.as_str();
        return Ok(document::predictions(&api.common.table, model));
    }
    let catalog = &api.services.catalog;
    catalog.check_known(&model, version.as_deref())?;
    Ok(document::predictions(&api.common.table, &model))
}

impl Api {
    /// A prediction of the version that a path names.
    async fn predict(
        &self,
        path: &PathParams,
        headers: RouteHeaders,
        fields: Vec<(String, String)>,
        call: Call,
    ) -> EndpointResult {
        let (catalog, version) = (&self.services.catalog, path.version.as_deref());
        let entry = catalog.awaited(&path.model, version, call.arrival, None);
        let entry = entry.await?;
        let route = PredictionRoute {
            headers,
            fields,
            names_version: version.is_some(),
        };
        self.run(&entry, call, route).await
    }

    /// The version that the query of `/invocations` means, or the only model of the start.
    async fn invoked(
        &self,
        arrival: Instant,
        query: &[(String, String)],
    ) -> Result<Option<Arc<Entry>>, Error> {
        let catalog = &self.services.catalog;
        let named = query.iter().find(|(name, _)| name == MODEL_NAME);
        if let Some((_, model)) = named.filter(|(_, model)| !model.is_empty()) {
            return catalog.awaited(model, None, arrival, None).await.map(Some);
        }
        catalog.awaited_startup_model(arrival).await
    }

    /// Reads the body, which must be there when the answer stops being of use, and runs the model.
    async fn run(&self, entry: &Entry, call: Call, route: PredictionRoute) -> EndpointResult {
        let until = entry.deadline(call.arrival);
        let received = self.receive(call, until, |length| entry.room(length));
        ask(entry, received.await?, route).await
    }

    /// Reads the body. Where the handler gets it as it is, it is gathered in `room`.
    async fn receive(
        &self,
        call: Call,
        until: Instant,
        room: impl Fn(usize) -> Room + Sync,
    ) -> Result<Received, Error> {
        let headers = call.headers;
        let at = if decode::is_form(&headers) {
            usize::MAX
        } else {
            0
        };
        let division = Division { at, room: &room };
        let [own, gathered] = self
            .common
            .decoder
            .divided(&call.account, &headers, call.body, until, division)
            .await?;
        let body = if at == 0 { gathered } else { own };
        let (content_type, body) = self.common.decoder.payload(&headers, body).await?;
        Ok(Received {
            id: call.id,
            arrival: call.arrival,
            account: call.account,
            headers,
            content_type,
            body,
        })
    }
}

async fn ask(entry: &Entry, received: Received, route: PredictionRoute) -> EndpointResult {
    let media = received.content_type.as_ref();
    let is_json_as_form = decode::is_json_as_form(&received.body);
    let request = Request {
        id: received.id,
        headers: decode::headers_for_handler(&received.headers, route.headers),
        body: decode::with_fields(route.fields, media, received.body),
        content_type: received.content_type,
        arrival: received.arrival,
        deadline: entry.deadline(received.arrival),
        schedule: Schedule::default(),
        account: received.account,
        passes_tensors_on: false,
        meter: Meter::default(),
    };
    let answered = entry.call(request, route.names_version).await;
    let reply = answered.map_err(|error| {
        if is_json_as_form {
            decode::with_remedy_for_json_as_form(error)
        } else {
            error
        }
    });
    from_handler(
        &reply?.into_response()?,
        &entry.spec().settings.handler_headers,
    )
}

/// The last field `name` of a form.
fn field_of(body: &Body, name: &str) -> Option<String> {
    let Body::Form(parts) = body else { return None };
    let part = parts.iter().rfind(|part| part.name == name)?;
    String::from_utf8(part.body.to_vec()).ok()
}

fn model_required() -> Error {
    Error::new(Kind::BadRequest, "Parameter model_name is required.")
}

/// A handler's response, which may come from a worker process that is not to be trusted. It has a content type only if the
/// handler said one.
fn from_handler(response: &payload::Response, allowed: &HandlerHeaders) -> EndpointResult {
    let names = response.headers().iter().map(|(name, _)| name.as_str());
    allowed
        .check(names)
        .map_err(|error| output_error(&error.to_string()))?;
    let mut sent = Response::new(HttpBody::from(response.body().clone()));
    *sent.status_mut() = StatusCode::from_u16(response.status())
        .map_err(|_| output_error(&format!("status {}", response.status())))?;
    let headers = sent.headers_mut();
    for (name, value) in response.headers() {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| output_error(&format!("header name {name:?}")))?;
        headers.append(name, header_value(value)?);
    }
    if !response.content_type().is_empty() {
        headers.insert(header::CONTENT_TYPE, header_value(response.content_type())?);
    }
    Ok(sent)
}

fn header_value(value: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(value).map_err(|_| output_error(&format!("header value {value:?}")))
}

fn output_error(what: &str) -> Error {
    Error::new(
        Kind::HandlerOutput,
        "The handler's response is not valid HTTP",
    )
    .with_detail(what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::payload::any_response;

    #[test]
    fn only_what_the_handler_said_is_sent() {
        let headers = vec![("Dummy".to_owned(), "1".to_owned())];
        let response = payload::Response::new(201, String::new(), headers, "x".into());
        let sent = from_handler(&response.unwrap(), &HandlerHeaders::default()).unwrap();
        assert_eq!(sent.status(), 201);
        let headers: Vec<_> = sent.headers().iter().collect();
        assert_eq!(
            headers,
            [(
                &HeaderName::from_static("dummy"),
                &HeaderValue::from_static("1")
            )]
        );
    }

    #[test]
    fn what_a_worker_process_lets_through_is_checked_again() {
        let headers = vec![("Set-Cookie".to_owned(), "a=b".to_owned())];
        let response = payload::Response::new(200, String::new(), headers, "x".into()).unwrap();
        let refused = from_handler(&response, &HandlerHeaders::default()).unwrap_err();
        assert_eq!(refused.kind(), Kind::HandlerOutput);
        let allowed = HandlerHeaders::parse("set-cookie").unwrap();
        let sent = from_handler(&response, &allowed).unwrap();
        assert_eq!(sent.headers()["set-cookie"], "a=b");
    }

    proptest! {
        #[test]
        fn every_response_can_be_sent(response in any_response()) {
            if let Ok(response) = response {
                // Names are generated that are that short.
                let allowed = HandlerHeaders::parse("nel, via").unwrap();
                let sent = from_handler(&response, &allowed);
                prop_assert_eq!(sent.map(|sent| sent.status().as_u16()), Ok(response.status()));
            }
        }
    }
}
