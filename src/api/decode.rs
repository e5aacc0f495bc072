//! From the wire to a payload. Every size limit of the API is here and nowhere else.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::HeaderMap;
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderName};
use hyper::http::request::Parts;

use crate::error::{Error, Kind};
use crate::payload::{Body, Field, Part};

/// Bytes of the request line: method, target and protocol.
const LINE_LIMIT: usize = 4096;
/// Bytes of all headers.
const HEADERS_LIMIT: usize = 8192;
/// How long a client may let the rest of its body wait.
const PIECE_TIMEOUT: Duration = Duration::from_mins(1);
/// Fields of a form.
const FIELDS_LIMIT: usize = 1024;
/// The line `METHOD TARGET HTTP/1.1` has this many bytes beside method and target.
const LINE_REST: usize = " ".len() + " HTTP/1.1\r\n".len();
/// A header has this many bytes beside name and value.
const HEADER_REST: usize = ": \r\n".len();

/// Headers a handler never sees: credentials, and what is between the client and this server alone.
const HIDDEN: [HeaderName; 9] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
];
/// The same, for names that are no standard's.
const HIDDEN_NAMES: [&str; 5] = [
    "keep-alive",
    "proxy-connection",
    "x-api-key",
    "explain",
    "url_path",
];

/// Decodes requests within limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decoder {
    body_limit: usize,
}

impl Decoder {
    pub(super) const fn new(body_limit: usize) -> Self {
        Self { body_limit }
    }

    /// Refuses what is refused before a byte of the body is read.
    pub(super) fn check_head(self, head: &Parts) -> Result<(), Error> {
        let target = head
            .uri
            .path_and_query()
            .map_or(0, |target| target.as_str().len());
        let line = head.method.as_str().len() + target + LINE_REST;
        if line > LINE_LIMIT || headers_size(&head.headers) > HEADERS_LIMIT {
            return Err(Error::new(Kind::BadRequest, "Invalid HTTP message."));
        }
        if self.is_too_large(&head.headers) {
            return Err(self.too_large());
        }
        match head.headers.get(header::EXPECT) {
            Some(value) if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
                Err(Error::new(Kind::UnknownExpectation, ""))
            }
            _ => Ok(()),
        }
    }

    fn is_too_large(self, headers: &HeaderMap) -> bool {
        let length = headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        length.is_some_and(|length| {
            usize::try_from(length).map_or(true, |length| length > self.body_limit)
        })
    }

    fn too_large(self) -> Error {
        Error::new(
            Kind::TooLarge,
            format!("The body is larger than {} bytes", self.body_limit),
        )
    }

    /// The whole body. One that arrived in one piece is not copied.
    pub(super) async fn collect(self, mut body: Incoming) -> Result<Bytes, Error> {
        let first = match next_piece(&mut body).await? {
            Some(first) if first.len() > self.body_limit => return Err(self.too_large()),
            Some(first) => first,
            None => return Ok(Bytes::new()),
        };
        if body.is_end_stream() {
            return Ok(first);
        }
        let mut all = BytesMut::from(first);
        while let Some(piece) = next_piece(&mut body).await? {
            if all.len() + piece.len() > self.body_limit {
                return Err(self.too_large());
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// A body as the handler gets it, and its media type: fields of a form, or the bytes as they are.
    pub(super) async fn payload(
        self,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<(Option<String>, Body), Error> {
        let full = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let media = full.map(media_type);
        let body = match (media.as_deref(), full) {
            (Some("multipart/form-data"), Some(full)) => Body::Form(multipart(full, body).await?),
            (Some("application/x-www-form-urlencoded"), _) => Body::Form(urlencoded(&body)?),
            _ => Body::Raw(body),
        };
        Ok((media, body))
    }
}

/// A media type without its parameters.
fn media_type(full: &str) -> String {
    let media = full.split(';').next().unwrap_or("");
    media.trim().to_ascii_lowercase()
}

fn headers_size(headers: &HeaderMap) -> usize {
    let sizes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + HEADER_REST);
    sizes.sum()
}

async fn next_piece(body: &mut Incoming) -> Result<Option<Bytes>, Error> {
    loop {
        let arrived = tokio::time::timeout(PIECE_TIMEOUT, body.frame()).await;
        let Some(frame) = arrived.map_err(|_| stalled())? else {
            return Ok(None);
        };
        let frame = frame.map_err(|error| {
            Error::new(Kind::BadRequest, "Invalid HTTP message.").with_detail(error)
        })?;
        // Trailers are of no use to anybody.
        if let Ok(piece) = frame.into_data() {
            return Ok(Some(piece));
        }
    }
}

fn stalled() -> Error {
    let message = format!("The body stalled for {} s", PIECE_TIMEOUT.as_secs());
    Error::new(Kind::BadRequest, message)
}

async fn multipart(content_type: &str, body: Bytes) -> Result<Vec<Part>, Error> {
    let boundary = multer::parse_boundary(content_type).map_err(|error| bad_form(&error))?;
    let pieces = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(body)]);
    let mut form = multer::Multipart::new(pieces, boundary);
    let mut parts = Vec::new();
    while let Some(field) = form.next_field().await.map_err(|error| bad_form(&error))? {
        check_fields(parts.len())?;
        let name = field.name().unwrap_or("").to_owned();
        let filename = field.file_name().map(str::to_owned);
        let content_type = field
            .content_type()
            .map(|media| media.essence_str().to_owned());
        // A file without a type is bytes; a plain field has no type.
        let content_type = match (&filename, content_type) {
            (Some(_), None) => Some("application/octet-stream".to_owned()),
            (_, content_type) => content_type,
        };
        let body = field.bytes().await.map_err(|error| bad_form(&error))?;
        parts.push(Part {
            name,
            filename,
            content_type,
            body,
        });
    }
    Ok(parts)
}

