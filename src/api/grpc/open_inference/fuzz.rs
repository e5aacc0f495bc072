//! What the fuzzer calls: messages of Open Inference Protocol that ask for inference.

use prost::Message as _;

use super::{request, wire};
use crate::api::oip;

/// Names of the targets and their functions.
pub(in crate::api) const TARGETS: [(&str, fn(&[u8])); 1] = [("infer_grpc", infer_grpc)];

fn infer_grpc(bytes: &[u8]) {
    let Ok(message) = wire::ModelInferRequest::decode(bytes) else {
        return;
    };
    if let Ok(request) = request::decode(message) {
        oip::fuzz::check(&request.inputs, bytes.len());
    }
}
