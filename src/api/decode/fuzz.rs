//! What the fuzzer calls: bodies that are forms, and bodies that are compressed.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use hyper::HeaderMap;
use hyper::header::{self, HeaderValue};

use super::Decoder;
use super::encoding::Encoding;
use crate::payload::Body;
use crate::refusals::Refusals;

/// A target: its name, and its function.
type Target = (&'static str, fn(&[u8]));

/// So low that the fuzzer reaches it.
const LIMIT: usize = 64 << 10;
const FIELDS_LIMIT: usize = 1024;

/// Names of the targets and their functions.
pub(in crate::api) const TARGETS: [Target; 2] =
    [("form", form), ("content_encoding", content_encoding)];

/// The media type in the first line, the body in the others. Fields are pieces of the body.
fn form(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let (media, body) = (lines.next().unwrap_or(&[]), lines.next().unwrap_or(&[]));
    let Ok(media) = HeaderValue::from_bytes(media) else {
        return;
    };
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, media)]);
    let decoder = Decoder::new(LIMIT, Duration::MAX, Refusals::default());
    let payload = decoder.payload(&headers, Bytes::copy_from_slice(body));
    let payload = payload.now_or_never().expect("all of the body is there");
    let Ok((_, Body::Form(parts))) = payload else {
        return;
    };
    assert!(parts.len() <= FIELDS_LIMIT);
    let size: usize = parts.iter().map(|part| part.body.len()).sum();
    // What is no UTF-8 is written in up to three bytes for one.
    assert!(size <= 3 * body.len());
}

/// A byte that says which encoding, and the body.
fn content_encoding(bytes: &[u8]) {
    let Some((which, body)) = bytes.split_first() else {
        return;
    };
    let encoding = if which.is_multiple_of(2) {
        Encoding::Gzip
    } else {
        Encoding::Deflate
    };
    if let Ok(Some(unpacked)) = encoding.unpack(body, LIMIT) {
        assert!(unpacked.len() <= LIMIT);
    }
}