fn bad_form(error: &multer::Error) -> Error {
    Error::new(
        Kind::BadRequest,
        format!("The multipart body does not parse: {error}"),
    )
}

fn urlencoded(body: &[u8]) -> Result<Vec<Part>, Error> {
    let mut parts = Vec::new();
    for (name, value) in form_urlencoded::parse(body) {
        check_fields(parts.len())?;
        parts.push(Part {
            name: name.into_owned(),
            filename: None,
            content_type: None,
            body: Bytes::from(value.into_owned()),
        });
    }
    Ok(parts)
}

fn check_fields(so_far: usize) -> Result<(), Error> {
    if so_far < FIELDS_LIMIT {
        return Ok(());
    }
    let message = format!("A form may have at most {FIELDS_LIMIT} fields");
    Err(Error::new(Kind::BadRequest, message))
}

/// The headers a handler sees: the client's with lower-case names, less what is hidden from it, and the server's two.
/// Of headers with the same name the last wins.
pub(super) fn headers_for_handler(headers: &HeaderMap, url_path: &str) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::with_capacity(headers.len() + 2);
    for name in headers.keys() {
        let value = headers.get_all(name).iter().next_back();
        if let (false, Some(value)) = (is_hidden(name, headers), value) {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            fields.push((name.as_str().to_owned(), value));
        }
    }
    fields.push(("explain".to_owned(), "False".to_owned()));
    fields.push(("url_path".to_owned(), url_path.to_owned()));
    fields
}

fn is_hidden(name: &HeaderName, headers: &HeaderMap) -> bool {
    HIDDEN.contains(name)
        || HIDDEN_NAMES.contains(&name.as_str())
        || is_connection_option(name, headers)
}

