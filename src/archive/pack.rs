//! Makes archives, as `torch-model-archiver` does.
//!
//! The same files always make the same bytes, so that an archive that was packed again has the same digest: entries are
//! ordered by name with the manifest and the signature last, their times are the first day that zip knows, their permissions are always the
//! same, and the manifest has no `createdOn`, which no server reads. A key makes the same signature each time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::config::Problem;
use crate::config::model::ModelConfig;
use crate::model::{ModelName, Version};

use super::component;
use super::digest::{Digesting, sha256};
use super::entry::EntryName;
use super::inventory::{Inventory, Origin};
use super::signature::Claim;
use super::{
    ArchiveError, Examined, Location, MANIFEST, Runtime, SIGNATURE, UnpackLimits, examine,
};
use crate::signing::SigningKey;

mod extra;
mod write;

/// Names of the Python handlers that come with TorchServe.
const BUILT_IN: [&str; 8] = [
    "base_handler",
    "text_classifier",
    "image_classifier",
    "object_detector",
    "image_segmenter",
    "dali_image_classifier",
    "vllm_handler",
    "trt_llm_handler",
];

/// Files that are written here, and what is said of others by their names.
const WRITTEN: [(&str, &str); 2] = [
    (MANIFEST, "must not be packed: the manifest is written here"),
    (SIGNATURE, "must not be packed: --sign writes the signature"),
];
const READING: &str = "reading a file to pack";

/// What to pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackSpec {
    /// Name of the model and of the archive.
    pub name: ModelName,
    /// Version of the model.
    pub version: Version,
    /// Runtime that the manifest names.
    pub runtime: Runtime,
    /// The handler's component.
    pub handler: PathBuf,
    /// The file of the weights.
    pub serialized_file: Option<PathBuf>,
    /// A file with a Python class. It is packed, and nothing reads it.
    pub model_file: Option<PathBuf>,
    /// A file of Python requirements. It is packed, and nothing reads it.
    pub requirements_file: Option<PathBuf>,
    /// The file of the settings, `model-config.yaml`.
    pub config_file: Option<PathBuf>,
    /// More files: names, wildcards and directories.
    pub extra_files: Vec<String>,
    /// Directory to write to.
    pub export_path: PathBuf,
    /// What kind of archive to make.
    pub form: PackForm,
    /// Whether to replace an archive that is there.
    pub force: bool,
}

/// Kinds of archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackForm {
    /// A compressed `.mar`.
    Zip,
    /// A `.mar` without compression.
    StoredZip,
    /// A `.tar.gz`.
    Tar,
    /// A directory.
    Directory,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Path of the archive.
    pub path: PathBuf,
    /// Bytes of the archive, or of the directory's files.
    pub size: u64,
    /// SHA-256 of the archive; none for a directory.
    pub digest: Option<String>,
    /// Digest of its contents, and who signed it.
    pub origin: Origin,
    /// Entries and their sizes, in order.
    pub files: Vec<(String, u64)>,
    /// Settings of the model that have no effect, each with the reason.
    pub warnings: Vec<Problem>,
}

/// Files by their name in the archive.
#[derive(Debug, Default)]
struct Files(BTreeMap<EntryName, PathBuf>);

