//! `lantern worker`: hosts one model version for a server that started it.

use std::process::ExitCode;

use clap::Args;

use super::Failure;
use crate::runtime::child;
use crate::server;
use crate::telemetry;

/// There are no flags: everything that a worker process needs comes in the handshake.
#[derive(Debug, Args)]
pub struct WorkerArgs {}

/// Hosts a model version until the server that started this process ends it or has ended itself.
pub fn run(_args: &WorkerArgs) -> Result<ExitCode, Failure> {
    telemetry::init_worker();
    Ok(child::run(server::backend))
}
