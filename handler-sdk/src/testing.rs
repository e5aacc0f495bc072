//! Testing a handler on the developer's machine, without a server and without wasm.
//!
//! ```
//! use handler_sdk::{Context, Error, Handler, Outputs, Request, Response, Step, testing};
//!
//! struct Shout;
//!
//! impl Handler for Shout {
//!     fn init(_: &Context) -> Result<Self, Error> {
//!         Ok(Self)
//!     }
//!     fn preprocess(&self, request: Request) -> Result<Step, Error> {
//!         Ok(Step::Done(Response::text(request.text()?.to_uppercase())))
//!     }
//!     fn postprocess(&self, _: Outputs, _: &[u8]) -> Result<Response, Error> {
//!         Err(Error::internal("nothing is inferred"))
//!     }
//! }
//!
//! let host = testing::Host::new();
//! let handler: Shout = host.init()?;
//! let response = testing::done(handler.preprocess(testing::request("quiet"))?);
//! assert_eq!(response.body(), b"QUIET");
//! # Ok::<(), Error>(())
//! ```

use serde_json::{Value, json};

use crate::bindings::lantern::handler::context::ModelContext;
pub use crate::imports::memory::{Line, Observation};
use crate::imports::memory::{State, with_state};
use crate::request::{Body, Field, Part};
use crate::{Context, Device, Error, Handler, Request, Response, Step, Tensor};

/// The in-memory host of the current thread: what it offers to a handler, and what the handler logged and observed.
/// Dropping it clears both.
#[derive(Debug)]
pub struct Host {
    config: Value,
}

impl Host {
    /// A host without files and settings. One per thread at a time.
    #[expect(
        clippy::new_without_default,
        reason = "creating one changes the thread's state"
    )]
    pub fn new() -> Self {
        with_state(|state| *state = State::default());
        Self { config: json!({}) }
    }

    /// Adds a file to the archive.
    #[must_use]
    pub fn asset(self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        with_state(|state| state.assets.insert(name.to_owned(), bytes.into()));
        self
    }

    /// Sets the section `handler:` of model-config.yaml.
    #[must_use]
    pub fn settings(mut self, settings: Value) -> Self {
        self.config["handler"] = settings;
        self
    }

    /// The context that a handler's `init` gets: model `model`, version `1.0`, on the CPU.
    pub fn context(&self) -> Context {
        Context::new(ModelContext {
            model_name: "model".to_owned(),
            model_version: "1.0".to_owned(),
            manifest: String::new(),
            config: self.config.to_string(),
            device: Device::Cpu,
            max_batch_size: 1,
            properties: Vec::new(),
        })
    }

    /// Creates a handler on this host.
    ///
    /// # Errors
    /// Those of its `init`.
    pub fn init<H: Handler>(&self) -> Result<H, Error> {
        H::init(&self.context())
    }

    /// The lines logged so far. Debug and above are kept.
    pub fn lines(&self) -> Vec<Line> {
        with_state(|state| state.lines.clone())
    }

    /// The values observed so far.
    pub fn observations(&self) -> Vec<Observation> {
        with_state(|state| state.observations.clone())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        with_state(|state| *state = State::default());
    }
}

/// A request with a raw body.
pub fn request(body: impl Into<Vec<u8>>) -> Request {
    with_body(None, Body::Raw(body.into()))
}

/// A request with a raw body of a media type.
pub fn request_of_type(content_type: &str, body: impl Into<Vec<u8>>) -> Request {
    with_body(Some(content_type.to_owned()), Body::Raw(body.into()))
}

/// A request with the fields of a form.
pub fn form<const N: usize>(fields: [(&str, &str); N]) -> Request {
    let part = |(name, value): (&str, &str)| Part {
        name: name.to_owned(),
        filename: None,
        content_type: None,
        body: value.as_bytes().to_vec(),
    };
    with_body(None, Body::Form(fields.map(part).into()))
}

/// A request of tensors, as a client of Open Inference Protocol sends it.
pub fn tensors(tensors: Vec<Tensor>) -> Request {
    with_body(None, Body::Tensors(tensors))
}

fn with_body(content_type: Option<String>, body: Body) -> Request {
    let accept = Field {
        name: "accept".to_owned(),
        value: "*/*".to_owned(),
    };
    Request::new("test".to_owned(), content_type, vec![accept], body)
}

/// The inputs and the carry of a step that asks for inference.
///
/// # Panics
/// If the step answers at once.
pub fn inferred(step: Step) -> (Vec<Tensor>, Vec<u8>) {
    match step {
        Step::Infer { inputs, carry } => (inputs, carry),
        Step::Done(response) => panic!("answered without inference: {response:?}"),
    }
}

/// The response of a step that answers at once.
///
/// # Panics
/// If the step asks for inference.
pub fn done(step: Step) -> Response {
    match step {
        Step::Done(response) => response,
        Step::Infer { inputs, .. } => panic!("wants inference on {inputs:?}"),
    }
}
