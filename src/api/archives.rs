//! Endpoints for the archives of a tenant's own: sent, listed, removed.

use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::{Method, Request, StatusCode};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::decode::{content_length, invalid_message, too_slow};
use super::extract::{Call, PathParams, Query};
use super::pace::Pace;
use super::parameters::Parameters;
use super::{Api, ApiState, EndpointResult, reply};
use crate::catalog::Sending;
use crate::error::{Error, Kind};

/// What all its paths begin with.
const PREFIX: &str = "/lantern/v1/archives/";

/// Whether a request sends an archive, which may be larger than other bodies.
pub(super) fn is_sent<B>(request: &Request<B>) -> bool {
    request.method() == Method::PUT && request.uri().path().starts_with(PREFIX)
}

/// Takes an archive: its name is in the path, its digest in the query. With `offset`, it goes on with one that broke off there.
pub(super) async fn send(
    api: ApiState,
    path: PathParams,
    Query(query): Query,
    call: Call,
) -> EndpointResult {
    let query = Parameters::Query(query);
    let digest = query.text("sha256").unwrap_or_default();
    if let Some(notes) = &api.notes {
        notes.digest(&digest);
    }
    let offset = query.text("offset").map(|text| number(&text)).transpose()?;
    let catalog = &api.services.catalog;
    let sending = catalog.begin_upload(path.model, digest.clone()).await?;
    check_offset(&sending, offset)?;
    let length = content_length(&call.headers).unwrap_or(0);
    sending.check_room(offset.unwrap_or(0).saturating_add(length))?;
    sending.begin(offset.is_none())?;
    receive(&api, &sending, call.body).await?;
    let stored = sending.finish().await?;
    let said = json!({"name": stored.name, "bytes": stored.bytes, "sha256": digest});
    Ok(reply::json(StatusCode::CREATED, &said))
}

/// How much of an archive has arrived that broke off, or what there is by that name.
pub(super) async fn describe(
    api: ApiState,
    path: PathParams,
    Query(query): Query,
) -> EndpointResult {
    let catalog = &api.services.catalog;
    if let Some(digest) = Parameters::Query(query).text("sha256") {
        let arrived = catalog.arrived(digest).await?;
        return Ok(reply::json(StatusCode::OK, &json!({ "arrived": arrived })));
    }
    let stored = catalog.stored().await?;
    let found = stored.into_iter().find(|one| one.name == path.model);
    let found = found.ok_or_else(|| {
        let message = format!("Model not found at: {}", path.model);
        Error::new(Kind::ModelNotFound, message)
    })?;
    let said = json!({"name": found.name, "bytes": found.bytes});
    Ok(reply::json(StatusCode::OK, &said))
}

/// All archives, by name.
pub(super) async fn list(api: ApiState) -> EndpointResult {
    let stored = api.services.catalog.stored().await?.into_iter();
    let archives = stored.map(|one| json!({"name": one.name, "bytes": one.bytes}));
    let archives: Vec<_> = archives.collect();
    Ok(reply::json(
        StatusCode::OK,
        &json!({ "archives": archives }),
    ))
}

/// Removes an archive that no version comes from.
pub(super) async fn remove(api: ApiState, path: PathParams) -> EndpointResult {
    api.services.catalog.remove_stored(path.model).await?;
    Ok(reply::status(StatusCode::OK, "The archive is removed"))
}

fn number(text: &str) -> Result<u64, Error> {
    let wrong = |_| Error::new(Kind::BadRequest, "offset must be a number of bytes");
    text.parse().map_err(wrong)
}

/// What goes on goes on from where it broke off.
fn check_offset(sending: &Sending, offset: Option<u64>) -> Result<(), Error> {
    let arrived = sending.arrived()?;
    if offset.is_none_or(|offset| offset == arrived) {
        return Ok(());
    }
    let message = format!("offset must be {arrived}: so many bytes have arrived");
    Err(Error::new(Kind::Conflict, message))
}

/// Writes what comes. What has arrived stays if it breaks off.
async fn receive(api: &Api, sending: &Sending, mut body: Body) -> Result<(), Error> {
    let unwritten = |error: std::io::Error| {
        Error::new(Kind::Internal, "The archive could not be written").with_detail(error)
    };
    let (mut file, mut arrived) = (sending.rest()?, sending.arrived()?);
    let mut pace = Pace::new(api.common.cfg.body_timeout);
    loop {
        let frame = tokio::time::timeout_at(pace.deadline().into(), body.frame()).await;
        let Some(frame) = frame.map_err(|_| too_slow())? else {
            break;
        };
        let frame = frame.map_err(|error| invalid_message().with_detail(error))?;
        if let Ok(piece) = frame.into_data() {
            arrived += piece.len() as u64;
            api.check_access()?;
            sending.check_room(arrived)?;
            file.write_all(&piece).await.map_err(unwritten)?;
            pace.arrived(piece.len());
        }
    }
    file.flush().await.map_err(unwritten)
}
