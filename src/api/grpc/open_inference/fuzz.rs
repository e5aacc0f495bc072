//! What the fuzzer calls: messages of Open Inference Protocol that ask for inference.

use prost::Message as _;

use super::divided::Divided;
use super::{request, wire};
use crate::api::oip;
use crate::catalog::Room;

/// A target: its name, and its function.
type Target = (&'static str, fn(&[u8]));

/// Bytes that arrive at once.
const PIECE: usize = 7;

/// Names of the targets and their functions.
pub(in crate::api) const TARGETS: [Target; 1] = [("infer_grpc", infer_grpc)];

fn infer_grpc(bytes: &[u8]) {
    let whole = wire::ModelInferRequest::decode(bytes);
    let divided = divided(bytes);
    let Ok(message) = whole else {
        assert!(divided.is_none(), "what is no message is none in parts");
        return;
    };
    if let Some(divided) = divided {
        let data = |message: &wire::ModelInferRequest| message.raw_input_contents.clone();
        assert_eq!(data(&divided), data(&message));
    }
    if let Ok(request) = request::decode(message) {
        oip::fuzz::check(&request.inputs, bytes.len());
    }
}

/// The message as it arrives in pieces, unless it has too many parts.
fn divided(bytes: &[u8]) -> Option<wire::ModelInferRequest> {
    let length = u32::try_from(bytes.len()).ok()?;
    let framed = [&[0][..], &length.to_be_bytes(), bytes].concat();
    let mut divided = Divided::new(bytes.len());
    for piece in framed.chunks(PIECE) {
        divided.push(piece, |_, length| Room::own(length)).ok()?;
    }
    divided.message().ok()
}
