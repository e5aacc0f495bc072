//! From the wire to a payload. Every size limit of the API is here and below, and nowhere else.
//!
//! `tower-http` has layers for limits, timeouts and decompression. None gives the same answers: its limit has a body in
//! its 413, its timeouts do not know the model's deadline, and its decompression refuses other encodings with other
//! texts, takes one form of deflate and works on the thread that serves everybody.

use std::time::{Duration, Instant};

use axum::body::Body as HttpBody;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use hyper::header;
use hyper::{HeaderMap, Request};

use super::pace::Pace;
use crate::budget::{Account, Charge};
use crate::catalog::Room;
use crate::error::{Error, Kind};
use crate::payload::{Body, Part};
use crate::refusals::{Limit, Refusals};

mod encoding;
mod form;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzz;
mod headers;

pub(super) use form::{is_json_as_form, with_remedy_for_json_as_form};
pub(super) use headers::{RouteHeaders, headers_for_handler};

use encoding::Encoding;

/// Bytes of the request line: method, target and protocol.
const LINE_LIMIT: usize = 4096;
/// Bytes of all headers.
const HEADERS_LIMIT: usize = 8192;
/// Headers that a request may have: as many as hyper takes over HTTP/1.
const HEADERS_COUNT: usize = 100;
const MULTIPART: &str = "multipart/form-data";
const URLENCODED: &str = "application/x-www-form-urlencoded";
/// How long a whole body may take where no model says how long.
const WHOLE_TIMEOUT: Duration = Duration::from_mins(1);
/// The line `METHOD TARGET HTTP/1.1` has this many bytes beside method and target.
const LINE_REST: usize = " ".len() + " HTTP/1.1\r\n".len();
/// A header has this many bytes beside name and value.
const HEADER_REST: usize = ": \r\n".len();

/// The most bytes that one byte of gzip or deflate unpacks to.
const MOST_RATIO: usize = 1032;
/// What a body is unpacked to at first, so that one that is small needs little room.
const FIRST_UNPACKED: usize = 64 << 10;

/// Decodes requests within limits.
#[derive(Debug, Clone)]
pub(super) struct Decoder {
    body_limit: usize,
    /// How long a body may take for what little must come of it.
    timeout: Duration,
    refusals: Refusals,
}

impl Decoder {
    pub(super) const fn new(body_limit: usize, timeout: Duration, refusals: Refusals) -> Self {
        Self {
            body_limit,
            timeout,
            refusals,
        }
    }

