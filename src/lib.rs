//! Lantern serves TorchScript and ONNX models behind REST and gRPC, with handlers compiled to WebAssembly components
//! and sandboxed. `ARCHITECTURE.md` beside this file has the map, the path of a request and the invariants.

// Tests may unwrap; everything else says why nothing can go wrong, or passes the error on.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api;
pub mod archive;
pub mod backend;
pub mod budget;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod error;
pub mod fair_queue;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod handler;
pub mod hex;
pub mod listen;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod nanos;
pub mod payload;
pub mod place;
pub mod refusals;
pub mod runtime;
pub mod sandbox;
pub mod server;
pub mod signing;
pub mod telemetry;
pub mod tenants;
pub mod tensor;
pub mod token;