/// What is written beside the files: the manifest, and the signature of an archive that is signed. By name, in order.
type Texts = [(&'static str, String)];

/// Packs an archive. It gets its name when it is complete, so that an existing archive is replaced as a whole or not at all.
pub fn pack(spec: &PackSpec) -> Result<Packed, ArchiveError> {
    pack_checked(spec, None, |_| Ok(()))
}

/// Packs an archive that passes `check` before it gets its name, and is signed with `key` if there is one.
pub fn pack_checked(
    spec: &PackSpec,
    key: Option<&SigningKey>,
    check: impl FnOnce(&Examined) -> Result<(), ArchiveError>,
) -> Result<Packed, ArchiveError> {
    let target = target(spec)?;
    check_handler(&spec.handler)?;
    let warnings = check_config(spec.config_file.as_deref())?;
    let mut files = Files::default();
    let mut texts = vec![(MANIFEST, gather(spec, &mut files)?)];
    if let Some(key) = key {
        let digest = inventory(&files, &texts)?.digest();
        texts.push((SIGNATURE, Claim::made(key, &digest).text()));
    }
    let origin = stage(spec, (&files, &texts), &target, check)?;
    let mut sizes = Vec::new();
    for (name, path) in &files.0 {
        let metadata = fs::metadata(path).map_err(ArchiveError::io(READING))?;
        sizes.push((name.as_str().to_owned(), metadata.len()));
    }
    let texts = texts.into_iter();
    sizes.extend(texts.map(|(name, text)| (name.to_owned(), text.len() as u64)));
    let (size, digest) = summary(&target, &sizes)?;
    Ok(Packed {
        path: target,
        size,
        digest,
        origin,
        files: sizes,
        warnings,
    })
}

/// What a server will find in the archive.
fn inventory(files: &Files, texts: &Texts) -> Result<Inventory, ArchiveError> {
    let reading = || ArchiveError::io(READING);
    let mut inventory = Inventory::default();
    for (name, path) in &files.0 {
        let mut digesting = Digesting::new(io::sink());
        let mut file = File::open(path).map_err(reading())?;
        let bytes = io::copy(&mut file, &mut digesting).map_err(reading())?;
        inventory.file(name, bytes, digesting.sha256());
    }
    for (name, text) in texts {
        if let Some(name) = EntryName::parse(name.as_bytes())? {
            let sha256 = Sha256::digest(text.as_bytes()).into();
            inventory.file(&name, text.len() as u64, sha256);
        }
    }
    Ok(inventory)
}

/// Writes the archive beside its final path, checks it as a server will, and moves it there.
fn stage(
    spec: &PackSpec,
    (files, texts): (&Files, &Texts),
    target: &Path,
    check: impl FnOnce(&Examined) -> Result<(), ArchiveError>,
) -> Result<Origin, ArchiveError> {
    let staging = tempfile::Builder::new()
        .prefix(".packing-")
        .tempdir_in(&spec.export_path)
        .map_err(ArchiveError::io("writing the archive"))?;
    let staged = staging.path().join(target.file_name().unwrap_or_default());
    write::write(spec, &files.0, texts, &staged)?;
    let examined = examine(&Location::local(&staged)?, UnpackLimits::default())?;
    check(&examined)?;
    examined.contents?;
    // A file that changed meanwhile is not what was signed.
    let origin = examined.origin?;
    write::replace(&staged, target)?;
    Ok(origin)
}

/// The archive's path. Fails if there is one already that must not be replaced.
fn target(spec: &PackSpec) -> Result<PathBuf, ArchiveError> {
    if !spec.export_path.is_dir() {
        let rule = format!(
            "Given export-path {} is not a directory.",
            spec.export_path.display()
        );
        return Err(ArchiveError::Unservable(rule));
    }
    let name = match spec.form {
        PackForm::Zip | PackForm::StoredZip => format!("{}.mar", spec.name),
        PackForm::Tar => format!("{}.tar.gz", spec.name),
        PackForm::Directory => spec.name.to_string(),
    };
    let path = spec.export_path.join(name);
    if path.exists() && !spec.force {
        return Err(ArchiveError::Unservable(format!(
            "{} already exists.\nPlease specify --force/-f option to overwrite the model archive output file.\nSee \
             -h/--help for more details.",
            path.display()
        )));
    }
    Ok(path)
}

fn check_handler(path: &Path) -> Result<(), ArchiveError> {
    let shown = path.display().to_string();
    if BUILT_IN.contains(&shown.as_str()) {
        return Err(ArchiveError::Unservable(format!(
            "the handler {shown:?} is built into TorchServe, in Python; this release has no built-in handlers. Name a \
             WebAssembly component instead: --handler NAME.wasm"
        )));
    }
    if !component::is_named_wasm(&shown) {
        return Err(ArchiveError::Unservable(format!(
            "the handler {shown:?} must be a WebAssembly component (.wasm): Python is not run here. `handler-sdk` says \
             how to build one"
        )));
    }
    let wasm = fs::read(path).map_err(|_| missing(path))?;
    component::check_handler(&shown, &wasm)
}

fn check_config(path: Option<&Path>) -> Result<Vec<Problem>, ArchiveError> {
    let Some(path) = path else {
        return Ok(Vec::new());
    };
    let text = fs::read(path).map_err(|_| missing(path))?;
    let config = ModelConfig::parse(&path.display().to_string(), &text)?;
    Ok(config.warnings)
}

/// Collects every file under the name that it gets in the archive, and returns the text of the manifest.
fn gather(spec: &PackSpec, files: &mut Files) -> Result<String, ArchiveError> {
    let mut model = serde_json::Map::new();
    model.insert("modelName".to_owned(), json!(spec.name.as_str()));
    let members = [
        ("serializedFile", spec.serialized_file.as_ref()),
        ("handler", Some(&spec.handler)),
        ("modelFile", spec.model_file.as_ref()),
        ("requirementsFile", spec.requirements_file.as_ref()),
        ("configFile", spec.config_file.as_ref()),
    ];
    for (member, path) in members {
        if let Some(path) = path {
            model.insert(member.to_owned(), json!(files.take(path)?));
        }
    }
    model.insert("modelVersion".to_owned(), json!(spec.version.as_str()));
    for (name, path) in extra::expand(&spec.extra_files)? {
        files.insert(name, &path)?;
    }
    let manifest = json!({
        "runtime": spec.runtime.name(),
        "model": model,
        "archiverVersion": concat!("lantern-", env!("CARGO_PKG_VERSION")),
    });
    let text = serde_json::to_string_pretty(&manifest);
    text.map_err(|error| ArchiveError::Manifest(error.to_string()))
}

impl Files {
    /// Adds a file under its own name, at the root of the archive.
    fn take(&mut self, path: &Path) -> Result<String, ArchiveError> {
        if !path.is_file() {
            return Err(missing(path));
        }
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let Some(entry) = EntryName::parse(name.as_bytes())? else {
            return Err(missing(path));
        };
        self.insert(entry, path)?;
        Ok(name)
    }

    /// Adds a file. Fails if another file has the name, which it would silently replace.
    fn insert(&mut self, name: EntryName, path: &Path) -> Result<(), ArchiveError> {
        for (written, rule) in WRITTEN {
            if name.as_str().eq_ignore_ascii_case(written) {
                return Err(ArchiveError::entry(name.bytes(), rule, path.display()));
            }
        }
        let same = |other: &&EntryName| other.as_str().eq_ignore_ascii_case(name.as_str());
        if let Some(other) = self.0.keys().find(same) {
            let other_path = &self.0[other];
            if fs::canonicalize(other_path).ok() == fs::canonicalize(path).ok() {
                return Ok(());
            }
            let value = format!("{} and {}", other_path.display(), path.display());
            return Err(ArchiveError::entry(name.bytes(), "must be one file", value));
        }
        self.0.insert(name, path.to_owned());
        Ok(())
    }
}

fn summary(target: &Path, files: &[(String, u64)]) -> Result<(u64, Option<String>), ArchiveError> {
    if target.is_dir() {
        return Ok((files.iter().map(|(_, size)| size).sum(), None));
    }
    let doing = "reading the archive that was written";
    let file = File::open(target).map_err(ArchiveError::io(doing))?;
    let size = file.metadata().map_err(ArchiveError::io(doing))?.len();
    let digest = sha256(file).map_err(ArchiveError::io(doing))?;
    Ok((size, Some(digest)))
}

/// The error for a missing file, with the text of `torch-model-archiver`.
fn missing(path: &Path) -> ArchiveError {
    ArchiveError::Unservable(format!("File does not exist: {}", path.display()))
}

#[cfg(test)]
mod tests;
