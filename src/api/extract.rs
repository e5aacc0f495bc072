//! What endpoints take from a request: extractors of axum.

use std::convert::Infallible;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use hyper::HeaderMap;
use hyper::http::Extensions;
use hyper::http::request::Parts;
use uuid::Uuid;

use super::uri;
use crate::error::{Error, Kind};
use crate::listen::Peer;

/// What the server knows of a request before it looks at it. The connection adds it to the request's extensions.
#[derive(Debug, Clone)]
pub(super) struct RequestContext {
    /// The `x-request-id` of the response: always the server's own, so that no client can forge a line of the log.
    pub id: String,
    /// When the request arrived.
    pub arrival: Instant,
    /// Who sent it.
    pub peer: Peer,
}

impl RequestContext {
    /// A request that arrives now.
    pub(super) fn new(peer: Peer) -> Self {
        let mut buffer = Uuid::encode_buffer();
        let id = Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
        Self {
            id: id.to_owned(),
            arrival: Instant::now(),
            peer,
        }
    }

    /// The context of a request with `extensions`. A request that came over no connection arrives now.
    pub(super) fn of(extensions: &Extensions) -> Self {
        let context = extensions.get::<Self>();
        context.cloned().unwrap_or_else(Self::of_no_connection)
    }

    fn of_no_connection() -> Self {
        Self::new(Peer::Unix)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&head.extensions))
    }
}

/// What the path names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PathParams {
    /// `{model}` or `{workflow}`; empty where the path has none.
    pub model: String,
    /// `{version}`.
    pub version: Option<String>,
    /// What `*` took, without the slash before it.
    pub rest: String,
}

impl PathParams {
    /// The same without a version, which means the default version.
    pub(super) fn of_default_version(self) -> Self {
        Self {
            version: None,
            ..self
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathParams {
    type Rejection = Error;

    async fn from_request_parts(head: &mut Parts, state: &S) -> Result<Self, Error> {
        let named = RawPathParams::from_request_parts(head, state).await;
        let named = named.map_err(|error| {
            Error::new(Kind::Internal, "The path could not be read").with_detail(error)
        })?;
        let mut params = Self::default();
        for (name, value) in &named {
            let value = uri::as_sent(value);
            match name {
                "model" => params.model = value,
                "version" => params.version = Some(value),
                _ => params.rest = value,
            }
        }
        Ok(params)
    }
}

/// The parameters of the query string, in order.
pub(super) struct Query(pub Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(uri::decode_query(&head.uri)))
    }
}

/// A request whose body has not been read: how long that may take depends on the model.
pub(super) struct Call {
    pub id: String,
    pub arrival: Instant,
    pub headers: HeaderMap,
    pub body: Body,
}

impl<S: Send + Sync> FromRequest<S> for Call {
    type Rejection = Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Self, Infallible> {
        let (mut head, body) = request.into_parts();
        let context = head.extensions.remove::<RequestContext>();
        let RequestContext { id, arrival, .. } =
            context.unwrap_or_else(RequestContext::of_no_connection);
        Ok(Self {
            id,
            arrival,
            headers: head.headers,
            body,
        })
    }
}