    /// Refuses what is refused before a byte of the body is read; a body that is too large, if it `has_limit`.
    pub(super) fn check_head<B>(&self, request: &Request<B>, has_limit: bool) -> Result<(), Error> {
        let target = request.uri().path_and_query();
        let target = target.map_or(0, |target| target.as_str().len());
        let line = request.method().as_str().len() + target + LINE_REST;
        let headers = request.headers();
        let is_too_much = headers.len() > HEADERS_COUNT || headers_size(headers) > HEADERS_LIMIT;
        if line > LINE_LIMIT || is_too_much {
            return Err(invalid_message());
        }
        if has_limit && self.is_too_large(headers) {
            return Err(self.too_large());
        }
        match headers.get(header::EXPECT) {
            Some(value) if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
                Err(Error::new(Kind::UnknownExpectation, ""))
            }
            _ => Ok(()),
        }
    }

    fn is_too_large(&self, headers: &HeaderMap) -> bool {
        content_length(headers).is_some_and(|length| {
            usize::try_from(length).map_or(true, |length| length > self.body_limit)
        })
    }

    fn too_large(&self) -> Error {
        Error::new(
            Kind::TooLarge,
            format!("The body is larger than {} bytes", self.body_limit),
        )
    }

    /// The whole body, unpacked if it is compressed, within [`WHOLE_TIMEOUT`]. It is charged to `account`.
    pub(super) async fn body(
        &self,
        account: &Account,
        headers: &HeaderMap,
        body: HttpBody,
    ) -> Result<Bytes, Error> {
        let until = Instant::now() + WHOLE_TIMEOUT;
        self.body_until(account, headers, body, until).await
    }

    /// The whole body, unpacked if it is compressed, if the client has sent it by `until`. The limit holds for the bytes
    /// on the wire and for the unpacked ones; both are charged to `account`.
    pub(super) async fn body_until(
        &self,
        account: &Account,
        headers: &HeaderMap,
        body: HttpBody,
        until: Instant,
    ) -> Result<Bytes, Error> {
        let all = self.divided(account, headers, body, until, Division::NOT_AT_ALL);
        let [body, _] = all.await?;
        Ok(body)
    }

    /// The same as [`body`](Self::body) in two parts, of which the second need not be in memory of this process's own.
    pub(super) async fn body_in_two(
        &self,
        account: &Account,
        headers: &HeaderMap,
        body: HttpBody,
        division: Division<'_>,
    ) -> Result<[Bytes; 2], Error> {
        let until = Instant::now() + WHOLE_TIMEOUT;
        self.divided(account, headers, body, until, division).await
    }

    /// The same in two parts, of which the second need not be in memory of this process's own.
    pub(super) async fn divided(
        &self,
        account: &Account,
        headers: &HeaderMap,
        body: HttpBody,
        until: Instant,
        division: Division<'_>,
    ) -> Result<[Bytes; 2], Error> {
        let Some(encoding) = Encoding::of(headers)? else {
            return self.collect(account, body, until, division).await;
        };
        let whole = self.collect(account, body, until, Division::NOT_AT_ALL);
        let [sent, _] = whole.await?;
        let unpacked = self.unpack(account, encoding, sent).await?;
        Ok(division.of(unpacked))
    }

    /// Unpacks what may be unpacked, for which there must be room. A body that is small after all needs little.
    async fn unpack(
        &self,
        account: &Account,
        encoding: Encoding,
        sent: Bytes,
    ) -> Result<Bytes, Error> {
        let most = sent.len().saturating_mul(MOST_RATIO).min(self.body_limit);
        let mut charge = account.open();
        for limit in [FIRST_UNPACKED.min(most), most] {
            charge.grow_to(limit).await?;
            if let Some(unpacked) = unpacked(encoding, sent.clone(), limit).await? {
                charge.shrink_to(unpacked.len());
                return Ok(charge.hold(unpacked));
            }
        }
        Err(self.too_large())
    }

    /// The bytes on the wire. Those that arrived in one piece are not copied. More is read once there is room for what was.
    async fn collect(
        &self,
        account: &Account,
        body: HttpBody,
        until: Instant,
        division: Division<'_>,
    ) -> Result<[Bytes; 2], Error> {
        let mut pieces = Pieces {
            decoder: self,
            pace: Pace::new(self.timeout),
            charge: account.open(),
            body,
            until,
        };
        let Some(first) = pieces.next().await? else {
            return Ok([Bytes::new(), Bytes::new()]);
        };
        if pieces.body.is_end_stream() {
            return Ok(pieces.charge.hold_both(division.of(first)));
        }
        let announced = pieces.body.size_hint().lower();
        let announced = usize::try_from(announced).map_or(0, |bytes| bytes.min(self.body_limit));
        let mut parts = division.begin(first.len() + announced);
        parts.push(&first);
        while let Some(piece) = pieces.next().await? {
            parts.push(&piece);
        }
        Ok(pieces.charge.hold_both(parts.into_bytes()))
    }

    /// A body as the handler gets it, and its media type: fields of a form, or the bytes as they are.
    pub(super) async fn payload(
        &self,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<(Option<String>, Body), Error> {
        let full = content_type(headers);
        let media = full.map(media_type);
        let body = match (media.as_deref(), full) {
            (Some(MULTIPART), Some(full)) => Body::Form(form::multipart(full, body).await?),
            (Some(URLENCODED), _) => Body::Form(form::urlencoded(&body)?),
            _ => Body::Raw(body),
        };
        Ok((media, body))
    }
}

/// `body` with `fields` before its own; a raw body becomes the field `body` among them, as TorchServe names it.
pub(super) fn with_fields(
    fields: Vec<(String, String)>,
    media: Option<&String>,
    body: Body,
) -> Body {
    if fields.is_empty() {
        return body;
    }
    let mut parts: Vec<Part> = fields
        .into_iter()
        .map(|(name, value)| field(name, None, Bytes::from(value)))
        .collect();
    match body {
        Body::Raw(bytes) => parts.push(field("body".to_owned(), media.cloned(), bytes)),
        Body::Form(own) => parts.extend(own),
        tensors @ Body::Tensors(_) => return tensors,
    }
    Body::Form(parts)
}

const fn field(name: String, content_type: Option<String>, body: Bytes) -> Part {
    Part {
        name,
        filename: None,
        content_type,
        body,
    }
}

/// Whether a body is one that [`Decoder::payload`] takes apart.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let media = content_type(headers).map(media_type);
    matches!(media.as_deref(), Some(MULTIPART | URLENCODED))
}

/// How long a body is, as its head says.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok()
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

/// Where a body is divided in two, and where its second part is gathered.
#[derive(Clone, Copy)]
pub(super) struct Division<'a> {
    /// Bytes of the first part, which the server reads.
    pub at: usize,
    /// Room for so many bytes of the second.
    pub room: &'a (dyn Fn(usize) -> Room + Sync),
}

impl Division<'_> {
    /// All of a body is its first part.
    const NOT_AT_ALL: Division<'static> = Division {
        at: usize::MAX,
        room: &Room::own,
    };

    /// Both parts of a body that is there.
    fn of(self, mut body: Bytes) -> [Bytes; 2] {
        let second = body.split_off(self.at.min(body.len()));
        [body, second]
    }

    /// Both parts of a body of which nothing is there, and which says that it has `length` bytes.
    fn begin(self, length: usize) -> Parts {
        let first = self.at.min(length);
        Parts {
            at: self.at,
            first: BytesMut::with_capacity(first),
            second: (self.room)(length - first),
        }
    }
}

