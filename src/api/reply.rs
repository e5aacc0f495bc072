//! Responses: the JSON that the server itself writes, the headers that every response has, and the one way from a
//! failure to a response.

use axum::body::Body;
use axum::response::IntoResponse;
use bytes::Bytes;
use hyper::body::Body as _;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Request, StatusCode, Version};
use serde::Serialize;

use super::Response;
use crate::error::{Error, Kind};

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const KEEP_ALIVE: HeaderValue = HeaderValue::from_static("keep-alive");
const CLOSE: HeaderValue = HeaderValue::from_static("close");
const PRAGMA: HeaderValue = HeaderValue::from_static("no-cache");
const CACHE_CONTROL: HeaderValue =
    HeaderValue::from_static("no-cache; no-store, must-revalidate, private");
const EXPIRES: HeaderValue = HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 UTC");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Headers for browsers; each is sent if it is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    origin: Option<HeaderValue>,
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
}

/// A setting that cannot be sent in a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} must be a text that an HTTP header can hold, got {value:?}")]
pub struct BadHeader {
    key: &'static str,
    value: String,
}

impl Cors {
    /// Checks the values of `cors_allowed_origin`, `cors_allowed_methods` and `cors_allowed_headers`.
    pub fn new(
        origin: Option<&str>,
        methods: Option<&str>,
        headers: Option<&str>,
    ) -> Result<Self, BadHeader> {
        Ok(Self {
            origin: cors_value("cors_allowed_origin", origin)?,
            methods: cors_value("cors_allowed_methods", methods)?,
            headers: cors_value("cors_allowed_headers", headers)?,
        })
    }
}

fn cors_value(key: &'static str, value: Option<&str>) -> Result<Option<HeaderValue>, BadHeader> {
    let Some(value) = value else { return Ok(None) };
    let header = HeaderValue::from_str(value);
    header.map(Some).map_err(|_| BadHeader {
        key,
        value: value.to_owned(),
    })
}

/// Whether the client wants no further response on this connection. HTTP/1.0 goes on only if it says so.
pub(super) fn closes<B>(request: &Request<B>) -> bool {
    let mut options = request.headers().get_all(header::CONNECTION).iter();
    match request.version() {
        Version::HTTP_10 => !options.any(|value| has_option(value, b"keep-alive")),
        _ => options.any(|value| has_option(value, b"close")),
    }
}

fn has_option(value: &HeaderValue, option: &[u8]) -> bool {
    let mut options = value.as_bytes().split(|byte| *byte == b',');
    options.any(|one| one.trim_ascii().eq_ignore_ascii_case(option))
}

/// The headers that every response has.
pub(super) struct CommonHeaders {
    cors: Vec<(HeaderName, HeaderValue)>,
}

impl CommonHeaders {
    pub(super) fn new(cors: &Cors) -> Self {
        let cors = [
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, &cors.origin),
            (header::ACCESS_CONTROL_ALLOW_METHODS, &cors.methods),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, &cors.headers),
        ];
        let cors = cors.into_iter();
        Self {
            cors: cors
                .filter_map(|(name, value)| Some((name, value.clone()?)))
                .collect(),
        }
    }

    /// Adds them, over what a handler set; only CORS headers of a handler stay.
    pub(super) fn add_to(&self, response: &mut Response, id: &str, closes: bool) {
        let closes = closes || response.status().as_u16() >= 400;
        let length = sent_length(response);
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(id) {
            headers.insert(REQUEST_ID, id);
        }
        for (name, value) in &self.cors {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        headers.insert(header::PRAGMA, PRAGMA);
        headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
        headers.insert(header::EXPIRES, EXPIRES);
        headers.insert(header::CONNECTION, if closes { CLOSE } else { KEEP_ALIVE });
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, length);
        }
    }
}

/// Takes the `Content-Length` that axum has set. It is sent where there is no body to tell it, as to HEAD, and where a
/// response may have a body; otherwise hyper adds it.
fn sent_length(response: &mut Response) -> Option<HeaderValue> {
    let length = response.headers_mut().remove(header::CONTENT_LENGTH);
    let is_bodiless = matches!(
        response.status(),
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    );
    length.filter(|_| !is_bodiless && response.body().size_hint().exact() == Some(0))
}

