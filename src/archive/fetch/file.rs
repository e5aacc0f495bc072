//! Archives in other directories of this machine, those that `allowed_urls` names.
//!
//! Links are followed only while they stay in such a directory.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;

use super::super::AllowedUrls;
use super::part::Part;
use super::remote::Remote;
use super::{Failure, NamedBy};
use crate::archive::ArchiveError;
use crate::archive::store::ModelStore;

/// The path of a `file://` URL, if that is in the store.
pub fn in_store(remote: &Remote, store: &ModelStore) -> Option<PathBuf> {
    store.holds(&remote.path())
}

/// The resolved form of an absolute path, if that is in the store or in an allowed directory.
pub fn allowed_path(path: &Path, store: &ModelStore, allowed: &AllowedUrls) -> Option<PathBuf> {
    if !path.is_absolute()
        || path
            .components()
            .any(|part| part == std::path::Component::ParentDir)
    {
        return None;
    }
    store.holds(path).or_else(|| {
        let real = path.canonicalize().ok()?;
        let mut roots = allowed
            .directories()
            .filter_map(|root| root.canonicalize().ok());
        roots.any(|root| real.starts_with(root)).then_some(real)
    })
}

/// Copies the file at `path` into a part. Blocks.
pub fn copy(
    path: &Path,
    allowed: &AllowedUrls,
    by: NamedBy,
    limit: u64,
    part: &Part,
) -> Result<(), Failure> {
    let unreadable =
        |error: io::Error| Failure::Refused("it cannot be read".to_owned(), error.to_string());
    let mut from = open_allowed(path, allowed, by).map_err(unreadable)?;
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

/// Opens a file without leaving the directory that allows it. A file that the operator listed may be anywhere.
fn open_allowed(path: &Path, allowed: &AllowedUrls, by: NamedBy) -> io::Result<File> {
    for root in allowed.directories() {
        match path.strip_prefix(&root) {
            Ok(below) if below.as_os_str().is_empty() => return File::open(path),
            Ok(below) => return open_below(&root, below),
            Err(_) => {}
        }
    }
    if by == NamedBy::Operator {
        return File::open(path);
    }
    Err(io::ErrorKind::PermissionDenied.into())
}

fn open_below(root: &Path, below: &Path) -> io::Result<File> {
    let directory: OwnedFd = open(
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    // Opening a pipe must not block.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match openat2(&directory, below, flags, Mode::empty(), resolve) {
        Ok(file) => Ok(file.into()),
        // The kernel is old, or a sandbox around this server refuses the call.
        Err(Errno::NOSYS | Errno::PERM) => {
            let (root, real) = (root.canonicalize()?, root.join(below).canonicalize()?);
            if !real.starts_with(&root) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            Ok(open(&real, flags | OFlags::NOFOLLOW, Mode::empty())?.into())
        }
        Err(error) => Err(error.into()),
    }
}