/// Both parts of a body that arrives.
struct Parts {
    at: usize,
    first: BytesMut,
    second: Room,
}

impl Parts {
    fn push(&mut self, piece: &[u8]) {
        let missing = self.at - self.first.len();
        let (first, second) = piece.split_at(missing.min(piece.len()));
        self.first.extend_from_slice(first);
        self.second.push(second);
    }

    fn into_bytes(self) -> [Bytes; 2] {
        [self.first.freeze(), self.second.into_bytes()]
    }
}

/// A body that is being read.
struct Pieces<'a> {
    decoder: &'a Decoder,
    body: HttpBody,
    pace: Pace,
    until: Instant,
    /// Of all pieces so far.
    charge: Charge,
}

impl Pieces<'_> {
    /// The next piece, which is charged.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(piece) = self.arriving().await? else {
            return Ok(None);
        };
        let bytes = self.charge.bytes() + piece.len();
        if bytes > self.decoder.body_limit {
            return Err(self.decoder.too_large());
        }
        if !self.charge.grow_now(bytes) {
            self.charge.grow_to(bytes).await?;
            self.pace.restart();
        }
        Ok(Some(piece))
    }

    async fn arriving(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let until = self.until.min(self.pace.deadline());
            let arrived = tokio::time::timeout_at(until.into(), self.body.frame()).await;
            let Some(frame) = arrived.map_err(|_| self.too_slow())? else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| invalid_message().with_detail(error))?;
            // Trailers are not used.
            if let Ok(piece) = frame.into_data() {
                self.pace.arrived(piece.len());
                return Ok(Some(piece));
            }
        }
    }

    fn too_slow(&self) -> Error {
        let timeout = self.decoder.timeout;
        if self.pace.deadline() <= self.until {
            let what = format_args!("a body of which next to nothing came for {timeout:?}");
            self.decoder.refusals.count(Limit::BodyTime, what);
        }
        too_slow()
    }
}

/// Unpacks on a thread that may block: a few kilobytes can keep a processor busy for many milliseconds.
async fn unpacked(encoding: Encoding, sent: Bytes, limit: usize) -> Result<Option<Bytes>, Error> {
    let unpacked = tokio::task::spawn_blocking(move || encoding.unpack(&sent, limit)).await;
    unpacked.map_err(|panic| {
        Error::new(Kind::Internal, "Unpacking the body failed").with_detail(panic)
    })?
}

pub(super) fn too_slow() -> Error {
    let message = "The rest of the body did not arrive in time";
    Error::new(Kind::BodyTimedOut, message)
}

/// What is not HTTP, or more of it than is taken.
pub(super) fn invalid_message() -> Error {
    Error::new(Kind::BadRequest, "Invalid HTTP message.")
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderName;

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

    fn decoder(body_limit: usize) -> Decoder {
        Decoder::new(body_limit, Duration::from_secs(20), Refusals::default())
    }

    async fn decoded(
        content_type: &str,
        body: &'static str,
    ) -> Result<(Option<String>, Body), Error> {
        let decoder = decoder(1 << 20);
        decoder
            .payload(
                &headers(&[("content-type", content_type)]),
                Bytes::from(body),
            )
            .await
    }

    #[test]
    fn heads_over_the_limit_are_refused() {
        let decoder = decoder(10);
        let check = |request: hyper::http::request::Builder| {
            let request = request.body(()).unwrap();
            decoder
                .check_head(&request, true)
                .map_err(|error| error.kind())
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
    }

    #[tokio::test]
    async fn media_types_lose_their_parameters() {
        let (media, _) = decoded("Application/JSON; charset=utf-8", "{}")
            .await
            .unwrap();
        assert_eq!(media.as_deref(), Some("application/json"));
    }

    #[test]
    fn query_parameters_come_before_the_body() {
        let fields = vec![("data".to_owned(), "qq".to_owned())];
        let media = "application/json".to_owned();
        let raw = Body::Raw(Bytes::from_static(b"zzz"));
        let Body::Form(parts) = with_fields(fields.clone(), Some(&media), raw.clone()) else {
            panic!("no form")
        };
        let seen: Vec<_> = parts
            .iter()
            .map(|part| {
                (
                    part.name.as_str(),
                    part.content_type.as_deref(),
                    &part.body[..],
                )
            })
            .collect();
        let expected = [
            ("data", None, &b"qq"[..]),
            ("body", Some("application/json"), b"zzz"),
        ];
        assert_eq!(seen, expected);
        assert_eq!(with_fields(Vec::new(), Some(&media), raw.clone()), raw);
    }
}
