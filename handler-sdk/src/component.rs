//! Connects the generated bindings with a [`Handler`]: one instance's state, and conversions that move and never copy.
//!
//! Public only for the code that [`export!`](crate::export) expands to.

use std::cell::OnceCell;

use crate::bindings::exports::lantern::handler::pipeline as wire;
use crate::bindings::lantern::handler::types::{self, TensorData};
use crate::request::Body;
use crate::{Context, Error, ErrorKind, Handler, Outputs, Request, Response, Step, Tensor};

/// The handler of this instance, once `init` has succeeded.
#[derive(Debug)]
pub struct Slot<H> {
    handler: OnceCell<H>,
}

impl<H: Handler> Slot<H> {
    /// A slot without a handler, as before `init`.
    pub const fn new() -> Self {
        Self {
            handler: OnceCell::new(),
        }
    }

    /// The export `init`.
    ///
    /// # Errors
    /// The handler's own, or internal if the host calls twice.
    pub fn init(&self, facts: wire::ModelContext) -> Result<(), types::Error> {
        let handler = H::init(&Context::new(facts))?;
        self.handler
            .set(handler)
            .map_err(|_| Error::internal("init was called twice").into())
    }

    /// The export `preprocess`.
    ///
    /// # Errors
    /// The handler's own, or internal before `init`.
    pub fn preprocess(&self, request: types::Request) -> Result<wire::Step, types::Error> {
        Ok(self.handler()?.preprocess(request.into())?.into())
    }

    /// The export `postprocess`.
    ///
    /// # Errors
    /// As [`Slot::preprocess`].
    pub fn postprocess(
        &self,
        outputs: Vec<types::Tensor>,
        carry: &[u8],
    ) -> Result<types::Response, types::Error> {
        let outputs = Outputs::from(convert::<_, Tensor>(outputs));
        Ok(self.handler()?.postprocess(outputs, carry)?.into())
    }

    /// The export `describe`.
    ///
    /// # Errors
    /// As [`Slot::preprocess`].
    pub fn describe(&self) -> Result<String, types::Error> {
        Ok(self.handler()?.describe()?.into_text())
    }

    fn handler(&self) -> Result<&H, Error> {
        self.handler
            .get()
            .ok_or_else(|| Error::internal("the handler was called before init"))
    }
}

impl<H: Handler> Default for Slot<H> {
    fn default() -> Self {
        Self::new()
    }
}

fn convert<T, U: From<T>>(values: Vec<T>) -> Vec<U> {
    values.into_iter().map(U::from).collect()
}

impl From<types::Request> for Request {
    fn from(request: types::Request) -> Self {
        Self::new(
            request.id,
            request.content_type,
            request.headers,
            request.body.into(),
        )
    }
}

impl From<types::Body> for Body {
    fn from(body: types::Body) -> Self {
        match body {
            types::Body::Raw(bytes) => Self::Raw(bytes),
            types::Body::Form(parts) => Self::Form(parts),
            types::Body::Tensors(tensors) => Self::Tensors(convert(tensors)),
        }
    }
}

impl From<types::Tensor> for Tensor {
    fn from(tensor: types::Tensor) -> Self {
        let types::Tensor {
            name,
            dtype,
            shape,
            data,
        } = tensor;
        match data {
            TensorData::Inline(bytes) => Self::from_bytes(name, dtype, shape, bytes),
            TensorData::Handle(handle) => Self::from_source(name, dtype, shape, handle),
        }
    }
}

impl From<Tensor> for types::Tensor {
    fn from(tensor: Tensor) -> Self {
        let (name, dtype, shape, bytes) = tensor.into_parts();
        Self {
            name,
            dtype,
            shape,
            data: TensorData::Inline(bytes),
        }
    }
}

impl From<Step> for wire::Step {
    fn from(step: Step) -> Self {
        match step {
            Step::Done(response) => Self::Done(response.into()),
            Step::Infer { inputs, carry } => Self::Infer(wire::Prepared {
                inputs: convert(inputs),
                carry,
            }),
        }
    }
}

impl From<Response> for types::Response {
    fn from(response: Response) -> Self {
        let (status, content_type, headers, body) = response.into_parts();
        Self {
            status,
            content_type,
            headers,
            body,
        }
    }
}

impl From<Error> for types::Error {
    fn from(error: Error) -> Self {
        let (kind, message) = error.into_parts();
        match kind {
            ErrorKind::BadRequest => Self::BadRequest(message),
            ErrorKind::TooLarge => Self::TooLarge(message),
            ErrorKind::UnsupportedMediaType => Self::UnsupportedMediaType(message),
            ErrorKind::Unavailable => Self::Unavailable(message),
            ErrorKind::Internal => Self::Internal(message),
        }
    }
}
