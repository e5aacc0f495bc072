//! The command line: one subcommand per file, and how a failure ends the program.
//!
//! This module owns arguments, exit codes and what is printed on a terminal. It knows no protocol and does no work itself:
//! each subcommand makes of its arguments the values that another module takes.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod archive;
pub mod compile;
pub mod config;
pub mod doctor;
pub mod inspect;
pub mod launch;
pub mod serve;
pub mod signer;
pub mod tenants;
pub mod verify;
pub mod worker;

mod banner;
mod check;
mod pid;

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
    #[command(infer_long_args = true)]
    Serve(Box<launch::LaunchArgs>),
    /// Show every setting, its value, and where the value comes from
    Config(Box<config::ConfigArgs>),
    /// Show which walls this machine grants around worker processes
    Doctor(Box<doctor::DoctorArgs>),
    /// Pack a model and its handler into an archive, and sign it
    Archive(Box<archive::SignedArchiveArgs>),
    /// Show what is in an archive
    Inspect(inspect::InspectArgs),
    /// Say who signed archives, and whether the signatures are good
    Verify(verify::VerifyArgs),
    /// Make a key to sign archives with, or show its public half
    Signer(signer::SignerArgs),
    /// Check a file of tenants, or make a key for it
    Tenants(tenants::TenantsArgs),
    /// Host one model version for a server (started by `lantern serve`)
    #[command(hide = true)]
    Worker(worker::WorkerArgs),
    /// Compile one handler for a server or a tool (started by them)
    #[command(hide = true)]
    Compile(compile::CompileArgs),
}

/// Why a subcommand failed: the error and its sources, as one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// A failure with this text.
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

/// Which command line the program takes, by the name under which it was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Lantern,
    Torchserve,
    Archiver,
}

impl Name {
    /// The name under which the program was called, which is that of a link. With a subcommand of `lantern` it is `lantern`
    /// in any case.
    fn of(arguments: &[OsString]) -> Self {
        let called = arguments.first().map(Path::new).and_then(Path::file_name);
        let is_subcommand = |first: &OsString| {
            ["serve", "worker", "compile"]
                .iter()
                .any(|name| first == name)
        };
        match called.and_then(|name| name.to_str()) {
            _ if arguments.get(1).is_some_and(is_subcommand) => Self::Lantern,
            Some("torchserve") => Self::Torchserve,
            Some("torch-model-archiver") => Self::Archiver,
            _ => Self::Lantern,
        }
    }
}

/// Parses `arguments`, the program's name first, and runs the subcommand. A failure is printed on stderr. The exit code is
/// 0 for success, 1 for a failure, 2 for arguments that do not parse. Called as `torchserve` or `torch-model-archiver`, it
/// takes the arguments of those programs.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let done = match Name::of(&arguments) {
        Name::Lantern => {
            Cli::try_parse_from(&arguments).map(|cli| dispatch(cli.command, &arguments))
        }
        Name::Torchserve => launch::TorchserveArgs::try_parse_from(&arguments)
            .map(|args| launch::torchserve(args, rest(&arguments, 1))),
        Name::Archiver => archive::ArchiverArgs::try_parse_from(&arguments)
            .map(|args| archive::run(&args.archive, None)),
    };
    match done {
        Err(error) => usage(&error),
        Ok(Ok(code)) => code,
        Ok(Err(failure)) => {
            let _ = writeln!(io::stderr().lock(), "error: {}", failure.message());
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command, arguments: &[OsString]) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(args) => launch::serve(*args, rest(arguments, 2)),
        Command::Config(args) => config::run(*args),
        Command::Doctor(args) => doctor::run(*args),
        Command::Archive(args) => archive::run(&args.archive, args.sign.as_deref()),
        Command::Inspect(args) => inspect::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Signer(args) => signer::run(&args),
        Command::Tenants(args) => tenants::run(&args),
        Command::Worker(args) => worker::run(&args),
        Command::Compile(args) => compile::run(&args),
    }
}

/// The arguments after the first `count`.
fn rest(arguments: &[OsString], count: usize) -> &[OsString] {
    arguments.get(count..).unwrap_or_default()
}

/// Prints what clap answers. Help and version are no failures.
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
