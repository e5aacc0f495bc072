//! The `lantern` program.

use std::process::ExitCode;

use lantern::backend::NO_TELEMETRY;

fn main() -> ExitCode {
    silence_libraries();
    lantern::cli::run(std::env::args_os())
}

/// Switches off reports of native libraries to their makers, by variables that they read when they are opened.
#[expect(
    unsafe_code,
    reason = "the environment may change while there is one thread"
)]
fn silence_libraries() {
    for (name, value) in NO_TELEMETRY {
        // SAFETY: this is the first thing that the program does. It has one thread, so nobody reads the environment
        // meanwhile.
        unsafe { std::env::set_var(name, value) };
    }
}
