//! Unpacked archives. Archives of one digest are unpacked once, and removed when the last lease is dropped.
//!
//! A process has a directory of its own under the root and holds a lock in it. A process that starts later removes the
//! directories whose lock is free: their processes have ended.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::config::model::Resolved;
use crate::model::{ModelName, ModelSpec, Version};

use super::ArchiveError;
use super::contents::Contents;
use super::limits::UnpackLimits;
use super::source::Source;
use super::store::Location;

/// Name of the lock in a process's directory.
const LOCK: &str = "lock";

/// Where archives are unpacked to. Cheap to clone; the directory is removed with the last clone and the last lease.
#[derive(Debug, Clone)]
pub struct UnpackStore(Arc<UnpackDirectory>);

#[derive(Debug)]
struct UnpackDirectory {
    directory: PathBuf,
    limits: UnpackLimits,
    /// One for each digest ever seen. None is removed, so that two threads never have two states for one directory.
    digests: DashMap<String, Arc<DigestState>>,
    /// Held for as long as the directory is in use.
    _lock: File,
}

/// State of one digest. Its lock is held while the archive is being unpacked or removed.
#[derive(Debug, Default)]
struct DigestState(Mutex<CurrentLease>);

#[derive(Debug, Default)]
struct CurrentLease {
    lease: Weak<Lease>,
    generation: u64,
}

/// A lease on an unpacked archive. The files stay while any clone lives. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Unpacked(Arc<Lease>);

#[derive(Debug)]
struct Lease {
    digest: String,
    directory: PathBuf,
    contents: Contents,
    generation: u64,
    state: Arc<DigestState>,
    /// Keeps the process's directory for as long as there is a lease.
    _parent: Arc<UnpackDirectory>,
}

impl UnpackStore {
    /// Makes a directory under `root`, which is created if it is missing, and removes those of processes that have ended.
    pub fn open(root: &Path, limits: UnpackLimits) -> Result<Self, ArchiveError> {
        let doing = ArchiveError::io;
        make_private(root).map_err(doing("making the directory for unpacked archives"))?;
        // Removing old directories and making a new one happen under one lock, so that no process sees a directory
        // before its lock is held.
        let gate = File::create(root.join(LOCK)).map_err(doing("locking unpacked archives"))?;
        gate.lock().map_err(doing("locking unpacked archives"))?;
        sweep(root);
        let directory = root.join(uuid::Uuid::new_v4().simple().to_string());
        fs::create_dir(&directory).map_err(doing("making the directory for unpacked archives"))?;
        let lock =
            File::create(directory.join(LOCK)).map_err(doing("locking unpacked archives"))?;
        lock.lock().map_err(doing("locking unpacked archives"))?;
        Ok(Self(Arc::new(UnpackDirectory {
            directory,
            limits,
            digests: DashMap::new(),
            _lock: lock,
        })))
    }

    /// The directory of this process, which is removed when it ends.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// Unpacks the archive at `location`, or shares what an equal archive was unpacked to. Blocks for as long as
    /// reading it takes.
    pub fn unpack(&self, location: &Location) -> Result<Unpacked, ArchiveError> {
        let source = Source::open(location, self.0.limits)?;
        if let Some(pinned) = location.digest().filter(|pinned| *pinned != source.digest) {
            let rule = "must have the SHA-256 that its URL pins";
            return Err(ArchiveError::archive(
                rule,
                format!("{}, not {pinned}", source.digest),
            ));
        }
        let state = self.state(&source.digest);
        let mut current = state.0.lock();
        if let Some(lease) = current.lease.upgrade() {
            return Ok(Unpacked(lease));
        }
        current.generation += 1;
        let directory = self.0.fill(&source)?;
        let contents = Contents::read(&directory).inspect_err(|_| remove(&directory))?;
        let lease = Arc::new(Lease {
            digest: source.digest,
            directory,
            contents,
            generation: current.generation,
            state: Arc::clone(&state),
            _parent: Arc::clone(&self.0),
        });
        current.lease = Arc::downgrade(&lease);
        Ok(Unpacked(lease))
    }

    fn state(&self, digest: &str) -> Arc<DigestState> {
        Arc::clone(&self.0.digests.entry(digest.to_owned()).or_default())
    }
}

impl UnpackDirectory {
    /// Unpacks into a directory beside the final one, and renames it when it is complete.
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

impl Drop for UnpackDirectory {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let current = self.state.0.lock();
        // Another thread may have unpacked the archive again after the last lease was dropped.
        if current.generation == self.generation {
            remove(&self.directory);
        }
    }
}

impl Unpacked {
    /// SHA-256 of the archive, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.0.digest
    }

    /// The directory that its files are in.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// What was read from its files.
    pub fn contents(&self) -> &Contents {
        &self.0.contents
    }

    /// The specification from which a runtime is loaded, under the name and version of the registration.
    pub fn spec(&self, name: ModelName, version: Version, resolved: &Resolved) -> ModelSpec {
        let contents = &self.0.contents;
        let artifact = contents.manifest.serialized_file.as_ref();
        ModelSpec {
            digest: self.digest().to_owned(),
            samples: contents.samples.as_ref().map(|name| name.as_str().into()),
            name,
            version,
            directory: self.0.directory.clone(),
            artifact: artifact
                .map(|name| name.as_str().into())
                .unwrap_or_default(),
            handler: contents.handler.as_str().into(),
            backend: contents.backend,
            declared: contents.config.options.declared(),
            manifest: contents.manifest.text.clone(),
            config: contents.config.json.clone(),
            properties: std::collections::BTreeMap::new(),
            settings: resolved.settings.clone(),
            limits: resolved.limits.clone(),
        }
    }
}

/// Makes the root, and fails unless it belongs to this user and is closed to others: whoever can write to it decides
/// which code is run, and it often lies in a directory that anybody may write to.
fn make_private(root: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(root)?;
    let found = fs::symlink_metadata(root)?;
    let is_ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw();
    if is_ours && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    let rule = "it must be a directory of this user's that others cannot write to";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, rule))
}

/// Removes the directories of processes that have ended.
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

/// Removes a directory. If that fails, a later sweep tries again.
fn remove(directory: &Path) {
    match fs::remove_dir_all(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, "an unpacked archive was not removed"),
    }
}
