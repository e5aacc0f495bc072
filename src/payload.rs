//! Payloads: requests before preprocess, responses after postprocess, and the times of the phases between.
//!
//! `api` makes requests from the wire; they go through catalog and runtime to the handler, and responses come back the
//! same way. This module knows neither HTTP nor wasm.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::Span;
use tracing::field::Empty;

use crate::budget::Account;
use crate::error::{Error, Kind};
use crate::tensor::NamedTensor;

mod meter;
mod response;

pub use meter::{Meter, Spent};
#[cfg(test)]
pub(crate) use response::tests::any_response;
pub use response::{InvalidResponse, Response};

/// Body of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// The bytes as they were sent.
    Raw(Bytes),
    /// Fields of a multipart or URL-encoded form, in order.
    Form(Vec<Part>),
    /// Tensors, sent by a client of Open Inference Protocol.
    Tensors(Vec<NamedTensor>),
}

impl Body {
    /// Bytes of what was sent, without what frames it.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Raw(bytes) => bytes.len(),
            Self::Form(parts) => parts.iter().map(|part| part.body.len()).sum(),
            Self::Tensors(tensors) => {
                let lengths = tensors.iter().map(|tensor| tensor.tensor.data().len());
                lengths.sum()
            }
        }
    }
}

/// One field or file of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Name of the field.
    pub name: String,
    /// File name, if the part is a file.
    pub filename: Option<String>,
    /// Media type of the content, without parameters.
    pub content_type: Option<String>,
    /// The value of the field, or the content of the file.
    pub body: Bytes,
}

/// A header: its name in lower case, and its value.
pub type Field = (String, String);

/// One request, decoded.
#[derive(Debug, Clone)]
pub struct Request {
    /// Id of the request, which the response has as `x-request-id`.
    pub id: String,
    /// Media type of a raw body, without parameters.
    pub content_type: Option<String>,
    /// Headers the handler may see: lower-case names, no credentials, no hop-by-hop headers.
    pub headers: Vec<Field>,
    /// What the client sent: bytes, a form or tensors.
    pub body: Body,
    /// When the request arrived.
    pub arrival: Instant,
    /// When it expires: an answer after this is of no use.
    pub deadline: Instant,
    /// Its priority among requests that wait, and how long it may wait.
    pub schedule: Schedule,
    /// Whose bytes in flight its answer is among.
    pub account: Account,
    /// Whether nobody in this process looks at the data of the tensors that answer it: they may lie in memory then that a worker
    /// process can still write to.
    pub passes_tensors_on: bool,
    /// Counts what it uses of the machine.
    pub meter: Meter,
}

/// The span of the request `id`: lines that are logged within it carry its id, the client's own for it, the tenant, and name and version
/// of the model, each once it is recorded. It is an error-level span so that no filter leaves it out where it lets lines through.
pub fn request_span(id: &str) -> Span {
    tracing::error_span!(
        "request",
        request_id = id,
        client_request_id = Empty,
        tenant = Empty,
        model = Empty,
        version = Empty
    )
}

/// In which order, and until when, a request waits for the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Whether it is run before or after others that wait.
    pub priority: Priority,
    /// The instant until which its run must have begun. [`Request::deadline`] applies as well.
    pub begin_by: Option<Instant>,
}

/// Order among requests that wait for the model. A lower priority waits for as long as requests of a higher one come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Run before all others.
    High,
    /// The priority of requests that name none.
    #[default]
    Normal,
    /// Run when no other request waits.
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
    /// Whether this request is the one with which the batch is counted. Exactly one of the answered requests of a batch is.
    pub leads_batch: bool,
}

impl Timings {
    /// The same times for a request that took `all` in all: no phase took longer. A worker process may say otherwise.
    #[must_use]
    pub fn within(self, all: Duration) -> Self {
        Self {
            preprocess: self.preprocess.min(all),
            queue: self.queue.min(all),
            infer: self.infer.min(all),
            postprocess: self.postprocess.min(all),
            ..self
        }
    }

    /// The times of a request that had these and `other` side by side: the longer of each. It is counted with one of its
    /// batches.
    #[must_use]
    pub fn beside(self, other: Self) -> Self {
        Self {
            preprocess: self.preprocess.max(other.preprocess),
            queue: self.queue.max(other.queue),
            infer: self.infer.max(other.infer),
            postprocess: self.postprocess.max(other.postprocess),
            batch_rows: self.batch_rows.max(other.batch_rows),
            rows: self.rows.saturating_add(other.rows),
            leads_batch: self.leads_batch || other.leads_batch,
        }
    }
}

/// The result of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// The handler's response.
    Response(Response),
    /// The model's outputs, for a request of tensors that did not go through the handler.
    Tensors(Vec<NamedTensor>),
}

/// What a runtime returns for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The handler's response or the model's outputs.
    pub output: Output,
    /// How long each phase took.
    pub timings: Timings,
}

impl Reply {
    /// The same reply, charged to `account` as long as there is some of it. Fails if there is no room.
    pub async fn held_by(self, account: &Account) -> Result<Self, Error> {
        let output = match self.output {
            Output::Response(response) => Output::Response(response.held_by(account).await?),
            Output::Tensors(tensors) => {
                let mut held = Vec::with_capacity(tensors.len());
                for NamedTensor { name, tensor } in tensors {
                    let data = account.hold(tensor.data().clone()).await?;
                    let tensor = tensor.with_moved_data(data);
                    held.push(NamedTensor { name, tensor });
                }
                Output::Tensors(held)
            }
        };
        Ok(Self { output, ..self })
    }

    /// The handler's response. Every request that is not of tensors has one.
    pub fn into_response(self) -> Result<Response, Error> {
        match self.output {
            Output::Response(response) => Ok(response),
            Output::Tensors(_) => Err(Error::new(
                Kind::Internal,
                "The model's outputs came back without a response of its handler",
            )),
        }
    }
}
