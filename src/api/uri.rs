//! Paths and query strings, decoded as TorchServe's clients expect.
//!
//! axum splits a path into segments and then decodes each of them; TorchServe decodes first. [`NormalizePath`] stands
//! before the router and gives it paths whose segments are those of the decoded path.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse as _;
use axum::routing::future::RouteFuture;
use futures_util::future::Either;
use hyper::Uri;
use hyper::http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tower::Service;

use super::Response;
use crate::error::{Error, Kind};

/// Stands for an empty segment, which TorchServe takes for a name and axum does not. A segment of nothing but this character
/// that a client sent has one more of it, see [`as_sent`].
const EMPTY: char = '\u{FFFF}';
/// What has to be escaped within a segment. A colon never is, so that an escaped one marks a custom verb.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');
/// Models under this path may be followed by a custom verb: `/v1/models/{model}:predict`.
const CUSTOM_VERBS: &str = "/v1/models/";

/// The router, asked for normalized paths. A URI that does not decode is refused here.
#[derive(Debug, Clone)]
pub(super) struct NormalizePath {
    router: Router,
    verbs: Arc<[&'static str]>,
}

impl NormalizePath {
    /// `router`, whose paths under `/v1/models/` may end in one of `verbs`. The first that fits is taken.
    pub(super) const fn new(router: Router, verbs: Arc<[&'static str]>) -> Self {
        Self { router, verbs }
    }
}

impl Service<Request> for NormalizePath {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<RouteFuture<Infallible>, Ready<Result<Response, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        match normalized(request.uri(), &self.verbs) {
            Ok(None) => {}
            Ok(Some(uri)) => *request.uri_mut() = uri,
            Err(error) => return Either::Right(ready(Ok(error.into_response()))),
        }
        Either::Left(self.router.call(request))
    }
}

/// `uri` with its path normalized, and nothing before the path; `None` if it is normal already. Fails if an escape
/// anywhere in the URI, the query included, is not two hexadecimal digits.
pub(super) fn normalized(uri: &Uri, verbs: &[&'static str]) -> Result<Option<Uri>, Error> {
    let Some(all) = uri.path_and_query() else {
        return Ok(Some(Uri::default()));
    };
    check_escapes(all.as_str())?;
    if is_normal(all.path()) {
        return Ok(None);
    }
    let decoded = percent_decode_str(all.path()).decode_utf8_lossy();
    let mut path = encoded(&decoded, verbs);
    if let Some(query) = all.query() {
        path.push('?');
        path.push_str(query);
    }
    let path = PathAndQuery::try_from(path);
    let path = path.map_err(|error| bad_encoding(error.to_string()))?;
    Ok(Some(path.into()))
}

/// Whether decoding `path` before or after splitting it makes no difference. `*` is no path, and nothing is found there.
fn is_normal(path: &str) -> bool {
    let is_odd = path.contains('%')
        || path.contains("//")
        || path.ends_with('/')
        || path.starts_with(CUSTOM_VERBS);
    !is_odd || !path.starts_with('/')
}

/// The segments of a decoded path, each escaped, without slashes at the end. A custom verb is a segment of its own.
fn encoded(decoded: &str, verbs: &[&'static str]) -> String {
    let (rest, verb) = split_verb(decoded.trim_end_matches('/'), verbs);
    let mut path = String::with_capacity(decoded.len() + 16);
    for segment in rest.split('/').skip(1) {
        path.push('/');
        if is_of_empty(segment) {
            path.extend(utf8_percent_encode(EMPTY.encode_utf8(&mut [0; 4]), SEGMENT));
        }
        path.extend(utf8_percent_encode(segment, SEGMENT));
    }
    if let Some(verb) = verb {
        path.push_str(&verb_segment(verb));
    }
    if path.is_empty() {
        path.push('/');
    }
    path
}

fn is_of_empty(segment: &str) -> bool {
    segment.chars().all(|character| character == EMPTY)
}

/// Segments of a normalized path as the client sent them, decoded.
pub(super) fn as_sent(segments: &str) -> String {
    if !segments.contains(EMPTY) {
        return segments.to_owned();
    }
    let sent = segments
        .split('/')
        .map(|segment| match segment.strip_prefix(EMPTY) {
            Some(rest) if is_of_empty(rest) => rest,
            _ => segment,
        });
    sent.collect::<Vec<_>>().join("/")
}

/// The segment that stands for a custom verb in normalized paths. No client can write it: its colon is escaped.
pub(super) fn verb_segment(verb: &str) -> String {
    format!("/%3A{verb}")
}

/// Splits a custom verb from a path. As in TorchServe it may stand anywhere after the model's name, which ends at the
/// first colon.
fn split_verb<'p>(path: &'p str, verbs: &[&'static str]) -> (&'p str, Option<&'static str>) {
    let last = path.strip_prefix(CUSTOM_VERBS);
    let last = last.filter(|last| !last.contains('/'));
    let Some((model, after)) = last.and_then(|last| last.split_once(':')) else {
        return (path, None);
    };
    let names = |verb: &str| after.starts_with(verb) || after.contains(&format!(":{verb}"));
    match verbs.iter().find(|verb| names(verb)) {
        Some(verb) => (&path[..CUSTOM_VERBS.len() + model.len()], Some(verb)),
        None => (path, None),
    }
}

fn check_escapes(text: &str) -> Result<(), Error> {
    for (index, _) in text.match_indices('%') {
        let digits = text.as_bytes().get(index + 1..index + 3);
        let problem = match digits {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => continue,
            Some(digits) => {
                let digits = String::from_utf8_lossy(digits);
                format!(
                    "invalid hex byte '{digits}' at index {} of '{text}'",
                    index + 1
                )
            }
            None => format!("unterminated escape sequence at index {index} of: {text}"),
        };
        return Err(bad_encoding(problem));
    }
    Ok(())
}

fn bad_encoding(problem: String) -> Error {
    Error::new(Kind::BadEncoding, problem)
}

/// The parameters of a query string, in order. `&` and `;` separate pairs, `+` is a space.
pub(super) fn decode_query(uri: &Uri) -> Vec<(String, String)> {
    let pairs = uri.query().unwrap_or("").split(['&', ';']);
    let pairs = pairs.filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode_component(name), decode_component(value))
        })
        .collect()
}

