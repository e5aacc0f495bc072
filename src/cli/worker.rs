//! `lantern worker`: hosts one model version for a server that started it.

use std::process::ExitCode;

use clap::Args;

use super::Failure;
use crate::runtime::child;
use crate::server;
use crate::telemetry;

/// Everything that a worker process needs comes in the handshake.
#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// Only say which walls go up
    #[arg(long)]
    probe: bool,
}

/// Hosts a model version until the server that started this process ends it or has ended itself.
pub fn run(args: &WorkerArgs) -> Result<ExitCode, Failure> {
    if args.probe {
        return Ok(child::probe());
    }
    telemetry::init_worker();
    Ok(child::run(server::backend))
}
