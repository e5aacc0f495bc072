//! Looks at a file of weights as far as it takes to say what kind of file it is.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use ::zip::read::Config;
use ::zip::result::ZipResult;
use ::zip::unstable::read::ZipIterable;

use crate::model::{BackendKind, Glimpse, Unserved};

use super::ArchiveError;

/// The first bytes of a zip.
const ZIP: &[u8] = b"PK\x03\x04";

/// A zip with more entries is not looked into.
const MOST_ENTRIES: usize = 100_000;

/// Refuses a file of weights that no backend loads, whatever its name and whatever the settings say. Where nobody says which
/// framework `kind` runs it, its name alone is enough to refuse it.
pub fn check_artifact(
    name: &str,
    path: &Path,
    kind: Option<BackendKind>,
) -> Result<(), ArchiveError> {
    if kind.is_some_and(|kind| !kind.needs_artifact()) {
        return Ok(());
    }
    let glimpse = look(path).map_err(ArchiveError::io("reading the weights"))?;
    let by_name = || Unserved::by_name(name).filter(|_| kind.is_none());
    match Unserved::by_content(&glimpse).or_else(by_name) {
        Some(unserved) => Err(ArchiveError::Unservable(format!("{name:?} {unserved}"))),
        None => Ok(()),
    }
}

fn look(path: &Path) -> io::Result<Glimpse> {
    let mut file = File::open(path)?;
    let mut start = Vec::with_capacity(Glimpse::START);
    file.by_ref()
        .take(Glimpse::START as u64)
        .read_to_end(&mut start)?;
    file.rewind()?;
    let is_zip = start.starts_with(ZIP);
    // One that cannot be read is for the backend to refuse.
    let entries = if is_zip {
        names(file).unwrap_or_default()
    } else {
        Vec::new()
    };
    Ok(Glimpse { start, entries })
}

fn names(file: File) -> ZipResult<Vec<String>> {
    let mut archive = ZipIterable::try_new(file, Config::default())?;
    if archive.len() > MOST_ENTRIES {
        return Ok(Vec::new());
    }
    let name = |raw: &[u8]| String::from_utf8_lossy(raw).into_owned();
    archive
        .files()?
        .map(|entry| entry.map(|entry| name(entry.name_raw())))
        .collect()
}
