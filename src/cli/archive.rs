//! `lantern archive`: packs an archive, with the flags of `torch-model-archiver`, and signs it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::Failure;
use super::check::check;
use crate::archive::pack::{PackForm, PackSpec, Packed, pack_checked};
use crate::archive::{ArchiveError, Runtime};
use crate::config::show_size;
use crate::model::{ModelName, Version};
use crate::signing::{SigningKey, is_open_to_others};

/// Command line of the program when it is called `torch-model-archiver`.
#[derive(Debug, clap::Parser)]
#[command(
    name = "torch-model-archiver",
    about = "Packs a model and its handler into an archive",
    infer_long_args = true,
    max_term_width = 100
)]
pub struct ArchiverArgs {
    /// The flags of `lantern archive`, which are the same but for one.
    #[command(flatten)]
    pub archive: ArchiveArgs,
}

/// Flags of `lantern archive`.
#[derive(Debug, Args)]
pub struct SignedArchiveArgs {
    /// Those of `torch-model-archiver`. Its command line takes beginnings of flags, of which no other may be one.
    #[command(flatten)]
    pub archive: ArchiveArgs,
    /// Sign the archive with this private key (PKCS #8 in PEM, as `lantern signer new` or `openssl` makes it)
    #[arg(long, value_name = "KEY.pem")]
    pub sign: Option<PathBuf>,
}

/// Flags that both command lines take.
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
    pub extra_files: Vec<String>,
    /// What the manifest says runs the handler
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

impl ArchiveFormat {
    const fn form(self) -> PackForm {
        match self {
            Self::Default => PackForm::Zip,
            Self::ZipStore => PackForm::StoredZip,
            Self::Tgz => PackForm::Tar,
            Self::NoArchive => PackForm::Directory,
        }
    }
}

/// Packs an archive, signed with the key in the file `sign` if there is one, and prints what was written.
pub fn run(args: &ArchiveArgs, sign: Option<&Path>) -> Result<ExitCode, Failure> {
    let spec = spec(args)?;
    let key = sign.map(SigningKey::load).transpose()?;
    let packed = pack_checked(&spec, key.as_ref(), |archive| {
        check(archive).map(drop).map_err(ArchiveError::Unservable)
    })?;
    for warning in &packed.warnings {
        writeln!(io::stderr().lock(), "warning: {warning}")?;
    }
    if let Some(open) = sign.filter(|file| is_open_to_others(file)) {
        let file = open.display();
        let warning = format!("others can read the private key in {file} (chmod go= {file})");
        writeln!(io::stderr().lock(), "warning: {warning}")?;
    }
    for note in notes(args) {
        writeln!(io::stderr().lock(), "note: {note}")?;
    }
    report(&mut io::stdout().lock(), &packed)?;
    Ok(ExitCode::SUCCESS)
}

fn spec(args: &ArchiveArgs) -> Result<PackSpec, Failure> {
    let Some(runtime) = Runtime::from_name(&args.runtime) else {
        let names = Runtime::ALL.map(Runtime::name).join(", ");
        let message = format!("--runtime must be one of {names}, got {:?}", args.runtime);
        return Err(Failure::new(message));
    };
    let extra_files = args.extra_files.iter().flat_map(|list| list.split(','));
    Ok(PackSpec {
        name: name(&args.model_name)?,
        version: Version::new(&args.version)?,
        runtime,
        handler: args.handler.clone().into(),
        serialized_file: args.serialized_file.clone(),
        model_file: args.model_file.clone(),
        requirements_file: args.requirements_file.clone(),
        config_file: args.config_file.clone(),
        extra_files: extra_files.map(str::to_owned).collect(),
        export_path: args.export_path.clone().unwrap_or_else(|| ".".into()),
        form: args.archive_format.form(),
        force: args.force,
    })
}

/// As `torch-model-archiver` has it: a server takes more, but files are named by it here.
fn name(text: &str) -> Result<ModelName, Failure> {
    let name = ModelName::new(text)?;
    if name.is_plain() {
        return Ok(name);
    }
    Err(Failure::new(format!(
        "--model-name must start with a letter or digit and hold only letters, digits, '_', '-' and '.', got {text:?}: \
         register the archive by any other name (model_name, --models NAME=FILE)"
    )))
}

fn notes(args: &ArchiveArgs) -> Vec<&'static str> {
    let mut notes = Vec::new();
    if args.model_file.is_some() {
        notes.push("--model-file is packed, and nothing here runs it: export the model to TorchScript or ONNX");
    }
    if args.requirements_file.is_some() {
        notes.push("--requirements-file is packed, and nothing here installs it");
    }
    notes
}

fn report(out: &mut impl Write, packed: &Packed) -> io::Result<()> {
    let size = show_size(packed.size);
    writeln!(out, "{} ({size})", packed.path.display())?;
    if let Some(digest) = &packed.digest {
        writeln!(out, "sha256 {digest}")?;
    }
    writeln!(out, "contents {}", packed.origin.digest)?;
    if let Some(signer) = &packed.origin.signer {
        writeln!(out, "signer {signer}")?;
    }
    for (name, size) in &packed.files {
        writeln!(out, "  {:>10}  {name}", show_size(*size))?;
    }
    Ok(())
}
