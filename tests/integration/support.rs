//! The server under test: [`TestServer`], made by a builder, on port 0, with directories of its own.

pub mod frames;
pub mod grpc;
mod http;
mod model;
pub mod onnx;
#[path = "../support/origin.rs"]
pub mod origin;
mod place;
mod server;

pub use grpc::prediction;
pub use http::Answer;
pub use model::{Model, fixture, guest};
pub use place::{Life, Place};
pub use server::{Builder, TestServer};

/// A row for the `linear` handler, and what `linear.onnx` makes of it.
pub const ROW: &str = r#"{"x": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]}"#;

/// One tensor for the `passthrough` handler: an fp32 row of one number.
pub fn tensor(value: f32) -> String {
    format!(
        r#"{{"inputs": [{{"name": "x", "dtype": "fp32", "shape": [1, 1], "data": [{value:?}]}}]}}"#
    )
}
