//! Payloads: a request before preprocess, a response after postprocess, and the times of the phases between.
//!
//! These are the values that `api` makes from the wire and that travel through catalog and runtime to the
//! handler and back. They know neither HTTP nor wasm.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::tensor::NamedTensor;

/// Body of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// As it was sent.
    Raw(Bytes),
    /// Fields of a multipart or URL-encoded form, in order.
    Form(Vec<Part>),
    /// Tensors of a client that speaks tensors.
    Tensors(Vec<NamedTensor>),
}

/// One field or file of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Field name.
    pub name: String,
    /// File name, if the part is a file.
    pub filename: Option<String>,
    /// Media type, without parameters.
    pub content_type: Option<String>,
    /// Content.
    pub body: Bytes,
}

/// A header: lower-case name, value.
pub type Field = (String, String);

/// One request on its way to a handler.
#[derive(Debug, Clone)]
pub struct Request {
    /// The `x-request-id` of the response.
    pub id: String,
    /// Media type of a raw body, without parameters.
    pub content_type: Option<String>,
    /// Headers the handler may see: lower-case names, no credentials, no hop-by-hop headers.
    pub headers: Vec<Field>,
    /// Body.
    pub body: Body,
    /// When the request arrived.
    pub arrival: Instant,
    /// When its answer stops being of use.
    pub deadline: Instant,
}

/// One response of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// HTTP status the handler chose.
    pub status: u16,
    /// Media type; empty for none.
    pub content_type: String,
    /// Further headers.
    pub headers: Vec<Field>,
    /// Body.
    pub body: Bytes,
}

/// How long each phase of one request took. Phases that did not happen are zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// In the handler's `preprocess`.
    pub preprocess: Duration,
    /// From the end of preprocess until a worker took the job.
    pub queue: Duration,
    /// In the session, for the whole batch.
    pub infer: Duration,
    /// In the handler's `postprocess`.
    pub postprocess: Duration,
    /// Rows of the batch that the request was part of.
    pub batch_rows: u32,
}

/// What a runtime answers: the response and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The response.
    pub response: Response,
    /// The times of its phases.
    pub timings: Timings,
}
