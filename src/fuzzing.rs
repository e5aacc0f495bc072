//! Everything that reads foreign bytes, as functions of bytes: what the fuzzer runs, and what tests replay.
//!
//! A target takes any bytes. It does not panic, and asserts what its parser promises: limits that hold, values that are written
//! as they were read. Targets stand beside the parsers that they call, in a `fuzz` of each module; here is the table of all. Its
//! rows are built for tests and with the feature `fuzzing`, which only `fuzz/` asks for: no server has them.

use crate::{
    api, archive, backend, config, error, handler, listen, metrics, runtime, telemetry, tensor,
};

#[cfg(test)]
mod tests;

/// A target: its name, which is that of its seeds in `fuzz/seeds/`, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub fn targets() -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    targets.extend(archive::fuzz::TARGETS);
    targets.extend(config::fuzz::TARGETS);
    targets.extend(api::fuzz::targets());
    targets.extend(runtime::fuzz::targets());
    targets.extend(tensor::fuzz::TARGETS);
    targets.extend(backend::onnx::fuzz::TARGETS);
    targets.extend(handler::fuzz::TARGETS);
    targets.extend(metrics::fuzz::TARGETS);
    targets.extend(telemetry::fuzz::TARGETS);
    targets.extend(listen::fuzz::TARGETS);
    targets.extend(error::fuzz::TARGETS);
    targets
}

/// The target of that name.
pub fn target(name: &str) -> Option<fn(&[u8])> {
    let mut targets = targets().into_iter();
    targets.find_map(|(own, run)| (own == name).then_some(run))
}
