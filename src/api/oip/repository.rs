//! The models that there are, and those that could be loaded. Loading is registering, unloading is unregistering, under
//! the same rules as on the management listener.

use std::time::Instant;

use serde::Serialize;

use super::shown;
use crate::api::manage::{Operations, RegisterParams, ScaleParams};
use crate::catalog::{Catalog, Condition, Indexed, Which};
use crate::error::{Error, Kind};

/// One version, or an archive that is not loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::api) struct ModelIndex {
    /// Name of the model.
    pub name: String,
    /// Version, if the model is loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `READY`, `LOADING`, `UNLOADING` or `UNAVAILABLE`.
    pub state: &'static str,
    /// Why it is not ready.
    pub reason: String,
}

/// Every version, and what could be loaded; with `only_ready`, the versions that serve.
pub(in crate::api) async fn index(
    catalog: &Catalog,
    only_ready: bool,
) -> Result<Vec<ModelIndex>, Error> {
    let index = catalog.index().await?;
    let wanted = index.into_iter().filter(|one| one.is_ready || !only_ready);
    Ok(wanted.map(ModelIndex::of).collect())
}

impl ModelIndex {
    fn of(indexed: Indexed) -> Self {
        let (state, reason) = match &indexed.condition {
            _ if indexed.is_ready => ("READY", ""),
            None => ("UNAVAILABLE", "unloaded"),
            Some(Condition::Loading) => ("LOADING", ""),
            Some(Condition::Ready) => ("LOADING", "workers start"),
            Some(Condition::Draining) => ("UNLOADING", ""),
            Some(Condition::Empty) => ("UNAVAILABLE", "no workers"),
            Some(Condition::Unhealthy) => ("UNAVAILABLE", "all workers are dead"),
            Some(Condition::Degraded) => ("UNAVAILABLE", "DEGRADED: worker processes keep dying"),
            Some(Condition::Failed(error)) => ("UNAVAILABLE", error.message()),
        };
        Self {
            state,
            reason: reason.to_owned(),
            name: indexed.name,
            version: indexed.version,
        }
    }
}

/// Sees to it that `model` serves: registers its archive from the model store, or starts workers of a model that has
/// none. `parameters` are the names of those that came.
pub(in crate::api) async fn load<'a>(
    catalog: &Catalog,
    operations: &Operations,
    model: &str,
    mut parameters: impl Iterator<Item = &'a str>,
) -> Result<(), Error> {
    operations.check_model_api()?;
    if let Some(name) = parameters.next() {
        return Err(unsupported(name));
    }
    match catalog.awaited(model, None, Instant::now(), None).await {
        Ok(entry) if entry.is_ready() => Ok(()),
        Ok(entry) => {
            let workers = entry.spec().settings.min_workers.max(1);
            start_workers(operations, model, workers).await
        }
        Err(error) if error.kind().is_passing() => Err(error),
        Err(_) => register(catalog, operations, model).await,
    }
}

/// A client's own configuration or files would take the place of the archive's, which were checked.
fn unsupported(name: &str) -> Error {
    let text = format!(
        "load parameter {} is not supported: a model is what its archive holds",
        shown(name)
    );
    Error::new(Kind::BadRequest, text)
}

async fn start_workers(operations: &Operations, model: &str, workers: usize) -> Result<(), Error> {
    let params = ScaleParams {
        model: model.to_owned(),
        min_worker: i64::try_from(workers).ok(),
        synchronous: Some(true),
        ..ScaleParams::default()
    };
    operations.scale(params).await.map(drop)
}

async fn register(catalog: &Catalog, operations: &Operations, model: &str) -> Result<(), Error> {
    let index = catalog.index().await?;
    let archive = index
        .into_iter()
        .find(|one| one.name == model && one.condition.is_none());
    let archive = archive.ok_or_else(|| {
        let text = format!("no model {} in the model store", shown(model));
        Error::new(Kind::ModelNotFound, text)
    })?;
    let params = RegisterParams {
        url: Some(archive.url),
        model_name: Some(model.to_owned()),
        initial_workers: Some(1),
        synchronous: Some(true),
        ..RegisterParams::default()
    };
    operations.register(params).await.map(drop)
}

/// Unregisters every version of `model`, the default version last.
pub(in crate::api) async fn unload(
    catalog: &Catalog,
    operations: &Operations,
    model: &str,
) -> Result<(), Error> {
    operations.check_model_api()?;
    let default = catalog.awaited(model, None, Instant::now(), None).await?;
    for entry in catalog.select(model, Which::All)? {
        let version = &entry.spec().version;
        if *version != default.spec().version {
            operations.unregister(model, Some(version.as_str())).await?;
        }
    }
    operations.unregister(model, None).await.map(drop)
}
