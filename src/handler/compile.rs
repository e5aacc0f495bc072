//! Makes a component's bytes into native code. Nothing is read from files and nothing kept.
//!
//! A small hostile component can make the compiler use gigabytes or minutes, or fail. So this runs in a process of its own,
//! under limits (`runtime::compiler`); what is known to be costly is refused before ([`inspect::screen`]).

use super::{engine, inspect};

/// Screens a component and compiles it. An error is the reason for the author: it completes "The handler …".
pub(crate) fn compile(wasm: &[u8]) -> Result<Vec<u8>, String> {
    let engine = engine::new().map_err(|error| format!("cannot be compiled here: {error}"))?;
    inspect::screen(wasm, engine.get_wasm_features())?;
    engine
        .precompile_component(wasm)
        .map_err(|error| format!("does not compile: {error:#}"))
}
