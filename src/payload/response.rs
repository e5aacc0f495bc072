//! The response of a handler, and the rules that every response keeps.
//!
//! A response is made where a handler's output is checked, and again where the front reads a worker process's report. Both
//! use [`Response::new`], so the front refuses nothing that a worker process let through, and every response can be sent.

use bytes::Bytes;

use super::Field;
use crate::budget::Account;
use crate::error::{Error, truncated};

/// Lowest status that a handler may choose: those below are not final. The highest is the last that HTTP has.
const FIRST_STATUS: u16 = 200;
const LAST_STATUS: u16 = 999;
/// Statuses whose responses cannot have a body.
const BODILESS: [u16; 3] = [204, 205, 304];
/// Most bytes of a content type.
const CONTENT_TYPE_LIMIT: usize = 255;
const HEADERS_LIMIT: usize = 64;
/// Most bytes of all headers together, names and values.
const HEADER_BYTES: usize = 32 << 10;
/// Most bytes of a value that a message shows.
const SHOWN: usize = 100;

/// Headers that only the server sets, and those that are about one connection. Those that the operator may allow are in
/// `model::HandlerHeaders`.
const RESERVED: [&str; 13] = [
    "connection",
    "content-length",
    "content-type",
    "date",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A response of a handler that keeps every rule, so that it can be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    status: u16,
    content_type: String,
    headers: Vec<Field>,
    body: Bytes,
}

/// Which rule a response breaks, with the value that breaks it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidResponse {
    /// A handler may not choose this status.
    #[error("status {0}, statuses are {FIRST_STATUS} to {LAST_STATUS}")]
    Status(u16),
    /// The status allows no body, and there is one.
    #[error("status {status} with a body of {length} bytes, it has none")]
    Body {
        /// The status.
        status: u16,
        /// Bytes of the body.
        length: usize,
    },
    /// The content type is not a media type, or too long.
    #[error(
        "content type {0:?}, which is not `type/subtype` in at most {CONTENT_TYPE_LIMIT} printable ASCII characters"
    )]
    ContentType(String),
    /// There are too many headers.
    #[error("{0} headers, the limit is {HEADERS_LIMIT}")]
    Headers(usize),
    /// The headers have too many bytes together.
    #[error("headers of {0} bytes, the limit is {HEADER_BYTES}")]
    HeaderBytes(usize),
    /// The name of a header is not a token.
    #[error("header name {0:?}, which is not a token")]
    HeaderName(String),
    /// Only the server sets this header.
    #[error("header {0:?}, which only the server sets")]
    Reserved(String),
    /// The value of a header holds other bytes than printable ASCII.
    #[error("header {name:?} with value {value:?}, values are printable ASCII")]
    HeaderValue {
        /// Name of the header.
        name: String,
        /// Its value, cut if it is long.
        value: String,
    },
}

impl Response {
    /// Checks every rule and makes a response. An empty content type means none; names of headers become lower-case.
    pub fn new(
        status: u16,
        content_type: String,
        mut headers: Vec<Field>,
        body: Bytes,
    ) -> Result<Self, InvalidResponse> {
        check_status(status, body.len())?;
        check_content_type(&content_type)?;
        check_headers(&mut headers)?;
        Ok(Self {
            status,
            content_type,
            headers,
            body,
        })
    }

    /// A response with status 200 and a body of JSON.
    pub fn json(body: Bytes) -> Self {
        Self {
            status: 200,
            content_type: "application/json".to_owned(),
            headers: Vec::new(),
            body,
        }
    }

    /// The same response, whose body is charged to `account` as long as there is some of it.
    pub(super) async fn held_by(self, account: &Account) -> Result<Self, Error> {
        let body = account.hold(self.body).await?;
        Ok(Self { body, ..self })
    }

    /// HTTP status.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Media type; empty for none.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// Headers beside the content type, with lower-case names.
    pub fn headers(&self) -> &[Field] {
        &self.headers
    }

    /// The bytes of the body.
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// Takes the body out.
    pub fn into_body(self) -> Bytes {
        self.body
    }
}

fn check_status(status: u16, length: usize) -> Result<(), InvalidResponse> {
    if !(FIRST_STATUS..=LAST_STATUS).contains(&status) {
        return Err(InvalidResponse::Status(status));
    }
    if BODILESS.contains(&status) && length > 0 {
        return Err(InvalidResponse::Body { status, length });
    }
    Ok(())
}

fn check_content_type(value: &str) -> Result<(), InvalidResponse> {
    let media_type = value.split(';').next().unwrap_or(value).trim_end();
    let is_media_type = media_type
        .split_once('/')
        .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    let is_legal = is_media_type && value.len() <= CONTENT_TYPE_LIMIT && is_header_value(value);
    if value.is_empty() || is_legal {
        return Ok(());
    }
    Err(InvalidResponse::ContentType(shown(value)))
}

fn check_headers(headers: &mut [Field]) -> Result<(), InvalidResponse> {
    if headers.len() > HEADERS_LIMIT {
        return Err(InvalidResponse::Headers(headers.len()));
    }
    let bytes = headers.iter().map(|(name, value)| name.len() + value.len());
    let bytes: usize = bytes.sum();
    if bytes > HEADER_BYTES {
        return Err(InvalidResponse::HeaderBytes(bytes));
    }
    headers.iter_mut().try_for_each(check_header)
}

