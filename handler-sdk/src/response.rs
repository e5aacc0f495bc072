//! Responses to the client.
//!
//! This module turns values into bodies, also in the way TorchServe prints JSON. The host checks status and headers.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use crate::Error;
use crate::bindings::lantern::handler::types::Field;

/// A response: 200 unless [`Response::with_status`] says otherwise.
///
/// ```
/// use handler_sdk::Response;
///
/// let response = Response::json(&[0.5, 1.0])?.with_status(202).with_header("x-rows", "1");
/// assert_eq!(response.body(), b"[0.5,1.0]");
/// # Ok::<(), handler_sdk::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Response {
    status: u16,
    content_type: String,
    headers: Vec<Field>,
    body: Vec<u8>,
}

impl Response {
    /// `body` as `content_type`.
    pub fn bytes(content_type: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            content_type: content_type.into(),
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// `text` as UTF-8 `text/plain`.
    pub fn text(text: impl Into<String>) -> Self {
        Self::bytes("text/plain; charset=utf-8", text.into())
    }

    /// `value` as compact JSON. NaN and infinities, which JSON has no form for, become `null`.
    ///
    /// # Errors
    /// Internal, if `value` has no JSON form (a map whose keys are not strings).
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        let body = serde_json::to_vec(value).map_err(unprintable)?;
        Ok(Self::bytes("application/json", body))
    }

    /// `value` as TorchServe prints JSON: two spaces of indentation, everything beyond ASCII escaped.
    ///
    /// # Errors
    /// As [`Response::json`].
    pub fn json_pretty<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        let mut body = Vec::new();
        let mut serializer = Serializer::with_formatter(&mut body, AsciiPretty::default());
        value.serialize(&mut serializer).map_err(unprintable)?;
        Ok(Self::bytes("application/json", body))
    }

    /// The same response with another status, 200 to 999.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The same response with one more header. The response fails with one that frames it (`content-length`, `connection`), and
    /// with one that acts on more than the response (`set-cookie`, `access-control-allow-origin`, `location`), unless the
    /// server's operator allows it (`lantern_handler_headers`).
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push(Field {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The media type of the body.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// The headers beside the content type.
    pub fn headers(&self) -> &[Field] {
        &self.headers
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Status, content type, headers and body, for the conversion to the interface's type.
    pub(crate) fn into_parts(self) -> (u16, String, Vec<Field>, Vec<u8>) {
        (self.status, self.content_type, self.headers, self.body)
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature that map_err wants"
)]
fn unprintable(error: serde_json::Error) -> Error {
    Error::internal(format!("the answer has no JSON form: {error}"))
}

/// serde's two-space indentation, with `\u` escapes as Python's `json.dumps` writes them.
#[derive(Default)]
struct AsciiPretty {
    pretty: PrettyFormatter<'static>,
}

impl Formatter for AsciiPretty {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|character: char| !character.is_ascii()) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let foreign = rest[at..].chars().next().unwrap_or_default();
            for unit in foreign.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[at + foreign.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.pretty.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.pretty.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[test]
    fn pretty_json_is_what_python_prints() {
        let value = json!({"a": [1, "é😀\n\""], "b": {}, "c": []});
        let printed = "{\n  \"a\": [\n    1,\n    \"\\u00e9\\ud83d\\ude00\\n\\\"\"\n  ],\n  \"b\": {},\n  \"c\": []\n}";
        assert_eq!(
            Response::json_pretty(&value).unwrap().body(),
            printed.as_bytes()
        );
    }

    #[test]
    fn what_is_no_finite_number_is_null() {
        let response = Response::json(&[f64::NAN, f64::INFINITY, -0.0]).unwrap();
        assert_eq!(response.body(), b"[null,null,-0.0]");
    }

    #[test]
    fn values_without_a_json_form_are_the_handlers_fault() {
        let error = Response::json(&BTreeMap::from([(vec![1], 2)])).unwrap_err();
        assert_eq!(
            error.message(),
            "the answer has no JSON form: key must be a string"
        );
    }
}
