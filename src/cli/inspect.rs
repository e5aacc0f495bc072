//! `lantern inspect`: shows what is in an archive.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::Failure;
use super::check::check;
use crate::archive::{Contents, Examined, Location, UnpackLimits, examine};
use crate::backend::{BackendError, LoadSpec, Signature};
use crate::config::server::Environment;
use crate::error::without_frames;
use crate::handler::{self, ComponentInfo};
use crate::model::Device;
use crate::runtime::NativeLibraries;
use crate::runtime::batching::{self, BatchingOptions};
use crate::server;
use crate::signing::Signer;

mod json;
mod text;

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

/// Everything that is known of an archive.
#[derive(Debug)]
struct Report {
    archive: Examined,
    /// The handler's component, as far as it can be read.
    handler: Option<ComponentInfo>,
    /// Why a server would refuse it.
    refusal: Option<String>,
    tensors: Tensors,
}

/// Inputs and outputs of the model, as far as they are known without serving it.
#[derive(Debug, PartialEq, Eq)]
enum Tensors {
    /// The model was loaded and says so; and whether its requests would be stacked.
    Known(Signature, String),
    /// The archive's settings declare them.
    Declared(Signature),
    /// They are not known, for this reason.
    Unknown(String),
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{:#}", json::render(report))
    } else {
        text::render(&mut out, report)
    }
}

/// Reads an archive and prints its report. An archive that cannot be served is shown as well, and the command fails.
pub fn run(args: &InspectArgs) -> Result<ExitCode, Failure> {
    let archive = examine(&Location::local(&args.archive)?, UnpackLimits::default())?;
    let report = report(archive);
    match print(&report, args.json) {
        // The reader, such as `head`, has closed the pipe because it needs no more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        printed => printed?,
    }
    Ok(if report.refusal.is_some() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Whoever signed it, if the signature is good.
fn signer(report: &Report) -> Option<Signer> {
    report.archive.origin.as_ref().ok()?.signer
}

fn report(archive: Examined) -> Report {
    let checked = check(&archive);
    let (tensors, unloaded) = match &archive.contents {
        Ok(contents) if checked.is_ok() => tensors(&archive, contents, &Environment::of_process()),
        _ => (
            Tensors::Unknown("the archive cannot be served".to_owned()),
            None,
        ),
    };
    Report {
        handler: component(&archive),
        refusal: checked.err().or(unloaded),
        tensors,
        archive,
    }
}

/// What the component imports and exports, also where it is refused for that.
fn component(archive: &Examined) -> Option<ComponentInfo> {
    let contents = archive.contents.as_ref().ok()?;
    let wasm = std::fs::read(contents.handler.under(archive.directory())).ok()?;
    handler::inspect(&wasm).ok()
}

/// Inputs and outputs, and why the model does not load. One whose backend may run in this process is loaded, and tells what it
/// takes: its weights have to be trusted for that. Where the framework is not here, nothing is said against the model.
fn tensors(
    archive: &Examined,
    contents: &Contents,
    environment: &Environment,
) -> (Tensors, Option<String>) {
    let declared = &contents.config.options.declared();
    let (kind, info) = (contents.backend, contents.backend.info());
    let known = if !kind.needs_artifact() {
        Err(Unloaded::NotTried("the archive has no weights".to_owned()))
    } else if info.may_be_inline {
        load(archive, contents, environment)
    } else {
        Err(Unloaded::NotTried(format!(
            "only a {} model's worker process reads them from the file; none are declared under lantern: inputs",
            info.format
        )))
    };
    match known {
        Ok((signature, batching)) => (Tensors::Known(signature, batching), None),
        Err(Unloaded::NotTried(_)) if !declared.inputs.is_empty() => {
            (Tensors::Declared(Signature::declared(declared)), None)
        }
        Err(Unloaded::NotTried(reason)) => (Tensors::Unknown(reason), None),
        Err(Unloaded::Refused(reason)) => (Tensors::Unknown(reason.clone()), Some(reason)),
    }
}

/// Why inputs and outputs are not known from the model.
enum Unloaded {
    /// Nobody tried to load it.
    NotTried(String),
    /// It does not load, as it would not in a server.
    Refused(String),
}

impl From<BackendError> for Unloaded {
    fn from(error: BackendError) -> Self {
        let text = without_frames(&error.to_string()).to_owned();
        match error {
            BackendError::Library(_) => Self::NotTried(text),
            _ => Self::Refused(format!("The model does not load: {text}")),
        }
    }
}

/// Loads the model and tests whether its requests may be stacked, as a server does.
fn load(
    archive: &Examined,
    contents: &Contents,
    environment: &Environment,
) -> Result<(Signature, String), Unloaded> {
    let Some(artifact) = &archive.manifest.serialized_file else {
        return Err(Unloaded::NotTried("the archive has no weights".to_owned()));
    };
    let libraries = NativeLibraries {
        onnxruntime: environment.onnxruntime(),
    };
    let backend = server::backend(contents.backend, &libraries)?;
    let options = &contents.config.options;
    let spec = LoadSpec {
        artifact: artifact.under(archive.directory()),
        device: Device::Cpu,
        workers: 1,
        intra_op_threads: 1,
        declared: options.declared(),
        state: crate::model::StateSharing::default(),
        has_brief_outputs: true,
    };
    let model = backend.load(&spec)?;
    let options = BatchingOptions {
        batch_size: options.batch_size.unwrap_or(1),
        mode: options.batching.unwrap_or_default(),
        digest: &archive.digest,
        samples: contents
            .samples
            .as_ref()
            .map(|name| name.under(archive.directory())),
    };
    let batching = batching::examine(&options, Arc::clone(&model)).map_err(Unloaded::Refused)?;
    Ok((model.signature().clone(), batching.to_string()))
}
