//! Unpacked archives. Archives of one digest are unpacked once, and removed when the last lease is dropped.
//!
//! A process has a directory of its own under the root and holds a lock in it. A process that starts later removes the
//! directories whose lock is free: their processes have ended. Other programs remove files as well: those that clean
//! directories of temporary files. What they removed is unpacked again before it is needed, from the same archive.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use parking_lot::Mutex;
use rustix::fs::OFlags;

use crate::config::model::Resolved;
use crate::model::{ModelName, ModelSpec, Version};
use crate::place;

use super::ArchiveError;
use super::contents::Contents;
use super::inventory::Origin;
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
    root: PathBuf,
    directory: PathBuf,
    limits: UnpackLimits,
    /// One for each digest ever seen. None is removed, so that two threads never have two digests for one directory.
    digests: DashMap<String, Arc<DigestState>>,
    /// Held for as long as the directory is in use.
    lock: Mutex<File>,
}

/// State of one digest. Its lock is held while the archive is being unpacked or removed.
#[derive(Debug, Default)]
struct DigestState(Mutex<CurrentLease>);

#[derive(Debug, Default)]
struct CurrentLease {
    lease: Weak<Lease>,
    generation: u64,
}

/// A lease on an unpacked archive. The files stay while any clone lives, unless another program removes them. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct Unpacked {
    lease: Arc<Lease>,
    /// Where the archive is, from which files that were removed come back.
    location: Location,
}

#[derive(Debug)]
struct Lease {
    digest: String,
    directory: PathBuf,
    /// Each file and its size.
    files: Vec<(PathBuf, u64)>,
    contents: Contents,
    origin: Origin,
    generation: u64,
    state: Arc<DigestState>,
    /// Keeps the process's directory for as long as there is a lease.
    parent: Arc<UnpackDirectory>,
}

impl UnpackStore {
    /// Makes a directory under `root`, or, where others can write to that, under a directory of this user's in it, and
    /// removes those of processes that have ended. Fails if nothing can be written there.
    pub fn open(root: &Path, limits: UnpackLimits) -> Result<Self, ArchiveError> {
        let making = || ArchiveError::io("making the directory for unpacked archives");
        let root = place::own(root).map_err(making())?;
        place::try_writing(&root).map_err(making())?;
        let directory = root.join(uuid::Uuid::new_v4().simple().to_string());
        let lock = claim(&root, &directory)?;
        Ok(Self(Arc::new(UnpackDirectory {
            root,
            directory,
            limits,
            digests: DashMap::new(),
            lock: Mutex::new(lock),
        })))
    }

    /// The directory that holds those of all processes of this user.
    pub fn root(&self) -> &Path {
        &self.0.root
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
        let lease = match current.lease.upgrade() {
            Some(lease) if lease.is_whole() => lease,
            Some(lease) => match self.0.fill(&source, Some(&lease.origin)) {
                Ok(_) => lease,
                Err(error) => {
                    // It may be the last lease, which locks the state when it goes.
                    drop(current);
                    drop(lease);
                    return Err(error);
                }
            },
            None => Arc::new(self.lease(source, &state, &mut current)?),
        };
        current.lease = Arc::downgrade(&lease);
        Ok(Unpacked {
            lease,
            location: location.clone(),
        })
    }

    fn lease(
        &self,
        source: Source,
        state: &Arc<DigestState>,
        current: &mut CurrentLease,
    ) -> Result<Lease, ArchiveError> {
        let (directory, origin) = self.0.fill(&source, None)?;
        let read =
            || -> Result<_, ArchiveError> { Ok((files(&directory)?, Contents::read(&directory)?)) };
        let (files, contents) = read().inspect_err(|_| remove(&directory))?;
        current.generation += 1;
        Ok(Lease {
            digest: source.digest,
            directory,
            files,
            contents,
            origin,
            generation: current.generation,
            state: Arc::clone(state),
            parent: Arc::clone(&self.0),
        })
    }

    fn state(&self, digest: &str) -> Arc<DigestState> {
        Arc::clone(&self.0.digests.entry(digest.to_owned()).or_default())
    }
}

impl UnpackDirectory {
    /// Unpacks into a directory beside the final one, and renames it when it is complete, its signature is good, and it is what was there
    /// `before`.
    fn fill(
        &self,
        source: &Source,
        before: Option<&Origin>,
    ) -> Result<(PathBuf, Origin), ArchiveError> {
        self.keep_directory()?;
        let directory = self.directory.join(&source.digest);
        remove(&directory);
        let partial = tempfile::Builder::new()
            .prefix("partial-")
            .tempdir_in(&self.directory)
            .map_err(ArchiveError::io("making an unpacked directory"))?;
        let read = source.read(partial.path(), self.limits);
        let origin = read.map_err(explained)?.origin()?;
        if before.is_some_and(|before| *before != origin) {
            let rule = "must hold what it held when it was registered";
            return Err(ArchiveError::archive(rule, "other contents"));
        }
        let_read(partial.path())
            .map_err(ArchiveError::io("setting modes of an unpacked archive"))?;
        fs::rename(partial.path(), &directory)
            .map_err(ArchiveError::io("naming an unpacked directory"))?;
        let _ = partial.keep();
        Ok((directory, origin))
    }

    /// Makes the process's directory again if another program removed it, or the lock in it.
    fn keep_directory(&self) -> Result<(), ArchiveError> {
        let mut lock = self.lock.lock();
        if is_file_at(&lock, &self.directory.join(LOCK)) {
            return Ok(());
        }
        let root = place::own(&self.root).and_then(|own| {
            let is_ours = own == self.root;
            is_ours
                .then_some(())
                .ok_or_else(|| io::Error::other("others took its place"))
        });
        root.map_err(ArchiveError::io(
            "making the directory for unpacked archives",
        ))?;
        *lock = claim(&self.root, &self.directory)?;
        Ok(())
    }
}

