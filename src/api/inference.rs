//! Endpoints of the inference listener: predictions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};

use super::decode::Told;
use super::routes::Params;
use super::{Api, Call, Response, decode, document, uri};
use crate::catalog::Entry;
use crate::error::{Error, Kind};
use crate::payload::{self, Body, Request, Schedule};

/// The parameter and the field that name a model where the path does not.
const MODEL_NAME: &str = "model_name";
/// How long a body may take that names the model itself.
const UNNAMED_TIMEOUT: Duration = Duration::from_mins(1);

/// What a route says of a prediction, beside which version runs.
struct Asked<'p> {
    told: Told<'p>,
    /// Query parameters that the handler gets as fields.
    fields: Vec<(String, String)>,
    names_version: bool,
}

/// A prediction's request, read whole.
struct Received {
    id: String,
    arrival: Instant,
    headers: HeaderMap,
    content_type: Option<String>,
    body: Body,
}

impl Api {
    /// `/predictions/{model}[/{version}[/rest]]`.
    pub(super) async fn predict(&self, call: Call, params: Params<'_>) -> Result<Response, Error> {
        let entry = self.find(&call, params.model, params.version).await?;
        let asked = Asked {
            told: Told::Path(params.rest),
            fields: Vec::new(),
            names_version: params.version.is_some(),
        };
        self.run(&entry, call, asked).await
    }

    /// `KServe`'s `/v1/models/{model}:predict` and `/v2/models/{model}/infer`.
    pub(super) async fn predict_kserve(
        &self,
        call: Call,
        params: Params<'_>,
    ) -> Result<Response, Error> {
        let entry = self.find(&call, params.model, None).await?;
        let asked = Asked {
            told: Told::Explain,
            fields: Vec::new(),
            names_version: false,
        };
        self.run(&entry, call, asked).await
    }

    /// `/models/{model}/invoke`, and the paths of TorchServe's predecessor: query parameters are fields.
    pub(super) async fn invoke(&self, call: Call, params: Params<'_>) -> Result<Response, Error> {
        let entry = self.find(&call, params.model, params.version).await?;
        let asked = Asked {
            told: Told::Nothing,
            fields: uri::decode_query(&call.head.uri),
            names_version: params.version.is_some(),
        };
        self.run(&entry, call, asked).await
    }

    /// `/invocations`: the model is named by the query, or is the only one that was loaded at start-up, or is named by a
    /// field of the body.
    pub(super) async fn invocations(&self, call: Call) -> Result<Response, Error> {
        let fields = uri::decode_query(&call.head.uri);
        if let Some(entry) = self.invoked(&call, &fields).await? {
            let asked = Asked {
                told: Told::Nothing,
                fields,
                names_version: false,
            };
            return self.run(&entry, call, asked).await;
        }
        let (arrival, until) = (call.arrival, call.arrival + UNNAMED_TIMEOUT);
        let received = self.receive(call, until).await?;
        let model = field_of(&received.body, MODEL_NAME).ok_or_else(model_required)?;
        let catalog = &self.services.catalog;
        let entry = catalog.awaited(&model, None, arrival, None).await?;
        let asked = Asked {
            told: Told::Nothing,
            fields,
            names_version: false,
        };
        ask(&entry, received, asked).await
    }

    /// The version that a request means, once its archive is open.
    async fn find(
        &self,
        call: &Call,
        model: &str,
        version: Option<&str>,
    ) -> Result<Arc<Entry>, Error> {
        let catalog = &self.services.catalog;
        catalog.awaited(model, version, call.arrival, None).await
    }

    /// The version that the query of `/invocations` means, or the only model of the start.
    async fn invoked(
        &self,
        call: &Call,
        query: &[(String, String)],
    ) -> Result<Option<Arc<Entry>>, Error> {
        let named = query.iter().find(|(name, _)| name == MODEL_NAME);
        if let Some((_, model)) = named.filter(|(_, model)| !model.is_empty()) {
            return self.find(call, model, None).await.map(Some);
        }
        let catalog = &self.services.catalog;
        catalog.awaited_startup_model(call.arrival).await
    }

    /// Reads the body, which must be there when the answer stops being of use, and runs the model.
    async fn run(&self, entry: &Entry, call: Call, asked: Asked<'_>) -> Result<Response, Error> {
        let until = entry.deadline(call.arrival);
        let received = self.receive(call, until).await?;
        ask(entry, received, asked).await
    }

    async fn receive(&self, call: Call, until: Instant) -> Result<Received, Error> {
        let headers = call.head.headers;
        let body = self.decoder.body_until(&headers, call.body, until).await?;
        let (content_type, body) = self.decoder.payload(&headers, body).await?;
        Ok(Received {
            id: call.id,
            arrival: call.arrival,
            headers,
            content_type,
            body,
        })
    }

    /// An explanation, which no handler gives yet; of what is not there, that is said instead.
    pub(super) fn explain(&self, params: Params<'_>) -> Result<Response, Error> {
        let catalog = &self.services.catalog;
        catalog.check_known(params.model, params.version)?;
        let message = format!(
            "Model \"{}\" does not explain: its handler answers predictions alone",
            params.model
        );
        Err(Error::new(Kind::CannotExplain, message))
    }

    /// The document of one model's predictions. A path without a model means what `/invocations` would take.
    pub(super) async fn predict_description(
        &self,
        call: &Call,
        params: Params<'_>,
    ) -> Result<Response, Error> {
        if params.model.is_empty() {
            let query = uri::decode_query(&call.head.uri);
            let entry = self.invoked(call, &query).await?;
            let entry = entry.ok_or_else(model_required)?;
            return Ok(document::predictions(
                &self.router,
                entry.spec().name.as_str(),
            ));
        }
        let catalog = &self.services.catalog;
        catalog.check_known(params.model, params.version)?;
        Ok(document::predictions(&self.router, params.model))
    }
}

async fn ask(entry: &Entry, received: Received, asked: Asked<'_>) -> Result<Response, Error> {
    let media = received.content_type.as_ref();
    let request = Request {
        id: received.id,
        headers: decode::headers_for_handler(&received.headers, asked.told),
        body: decode::with_fields(asked.fields, media, received.body),
        content_type: received.content_type,
        arrival: received.arrival,
        deadline: entry.deadline(received.arrival),
        schedule: Schedule::default(),
    };
    let reply = entry.call(request, asked.names_version).await?;
    from_handler(&reply.into_response()?)
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

/// A handler's response. It has a content type only if the handler said one.
fn from_handler(response: &payload::Response) -> Result<Response, Error> {
    let mut sent = Response::new(Full::new(response.body().clone()));
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
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::payload::any_response;

    #[test]
    fn only_what_the_handler_said_is_sent() {
        let headers = vec![("Dummy".to_owned(), "1".to_owned())];
        let response = payload::Response::new(201, String::new(), headers, "x".into());
        let sent = from_handler(&response.unwrap()).unwrap();
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

    proptest! {
        #[test]
        fn every_response_can_be_sent(response in any_response()) {
            if let Ok(response) = response {
                let sent = from_handler(&response);
                prop_assert_eq!(sent.map(|sent| sent.status().as_u16()), Ok(response.status()));
            }
        }
    }
}
