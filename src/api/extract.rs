//! What endpoints take from a request: extractors of axum.

use std::convert::Infallible;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use hyper::HeaderMap;
use hyper::header::HeaderName;
use hyper::http::Extensions;
use hyper::http::request::Parts;
use uuid::Uuid;

use super::uri;
use crate::budget::Account;
use crate::error::{Error, Kind};
use crate::listen::Peer;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes that an id of a client's may have.
const CLIENT_ID_LIMIT: usize = 128;

/// What the server knows of a request before it looks at it. The connection adds it to the request's extensions.
#[derive(Debug, Clone)]
pub(super) struct RequestContext {
    /// The `x-request-id` of the response: the server's own unless the operator has clients' ids adopted.
    pub id: String,
    /// What the client calls it, if that is another id, and one that cannot forge a line of a log.
    pub client_id: Option<Box<str>>,
    /// When the request arrived.
    pub arrival: Instant,
    /// Who sent it.
    pub peer: Peer,
    /// Whose bytes in flight it is among.
    pub account: Account,
}

impl RequestContext {
    /// A request that arrives now, of a client that says nothing of it.
    pub(super) fn new(peer: Peer) -> Self {
        Self::with_id(peer, own_id(), None)
    }

    /// A request with `headers` that arrives now. With `adopts`, the id that its client gave it is its id.
    pub(super) fn of_head(peer: Peer, headers: &HeaderMap, adopts: bool) -> Self {
        match client_id(headers) {
            Some(client) if adopts => Self::with_id(peer, client.to_owned(), None),
            client => Self::with_id(peer, own_id(), client.map(Box::from)),
        }
    }

    fn with_id(peer: Peer, id: String, client_id: Option<Box<str>>) -> Self {
        Self {
            id,
            client_id,
            arrival: Instant::now(),
            peer,
            account: Account::default(),
        }
    }

    /// The same, of a client with this account.
    pub(super) fn of_account(self, account: Account) -> Self {
        Self { account, ..self }
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

fn own_id() -> String {
    let mut buffer = Uuid::encode_buffer();
    let id = Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
    id.to_owned()
}

/// The id that a client gave its request, if it is one. An id stands in logs, metrics and headers: one that is long or holds
/// other characters than ids do counts as none.
fn client_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(REQUEST_ID)?.as_bytes();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    let is_sound = (1..=CLIENT_ID_LIMIT).contains(&id.len()) && id.iter().all(is_plain);
    is_sound.then(|| std::str::from_utf8(id).ok())?
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
    /// `{model}` or `{tenant}`; empty where the path has none.
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
                "model" | "tenant" => params.model = value,
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
    pub account: Account,
    pub headers: HeaderMap,
    pub body: Body,
}

impl<S: Send + Sync> FromRequest<S> for Call {
    type Rejection = Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Self, Infallible> {
        let (mut head, body) = request.into_parts();
        let context = head.extensions.remove::<RequestContext>();
        let context = context.unwrap_or_else(RequestContext::of_no_connection);
        let RequestContext {
            id,
            arrival,
            account,
            ..
        } = context;
        Ok(Self {
            id,
            arrival,
            account,
            headers: head.headers,
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn context(id: Option<&[u8]>, adopts: bool) -> RequestContext {
        let mut headers = HeaderMap::new();
        if let Some(id) = id {
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(id).unwrap());
        }
        RequestContext::of_head(Peer::Unix, &headers, adopts)
    }

    #[test]
    fn a_clients_id_stands_beside_the_servers_or_in_its_place() {
        let id = "Root=1-5759e988/a:b+c.d_e@f";
        let beside = context(Some(id.as_bytes()), false);
        assert_eq!(beside.client_id.as_deref(), Some(id));
        assert!(Uuid::parse_str(&beside.id).is_ok());
        let adopted = context(Some(id.as_bytes()), true);
        assert_eq!((&*adopted.id, adopted.client_id), (id, None));
    }

    #[test]
    fn what_is_no_id_counts_as_none() {
        let long = "x".repeat(CLIENT_ID_LIMIT + 1);
        let bad: [&[u8]; 8] = [
            b"",
            b"a b",
            b"a\tb",
            b"a\"b",
            b"a,requestID=b",
            b"a|#b",
            b"\xff",
            long.as_bytes(),
        ];
        for id in bad.map(Some).into_iter().chain([None]) {
            for adopts in [false, true] {
                let context = context(id, adopts);
                assert_eq!(context.client_id, None, "{id:?}");
                assert!(Uuid::parse_str(&context.id).is_ok(), "{id:?}");
            }
        }
    }
}
