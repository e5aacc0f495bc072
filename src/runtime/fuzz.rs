//! What the fuzzer calls of this module.

use super::{envelope, protocol};

/// Names of the targets and their functions.
pub(crate) fn targets() -> impl Iterator<Item = (&'static str, fn(&[u8]))> {
    let envelope = envelope::fuzz::TARGETS.into_iter();
    envelope.chain(protocol::fuzz::TARGETS)
}
