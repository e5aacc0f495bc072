//! What the fuzzer calls: requests of Open Inference Protocol with binary data.

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::HeaderValue;

use super::{JSON_LENGTH, JsonLength, request};
use crate::api::oip::fuzz::check;
use crate::catalog::Signature;
use crate::model::TensorSpec;
use crate::tensor::DType;

/// A target: its name, and its function.
type Target = (&'static str, fn(&[u8]));

/// Names of the targets and their functions.
pub(in crate::api) const TARGETS: [Target; 1] = [("infer_binary", infer_binary)];

/// The length of the JSON in the first line, the body in the others.
fn infer_binary(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let (length, body) = (lines.next().unwrap_or(&[]), lines.next().unwrap_or(&[]));
    let Ok(length) = HeaderValue::from_bytes(length) else {
        return;
    };
    let headers = HeaderMap::from_iter([(JSON_LENGTH, length)]);
    for dtype in [DType::F32, DType::Bytes] {
        let signature = Signature {
            inputs: vec![TensorSpec::new("x", dtype, vec![Some(1), None])],
            ..Signature::default()
        };
        let json = JsonLength::of(&headers);
        let mut first = Bytes::copy_from_slice(body);
        let second = first.split_off(json.division().min(body.len()));
        let parts = json.parts([first, second]);
        let decoded = parts.and_then(|parts| request::decode(parts, &signature));
        if let Ok((request, _)) = decoded {
            // One element in a body without JSON has its length before it.
            check(&request.inputs, body.len() + 4);
        }
    }
}
