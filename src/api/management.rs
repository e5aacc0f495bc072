//! Endpoints of the management listener.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header;
use serde::Serialize;

use super::describe::{Described, describe};
use super::parameters::{Parameters, bad_request};
use super::routes::Params;
use super::{Api, Call, Response, document, method_not_allowed, reply, uri};
use crate::catalog::{Bounds, Entry, Registered, Registration, Requested, Which, failed_to_start};

use crate::error::{Error, Kind};

/// Models on a page, if nothing else is said, and at most.
const PAGE: usize = 100;
/// Workers that one call may ask for.
const WORKERS_LIMIT: i64 = 1024;
/// Rows of a batch that one call may ask for.
const BATCH_LIMIT: i64 = 65_536;
/// What TorchServe takes for `runtime`, and what handlers are here.
const RUNTIMES: [&str; 4] = ["python", "python3", "LSP", "wasm"];
const STARTING: &str = "Processing worker updates...";
const PARTLY: &str = "Workers scaling in progress...";

/// `GET /models`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
    models: Vec<ListedBody>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedBody {
    model_name: String,
    model_url: String,
}

impl Api {
    pub(super) fn list_models(&self, call: &Call) -> Response {
        let query = Parameters::Query(uri::decode_query(&call.head.uri));
        let limit = query
            .integer("limit")
            .and_then(|limit| usize::try_from(limit).ok());
        let limit = limit.filter(|limit| *limit <= PAGE).unwrap_or(PAGE);
        let offset = query
            .integer("next_page_token")
            .and_then(|token| usize::try_from(token).ok());
        let page = self.services.catalog.page(offset.unwrap_or(0), limit);
        let models = page.models.into_iter();
        let body = ListBody {
            next_page_token: page.next.map(|next| next.to_string()),
            models: models
                .map(|model| ListedBody {
                    model_name: model.name,
                    model_url: model.url,
                })
                .collect(),
        };
        reply::json(StatusCode::OK, &body)
    }

    pub(super) fn describe_model(
        &self,
        call: &Call,
        params: Params<'_>,
    ) -> Result<Response, Error> {
        let which = match params.version {
            None => Which::Default,
            Some("all") => Which::All,
            Some(version) => Which::Version(version),
        };
        let entries = self.services.catalog.select(params.model, which)?;
        let query = Parameters::Query(uri::decode_query(&call.head.uri));
        let mut described: Vec<Described> = entries
            .iter()
            .map(|entry| describe(&entry.describe()))
            .collect();
        if query.flag("customized") == Some(true) && which != Which::All {
            for (one, entry) in described.iter_mut().zip(&entries) {
                one.customized(entry.spec().name.as_str())?;
            }
        }
        Ok(reply::json(StatusCode::OK, &described))
    }

    pub(super) async fn register_model(&self, call: Call) -> Result<Response, Error> {
        self.check_model_api()?;
        let is_json = call
            .head
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| {
                let media = value
                    .as_bytes()
                    .split(|byte| *byte == b';')
                    .next()
                    .unwrap_or_default();
                media.trim_ascii().eq_ignore_ascii_case(b"application/json")
            });
        let parameters = if is_json {
            Parameters::from_json(&self.decoder.collect(call.body).await?)?
        } else {
            Parameters::Query(uri::decode_query(&call.head.uri))
        };
        let registration = registration(&parameters)?;
        let wait = parameters.flag("synchronous").unwrap_or(true);
        let registered = self.services.catalog.register(registration, wait).await?;
        Ok(registered_body(&registered))
    }

    pub(super) async fn scale_model(
        &self,
        call: &Call,
        params: Params<'_>,
    ) -> Result<Response, Error> {
        let query = Parameters::Query(uri::decode_query(&call.head.uri));
        let version = params
            .version
            .map(str::to_owned)
            .or_else(|| query.text("model_version"));
        let bounds = bounds(&query)?;
        let entry = self
            .services
            .catalog
            .find(params.model, version.as_deref())?;
        let catalog = self.services.catalog.clone();
        let scaled = std::sync::Arc::clone(&entry);
        // In a task of its own: a client that leaves does not stop it half-way.
        let scaling = tokio::spawn(async move { catalog.scale(&scaled, bounds).await });
        if query.flag("synchronous") != Some(true) {
            return Ok(reply::status(StatusCode::ACCEPTED, STARTING));
        }
        match scaling.await {
            Ok(Ok(())) => Ok(scaled_body(&entry, version.as_deref(), bounds)),
            Ok(Err(error)) => {
                let spec = entry.spec();
                Err(failed_to_start(
                    &spec.name,
                    version.is_some().then_some(&spec.version),
                    &error,
                ))
            }
            Err(panic) => Err(Error::new(Kind::Internal, "Scaling failed").with_detail(panic)),
        }
    }

    pub(super) async fn unregister_model(&self, params: Params<'_>) -> Result<Response, Error> {
        self.check_model_api()?;
        self.services
            .catalog
            .unregister(params.model, params.version)
            .await?;
        let message = format!("Model \"{}\" unregistered", params.model);
        Ok(reply::status(StatusCode::OK, &message))
    }

    pub(super) fn set_default(&self, params: Params<'_>) -> Result<Response, Error> {
        let (model, version) = (params.model, params.version.unwrap_or(""));
        self.services.catalog.set_default(model, version)?;
        let message =
            format!("Default version successfully updated for model \"{model}\" to \"{version}\"");
        Ok(reply::status(StatusCode::OK, &message))
    }

    pub(super) fn model_description(&self, params: Params<'_>) -> Result<Response, Error> {
        self.services.catalog.find(params.model, params.version)?;
        Ok(document::management(&self.router, params.model))
    }

    fn check_model_api(&self) -> Result<(), Error> {
        if self.cfg.enable_model_api {
            return Ok(());
        }
        Err(method_not_allowed())
    }
}

