//! What the fuzzer calls: requests of Open Inference Protocol in JSON.

use super::json::{self, Form};
use super::{InferResponse, rest};
use crate::tensor::{NamedTensor, Tensor};

/// A target: its name, and its function.
type Target = (&'static str, fn(&[u8]));

/// Names of the targets and their functions.
pub(in crate::api) fn targets() -> impl Iterator<Item = (&'static str, fn(&[u8]))> {
    let own: [Target; 1] = [("infer_json", infer_json)];
    own.into_iter().chain(rest::fuzz::TARGETS)
}

/// Tensors that were read are valid, and are read again from what a response writes of them.
fn infer_json(bytes: &[u8]) {
    let _ = json::handlers_outputs(bytes);
    let Ok((_, tensors)) = json::request(bytes) else {
        return;
    };
    let tensors: Vec<_> = tensors.into_iter().flatten().collect();
    check(&tensors, bytes.len());
    let written = written(tensors);
    let read = json::handlers_outputs(&written).expect("outputs are listed");
    let read = read.expect("outputs that were written are read");
    // Written again rather than compared: a number that is none has many forms as bytes.
    assert_eq!(self::written(read), written);
}

fn written(outputs: Vec<NamedTensor>) -> Vec<u8> {
    let response = InferResponse {
        model_name: "m".to_owned(),
        model_version: "1".to_owned(),
        id: None,
        outputs,
    };
    let encoded = json::encode(&response, &Form::default());
    encoded
        .expect("what came as JSON goes as JSON")
        .first
        .to_vec()
}

/// Checks tensors that came in `length` bytes.
pub(in crate::api) fn check(tensors: &[NamedTensor], length: usize) {
    let mut size = 0;
    for NamedTensor { tensor, .. } in tensors {
        let made = Tensor::new(
            tensor.dtype(),
            tensor.shape().to_vec(),
            tensor.data().clone(),
        );
        assert_eq!(made.as_ref(), Ok(tensor));
        size += tensor.data().len();
    }
    // An element takes two bytes of a document at least, and eight of a tensor at most; in a message one.
    assert!(size <= 8 * length, "{size} bytes from {length}");
}
