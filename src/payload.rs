//! Payloads: a request before preprocess, what is answered after postprocess, and the times of the phases between.
//!
//! These are the values that `api` makes from the wire and that travel through catalog and runtime to the
//! handler and back. They know neither HTTP nor wasm.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::{Error, Kind};
use crate::tensor::NamedTensor;

mod response;

#[cfg(test)]
pub(crate) use response::tests::any_response;
pub use response::{InvalidResponse, Response};

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
    /// When its turn comes.
    pub schedule: Schedule,
}

/// When a request's turn at the model comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Who goes first among those that wait.
    pub priority: Priority,
    /// When it stops being of use to begin; [`Request::deadline`] holds besides.
    pub begin_by: Option<Instant>,
}

/// Who goes first among the requests that wait for the model. Lower ones may wait as long as higher ones come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Before all others.
    High,
    /// Where nothing was said.
    #[default]
    Normal,
    /// When nobody else waits.
    Low,
}

impl Priority {
    /// Every priority, the highest first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];
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
    /// Rows of the request itself.
    pub rows: u32,
    /// Whether the batch is counted with this request: of the requests in a batch that are answered, with one.
    pub leads_batch: bool,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// What the handler made of it.
    Response(Response),
    /// What the model gave, for a request of tensors that went straight to it.
    Tensors(Vec<NamedTensor>),
}

/// What a runtime answers: the output and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The output.
    pub output: Output,
    /// The times of its phases.
    pub timings: Timings,
}

impl Reply {
    /// The handler's response, which is what every request gets that is not of tensors.
    pub fn into_response(self) -> Result<Response, Error> {
        match self.output {
            Output::Response(response) => Ok(response),
            Output::Tensors(_) => Err(Error::new(
                Kind::Internal,
                "The model answered in place of its handler",
            )),
        }
    }
}
