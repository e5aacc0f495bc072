//! What a client sent, and the ways handlers read it.
//!
//! The convention of TorchServe's clients is kept here: a payload is the raw body, or the form field `data`, or `body`.

use std::fmt;

use serde::de::DeserializeOwned;

pub use crate::bindings::lantern::handler::types::{Field, Part};
use crate::{Error, Tensor};

/// One request, owned by the call that handles it.
///
/// ```
/// use handler_sdk::testing;
///
/// let raw = testing::request(r#"{"x": [1, 2]}"#);
/// let form = testing::form([("data", r#"{"x": [1, 2]}"#)]);
/// assert_eq!(raw.json::<serde_json::Value>()?, form.json::<serde_json::Value>()?);
/// # Ok::<(), handler_sdk::Error>(())
/// ```
#[derive(Debug)]
pub struct Request {
    id: String,
    content_type: Option<String>,
    headers: Vec<Field>,
    body: Body,
}

/// The body of a [`Request`].
pub enum Body {
    /// The bytes as they were sent.
    Raw(Vec<u8>),
    /// The fields of a multipart or URL-encoded form, in order.
    Form(Vec<Part>),
    /// Tensors, sent by a client of Open Inference Protocol.
    Tensors(Vec<Tensor>),
}

impl Request {
    /// A request of its parts; handlers get theirs from the host, tests from [`testing`](crate::testing).
    pub fn new(id: String, content_type: Option<String>, headers: Vec<Field>, body: Body) -> Self {
        Self {
            id,
            content_type,
            headers,
            body,
        }
    }

    /// The id in the response's `x-request-id`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Media type of a raw body, without parameters.
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// The value of header `name` (lower case). Credentials and hop-by-hop headers never arrive.
    pub fn header(&self, name: &str) -> Option<&str> {
        let field = self.headers.iter().find(|field| field.name == name)?;
        Some(&field.value)
    }

    /// All headers.
    pub fn headers(&self) -> &[Field] {
        &self.headers
    }

    /// The body.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The body, without a copy.
    pub fn into_body(self) -> Body {
        self.body
    }

    /// The tensors of a client of Open Inference Protocol; `None` for any other body.
    pub fn tensors(&self) -> Option<&[Tensor]> {
        match &self.body {
            Body::Tensors(tensors) => Some(tensors),
            Body::Raw(_) | Body::Form(_) => None,
        }
    }

    /// The form field `name`. A raw body is field `data` and field `body` alike. Of fields with one name the last counts,
    /// as in TorchServe.
    pub fn part(&self, name: &str) -> Option<&[u8]> {
        match &self.body {
            Body::Raw(bytes) if matches!(name, "data" | "body") => Some(bytes),
            Body::Form(parts) => Some(&find(parts, name)?.body),
            Body::Raw(_) | Body::Tensors(_) => None,
        }
    }

    /// The payload: the raw body, or the form's `data`, or its `body`, or its only field.
    ///
    /// # Errors
    /// Bad request, if there is none of these.
    pub fn bytes(&self) -> Result<&[u8], Error> {
        match &self.body {
            Body::Raw(bytes) => Ok(bytes),
            Body::Form(parts) => Ok(&payload(parts).ok_or_else(|| no_payload(parts))?.body),
            Body::Tensors(_) => Err(tensors_unread()),
        }
    }

    /// The payload, without a copy.
    ///
    /// # Errors
    /// As [`Request::bytes`].
    pub fn into_bytes(self) -> Result<Vec<u8>, Error> {
        match self.body {
            Body::Raw(bytes) => Ok(bytes),
            Body::Form(mut parts) => match payload_index(&parts) {
                Some(index) => Ok(parts.swap_remove(index).body),
                None => Err(no_payload(&parts)),
            },
            Body::Tensors(_) => Err(tensors_unread()),
        }
    }

    /// The media type of the payload: of the raw body, or of the form's field.
    pub fn payload_type(&self) -> Option<&str> {
        match &self.body {
            Body::Form(parts) => payload(parts)?.content_type.as_deref(),
            Body::Raw(_) | Body::Tensors(_) => self.content_type(),
        }
    }

    /// The payload as text.
    ///
    /// # Errors
    /// Bad request, if there is no payload or it is not UTF-8.
    pub fn text(&self) -> Result<&str, Error> {
        Ok(std::str::from_utf8(self.bytes()?)?)
    }

    /// The payload as JSON, whatever its content type says. Numbers are read as the nearest of their type; NaN and
    /// infinities are no JSON and are refused.
    ///
    /// # Errors
    /// Bad request, if there is no payload, or with the position where it is not the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        Ok(serde_json::from_slice(self.bytes()?)?)
    }
}

fn find<'a>(parts: &'a [Part], name: &str) -> Option<&'a Part> {
    parts.iter().rfind(|part| part.name == name)
}

fn payload(parts: &[Part]) -> Option<&Part> {
    parts.get(payload_index(parts)?)
}

