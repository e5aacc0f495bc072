//! Unpacked archives: each once, by digest, for as long as somebody needs it.
//!
//! A process has a directory of its own under the root and holds a lock in it. Whoever starts later removes the
//! directories of processes that are gone, which is those whose lock is free.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::config::model::{ModelConfig, Resolved};
use crate::model::{BackendKind, ModelName, ModelSpec, Version};

use super::component;
use super::digest::sha256;
use super::entry::EntryName;
use super::limits::UnpackLimits;
use super::source::{self, Unpacker};
use super::store::Location;
use super::{ArchiveError, MANIFEST, Manifest};

/// Most bytes that a manifest may have.
const MANIFEST_LIMIT: u64 = 1 << 20;
/// Name of the lock in a process's directory.
const LOCK: &str = "lock";

/// Where archives are unpacked to. Cheap to clone; the directory goes with the last clone and the last lease.
#[derive(Debug, Clone)]
pub struct UnpackStore(Arc<Home>);

#[derive(Debug)]
struct Home {
    directory: PathBuf,
    limits: UnpackLimits,
    /// One for each digest ever seen; kept, so that two threads never hold two for one directory.
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    /// Held for as long as the directory is in use.
    _lock: File,
}

/// One digest. Its lock is held while the archive is being unpacked or removed.
#[derive(Debug, Default)]
struct Slot(Mutex<Occupant>);

#[derive(Debug, Default)]
struct Occupant {
    contents: Weak<Contents>,
    generation: u64,
}

/// A lease on an unpacked archive. The files stay while any clone lives. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Unpacked(Arc<Contents>);

#[derive(Debug)]
struct Contents {
    digest: String,
    directory: PathBuf,
    manifest: Manifest,
    config: ModelConfig,
    handler: EntryName,
    backend: BackendKind,
    generation: u64,
    slot: Arc<Slot>,
    /// Keeps the process's directory for as long as there is a lease.
    _home: Arc<Home>,
}

impl UnpackStore {
    /// Takes a directory under `root`, which is made if it is missing, and removes what dead processes left there.
    pub fn open(root: &Path, limits: UnpackLimits) -> Result<Self, ArchiveError> {
        let doing = ArchiveError::io;
        fs::create_dir_all(root).map_err(doing("making the directory for unpacked archives"))?;
        // Sweeping and making are one step: a directory is never seen before its lock is held.
        let gate = File::create(root.join(LOCK)).map_err(doing("locking unpacked archives"))?;
        gate.lock().map_err(doing("locking unpacked archives"))?;
        sweep(root);
        let directory = root.join(uuid::Uuid::new_v4().simple().to_string());
        fs::create_dir(&directory).map_err(doing("making the directory for unpacked archives"))?;
        let lock =
            File::create(directory.join(LOCK)).map_err(doing("locking unpacked archives"))?;
        lock.lock().map_err(doing("locking unpacked archives"))?;
        Ok(Self(Arc::new(Home {
            directory,
            limits,
            slots: Mutex::default(),
            _lock: lock,
        })))
    }

    /// Unpacks the archive at `location`, or shares what an equal archive was unpacked to. Blocks for as long as
    /// reading it takes.
    pub fn unpack(&self, location: &Location) -> Result<Unpacked, ArchiveError> {
        let source = Source::open(location, self.0.limits)?;
        let slot = self.slot(&source.digest);
        let mut occupant = slot.0.lock();
        if let Some(contents) = occupant.contents.upgrade() {
            return Ok(Unpacked(contents));
        }
        occupant.generation += 1;
        let directory = self.0.fill(&source)?;
        let contents = Contents::read(self, &slot, occupant.generation, source.digest, &directory);
        let contents = contents.inspect_err(|_| remove(&directory))?;
        let contents = Arc::new(contents);
        occupant.contents = Arc::downgrade(&contents);
        Ok(Unpacked(contents))
    }

    fn slot(&self, digest: &str) -> Arc<Slot> {
        let mut slots = self.0.slots.lock();
        Arc::clone(slots.entry(digest.to_owned()).or_default())
    }
}

