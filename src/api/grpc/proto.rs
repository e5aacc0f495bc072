//! Messages, servers and clients that the build makes from `proto/`.

mod generated {
    #![allow(
        missing_docs,
        clippy::all,
        clippy::pedantic,
        reason = "generated; the .proto files are documented"
    )]
    include!(concat!(env!("OUT_DIR"), "/proto.rs"));
}

/// Failures inside messages.
pub use generated::google::rpc;
/// Open Inference Protocol, for both of its packages.
pub mod open_inference {
    pub use super::generated::inference::*;
    pub use crate::api::grpc::contents::{InferTensorContents, Texts};
}
/// TorchServe's predictions and its management of models.
pub use generated::org::pytorch::serve::grpc::{inference, management};

/// Every file of `proto/`, what they import, and TorchServe's copy of Open Inference Protocol: an encoded
/// `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