fn payload_index(parts: &[Part]) -> Option<usize> {
    let named = |name| parts.iter().rposition(|part| part.name == name);
    named("data")
        .or_else(|| named("body"))
        .or_else(|| (parts.len() == 1).then_some(0))
}

fn no_payload(parts: &[Part]) -> Error {
    let names: Vec<&str> = parts
        .iter()
        .map(|part| part.name.as_str())
        .take(16)
        .collect();
    Error::bad_request(format!(
        "the form has no field `data` or `body`, only {names:?}"
    ))
}

fn tensors_unread() -> Error {
    Error::bad_request("this model takes a body or a form, not tensors")
}

impl fmt::Debug for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw(bytes) => write!(formatter, "Raw({} bytes)", bytes.len()),
            Self::Form(parts) => formatter.debug_tuple("Form").field(parts).finish(),
            Self::Tensors(tensors) => formatter.debug_tuple("Tensors").field(tensors).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::{ErrorKind, Response, testing};

    /// Doubles of all sizes, finite ones.
    fn doubles() -> Vec<f64> {
        let step = |bits: &u64| {
            Some(
                bits.wrapping_mul(0x5851_f42d_4c95_7f2d)
                    .wrapping_add(0x1405_7b7e_f767_814f),
            )
        };
        let bits = std::iter::successors(Some(1), step).take(20_000);
        let any = bits.map(f64::from_bits).filter(|value| value.is_finite());
        let known = [0.459_141_182_844_473_25, -0.0, 5e-324, f64::MAX, 0.1];
        known.into_iter().chain(any).collect()
    }

    #[test]
    fn doubles_keep_every_bit_both_ways() {
        let sent = doubles();
        let bits = |values: &[f64]| {
            values
                .iter()
                .map(|value| value.to_bits())
                .collect::<Vec<_>>()
        };
        let body = Response::json(&sent).unwrap().body().to_vec();
        let request = testing::request(body);
        assert_eq!(bits(&request.json::<Vec<f64>>().unwrap()), bits(&sent));
        let values = request.json::<Vec<Value>>().unwrap();
        let values: Vec<f64> = values.iter().filter_map(Value::as_f64).collect();
        assert_eq!(bits(&values), bits(&sent));
    }

    #[test]
    fn singles_are_the_nearest_to_their_text() {
        // By way of a double it would be 1.
        let request = testing::request("[1.00000005960464477539062500000000001, -0.0]");
        let singles = request.json::<Vec<f32>>().unwrap();
        let expected = [1.0 + f32::EPSILON, -0.0].map(f32::to_bits);
        assert_eq!(
            singles.iter().map(|one| one.to_bits()).collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn whole_numbers_keep_all_their_digits() {
        let body = format!("[{}, {}]", u64::MAX, 9_007_199_254_740_993u64);
        let read = testing::request(body.clone()).json::<Vec<u64>>().unwrap();
        assert_eq!(read, [u64::MAX, 9_007_199_254_740_993]);
        assert!(testing::request(body).json::<Vec<i64>>().is_err());
    }

    #[test]
    fn raw_body_is_the_payload_and_the_field_data() {
        let request = testing::request("abc");
        assert_eq!(request.bytes().unwrap(), b"abc");
        assert_eq!(request.part("data"), Some(&b"abc"[..]));
        assert_eq!(request.part("target"), None);
        assert_eq!(request.into_bytes().unwrap(), b"abc");
    }

    #[test]
    fn form_prefers_data_then_body_then_the_only_field() {
        let both = testing::form([("body", "b"), ("data", "d"), ("target", "1")]);
        assert_eq!(both.bytes().unwrap(), b"d");
        assert_eq!(both.part("target"), Some(&b"1"[..]));
        let body = testing::form([("body", "b"), ("target", "1")]);
        assert_eq!(body.into_bytes().unwrap(), b"b");
        assert_eq!(testing::form([("image", "i")]).bytes().unwrap(), b"i");
    }

    #[test]
    fn last_field_of_a_name_counts() {
        let request = testing::form([("data", "first"), ("data", "last")]);
        assert_eq!(request.bytes().unwrap(), b"last");
        assert_eq!(request.part("data"), Some(&b"last"[..]));
    }

    #[test]
    fn form_without_a_payload_names_its_fields() {
        let error = testing::form([("a", ""), ("b", "")]).bytes().unwrap_err();
        assert_eq!(
            error.message(),
            r#"the form has no field `data` or `body`, only ["a", "b"]"#
        );
    }

    #[test]
    fn broken_json_and_text_are_the_clients_fault() {
        let error = testing::request("{\"x\": [1,]}")
            .json::<serde_json::Value>()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadRequest);
        assert!(error.message().contains("line 1 column 10"), "{error}");
        let error = testing::request(vec![b'a', 0xff])
            .text()
            .unwrap_err()
            .message()
            .to_owned();
        assert!(error.contains("from index 1"), "{error}");
    }
}
