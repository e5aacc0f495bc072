//! The command line: one subcommand per file, and how a failure ends the program.
//!
//! It owns arguments, exit codes and what is printed on a terminal. It knows no protocol and does no work itself:
//! each subcommand turns its arguments into the values that another module asks for.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod archive;
pub mod inspect;
pub mod serve;
pub mod worker;

/// Serves TorchScript and ONNX models with sandboxed WebAssembly handlers.
#[derive(Debug, Parser)]
#[command(name = "lantern", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the models of a model store
    Serve(Box<serve::ServeArgs>),
    /// Pack a model and its handler into an archive
    Archive(Box<archive::ArchiveArgs>),
    /// Show what is in an archive
    Inspect(inspect::InspectArgs),
    /// Host one model version for a server (started by `lantern serve`)
    #[command(hide = true)]
    Worker(worker::WorkerArgs),
}

/// Why a subcommand did not do what it was asked for: the error and its sources, as one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// A failure that says `message`.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// The text for the terminal.
    pub fn message(&self) -> &str {
        &self.0
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Self(text)
    }
}

/// Parses `arguments`, the program's name first, runs the subcommand, and says on stderr why it failed: exit code
/// 0 for success, 1 for a failure, 2 for arguments that do not parse.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(failure) => {
            let _ = writeln!(io::stderr().lock(), "error: {}", failure.message());
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(args) => serve::run(*args),
        Command::Archive(args) => archive::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Worker(args) => worker::run(&args),
    }
}

/// Help and version are answers, not failures.
fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    ExitCode::from(u8::from(error.use_stderr()) * 2)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn failures_show_their_sources() {
        let error = crate::error::Error::new(crate::error::Kind::Internal, "it broke");
        assert_eq!(Failure::from(error).message(), "it broke");
    }
}
