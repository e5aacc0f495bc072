//! What the fuzzer calls: bodies in an envelope.

use bytes::Bytes;

use super::{INPUTS, INSTANCES, ROWS_LIMIT, read};
use crate::payload::Body;

/// A target: its name, and its function.
type Target = (&'static str, fn(&[u8]));

/// Names of the targets and their functions.
pub(crate) const TARGETS: [Target; 1] = [("envelope", envelope)];

fn envelope(bytes: &[u8]) {
    let body = Body::Raw(Bytes::copy_from_slice(bytes));
    for rules in [&INSTANCES, &INPUTS] {
        let Ok((_, rows)) = read(rules, &body) else {
            continue;
        };
        assert!(rows.len() <= ROWS_LIMIT);
        // A number may be written longer than it came: at most so much.
        let size: usize = rows.iter().map(|row| size(&row.body)).sum();
        assert!(size <= 32 * bytes.len() + 1024, "{size} of {}", bytes.len());
    }
}

fn size(body: &Body) -> usize {
    match body {
        Body::Raw(bytes) => bytes.len(),
        Body::Form(parts) => parts.iter().map(|part| part.body.len()).sum(),
        Body::Tensors(_) => 0,
    }
}
