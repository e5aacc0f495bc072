//! `lantern serve`: the flags of `torchserve` that make sense without Java.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Failure;

/// Flags of `lantern serve`. What is not given comes from the environment, the file, or a default.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of torchserve"
)]
pub struct ServeArgs {
    /// Directory that archives are loaded from
    #[arg(long, value_name = "DIR")]
    pub model_store: Option<PathBuf>,
    /// Models to load: NAME=FILE or FILE, within the model store; `all` for everything in it
    #[arg(long, value_name = "[NAME=]FILE", num_args = 1..)]
    pub models: Vec<String>,
    /// File of settings in TorchServe's format (`config.properties`)
    #[arg(long, value_name = "FILE")]
    pub ts_config: Option<PathBuf>,
    /// Allow models to be registered and unregistered through the management API
    #[arg(long)]
    pub enable_model_api: bool,
    /// Serve without tokens
    #[arg(long, alias = "dt")]
    pub disable_token_auth: bool,
    /// Write and read no snapshot of the catalog
    #[arg(long, alias = "ncs")]
    pub no_config_snapshots: bool,
    /// One more setting, over those of the file; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Stay in the foreground, which is what happens anyway
    #[arg(long, hide = true)]
    pub foreground: bool,
    /// Start, which is what happens anyway
    #[arg(long, hide = true)]
    pub start: bool,
}

/// Serves until a signal ends it.
pub fn run(_args: ServeArgs) -> Result<ExitCode, Failure> {
    unimplemented!()
}