fn check_header((name, value): &mut Field) -> Result<(), InvalidResponse> {
    name.make_ascii_lowercase();
    if !is_token(name) {
        return Err(InvalidResponse::HeaderName(shown(name)));
    }
    if RESERVED.contains(&name.as_str()) {
        return Err(InvalidResponse::Reserved(shown(name)));
    }
    if !is_header_value(value) {
        return Err(InvalidResponse::HeaderValue {
            name: shown(name),
            value: shown(value),
        });
    }
    Ok(())
}

fn is_token(text: &str) -> bool {
    let is_tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_tchar)
}

/// Whether a text is printable ASCII. HTTP allows other bytes, but clients read them differently, so none are sent.
fn is_header_value(text: &str) -> bool {
    text.bytes()
        .all(|b| b == b'\t' || (b' '..=b'~').contains(&b))
}

fn shown(text: &str) -> String {
    truncated(text, SHOWN).to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(name: &str, value: &str) -> Field {
        (name.to_owned(), value.to_owned())
    }

    fn response(
        status: u16,
        content_type: &str,
        headers: Vec<Field>,
        body: &'static str,
    ) -> Result<Response, InvalidResponse> {
        Response::new(status, content_type.to_owned(), headers, body.into())
    }

    /// Any response that a handler can make, of which about half break a rule.
    pub(crate) fn any_response() -> impl Strategy<Value = Result<Response, InvalidResponse>> {
        let status = prop_oneof![Just(200u16), 195u16..1005, any::<u16>()];
        let content_type = prop_oneof![
            Just(String::new()),
            "[a-z]{1,8}/[a-z.+-]{1,8}(; ?[a-z]{1,4}=[ -~]{0,9})?",
            "\\PC{0,12}",
            any::<String>(),
        ];
        let name = prop_oneof!["[A-Za-z!#$%&'*+.^_`|~-]{1,9}", "\\PC{0,5}"];
        let value = prop_oneof!["[ -~\t]{0,20}", "\\PC{0,5}", any::<String>()];
        let headers = prop::collection::vec((name, value), 0..4);
        let body = prop::collection::vec(any::<u8>(), 0..4);
        (status, content_type, headers, body).prop_map(|(status, content_type, headers, body)| {
            Response::new(status, content_type, headers, body.into())
        })
    }

    #[test]
    fn a_legal_response_passes_with_lower_case_headers() {
        let headers = vec![field("X-A", "b\tc")];
        let legal = response(201, "text/plain; charset=utf-8", headers, "ab").unwrap();
        assert_eq!(legal.headers(), [field("x-a", "b\tc")]);
        assert_eq!(legal.status(), 201);
        assert_eq!(legal.content_type(), "text/plain; charset=utf-8");
        assert_eq!(legal.into_body(), "ab");
        for status in [200, 204, 299, 304, 404, 599, 600, 999] {
            assert!(response(status, "", vec![], "").is_ok(), "{status}");
        }
    }

    #[test]
    fn what_breaks_a_rule_is_refused_with_rule_and_value() {
        let one = |name: &str, value: &str| response(200, "", vec![field(name, value)], "");
        let typed = |content_type: &str| response(200, content_type, vec![], "");
        for (refused, says) in [
            (
                response(0, "", vec![], ""),
                "status 0, statuses are 200 to 999",
            ),
            (response(99, "", vec![], ""), "status 99"),
            (response(101, "", vec![], ""), "status 101"),
            (response(199, "", vec![], ""), "status 199"),
            (response(1000, "", vec![], ""), "status 1000"),
            (response(u16::MAX, "", vec![], ""), "status 65535"),
            (
                response(204, "", vec![], "ab"),
                "status 204 with a body of 2 bytes",
            ),
            (response(304, "", vec![], "ab"), "status 304 with a body"),
            (typed("text"), "content type \"text\""),
            (typed("a b/c"), "not `type/subtype`"),
            (typed("text/plain; x=\n"), "content type"),
            (typed("text/plain; x=ä"), "content type"),
            (typed(&format!("a/{}", "b".repeat(254))), "content type"),
            (one("a b", "c"), "\"a b\", which is not a token"),
            (one("", "c"), "not a token"),
            (one("ä", "c"), "not a token"),
            (
                one("Connection", "close"),
                "\"connection\", which only the server sets",
            ),
            (one("content-length", "1"), "which only the server sets"),
            (one("a", "b\r\nc: d"), "value \"b\\r\\nc: d\""),
            (one("a", "ä"), "printable ASCII"),
            (one("a", "\u{7f}"), "printable ASCII"),
            (
                response(200, "", vec![field("a", "b"); 65], ""),
                "65 headers, the limit is 64",
            ),
            (
                one("a", &"b".repeat(HEADER_BYTES)),
                "headers of 32769 bytes, the limit is 32768",
            ),
        ] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn long_values_are_cut_in_messages() {
        let long = "ä".repeat(10_000);
        for refused in [
            response(200, &long, vec![], ""),
            response(200, "", vec![field(&long, "")], ""),
            response(200, "", vec![field("a", &long)], ""),
        ] {
            assert!(refused.unwrap_err().to_string().len() < 400);
        }
    }

    proptest! {
        #[test]
        fn what_is_made_again_is_the_same(response in any_response()) {
            if let Ok(response) = response {
                let Response { status, content_type, headers, body } = response.clone();
                prop_assert_eq!(Response::new(status, content_type, headers, body), Ok(response));
            }
        }
    }
}
