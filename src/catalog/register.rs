//! Registration: from an archive in the model store to a version with workers.

use std::sync::Arc;

use super::Catalog;
use super::entry::Entry;
use crate::config::model::Requested;
use crate::error::{Error, Kind};
use crate::model::{ModelName, Version};

/// What somebody wants registered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registration {
    /// Where the archive is.
    pub url: String,
    /// Name of the model, if not the archive's.
    pub name: Option<String>,
    /// Handler, if not the archive's.
    pub handler: Option<String>,
    /// Settings, where the archive leaves room.
    pub requested: Requested,
}

/// How a registration ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// It has no workers, as nobody asked for any.
    Empty {
        /// Name.
        name: ModelName,
        /// Version.
        version: Version,
    },
    /// Its workers are up.
    Loaded {
        /// Name.
        name: ModelName,
        /// Version.
        version: Version,
        /// How many there are.
        workers: usize,
    },
    /// Its workers start.
    Starting,
    /// Some of its workers are up; others start, or failed.
    Partly,
}

impl Catalog {
    /// Registers a version. With `wait`, waits for its workers, and takes it back if they do not start; without, a
    /// failure shows in its description.
    pub async fn register(
        &self,
        registration: Registration,
        wait: bool,
    ) -> Result<Registered, Error> {
        let entry = self.open(registration, false).await?;
        let (name, version) = (entry.spec().name.clone(), entry.spec().version.clone());
        let workers = entry.spec().settings.min_workers;
        if workers == 0 || !wait {
            entry.keep_archive();
        }
        if workers == 0 {
            return Ok(Registered::Empty { name, version });
        }
        let start = self.start(&entry, wait);
        if !wait {
            return Ok(Registered::Starting);
        }
        match start.await {
            Ok(Ok(())) if !entry.all_ready().await => Ok(Registered::Partly),
            Ok(Ok(())) => Ok(Registered::Loaded {
                name,
                version,
                workers,
            }),
            Ok(Err(error)) => Err(failed_to_start(&name, Some(&version), &error)),
            Err(panic) => Err(Error::new(Kind::Internal, "Registration failed").with_detail(panic)),
        }
    }

    /// Registers a version that the operator listed; it stays in the catalog even if it does not load.
    pub async fn register_at_startup(
        &self,
        registration: Registration,
    ) -> Result<Arc<Entry>, Error> {
        let entry = self.open(registration, true).await?;
        entry.keep_archive();
        if entry.spec().settings.min_workers > 0 {
            let start = self.start(&entry, false).await;
            start.map_err(|panic| {
                Error::new(Kind::Internal, "Loading failed").with_detail(panic)
            })??;
        }
        Ok(entry)
    }

    async fn open(
        &self,
        registration: Registration,
        at_startup: bool,
    ) -> Result<Arc<Entry>, Error> {
        let library = self.0.parts.library.clone();
        let url = registration.url.clone();
        let opened = library.open(registration, at_startup).await?;
        let entry = Arc::new(Entry::new(opened, url, at_startup, &self.0.parts.metrics));
        if entry.spec().settings.min_workers > 0 {
            entry.expect_workers();
        }
        self.insert(&entry)?;
        Ok(entry)
    }

    /// Starts a version in a task of its own: a client that leaves does not end it.
    fn start(
        &self,
        entry: &Arc<Entry>,
        remove_on_failure: bool,
    ) -> tokio::task::JoinHandle<Result<(), Error>> {
        let (catalog, entry) = (self.clone(), Arc::clone(entry));
        tokio::spawn(async move {
            let started = entry.start(&catalog.0.parts.hosts).await;
            match &started {
                Err(_) if remove_on_failure => catalog.remove(&entry),
                _ => entry.keep_archive(),
            }
            started
        })
    }
}

/// TorchServe's message, and why. Memory that ran out keeps its status; every other reason is a failed load.
pub fn failed_to_start(name: &ModelName, version: Option<&Version>, reason: &Error) -> Error {
    let kind = match reason.kind() {
        kind @ (Kind::OutOfMemory | Kind::HandlerOutOfMemory) => kind,
        _ => Kind::LoadFailed,
    };
    let version = version.map_or("null", Version::as_str);
    let message = format!(
        "Failed to start workers for model {name} version: {version}: {}",
        reason.message()
    );
    let error = Error::new(kind, message);
    match reason.detail() {
        Some(detail) => error.with_detail(detail),
        None => error,
    }
}
