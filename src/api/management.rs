//! Endpoints of the management listener: from HTTP to the parameters of an operation, and from its outcome to HTTP.

use hyper::StatusCode;
use hyper::header;

use super::manage::{DescribeParams, ListParams, Outcome, Progress, RegisterParams, ScaleParams};
use super::parameters::Parameters;
use super::routes::Params;
use super::{Api, Call, Response, document, reply, uri};

use crate::error::Error;

impl Api {
    pub(super) fn list_models(&self, call: &Call) -> Result<Response, Error> {
        let page = self.operations.list(page(call)?);
        Ok(reply::json(StatusCode::OK, &page))
    }

    pub(super) fn model_readiness(&self, params: Params<'_>) -> Result<Response, Error> {
        let readiness = self.operations.readiness(params.model)?;
        Ok(reply::json(StatusCode::OK, &readiness))
    }

    pub(super) fn list_workflows(&self, call: &Call) -> Result<Response, Error> {
        let page = self.operations.list_workflows(page(call)?);
        Ok(reply::json(StatusCode::OK, &page))
    }

    pub(super) async fn describe_model(
        &self,
        call: &Call,
        params: Params<'_>,
    ) -> Result<Response, Error> {
        let described = self.operations.describe(DescribeParams {
            model: params.model.to_owned(),
            version: params.version.map(str::to_owned),
            customized: query(call).flag("customized"),
            request: call.id.clone(),
        });
        Ok(reply::json(StatusCode::OK, &described.await?))
    }

    pub(super) async fn register_model(&self, call: Call) -> Result<Response, Error> {
        let given = if has_json(&call) {
            Parameters::from_json(&self.decoder.body(&call.head.headers, call.body).await?)?
        } else {
            query(&call)
        };
        let registered = self.operations.register(RegisterParams {
            url: given.text("url"),
            model_name: given.text("model_name"),
            handler: given.text("handler"),
            runtime: given.text("runtime"),
            batch_size: given.integer("batch_size")?,
            max_batch_delay: given.integer("max_batch_delay")?,
            initial_workers: given.integer("initial_workers")?,
            response_timeout: given.integer("response_timeout")?,
            startup_timeout: given.integer("startup_timeout")?,
            synchronous: given.flag("synchronous"),
        });
        Ok(answer(&registered.await?))
    }

    pub(super) async fn scale_model(
        &self,
        call: &Call,
        params: Params<'_>,
    ) -> Result<Response, Error> {
        let query = query(call);
        let version = params.version.map(str::to_owned);
        let scaled = self.operations.scale(ScaleParams {
            model: params.model.to_owned(),
            version: version.or_else(|| query.text("model_version")),
            min_worker: query.integer("min_worker")?,
            max_worker: query.integer("max_worker")?,
            synchronous: query.flag("synchronous"),
        });
        Ok(answer(&scaled.await?))
    }

    pub(super) async fn unregister_model(&self, params: Params<'_>) -> Result<Response, Error> {
        let unregistered = self.operations.unregister(params.model, params.version);
        Ok(answer(&unregistered.await?))
    }

    pub(super) async fn set_default(&self, params: Params<'_>) -> Result<Response, Error> {
        let version = params.version.unwrap_or("");
        let outcome = self.operations.set_default(params.model, version).await?;
        Ok(answer(&outcome))
    }

    pub(super) fn model_description(&self, params: Params<'_>) -> Result<Response, Error> {
        let catalog = &self.services.catalog;
        catalog.check_known(params.model, params.version)?;
        Ok(document::management(&self.router, params.model))
    }
}

fn page(call: &Call) -> Result<ListParams, Error> {
    let query = query(call);
    Ok(ListParams {
        limit: query.integer("limit")?,
        next_page_token: query.integer("next_page_token")?,
    })
}

fn query(call: &Call) -> Parameters {
    Parameters::Query(uri::decode_query(&call.head.uri))
}

/// Whether the body is said to be JSON. Then the query string does not count.
fn has_json(call: &Call) -> bool {
    let content_type = call.head.headers.get(header::CONTENT_TYPE);
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