impl Home {
    /// Unpacks into a directory beside the final one, and renames.
    fn fill(&self, source: &Source) -> Result<PathBuf, ArchiveError> {
        let directory = self.directory.join(&source.digest);
        remove(&directory);
        let partial = tempfile::Builder::new()
            .prefix("partial-")
            .tempdir_in(&self.directory)
            .map_err(ArchiveError::io("making an unpacked directory"))?;
        source.read(partial.path(), self.limits)?;
        fs::rename(partial.path(), &directory)
            .map_err(ArchiveError::io("naming an unpacked directory"))?;
        let _ = partial.keep();
        Ok(directory)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

impl Drop for Contents {
    fn drop(&mut self) {
        let occupant = self.slot.0.lock();
        // Somebody may have unpacked it anew since the last lease went.
        if occupant.generation == self.generation {
            remove(&self.directory);
        }
    }
}

impl Contents {
    fn read(
        store: &UnpackStore,
        slot: &Arc<Slot>,
        generation: u64,
        digest: String,
        directory: &Path,
    ) -> Result<Self, ArchiveError> {
        let manifest = Manifest::parse(&read_limited(
            directory,
            MANIFEST,
            "manifest",
            MANIFEST_LIMIT,
        )?)?;
        let config = read_config(directory, &manifest)?;
        let handler = handler(directory, &manifest, &config)?;
        let backend = backend(directory, &manifest, &config)?;
        Ok(Self {
            digest,
            directory: directory.to_owned(),
            manifest,
            config,
            handler,
            backend,
            generation,
            slot: Arc::clone(slot),
            _home: Arc::clone(&store.0),
        })
    }
}

impl Unpacked {
    /// SHA-256 of the archive, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.0.digest
    }

    /// Where its files lie.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// Its `model-config.yaml`; the default if it has none.
    pub fn config(&self) -> &ModelConfig {
        &self.0.config
    }

    /// The handler's component, relative to the directory.
    pub fn handler(&self) -> &str {
        self.0.handler.as_str()
    }

    /// The framework that runs the artifact.
    pub fn backend(&self) -> BackendKind {
        self.0.backend
    }

    /// What a runtime is loaded from, under the name and version that it is registered with.
    pub fn spec(&self, name: ModelName, version: Version, resolved: &Resolved) -> ModelSpec {
        let artifact = self.0.manifest.serialized_file.as_ref();
        ModelSpec {
            name,
            version,
            directory: self.0.directory.clone(),
            artifact: artifact
                .map(|name| name.as_str().into())
                .unwrap_or_default(),
            handler: self.0.handler.as_str().into(),
            backend: self.0.backend,
            declared: self.0.config.options.declared.clone(),
            manifest: self.0.manifest.text.clone(),
            config: self.0.config.json.clone(),
            properties: std::collections::BTreeMap::new(),
            settings: resolved.settings.clone(),
            limits: resolved.limits.clone(),
        }
    }
}

/// An archive that was opened and digested.
struct Source {
    digest: String,
    form: Form,
}

enum Form {
    Zip(File),
    Tar(File),
    Directory(PathBuf),
}

impl Source {
    fn open(location: &Location, limits: UnpackLimits) -> Result<Self, ArchiveError> {
        let path = location.path();
        if path.is_dir() {
            let digest = source::directory_digest(path, limits)?;
            let form = Form::Directory(path.to_owned());
            return Ok(Self { digest, form });
        }
        let missing = |_| ArchiveError::NotFound(location.url().to_owned());
        let mut file = File::open(path).map_err(missing)?;
        let digest = sha256(&mut file).map_err(ArchiveError::io("reading the archive"))?;
        file.rewind()
            .map_err(ArchiveError::io("reading the archive"))?;
        let is_zip = path.extension().is_some_and(|extension| extension == "mar");
        Ok(Self {
            digest,
            form: if is_zip {
                Form::Zip(file)
            } else {
                Form::Tar(file)
            },
        })
    }

    fn read(&self, directory: &Path, limits: UnpackLimits) -> Result<(), ArchiveError> {
        let mut unpacker = Unpacker::new(directory, limits);
        match &self.form {
            Form::Zip(file) => source::read_zip(file, &mut unpacker),
            Form::Tar(file) => source::read_tar(file, &mut unpacker),
            Form::Directory(path) => source::read_directory(path, limits, &mut unpacker),
        }
    }
}

fn read_limited(
    directory: &Path,
    name: &str,
    what: &str,
    limit: u64,
) -> Result<Vec<u8>, ArchiveError> {
    let missing = |_| {
        ArchiveError::Manifest(format!(
            "the archive has no {name}, which would be its {what}"
        ))
    };
    let file = File::open(directory.join(name)).map_err(missing)?;
    let mut content = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut content)
        .map_err(ArchiveError::io("reading an unpacked file"))?;
    if content.len() as u64 > limit {
        let value = format!("more than {limit} bytes");
        return Err(ArchiveError::entry(name.as_bytes(), "is too large", value));
    }
    Ok(content)
}

fn read_config(directory: &Path, manifest: &Manifest) -> Result<ModelConfig, ArchiveError> {
    let Some(name) = &manifest.config_file else {
        return Ok(ModelConfig::default());
    };
    let content = read_limited(directory, name.as_str(), "configFile", MANIFEST_LIMIT)?;
    Ok(ModelConfig::parse(name.as_str(), &content)?)
}

/// The component: named by the settings, else by the manifest.
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
    if !named.ends_with(".wasm") {
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

/// The framework: named by the settings, else by the artifact's extension.
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
    let by_extension = match name.rsplit('.').next() {
        Some("onnx") => Some(BackendKind::Onnx),
        Some("pt" | "pth" | "ts" | "torchscript") => Some(BackendKind::Torch),
        _ => None,
    };
    named.or(by_extension).ok_or_else(|| {
        ArchiveError::Unservable(format!(
            "cannot tell what runs {name:?}: name it .pt or .onnx, or set `lantern: {{backend: torch}}` or `onnx`"
        ))
    })
}

/// An archive without weights has a handler that answers by itself.
fn without_artifact(named: Option<BackendKind>) -> Result<BackendKind, ArchiveError> {
    match named {
        None => Ok(BackendKind::None),
        Some(kind @ (BackendKind::None | BackendKind::Fake)) => Ok(kind),
        Some(kind @ (BackendKind::Torch | BackendKind::Onnx)) => {
            Err(ArchiveError::Unservable(format!(
                "the archive has no weights for the backend {}: pack it with --serialized-file",
                kind.name()
            )))
        }
    }
}

/// Removes the directories whose process is gone.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else {
        return;
    };
    for directory in entries.flatten().map(|entry| entry.path()) {
        let Ok(lock) = File::open(directory.join(LOCK)) else {
            continue;
        };
        if lock.try_lock().is_ok() {
            remove(&directory);
        }
    }
}

/// What cannot be removed is left for the next sweep.
fn remove(directory: &Path) {
    match fs::remove_dir_all(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, "an unpacked archive was not removed"),
    }
}
