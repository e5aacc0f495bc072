//! Reads an archive without serving it, for `lantern inspect`, `lantern verify` and `lantern archive`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::contents::{Contents, read_manifest};
use super::inventory::{ContentsDigest, Inventory, Origin};
use super::limits::UnpackLimits;
use super::source::Source;
use super::{ArchiveError, Location, Manifest};

/// What fails where there is no place.
const MAKING: &str = "making a temporary directory";

/// An archive that was unpacked to be examined. Dropping it removes the files.
#[derive(Debug)]
pub struct Examined {
    /// SHA-256, in hexadecimal.
    pub digest: String,
    /// Digest of the contents.
    pub contents_digest: ContentsDigest,
    /// The same with whoever signed it, or why the signature is not good.
    pub origin: Result<Origin, ArchiveError>,
    /// What `MANIFEST.json` says.
    pub manifest: Manifest,
    /// Files and their sizes, by name.
    pub files: Vec<(String, u64)>,
    /// Settings, handler and weights, or why the archive cannot be served.
    pub contents: Result<Contents, ArchiveError>,
    directory: TempDir,
}

impl Examined {
    /// The directory that its files are in.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// Unpacks the archive at `location` into a temporary directory. Fails if it cannot be unpacked or has no manifest.
pub fn examine(location: &Location, limits: UnpackLimits) -> Result<Examined, ArchiveError> {
    let directory = tempfile::tempdir().map_err(ArchiveError::io(MAKING))?;
    examine_into(directory, location, limits)
}

/// The same in a temporary directory within `place`.
pub(super) fn examine_in(
    place: &Path,
    location: &Location,
    limits: UnpackLimits,
) -> Result<Examined, ArchiveError> {
    let directory = tempfile::tempdir_in(place).map_err(ArchiveError::io(MAKING))?;
    examine_into(directory, location, limits)
}

fn examine_into(
    directory: TempDir,
    location: &Location,
    limits: UnpackLimits,
) -> Result<Examined, ArchiveError> {
    let source = Source::open(location, limits)?;
    let inventory = source.read(directory.path(), limits)?;
    Ok(Examined {
        digest: source.digest,
        contents_digest: inventory.digest(),
        origin: inventory.origin(),
        manifest: read_manifest(directory.path())?,
        files: files(directory.path()).map_err(ArchiveError::io("listing the archive"))?,
        contents: Contents::read(directory.path()),
        directory,
    })
}

/// What the archive at `location` holds, and its signature, whether or not it can be served. Blocks while it is unpacked.
pub fn inventory(location: &Location, limits: UnpackLimits) -> Result<Inventory, ArchiveError> {
    let directory = tempfile::tempdir().map_err(ArchiveError::io(MAKING))?;
    Source::open(location, limits)?.read(directory.path(), limits)
}

fn files(root: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    let mut pending: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                pending.push(entry.path());
            } else {
                let path = entry.path();
                let name = path.strip_prefix(root).unwrap_or(&path);
                found.push((name.display().to_string(), metadata.len()));
            }
        }
    }
    found.sort();
    Ok(found)
}