/// Whether the client said with `Connection: NAME` that a header is for this connection alone.
fn is_connection_option(name: &HeaderName, headers: &HeaderMap) -> bool {
    let options = headers.get_all(header::CONNECTION).iter();
    let mut options = options
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    options.any(|option| option.trim().eq_ignore_ascii_case(name.as_str()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        headers
    }

    async fn decoded(
        content_type: &str,
        body: &'static str,
    ) -> Result<(Option<String>, Body), Error> {
        let decoder = Decoder::new(1 << 20);
        decoder
            .payload(
                &headers(&[("content-type", content_type)]),
                Bytes::from(body),
            )
            .await
    }

    #[test]
    fn handlers_see_no_credentials_and_no_hop_by_hop_headers() {
        let seen = headers_for_handler(
            &headers(&[
                ("X-Req", "1"),
                ("x-req", "2"),
                ("Authorization", "Bearer secret"),
                ("Cookie", "secret"),
                ("Connection", "close, X-Once"),
                ("X-Once", "secret"),
                ("explain", "True"),
                ("url_path", "mine"),
            ]),
            "a/b",
        );
        let expected = [("x-req", "2"), ("explain", "False"), ("url_path", "a/b")];
        assert_eq!(
            seen,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn heads_over_the_limit_are_refused() {
        let decoder = Decoder::new(10);
        let check = |request: hyper::http::request::Builder| {
            let (head, ()) = request.body(()).unwrap().into_parts();
            decoder.check_head(&head).map_err(|error| error.kind())
        };
        let get = |target: &str| hyper::Request::get(target);
        let long = "x".repeat(LINE_LIMIT);
        assert_eq!(check(get(&format!("/{long}"))), Err(Kind::BadRequest));
        assert_eq!(
            check(get("/").header("x", "y".repeat(HEADERS_LIMIT))),
            Err(Kind::BadRequest)
        );
        assert_eq!(
            check(get("/").header("content-length", "11")),
            Err(Kind::TooLarge)
        );
        assert_eq!(
            check(get("/").header("content-length", "18446744073709551615")),
            Err(Kind::TooLarge)
        );
        assert_eq!(check(get("/").header("content-length", "10")), Ok(()));
        assert_eq!(
            check(get("/").header("expect", "a miracle")),
            Err(Kind::UnknownExpectation)
        );
        assert_eq!(check(get("/").header("expect", "100-Continue")), Ok(()));
    }

    #[tokio::test]
    async fn forms_become_fields() {
        let (_, body) = decoded(
            "application/x-www-form-urlencoded; charset=utf-8",
            "a=1+2&b=%26",
        )
        .await
        .unwrap();
        let Body::Form(parts) = body else {
            panic!("{body:?}")
        };
        let fields: Vec<_> = parts
            .iter()
            .map(|part| (part.name.as_str(), &part.body[..]))
            .collect();
        assert_eq!(fields, [("a", &b"1 2"[..]), ("b", b"&")]);
    }

    #[tokio::test]
    async fn files_of_a_multipart_body_have_a_type() {
        let text = "--x\r\nContent-Disposition: form-data; name=\"t\"\r\n\r\nhi\r\n\
                    --x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.bin\"\r\n\r\n\0\r\n--x--\r\n";
        let (media, body) = decoded("multipart/form-data; boundary=x", text)
            .await
            .unwrap();
        assert_eq!(media.as_deref(), Some("multipart/form-data"));
        let Body::Form(parts) = body else {
            panic!("{body:?}")
        };
        assert_eq!(parts[0].content_type, None);
        assert_eq!(
            parts[1].content_type.as_deref(),
            Some("application/octet-stream")
        );
        assert_eq!(parts[1].filename.as_deref(), Some("a.bin"));
    }

    #[tokio::test]
    async fn broken_forms_are_the_clients_fault() {
        for (content_type, body) in [
            ("multipart/form-data", "--x"),
            (
                "multipart/form-data; boundary=x",
                "--x\r\nContent-Disposition: form-data; name=\"t\"\r\n\r\nhi",
            ),
            ("multipart/form-data; boundary=x", "\0\0\0"),
        ] {
            let error = decoded(content_type, body).await.unwrap_err();
            assert_eq!(error.kind(), Kind::BadRequest, "{content_type} {body:?}");
        }
        let many = "a=1&".repeat(FIELDS_LIMIT + 1);
        assert!(urlencoded(many.as_bytes()).is_err());
    }

    #[tokio::test]
    async fn media_types_lose_their_parameters() {
        let (media, _) = decoded("Application/JSON; charset=utf-8", "{}")
            .await
            .unwrap();
        assert_eq!(media.as_deref(), Some("application/json"));
    }
}
