//! `lantern archive`: packs an archive, with the flags of `torch-model-archiver`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::Failure;

/// Flags of `lantern archive`.
#[derive(Debug, Args)]
pub struct ArchiveArgs {
    /// Name of the model; the archive is named after it
    #[arg(long, value_name = "NAME")]
    pub model_name: String,
    /// Version of the model
    #[arg(long, short = 'v', value_name = "VERSION")]
    pub version: String,
    /// The handler: a WebAssembly component
    #[arg(long, value_name = "FILE.wasm")]
    pub handler: String,
    /// The weights: a TorchScript (.pt) or ONNX (.onnx) file
    #[arg(long, value_name = "FILE")]
    pub serialized_file: Option<PathBuf>,
    /// Kept for the flags of torch-model-archiver: a Python class, which nothing here runs
    #[arg(long, value_name = "FILE")]
    pub model_file: Option<PathBuf>,
    /// More files for the archive's root: comma-separated; wildcards are expanded, directories' contents are taken
    #[arg(long, value_name = "FILES")]
    pub extra_files: Option<String>,
    /// What runs the handler
    #[arg(long, default_value = "wasm", value_name = "RUNTIME")]
    pub runtime: String,
    /// Directory to write to; the current one by default
    #[arg(long, value_name = "DIR")]
    pub export_path: Option<PathBuf>,
    /// Kind of archive
    #[arg(long, value_enum, default_value_t)]
    pub archive_format: ArchiveFormat,
    /// Replace an archive that exists
    #[arg(long, short = 'f')]
    pub force: bool,
    /// Kept for the flags of torch-model-archiver: Python requirements, which nothing here installs
    #[arg(long, short = 'r', value_name = "FILE")]
    pub requirements_file: Option<PathBuf>,
    /// Settings of the model (`model-config.yaml`)
    #[arg(long, short = 'c', value_name = "FILE")]
    pub config_file: Option<PathBuf>,
}

/// Values of `--archive-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ArchiveFormat {
    /// A compressed `.mar`
    #[default]
    Default,
    /// A `.mar` without compression
    ZipStore,
    /// A `.tar.gz`
    Tgz,
    /// A directory
    NoArchive,
}

/// Packs and says what was written.
pub fn run(_args: &ArchiveArgs) -> Result<ExitCode, Failure> {
    unimplemented!()
}
