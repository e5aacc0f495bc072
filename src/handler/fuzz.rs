//! What the fuzzer calls: components, as they are read before anything is compiled.

use wasmparser::WasmFeatures;

use super::inspect::{inspect, screen};

/// A target: its name, and its function.
type Target = (&'static str, fn(&[u8]));

/// Names of the targets and their functions.
pub(crate) const TARGETS: [Target; 1] = [("component", component)];

fn component(bytes: &[u8]) {
    let read = inspect(bytes);
    let screened = screen(bytes, WasmFeatures::default());
    if let Ok(info) = &read {
        assert_eq!(info.size, bytes.len());
        assert!(info.largest_function <= bytes.len() && info.functions <= bytes.len());
    }
    if let Ok(info) = screened {
        assert!(info.forbidden.is_empty() && info.world.is_some());
        assert_eq!(Ok(info), read);
    }
}
