//! `lantern inspect`: shows what is in an archive.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Failure;

/// Flags of `lantern inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// An archive (.mar, .tar.gz) or an unpacked directory
    #[arg(value_name = "FILE")]
    pub archive: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Reads the archive and prints it.
pub fn run(_args: &InspectArgs) -> Result<ExitCode, Failure> {
    unimplemented!()
}