fn decode_component(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    fn path(text: &str) -> String {
        let given = uri(text);
        let uri = normalized(&given, &["predict", "explain"]).unwrap();
        uri.unwrap_or(given).to_string()
    }

    #[test]
    fn segments_arrive_as_they_were_sent() {
        for segment in ["", "m", "\u{FFFF}", "\u{FFFF}\u{FFFF}", "m\u{FFFF}"] {
            let sent = format!("/predictions/{segment}/x");
            let normal = encoded(&sent, &[]);
            let decoded = percent_decode_str(&normal).decode_utf8_lossy();
            assert_eq!(as_sent(&decoded), sent, "{normal}");
        }
    }

    #[test]
    fn paths_are_decoded_before_they_are_split() {
        for (given, expected) in [
            ("/predictions%2Fm/a+b%20c", "/predictions/m/a%2Bb%20c"),
            ("/predictions/m?x=%2F", "/predictions/m?x=%2F"),
            ("/p%72edictions/m?x=%2F", "/predictions/m?x=%2F"),
            ("http://host/ping/?x", "/ping?x"),
            ("/%ff", "/%EF%BF%BD"),
            ("//", "/"),
            ("//m//", "/%EF%BF%BF/m"),
            ("*", "*"),
        ] {
            assert_eq!(path(given), expected, "{given}");
        }
    }

    #[test]
    fn custom_verbs_become_segments() {
        for (given, expected) in [
            ("/v1/models/m:predict", "/v1/models/m/%3Apredict"),
            ("/v1/models/m:explain:predict/", "/v1/models/m/%3Apredict"),
            ("/v1/models/m:x:explainer", "/v1/models/m/%3Aexplain"),
            ("/v1/models/m%3Apredict", "/v1/models/m/%3Apredict"),
            ("/v1/models/:predict", "/v1/models/%EF%BF%BF/%3Apredict"),
            ("/v1/models/m/%3Apredict", "/v1/models/m/:predict"),
            ("/v1/models/m:other", "/v1/models/m:other"),
            ("/v1/models/m:xpredict", "/v1/models/m:xpredict"),
        ] {
            assert_eq!(path(given), expected, "{given}");
        }
    }

    #[test]
    fn bad_escapes_are_named_wherever_they_are() {
        let message = |text| {
            normalized(&uri(text), &[])
                .unwrap_err()
                .message()
                .to_owned()
        };
        assert_eq!(
            message("/ping%zz"),
            "invalid hex byte 'zz' at index 6 of '/ping%zz'"
        );
        assert_eq!(
            message("/ping?x=%4"),
            "unterminated escape sequence at index 8 of: /ping?x=%4"
        );
    }

    #[test]
    fn queries_separate_by_ampersand_and_semicolon() {
        let pairs = decode_query(&uri("/models?a=1&b=x+y;c=%26&&d"));
        let expected = [("a", "1"), ("b", "x y"), ("c", "&"), ("d", "")];
        assert_eq!(
            pairs,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}