#[derive(Serialize)]
struct StatusBody<'a> {
    status: &'a str,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: u16,
    r#type: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
}

/// `{"status": …}`.
pub(super) fn status(code: StatusCode, status: &str) -> Response {
    json(code, &StatusBody { status })
}

/// A failure is a response of endpoints and layers. Its [`Error`] goes along as an extension: who answers a request in
/// another form, or logs it, finds it there.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = error(&self);
        response.extensions_mut().insert(self);
        response
    }
}

/// The only way from a failure to a response.
pub(super) fn error(error: &Error) -> Response {
    let wire = error.kind().wire();
    let body = ErrorBody {
        code: wire.status,
        r#type: wire.exception,
        message: error.message(),
    };
    let mut response = json(code(error.kind()), &body);
    add_retry(&mut response, error);
    response
}

/// Says when a client may try again, if that is of use.
pub(super) fn add_retry(response: &mut Response, error: &Error) {
    if let Some(wait) = error.retry_after() {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, wait.as_secs().into());
    }
}

/// Whether a failure is answered by its status alone, as the transport does it: no body, no common headers, not
/// counted.
pub(super) const fn is_bare(kind: Kind) -> bool {
    matches!(kind, Kind::TooLarge | Kind::UnknownExpectation)
}

/// A status and nothing else. The rest of the request is not read, so the connection ends.
pub(super) fn bare(kind: Kind) -> Response {
    let mut response = Response::default();
    *response.status_mut() = code(kind);
    response.headers_mut().insert(header::CONNECTION, CLOSE);
    response
}

/// What TorchServe writes to a client that speaks plain HTTP where TLS is spoken, before it ends the connection. Not
/// hyper's: there is no request yet, and none is read.
pub(super) fn not_tls() -> Bytes {
    let body = "{\n  \"status\": \"This TorchServe instance only accepts HTTPS requests\"\n}\n";
    let head = format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\nPragma: no-cache\r\nCache-Control: no-cache; no-store, \
         must-revalidate, private\r\nExpires: Thu, 01 Jan 1970 00:00:00 UTC\r\ncontent-length: {}\r\nconnection: \
         close\r\n\r\n",
        body.len()
    );
    (head + body).into()
}

/// Says that this is the connection's last response: a client that believed `keep-alive` would send its next request
/// into a connection that is about to end.
pub(super) fn close_after<B>(response: &mut hyper::Response<B>) {
    response.headers_mut().insert(header::CONNECTION, CLOSE);
}

fn code(kind: Kind) -> StatusCode {
    StatusCode::from_u16(kind.wire().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// JSON as TorchServe prints it: two spaces, and a line break at the end.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let mut body = Vec::with_capacity(256);
    // Writing to memory does not fail, and the values written here have string keys.
    if serde_json::to_writer_pretty(&mut body, value).is_err() {
        body.clear();
    }
    body.push(b'\n');
    with_type(status, JSON, body)
}

/// A response with a body and its media type.
pub(super) fn with_type(
    status: StatusCode,
    content_type: HeaderValue,
    body: impl Into<Body>,
) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn body(response: Response) -> String {
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn errors_have_the_three_members_in_order() {
        let whole = Error::new(Kind::ModelNotFound, "Model not found: <a>").with_detail("/secret");
        assert_eq!(
            body(error(&whole)).await,
            "{\n  \"code\": 404,\n  \"type\": \"ModelNotFoundException\",\n  \"message\": \"Model not found: <a>\"\n}\n"
        );
        let silent = body(error(&Error::new(Kind::Internal, ""))).await;
        assert!(!silent.contains("message"), "{silent}");
    }

    #[test]
    fn clients_say_how_their_connection_ends() {
        let closes = |version, connection: Option<&'static str>| {
            let mut request = hyper::Request::get("/").version(version);
            if let Some(connection) = connection {
                request = request.header(header::CONNECTION, connection);
            }
            super::closes(&request.body(()).unwrap())
        };
        assert!(!closes(Version::HTTP_11, None));
        assert!(!closes(Version::HTTP_11, Some("keep-alive, closed")));
        assert!(closes(Version::HTTP_11, Some("x, CLOSE")));
        assert!(closes(Version::HTTP_10, None));
        assert!(!closes(Version::HTTP_10, Some("Keep-Alive")));
    }
}
