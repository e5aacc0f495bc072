//! `lantern inspect`: shows what is in an archive.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::Failure;
use crate::archive::{Contents, Examined, Location, UnpackLimits, examine};
use crate::backend::{LoadSpec, Signature};
use crate::config::server::Environment;
use crate::handler::{self, ComponentInfo};
use crate::model::Device;
use crate::runtime::NativeLibraries;
use crate::runtime::batching::{self, BatchingOptions};
use crate::server;

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
    /// The handler's component, or why it cannot be a handler.
    handler: Option<Result<ComponentInfo, String>>,
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
    let report = Report {
        handler: component(&archive)?,
        tensors: tensors(&archive, &Environment::of_process()),
        archive,
    };
    match print(&report, args.json) {
        // The reader, such as `head`, has closed the pipe because it needs no more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        printed => printed?,
    }
    Ok(if report.refusal().is_some() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

impl Report {
    /// Why the archive cannot be served.
    fn refusal(&self) -> Option<String> {
        match (&self.archive.contents, &self.handler) {
            (Err(error), _) => Some(error.to_string()),
            (_, Some(Err(reason))) => Some(reason.clone()),
            (_, Some(Ok(info))) if !info.forbidden.is_empty() => Some(format!(
                "The handler imports what handlers may not have: {}",
                info.forbidden.join(", ")
            )),
            (_, Some(Ok(info))) if info.world.is_none() => {
                Some("The handler exports no pipeline that this server runs".to_owned())
            }
            _ => None,
        }
    }
}

fn component(archive: &Examined) -> Result<Option<Result<ComponentInfo, String>>, Failure> {
    let Ok(contents) = &archive.contents else {
        return Ok(None);
    };
    let wasm = std::fs::read(contents.handler.under(archive.directory()))?;
    Ok(Some(
        handler::inspect(&wasm).map_err(|error| error.to_string()),
    ))
}

/// A model whose backend may run in this process is loaded, and tells what it takes: its weights have to be trusted for that.
fn tensors(archive: &Examined, environment: &Environment) -> Tensors {
    let Ok(contents) = &archive.contents else {
        return Tensors::Unknown("the archive cannot be served".to_owned());
    };
    let declared = &contents.config.options.declared();
    let (kind, info) = (contents.backend, contents.backend.info());
    let known = if !kind.needs_artifact() {
        Err("the archive has no weights".to_owned())
    } else if info.may_be_inline {
        load(archive, contents, environment)
    } else {
        Err(format!(
            "only a {} model's worker process reads them from the file; none are declared under lantern: inputs",
            info.format
        ))
    };
    match known {
        Ok((signature, batching)) => Tensors::Known(signature, batching),
        Err(_) if !declared.inputs.is_empty() => Tensors::Declared(Signature::declared(declared)),
        Err(reason) => Tensors::Unknown(reason),
    }
}

/// Loads the model and tests whether its requests may be stacked, as a server does.
fn load(
    archive: &Examined,
    contents: &Contents,
    environment: &Environment,
) -> Result<(Signature, String), String> {
    let Some(artifact) = &archive.manifest.serialized_file else {
        return Err("the archive has no weights".to_owned());
    };
    let libraries = NativeLibraries {
        onnxruntime: environment.onnxruntime(),
    };
    let backend =
        server::backend(contents.backend, &libraries).map_err(|error| error.to_string())?;
    let options = &contents.config.options;
    let spec = LoadSpec {
        artifact: artifact.under(archive.directory()),
        device: Device::Cpu,
        workers: 1,
        intra_op_threads: 1,
        declared: options.declared(),
        state: crate::model::StateSharing::default(),
    };
    let model = backend.load(&spec).map_err(|error| error.to_string())?;
    let options = BatchingOptions {
        batch_size: options.batch_size.unwrap_or(1),
        mode: options.batching.unwrap_or_default(),
        digest: &archive.digest,
        samples: contents
            .samples
            .as_ref()
            .map(|name| name.under(archive.directory())),
    };
    let batching = batching::examine(&options, Arc::clone(&model))?;
    Ok((model.signature().clone(), batching.to_string()))
}
