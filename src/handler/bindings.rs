//! Rust types and traits of the handler interface, generated from `wit/`.
//!
//! Nothing here is written by hand; what the functions do is in the modules beside this one.

#![allow(
    missing_docs,
    unused_variables,
    clippy::all,
    clippy::pedantic,
    reason = "generated"
)]

wasmtime::component::bindgen!({
    path: "wit",
    world: "lantern:handler/handler",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { default: trappable, "lantern:handler/assets.read": async | trappable },
    exports: { default: async },
    with: {
        "lantern:handler/types.tensor-handle": super::tensors::TensorHandle,
        "lantern:handler/metrics.metric": super::metrics::Metric,
    },
});
