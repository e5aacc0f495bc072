//! Archives in other directories of this machine, those that `allowed_urls` names.

use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::part::Part;
use super::remote::Remote;
use super::{Failure, NamedBy};
use crate::archive::ArchiveError;
use crate::archive::roots::open_resolved;
use crate::archive::store::ModelStore;

/// The path of a `file://` URL, if that is in the store.
pub fn in_store(remote: &Remote, store: &ModelStore) -> Option<PathBuf> {
    store.holds(&remote.path())
}

/// The resolved form of an absolute path, if that is in the store or in an allowed directory.
pub fn allowed_path(path: &Path, store: &ModelStore) -> Option<PathBuf> {
    let climbs = path.components().any(|part| part == Component::ParentDir);
    if !path.is_absolute() || climbs {
        return None;
    }
    store.holds(path).or_else(|| store.roots().resolve(path))
}

/// Copies the file at `path` into a part. Blocks.
pub fn copy(
    path: &Path,
    store: &ModelStore,
    by: NamedBy,
    limit: u64,
    part: &Part,
) -> Result<(), Failure> {
    let unreadable =
        |error: io::Error| Failure::Refused("it cannot be read".to_owned(), error.to_string());
    let mut from = open_allowed(path, store, by).map_err(unreadable)?;
    let metadata = from.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Failure::refused("it is not a file"));
    }
    if metadata.len() > limit {
        return Err(Failure::refused("it is larger than an archive may be"));
    }
    part.restart(None).map_err(Failure::Here)?;
    let mut limited = io::Read::take(&mut from, limit);
    io::copy(&mut limited, &mut part.file())
        .map(|_| ())
        .map_err(|error| Failure::Here(ArchiveError::io("copying an archive")(error)))
}

/// Opens a file that lies where archives may lie. A file that the operator listed may be anywhere.
fn open_allowed(path: &Path, store: &ModelStore, by: NamedBy) -> io::Result<File> {
    let real = path.canonicalize()?;
    if by == NamedBy::Operator || store.roots().hold(&real) {
        return open_resolved(&real);
    }
    Err(io::ErrorKind::PermissionDenied.into())
}
