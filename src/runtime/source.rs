//! Who made the tensors that a model is given, and so whose fault it is that the model does not take them.

use crate::error::{Error, Kind};
use crate::payload::Body;
use crate::tensor::NamedTensor;

/// How messages to clients of predictions begin.
const TO_CLIENTS: &str = "Prediction failed: ";

/// Who made the tensors of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TensorSource {
    /// A client of Open Inference Protocol. They came past the handler, or the handler gave them on as they are.
    Client,
    /// The handler.
    Handler,
}

/// The tensors that a model is given for a request.
pub(super) struct ModelInputs<'a> {
    pub(super) tensors: Vec<NamedTensor>,
    pub(super) source: TensorSource,
    pub(super) request_id: &'a str,
}

impl<'a> ModelInputs<'a> {
    /// Tensors of a client.
    pub(super) const fn of_client(tensors: Vec<NamedTensor>, request_id: &'a str) -> Self {
        Self {
            tensors,
            source: TensorSource::Client,
            request_id,
        }
    }

    /// What a handler made of what a client sent.
    pub(super) fn of_handler(tensors: Vec<NamedTensor>, sent: &Body, request_id: &'a str) -> Self {
        let source = match sent {
            Body::Tensors(sent) if are_same(&tensors, sent) => TensorSource::Client,
            Body::Tensors(_) | Body::Raw(_) | Body::Form(_) => TensorSource::Handler,
        };
        Self {
            tensors,
            source,
            request_id,
        }
    }
}

/// Whether a handler gave on every tensor and made none, in the order they came.
fn are_same(tensors: &[NamedTensor], sent: &[NamedTensor]) -> bool {
    tensors.len() == sent.len()
        && tensors
            .iter()
            .zip(sent)
            .all(|(one, other)| is_same(one, other))
}

/// Large tensors that a handler gives on are not copied, and need not be compared.
fn is_same(one: &NamedTensor, other: &NamedTensor) -> bool {
    let (a, b) = (&one.tensor, &other.tensor);
    let is_alike = one.name == other.name && a.dtype() == b.dtype() && a.shape() == b.shape();
    let is_shared = || a.data().as_ptr() == b.data().as_ptr();
    is_alike && (is_shared() || a.data() == b.data())
}

impl TensorSource {
    /// The failure of a run as the fault of whoever made its tensors.
    pub(super) fn blame(self, error: Error) -> Error {
        match (self, error.kind()) {
            (Self::Handler, Kind::InvalidInput) => by_handler(&error),
            _ => error,
        }
    }
}

fn by_handler(error: &Error) -> Error {
    let why = error.message();
    let why = why.strip_prefix(TO_CLIENTS).unwrap_or(why);
    let text = format!("The handler's preprocess gave inputs that the model does not take: {why}");
    let blamed = Error::new(Kind::HandlerOutput, text);
    match error.detail() {
        Some(detail) => blamed.with_detail(detail),
        None => blamed,
    }
}

/// Whether the model's log says why a run failed: whoever sent the request may not be told all of it.
pub(super) fn is_for_the_model_log(error: &Error) -> bool {
    match error.kind() {
        Kind::HandlerOutput | Kind::InferenceFailed | Kind::OutOfMemory => true,
        // What the server itself found the client is told in full.
        Kind::InvalidInput => error.detail().is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::testing::rows;

    #[test]
    fn tensors_that_a_handler_gives_on_are_the_clients() {
        let sent = Body::Tensors(rows(&[1, 2], 1));
        let source = |tensors| ModelInputs::of_handler(tensors, &sent, "r").source;
        assert_eq!(source(rows(&[1, 2], 1)), TensorSource::Client);
        assert_eq!(source(rows(&[1, 3], 1)), TensorSource::Handler);
        assert_eq!(source(Vec::new()), TensorSource::Handler);
        assert_eq!(source(rows(&[1], 1)), TensorSource::Handler);
        let renamed = rows(&[1, 2], 1).into_iter();
        let renamed = renamed.map(|one| NamedTensor::new("other", one.tensor));
        assert_eq!(source(renamed.collect()), TensorSource::Handler);
        let raw = ModelInputs::of_handler(rows(&[1], 1), &Body::Raw(bytes::Bytes::new()), "r");
        assert_eq!(raw.source, TensorSource::Handler);
    }
}
