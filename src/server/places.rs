//! Where this server keeps files of its own: the first directory that will do, with a line in the log for each that will not.

use std::path::{Path, PathBuf};

use super::ServerError;
use crate::archive::{UnpackLimits, UnpackStore};
use crate::place;

/// Where archives are unpacked: the first of `candidates` that can be written to.
pub fn unpacked(candidates: &[PathBuf]) -> Result<UnpackStore, ServerError> {
    let mut refused = Vec::new();
    for candidate in candidates {
        match UnpackStore::open(candidate, UnpackLimits::default()) {
            Ok(store) => {
                report(&refused, candidate, &store);
                return Ok(store);
            }
            Err(error) => refused.push(format!("{}: {}", candidate.display(), with_source(&error))),
        }
    }
    Err(ServerError::NoPlace(refused.join("; ")))
}

fn report(refused: &[String], chosen: &Path, store: &UnpackStore) {
    let root = store.root().display();
    for refused in refused {
        tracing::warn!("archives are unpacked to {root}, not to {refused}");
    }
    if store.root().parent() == Some(chosen) {
        report_shared(chosen, store.root());
    }
}

fn with_source(error: &dyn std::error::Error) -> String {
    let source = error.source();
    source.map_or_else(|| error.to_string(), |source| format!("{error} ({source})"))
}

/// Where compiled handlers, and what was found out about batching, are kept; `None` if nowhere: then both are made again at
/// each start.
pub fn cache(directory: &Path) -> Option<PathBuf> {
    let shown = directory.display();
    let own = place::own(directory).inspect_err(|error| {
        tracing::warn!(
            "lantern_cache_dir {shown} cannot be used ({error}): handlers are compiled at each start of the server"
        );
    });
    let own = own.ok()?;
    if own.parent() == Some(directory) {
        report_shared(directory, &own);
    }
    if let Err(error) = place::try_writing(&own) {
        tracing::warn!(
            "lantern_cache_dir {shown} cannot be written to ({error}): what is compiled from now on is not kept"
        );
    }
    Some(own)
}

fn report_shared(shared: &Path, own: &Path) {
    tracing::warn!(
        "{} belongs to another user or others can write to it: {} in it is used",
        shared.display(),
        own.display()
    );
}
