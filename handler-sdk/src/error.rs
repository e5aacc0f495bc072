//! The error type of handlers, and the conversions from errors of other crates.
//!
//! The conversions decide whose fault an error is. HTTP is not known here: the host turns a kind into a status.

use std::fmt;

/// Whose fault an [`Error`] is, which decides the status that the client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request cannot be understood (400).
    BadRequest,
    /// The request, or something in it, is over a limit (413).
    TooLarge,
    /// The body's format is not one that the handler reads (415).
    UnsupportedMediaType,
    /// Try again later (503).
    Unavailable,
    /// The handler's own fault (500).
    Internal,
}

/// An expected failure of a handler: a kind and a text for the client.
///
/// `?` turns what parsing a request fails with (`serde_json::Error`, invalid UTF-8 or numbers) into
/// [`ErrorKind::BadRequest`].
///
/// ```
/// use handler_sdk::{Error, ErrorKind};
///
/// fn parse(body: &[u8]) -> Result<Vec<f32>, Error> {
///     Ok(serde_json::from_slice(body)?)
/// }
/// let error = parse(b"[1, true]").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::BadRequest);
/// assert!(error.message().contains("invalid type: boolean"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// An error of `kind` with `message` for the client.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// The request cannot be understood: 400 with this text.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadRequest, message)
    }

    /// Something in the request is over a limit: 413 with this text.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::TooLarge, message)
    }

    /// The body's format is not read by this handler: 415 with this text.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::UnsupportedMediaType, message)
    }

    /// The handler cannot answer now: 503 with this text.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// The handler's own fault: 500 with this text.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The text for the client.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Kind and text, for the conversion to the interface's type.
    pub(crate) fn into_parts(self) -> (ErrorKind, String) {
        (self.kind, self.message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::bad_request(format!("not the JSON that this model takes: {error}"))
    }
}

impl From<std::str::Utf8Error> for Error {
    fn from(error: std::str::Utf8Error) -> Self {
        Self::bad_request(format!("not valid UTF-8: {error}"))
    }
}

impl From<std::string::FromUtf8Error> for Error {
    fn from(error: std::string::FromUtf8Error) -> Self {
        error.utf8_error().into()
    }
}

impl From<std::num::ParseFloatError> for Error {
    fn from(error: std::num::ParseFloatError) -> Self {
        Self::bad_request(format!("not a number: {error}"))
    }
}

impl From<std::num::ParseIntError> for Error {
    fn from(error: std::num::ParseIntError) -> Self {
        Self::bad_request(format!("not an integer: {error}"))
    }
}