/// A full file system is the operator's to see: the client is told the key that names another.
fn explained(error: ArchiveError) -> ArchiveError {
    match error {
        ArchiveError::Io { source, .. } if is_full(&source) => ArchiveError::io(
            "unpacking the archive to a file system that is full (lantern_temp_dir)",
        )(source),
        other => other,
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
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

impl Lease {
    /// Whether all files are there, as long as they were.
    fn is_whole(&self) -> bool {
        self.files.iter().all(|(path, size)| {
            let found = fs::symlink_metadata(path);
            found.is_ok_and(|found| found.is_file() && found.len() == *size)
        })
    }
}

impl Unpacked {
    /// SHA-256 of the archive, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.lease.digest
    }

    /// The directory that its files are in.
    pub fn directory(&self) -> &Path {
        &self.lease.directory
    }

    /// What was read from its files.
    pub fn contents(&self) -> &Contents {
        &self.lease.contents
    }

    /// Digest of its files, and whoever signed that.
    pub fn origin(&self) -> &Origin {
        &self.lease.origin
    }

    /// Whether all files are there. Blocks while it looks at each.
    pub fn is_whole(&self) -> bool {
        self.lease.is_whole()
    }

    /// Unpacks the archive again if another program removed files of it; whether it did. Blocks for as long as that takes.
    pub fn restore(&self) -> Result<bool, ArchiveError> {
        let lease = &self.lease;
        let _occupied = lease.state.0.lock();
        if lease.is_whole() {
            return Ok(false);
        }
        let source = Source::open(&self.location, lease.parent.limits)?;
        if source.digest != lease.digest {
            let rule = "must be the one that was registered, as files of that were removed: register the version anew";
            let value = format!("SHA-256 {}, not {}", source.digest, lease.digest);
            return Err(ArchiveError::Archive { rule, value });
        }
        lease.parent.fill(&source, Some(&lease.origin))?;
        Ok(true)
    }

    /// The specification from which a runtime is loaded, under the name and version of the registration.
    pub fn spec(&self, name: ModelName, version: Version, resolved: &Resolved) -> ModelSpec {
        let contents = self.contents();
        let artifact = contents.manifest.serialized_file.as_ref();
        ModelSpec {
            digest: self.digest().to_owned(),
            samples: contents.samples.as_ref().map(|name| name.as_str().into()),
            name,
            version,
            directory: self.directory().to_owned(),
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

/// Makes `directory` below `root` and locks it. Old directories are removed under the same lock, so that no process sees a
/// directory before its lock is held.
fn claim(root: &Path, directory: &Path) -> Result<File, ArchiveError> {
    let claim = || -> io::Result<File> {
        let gate = lock_file(root)?;
        gate.lock()?;
        sweep(root);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let lock = lock_file(directory)?;
        lock.lock()?;
        Ok(lock)
    };
    claim().map_err(ArchiveError::io("locking unpacked archives"))
}

/// Makes the lock of a directory. A link in its place is not followed.
fn lock_file(directory: &Path) -> io::Result<File> {
    let mut options = File::options();
    // Whoever can open it can lock it.
    options.write(true).create(true).truncate(true).mode(0o600);
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    let lock = options.open(directory.join(LOCK))?;
    lock.set_permissions(Permissions::from_mode(0o600))?;
    Ok(lock)
}

/// Whether `path` leads to this file.
fn is_file_at(file: &File, path: &Path) -> bool {
    let (held, found) = (file.metadata(), fs::symlink_metadata(path));
    let same = held.and_then(|held| Ok((held, found?)));
    same.is_ok_and(|(held, found)| (held.dev(), held.ino()) == (found.dev(), found.ino()))
}

/// Every file below `directory`, with its size.
fn files(directory: &Path) -> Result<Vec<(PathBuf, u64)>, ArchiveError> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    let list = || -> io::Result<_> {
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory)? {
                let (path, metadata) =
                    entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
                if metadata.is_dir() {
                    pending.push(path);
                } else {
                    found.push((path, metadata.len()));
                }
            }
        }
        Ok(found)
    };
    list().map_err(ArchiveError::io("listing an unpacked archive"))
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

/// Nobody else may pass the directory above, so that this opens nothing to others; but a worker process of a server that is
/// root is another user, and comes by a descriptor.
fn let_read(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let_read(&entry.path())?;
        } else {
            fs::set_permissions(entry.path(), Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

/// Removes a directory. If that fails, a later sweep tries again.
fn remove(directory: &Path) {
    match fs::remove_dir_all(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, "an unpacked archive was not removed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unpacked_again_must_be_what_was_there() {
        let root = tempfile::tempdir().unwrap();
        let (model, limits) = (root.path().join("m"), UnpackLimits::default());
        fs::create_dir_all(&model).unwrap();
        fs::write(model.join("a"), "one").unwrap();
        let store = UnpackStore::open(&root.path().join("unpacked"), limits).unwrap();
        let source = Source::open(&Location::local(&model).unwrap(), limits).unwrap();
        let (directory, origin) = store.0.fill(&source, None).unwrap();
        assert_eq!(store.0.fill(&source, Some(&origin)).unwrap().1, origin);
        // It changes after its digest was taken.
        fs::write(model.join("a"), "two").unwrap();
        let error = store.0.fill(&source, Some(&origin)).unwrap_err();
        let says = "the archive must hold what it held when it was registered, got other contents";
        assert_eq!(error.to_string(), says);
        assert!(!directory.exists());
        assert_ne!(store.0.fill(&source, None).unwrap().1, origin);
    }
}
