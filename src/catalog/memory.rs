//! Whether a tenant and the machine have memory for what is to be loaded.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{CatalogState, Owner};
use crate::error::{Error, Kind};
use crate::model::ModelSpec;
use crate::runtime;

/// The most memory that the last worker process of an archive had when it had loaded it, by the digest of the archive.
#[derive(Debug, Default)]
pub struct Peaks {
    /// Where they are kept, each in a file; made with the first one.
    directory: Option<PathBuf>,
    known: Mutex<HashMap<String, u64>>,
}

impl Peaks {
    /// Those that are kept in `directory`.
    pub fn kept_in(directory: Option<PathBuf>) -> Self {
        Self {
            directory,
            known: Mutex::default(),
        }
    }

    /// Reads a file.
    fn of(&self, digest: &str) -> Option<u64> {
        if let Some(known) = self.known.lock().get(digest) {
            return Some(*known);
        }
        let path = self.directory.as_ref()?.join(digest);
        fs::read_to_string(path).ok()?.trim().parse().ok()
    }

    /// The last process of that archive has had so much. Writes a file if that is news.
    pub(super) fn note(&self, digest: &str, bytes: u64) {
        let known = self.of(digest).unwrap_or(0);
        if bytes.abs_diff(known) <= known / 16 {
            return;
        }
        self.known.lock().insert(digest.to_owned(), bytes);
        if let Some(directory) = &self.directory {
            let written = fs::create_dir_all(directory)
                .and_then(|()| fs::write(directory.join(digest), bytes.to_string()));
            if let Err(error) = written {
                tracing::debug!(%error, "how much memory a model needs is not kept");
            }
        }
    }
}

/// Memory that is going to be used by what loads. Given back when it is dropped: then it can be measured.
pub(super) struct MemoryPromise {
    owner: Arc<Owner>,
    bytes: u64,
}

impl Drop for MemoryPromise {
    fn drop(&mut self) {
        self.owner.promise_memory(|promised| promised - self.bytes);
    }
}

impl CatalogState {
    /// Promises a tenant the memory that a version's process needs, as far as is known: as much as the last one of its archive had, or at least
    /// what the weights take. Fails with the numbers if that is above its quota or more than the machine has, unless it is not to be refused.
    pub(super) async fn promise_memory(
        self: &Arc<Self>,
        spec: &Arc<ModelSpec>,
        digest: &str,
        may_refuse: bool,
    ) -> Result<Option<MemoryPromise>, Error> {
        if self.parts.owner.tenant().is_none() {
            return Ok(None);
        }
        let (state, spec, digest) = (Arc::clone(self), Arc::clone(spec), digest.to_owned());
        let promised = tokio::task::spawn_blocking(move || {
            state.promise_memory_now(&spec, &digest, may_refuse)
        });
        let promised = promised.await.map_err(|panic| {
            Error::new(Kind::Internal, "The memory could not be measured").with_detail(panic)
        })?;
        promised.map(Some)
    }

    fn promise_memory_now(
        &self,
        spec: &ModelSpec,
        digest: &str,
        may_refuse: bool,
    ) -> Result<MemoryPromise, Error> {
        let owner = &self.parts.owner;
        let weights = || fs::metadata(spec.directory.join(&spec.artifact)).map_or(0, |it| it.len());
        let needs = self.parts.peaks.of(digest).unwrap_or_else(weights);
        let before = owner.promise_memory(|promised| promised + needs);
        let promise = MemoryPromise {
            owner: Arc::clone(owner),
            bytes: needs,
        };
        if !may_refuse {
            return Ok(promise);
        }
        let has = self.worker_memory().saturating_add(before);
        if let Some(quota) = owner.quotas().worker_memory
            && has.saturating_add(needs) > quota as u64
        {
            let message = format!(
                "The tenant's quota is {quota} bytes of worker memory: it has {has}, and this needs about {needs} more"
            );
            return Err(Error::new(Kind::OverQuota, message));
        }
        match runtime::available_memory() {
            Some(available) if needs > available => {
                // How much there is would tell of others.
                let message = format!(
                    "The model needs about {needs} bytes of memory, more than the machine has now"
                );
                Err(Error::new(Kind::OutOfMemory, message))
            }
            _ => Ok(promise),
        }
    }

    /// Bytes of memory that all its worker processes have now.
    fn worker_memory(&self) -> u64 {
        let mut by_process = HashMap::new();
        let models = self.models.load();
        for entry in models.values().flat_map(|model| &model.versions) {
            let status = entry.status();
            for worker in status.iter().flat_map(|status| &status.workers) {
                by_process
                    .entry(worker.pid)
                    .or_insert_with(|| worker.memory());
            }
        }
        by_process.into_values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_peak_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let place = Some(directory.path().join("peaks"));
        let peaks = Peaks::kept_in(place.clone());
        assert_eq!(peaks.of("ab"), None);
        for (bytes, kept) in [(1000, 1000), (1010, 1000), (2000, 2000), (500, 500)] {
            peaks.note("ab", bytes);
            assert_eq!(peaks.of("ab"), Some(kept));
        }
        assert_eq!(Peaks::kept_in(place).of("ab"), Some(500));
        assert_eq!(Peaks::default().of("ab"), None);
    }
}
