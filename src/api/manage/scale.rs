//! How many workers a version has.

use std::time::Instant;

use super::{Operations, Outcome, bad_request};
use crate::catalog::{Bounds, Entry, failed_to_start};
use crate::error::{Error, Kind};

/// What a client wants of a version's workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::api) struct ScaleParams {
    /// The model.
    pub model: String,
    /// The version; the default version if not given.
    pub version: Option<String>,
    /// Workers to have at least; 1 if not given.
    pub min_worker: Option<i64>,
    /// Workers to have at most; `min_worker` if not given.
    pub max_worker: Option<i64>,
    /// Whether to wait for them; not if not given.
    pub synchronous: Option<bool>,
}

impl Operations {
    /// Starts or stops workers. The work goes on if the caller leaves.
    pub(in crate::api) async fn scale(&self, params: ScaleParams) -> Result<Outcome, Error> {
        self.note_model(&params.model, params.version.as_deref());
        let bounds = bounds(&params, self.catalog.most_workers())?;
        let version = params.version.as_deref();
        let now = Instant::now();
        let entry = self
            .catalog
            .awaited(&params.model, version, now, None)
            .await?;
        let promise = self.catalog.promise_workers(&entry, bounds.max)?;
        let catalog = self.catalog.clone();
        // In a task of its own: a client that leaves does not stop it half-way.
        let scaling = tokio::spawn(async move { catalog.scale(promise, bounds).await });
        if params.synchronous != Some(true) {
            return Ok(Outcome::under_way());
        }
        match scaling.await {
            Ok(Ok(())) => Ok(scaled_to(&entry, version, bounds)),
            Ok(Err(error)) => Err(not_scaled(&entry, version, &error)),
            Err(panic) => Err(Error::new(Kind::Internal, "Scaling failed").with_detail(panic)),
        }
    }
}

fn bounds(params: &ScaleParams, most: usize) -> Result<Bounds, Error> {
    let min = params.min_worker.unwrap_or(1);
    let max = params.max_worker.unwrap_or(min);
    if max < min {
        return Err(bad_request("max_worker cannot be less than min_worker."));
    }
    if min < 0 {
        let message = format!("min_worker must not be negative, got {min}");
        return Err(Error::new(Kind::NegativeWorkers, message));
    }
    match (usize::try_from(min), usize::try_from(max)) {
        (Ok(min), Ok(max)) if max <= most => Ok(Bounds { min, max }),
        _ => Err(bad_request(format!(
            "max_worker must be at most {most}, which is what this server allows (lantern_max_workers), got {max}"
        ))),
    }
}

fn scaled_to(entry: &Entry, version: Option<&str>, bounds: Bounds) -> Outcome {
    let version = version.map(|version| format!(", version: {version}"));
    Outcome::done(format!(
        "Workers scaled to {} for model: {}{}",
        bounds.min,
        entry.spec().name,
        version.unwrap_or_default()
    ))
}

fn not_scaled(entry: &Entry, version: Option<&str>, error: &Error) -> Error {
    let spec = entry.spec();
    failed_to_start(&spec.name, version.map(|_| &spec.version), error)
}
