//! The `lantern` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    lantern::cli::run(std::env::args_os())
}
