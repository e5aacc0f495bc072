//! What the fuzzer calls: messages of Open Inference Protocol that ask for inference.

use prost::Message as _;

use super::{request, wire};
use crate::api::oip;

/// A target: its name, and its function.
type Target = (&'static str, fn(&[u8]));

/// Names of the targets and their functions.
pub(in crate::api) const TARGETS: [Target; 1] = [("infer_grpc", infer_grpc)];

fn infer_grpc(bytes: &[u8]) {
    let Ok(message) = wire::ModelInferRequest::decode(bytes) else {
        return;
    };
    if let Ok(request) = request::decode(message) {
        oip::fuzz::check(&request.inputs, bytes.len());
    }
}
