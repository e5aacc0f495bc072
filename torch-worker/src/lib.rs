//! The part of `lantern-torch` that knows libtorch. What hosts it is Lantern's own worker host.

pub mod torch;
