//! Reads an unpacked archive: its manifest, its settings, and which of its files are the handler and the weights.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::config::model::ModelConfig;
use crate::model::BackendKind;

use super::component;
use super::entry::EntryName;
use super::glimpse::check_artifact;
use super::{ArchiveError, MANIFEST, Manifest};

/// Most bytes that a manifest or a file of settings may have.
pub(super) const TEXT_LIMIT: u64 = 1 << 20;

/// An unpacked archive that can be served.
#[derive(Debug, Clone, PartialEq)]
pub struct Contents {
    /// What `MANIFEST.json` says.
    pub manifest: Manifest,
    /// What `model-config.yaml` says; the default if the archive has none.
    pub config: ModelConfig,
    /// The handler's component, relative to the directory.
    pub handler: EntryName,
    /// The framework that runs the artifact.
    pub backend: BackendKind,
    /// File of sample requests to try the model with, relative to the directory.
    pub samples: Option<EntryName>,
}

impl Contents {
    /// Reads the archive that was unpacked into `directory`.
    pub fn read(directory: &Path) -> Result<Self, ArchiveError> {
        let manifest = read_manifest(directory)?;
        let config = read_config(directory, &manifest)?;
        let config = config.with_manifests_envelope(manifest.envelope.as_deref());
        Self::of(directory, manifest, config)
    }

    /// Finds the handler and the weights among the files.
    fn of(directory: &Path, manifest: Manifest, config: ModelConfig) -> Result<Self, ArchiveError> {
        Ok(Self {
            handler: handler(directory, &manifest, &config)?,
            backend: backend(directory, &manifest, &config)?,
            samples: samples(directory, &config)?,
            manifest,
            config,
        })
    }
}

/// The manifest in `directory`.
pub fn read_manifest(directory: &Path) -> Result<Manifest, ArchiveError> {
    Manifest::parse(&read_text(directory, MANIFEST, "manifest")?)
}

fn read_text(directory: &Path, name: &str, what: &str) -> Result<Vec<u8>, ArchiveError> {
    let missing = |_| {
        ArchiveError::Manifest(format!(
            "the archive has no {name}, which would be its {what}"
        ))
    };
    let file = File::open(directory.join(name)).map_err(missing)?;
    let mut content = Vec::new();
    file.take(TEXT_LIMIT + 1)
        .read_to_end(&mut content)
        .map_err(ArchiveError::io("reading an unpacked file"))?;
    if content.len() as u64 > TEXT_LIMIT {
        let value = format!("more than {TEXT_LIMIT} bytes");
        return Err(ArchiveError::entry(name.as_bytes(), "is too large", value));
    }
    Ok(content)
}

fn read_config(directory: &Path, manifest: &Manifest) -> Result<ModelConfig, ArchiveError> {
    let Some(name) = &manifest.config_file else {
        return Ok(ModelConfig::default());
    };
    let content = read_text(directory, name.as_str(), "configFile")?;
    Ok(ModelConfig::parse(name.as_str(), &content)?)
}

/// The handler's component, which the settings name, or else the manifest.
fn handler(
    directory: &Path,
    manifest: &Manifest,
    config: &ModelConfig,
) -> Result<EntryName, ArchiveError> {
    let named = config
        .options
        .handler
        .as_deref()
        .or(manifest.handler.as_deref());
    let named = named.unwrap_or_default();
    if !component::is_named_wasm(named) {
        return Err(ArchiveError::Unservable(format!(
            "the archive has no handler that can be run here: its handler is {named:?}, and Python is not run. Build the \
             handler as a WebAssembly component and pack it with `lantern archive --handler NAME.wasm`, or add it to \
             --extra-files of torch-model-archiver and name it in the --config-file as `lantern: {{handler: NAME.wasm}}`"
        )));
    }
    let Some(name) = EntryName::parse(named.as_bytes())? else {
        return Err(ArchiveError::entry(
            named.as_bytes(),
            "must name the handler",
            named,
        ));
    };
    let mut start = Vec::new();
    let file = File::open(name.under(directory)).map_err(|_| {
        ArchiveError::Unservable(format!(
            "the archive has no file {named:?}, which would be its handler"
        ))
    })?;
    file.take(component::HEADER.len() as u64)
        .read_to_end(&mut start)
        .map_err(ArchiveError::io("reading the handler"))?;
    component::check_header(named, &start)?;
    Ok(name)
}

/// The file that `lantern: samples` names.
fn samples(directory: &Path, config: &ModelConfig) -> Result<Option<EntryName>, ArchiveError> {
    let Some(named) = config.options.samples.as_deref() else {
        return Ok(None);
    };
    let name = EntryName::parse(named.as_bytes())?;
    match name {
        Some(name) if name.under(directory).is_file() => Ok(Some(name)),
        _ => Err(ArchiveError::Unservable(format!(
            "the archive has no file {named:?}, which would be its lantern.samples: add it to --extra-files"
        ))),
    }
}

/// The framework, which the settings name, or else the artifact's extension tells.
fn backend(
    directory: &Path,
    manifest: &Manifest,
    config: &ModelConfig,
) -> Result<BackendKind, ArchiveError> {
    let named = config.options.backend;
    let Some(artifact) = &manifest.serialized_file else {
        return without_artifact(named);
    };
    let name = artifact.as_str();
    if !artifact.under(directory).is_file() {
        let message =
            format!("the archive has no file {name:?}, which would be its serializedFile");
        return Err(ArchiveError::Unservable(message));
    }
    let kind = named.or_else(|| BackendKind::of_artifact(name));
    check_artifact(name, &artifact.under(directory), kind)?;
    kind.ok_or_else(|| {
        let advice = BackendKind::advice();
        ArchiveError::Unservable(format!("cannot tell what runs {name:?}: {advice}"))
    })
}

/// The framework as far as names tell it. No file is opened.
pub(super) fn backend_of(manifest: &Manifest, config: &ModelConfig) -> Option<BackendKind> {
    let by_name = || match &manifest.serialized_file {
        Some(artifact) => BackendKind::of_artifact(artifact.as_str()),
        None => Some(BackendKind::None),
    };
    config.options.backend.or_else(by_name)
}

/// The backend of an archive without weights: its handler answers every request by itself.
fn without_artifact(named: Option<BackendKind>) -> Result<BackendKind, ArchiveError> {
    let kind = named.unwrap_or(BackendKind::None);
    if kind.needs_artifact() {
        return Err(ArchiveError::Unservable(format!(
            "the archive has no weights for the backend {}: pack it with --serialized-file",
            kind.name()
        )));
    }
    Ok(kind)
}
