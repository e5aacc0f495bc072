//! A downloaded archive in the model store that is removed again unless its registration is saved.
//!
//! From before the file gets its name until the registration is saved, and again while it is unregistered, a marker with
//! the file's identity lies in the store's hidden directory. A server that finds a marker when it starts removes the file,
//! unless the snapshot it restores needs it. So a server that is killed half-way leaves nothing behind, and a file that
//! the operator put into the store is never removed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::part::Part;
use crate::archive::ArchiveError;
use crate::archive::store::HIDDEN;

/// Ending of a marker's name.
const MARKER: &str = ".pending";

/// A downloaded archive in the store. If it is dropped without [`Self::keep`], the file is removed.
#[derive(Debug)]
pub struct Download {
    path: PathBuf,
    marker: PathBuf,
    identity: String,
    /// The marker, locked while it exists; `None` while the file is kept.
    pending: Mutex<Option<File>>,
}

impl Download {
    /// Moves a complete part to `name` in the store at `root`. Fails if there is a file of that name.
    pub fn publish(part: Part, root: &Path, name: &str) -> Result<Self, ArchiveError> {
        let publishing = || ArchiveError::io("putting an archive into the model store");
        let download = Self {
            path: root.join(name),
            marker: marker(root, name),
            identity: identity(&part.file().metadata().map_err(publishing())?),
            pending: Mutex::new(None),
        };
        let moved = download.mark().and_then(|marker| {
            *download.pending.lock() = Some(marker);
            part.file().sync_all()?;
            move_new(part.path(), &download.path)?;
            sync_directory(root)
        });
        part.forget_tag();
        match moved {
            Ok(()) => Ok(download),
            Err(error) => {
                part.discard();
                let exists = error.kind() == io::ErrorKind::AlreadyExists;
                Err(if exists {
                    ArchiveError::Exists(name.to_owned())
                } else {
                    publishing()(error)
                })
            }
        }
    }

    /// The file that an earlier server downloaded to `name` and kept, if it is still there.
    pub fn kept(root: &Path, name: &str) -> Option<Self> {
        let path = root.join(name);
        let metadata = fs::symlink_metadata(&path)
            .ok()
            .filter(fs::Metadata::is_file)?;
        Some(Self {
            identity: identity(&metadata),
            marker: marker(root, name),
            path,
            pending: Mutex::new(None),
        })
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the file, because a saved registration needs it. Removes the marker.
    pub fn keep(&self) {
        if self.pending.lock().take().is_some() {
            let _ = fs::remove_file(&self.marker);
        }
    }

    /// Undoes [`Self::keep`]: the file is removed when this is dropped. If the server is killed first, the next one removes
    /// it, unless a saved registration still needs it.
    pub fn give_up(&self) {
        let mut pending = self.pending.lock();
        if pending.is_none() {
            match self.mark() {
                Ok(marker) => *pending = Some(marker),
                Err(error) => tracing::warn!(%error, "a fetched archive stays in the model store"),
            }
        }
    }

    /// Leaves the file and its marker as they are when the process is killed.
    #[cfg(test)]
    pub fn abandon(self) {
        drop(self.pending.lock().take());
    }

    fn mark(&self) -> io::Result<File> {
        let directory = self.marker.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)?;
        let mut file = File::create(&self.marker)?;
        // The lock is free: a name is fetched to one at a time, and another server would have seen the file.
        file.try_lock().map_err(io::Error::from)?;
        file.write_all(self.identity.as_bytes())?;
        sync_directory(directory)?;
        Ok(file)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if self.pending.lock().is_some() {
            remove(&self.path, &self.marker, &self.identity);
        }
    }
}

/// Removes the marked files of servers that were killed, except those in `needed`.
pub fn recover(root: &Path, needed: &BTreeSet<String>) {
    let entries = fs::read_dir(root.join(HIDDEN))
        .into_iter()
        .flatten()
        .flatten();
    for marker in entries.map(|entry| entry.path()) {
        let name = marker.file_name().and_then(|name| name.to_str());
        let Some(name) = name.and_then(|name| name.strip_suffix(MARKER)) else {
            continue;
        };
        // A marker that is locked belongs to a server that is alive.
        let is_forsaken = File::open(&marker).is_ok_and(|file| file.try_lock().is_ok());
        if !is_forsaken {
            continue;
        }
        if needed.contains(name) {
            let _ = fs::remove_file(&marker);
            continue;
        }
        tracing::info!("{name} was fetched for a model that is not registered, and is removed");
        let identity = fs::read_to_string(&marker).unwrap_or_default();
        remove(&root.join(name), &marker, &identity);
    }
}

/// Removes the file and then the marker: a marker without a file does no harm.
fn remove(path: &Path, marker: &Path, recorded: &str) {
    let is_ours = fs::symlink_metadata(path).is_ok_and(|metadata| identity(&metadata) == recorded);
    if is_ours && let Err(error) = fs::remove_file(path) {
        tracing::warn!(%error, "a fetched archive was not removed from the model store");
        return;
    }
    let _ = fs::remove_file(marker);
}

fn marker(root: &Path, name: &str) -> PathBuf {
    root.join(HIDDEN).join(format!("{name}{MARKER}"))
}

fn identity(metadata: &fs::Metadata) -> String {
    format!("{}:{}", metadata.dev(), metadata.ino())
}

/// Moves a file without replacing another. Not every file system can do that in one step.
fn move_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        moved => Ok(moved?),
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
