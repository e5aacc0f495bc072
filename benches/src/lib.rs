//! What the benches share: a server started as a process, a load generator, a runtime without a wire, and the files
//! that they use.

#![allow(
    clippy::missing_panics_doc,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench prints, asks the environment, and ends where something is missing"
)]

use std::path::{Path, PathBuf};

pub mod bare;
pub mod load;
pub mod runtime;
pub mod server;

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A model that tests use as well.
pub fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures").join(name)
}

/// A handler built by `make guests`.
pub fn guest(name: &str) -> PathBuf {
    let built = std::env::var_os("LANTERN_GUESTS").map(PathBuf::from);
    let built = built.unwrap_or_else(|| root().join("examples/target/wasm32-wasip2/release"));
    built.join(format!("{name}.wasm"))
}

/// ONNX Runtime, where the environment says that it is.
pub fn onnxruntime() -> Option<PathBuf> {
    std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from)
}

/// The program under test: the one that `make build` leaves beside the benches, or `LANTERN` if that is set.
pub fn program() -> PathBuf {
    let named = std::env::var_os("LANTERN").map(PathBuf::from);
    let program = named.unwrap_or_else(beside);
    assert!(program.exists(), "{}: run make build", program.display());
    program
}

/// `release/lantern` for a bench in `release/deps`.
fn beside() -> PathBuf {
    let bench = std::env::current_exe().expect("a program knows its own path");
    let release = bench
        .ancestors()
        .nth(2)
        .expect("cargo puts benches into deps");
    release.join("lantern")
}
