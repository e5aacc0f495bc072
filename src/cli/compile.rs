//! `lantern compile`: compiles one handler for a server, or for a tool, that started it.

use std::process::ExitCode;

use clap::Args;

use super::Failure;
use crate::runtime::compiler::child;

/// There are no flags: everything that the compiler needs comes through its stdin.
#[derive(Debug, Args)]
pub struct CompileArgs {}

/// Compiles the component that it is given.
pub fn run(_args: &CompileArgs) -> Result<ExitCode, Failure> {
    Ok(child::run())
}
