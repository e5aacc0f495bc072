//! The part of `lantern-torch` that knows libtorch. What hosts it is Lantern's own worker host.

// Tests may unwrap; everything else says why nothing can go wrong, or passes the error on.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod torch;