fn registration(parameters: &Parameters) -> Result<Registration, Error> {
    if let Some(runtime) = parameters.text("runtime")
        && !RUNTIMES.contains(&runtime.as_str())
    {
        return Err(bad_request(format!("Invalid RuntimeType value: {runtime}")));
    }
    let url = parameters
        .text("url")
        .ok_or_else(|| bad_request("Parameter url is required.".to_owned()))?;
    if url.is_empty() {
        return Err(Error::new(Kind::ModelNotFound, "empty url"));
    }
    // Zero and less ask for no workers, and mean it.
    let workers = parameters
        .integer("initial_workers")
        .map(|workers| workers.max(0));
    if workers.is_some_and(|workers| workers > WORKERS_LIMIT) {
        parameters.count("initial_workers", 0..=WORKERS_LIMIT)?;
    }
    Ok(Registration {
        url,
        name: parameters
            .text("model_name")
            .filter(|name| !name.is_empty()),
        handler: parameters
            .text("handler")
            .filter(|handler| !handler.is_empty()),
        requested: Requested {
            batch_size: parameters.count("batch_size", 1..=BATCH_LIMIT)?,
            max_batch_delay: parameters.duration("max_batch_delay", Duration::from_millis(1))?,
            min_workers: workers.and_then(|workers| usize::try_from(workers).ok()),
            max_workers: None,
            response_timeout: parameters.duration("response_timeout", Duration::from_secs(1))?,
            startup_timeout: parameters.duration("startup_timeout", Duration::from_secs(1))?,
        },
    })
}

fn registered_body(registered: &Registered) -> Response {
    match registered {
        Registered::Empty { name, version } => {
            let message = format!(
                "Model \"{name}\" Version: {version} registered with 0 initial workers. Use scale workers API to add \
                 workers for the model."
            );
            reply::status(StatusCode::OK, &message)
        }
        Registered::Loaded {
            name,
            version,
            workers,
        } => {
            let message = format!(
                "Model \"{name}\" Version: {version} registered with {workers} initial workers"
            );
            reply::status(StatusCode::OK, &message)
        }
        Registered::Starting => reply::status(StatusCode::ACCEPTED, STARTING),
        Registered::Partly => reply::status(StatusCode::PARTIAL_CONTENT, PARTLY),
    }
}

fn bounds(query: &Parameters) -> Result<Bounds, Error> {
    let min = query.integer("min_worker").unwrap_or(1);
    let max = query.integer("max_worker").unwrap_or(min);
    if max < min {
        return Err(bad_request(
            "max_worker cannot be less than min_worker.".to_owned(),
        ));
    }
    if max > WORKERS_LIMIT {
        return Err(bad_request(format!(
            "max_worker must be at most {WORKERS_LIMIT}, got {max}"
        )));
    }
    if let (Ok(min), Ok(max)) = (usize::try_from(min), usize::try_from(max)) {
        return Ok(Bounds { min, max });
    }
    let message = format!("min_worker must not be negative, got {min}");
    Err(Error::new(Kind::NegativeWorkers, message))
}

fn scaled_body(entry: &Entry, version: Option<&str>, bounds: Bounds) -> Response {
    let version = version
        .map(|version| format!(", version: {version}"))
        .unwrap_or_default();
    let message = format!(
        "Workers scaled to {} for model: {}{version}",
        bounds.min,
        entry.spec().name
    );
    reply::status(StatusCode::OK, &message)
}
