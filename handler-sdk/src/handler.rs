//! The trait that a handler's author implements.

use crate::{Context, Description, Error, Outputs, Request, Response, Tensor};

/// A model's handler: what happens to a request before inference and to the outputs after it.
///
/// The host creates several instances per model version and gives each one call at a time; which instance sees which
/// request, and when one is replaced by a fresh one, is the host's choice. State in `self` is therefore a cache and nothing more: what
/// `postprocess` must know about its request travels in `carry`.
pub trait Handler: Sized {
    /// Creates the handler of one instance, before anything else. Labels and settings are read here.
    ///
    /// # Errors
    /// Any: the model version fails to load and reports the text.
    fn init(context: &Context) -> Result<Self, Error>;

    /// Turns a request into the model's inputs, or answers it at once.
    ///
    /// # Errors
    /// The client sees the text, with the status of the error's kind.
    fn preprocess(&self, request: Request) -> Result<Step, Error>;

    /// Turns this request's rows of the outputs into the response. `carry` is what `preprocess` left in its [`Step`].
    ///
    /// # Errors
    /// As in [`Handler::preprocess`].
    fn postprocess(&self, outputs: Outputs, carry: &[u8]) -> Result<Response, Error>;

    /// Describes the model: the `customizedMetadata` that the management API shows when a description is asked for with
    /// `customized=true`. An empty object unless implemented.
    ///
    /// # Errors
    /// As in [`Handler::preprocess`].
    fn describe(&self) -> Result<Description, Error> {
        Ok(Description::default())
    }
}

/// What `preprocess` decided.
#[derive(Debug)]
pub enum Step {
    /// Run the model on `inputs`, then `postprocess`. Where all of them have the same size on axis 0, these are rows that
    /// the request may add to a batch; any others run by themselves.
    Infer {
        /// The model's inputs.
        inputs: Vec<Tensor>,
        /// Bytes that come back to `postprocess`.
        carry: Vec<u8>,
    },
    /// Answer without inference.
    Done(Response),
}

impl Step {
    /// Run the model on one tensor or on several (`[Tensor; N]`, `Vec<Tensor>`).
    pub fn infer(inputs: impl Into<Inputs>) -> Self {
        Self::Infer {
            inputs: inputs.into().0,
            carry: Vec::new(),
        }
    }

    /// The same step with `carry` for `postprocess`; without effect on [`Step::Done`].
    #[must_use]
    pub fn with_carry(self, carry: impl Into<Vec<u8>>) -> Self {
        match self {
            Self::Infer { inputs, .. } => Self::Infer {
                inputs,
                carry: carry.into(),
            },
            Self::Done(response) => Self::Done(response),
        }
    }
}

/// One tensor or several, for [`Step::infer`].
#[derive(Debug)]
pub struct Inputs(Vec<Tensor>);

impl From<Tensor> for Inputs {
    fn from(tensor: Tensor) -> Self {
        Self(vec![tensor])
    }
}

impl From<Vec<Tensor>> for Inputs {
    fn from(tensors: Vec<Tensor>) -> Self {
        Self(tensors)
    }
}

impl<const N: usize> From<[Tensor; N]> for Inputs {
    fn from(tensors: [Tensor; N]) -> Self {
        Self(tensors.into())
    }
}
