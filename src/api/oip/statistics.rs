//! What models have done so far.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde::Serialize;

use super::Target;
use crate::catalog::{BatchStatistics, Catalog, Counted, Entry, Statistics, Which};
use crate::error::Error;
use crate::nanos::nanos;

/// Statistics of versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::api) struct AllStatistics {
    /// Each version's.
    pub model_stats: Vec<ModelStatistics>,
}

/// One version's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::api) struct ModelStatistics {
    /// Name of the model.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When the last request was answered, in milliseconds since 1970; 0 for never.
    pub last_inference: u64,
    /// Rows that were answered.
    pub inference_count: u64,
    /// Batches that were run.
    pub execution_count: u64,
    /// Of requests.
    pub inference_stats: InferenceStatistics,
    /// Of batches, by their size.
    pub batch_stats: Vec<BatchOfSize>,
}

/// How often, and how long in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(in crate::api) struct StatisticDuration {
    /// How often.
    pub count: u64,
    /// Nanoseconds in all.
    pub ns: u64,
}

/// Of requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::api) struct InferenceStatistics {
    /// Answered.
    pub success: StatisticDuration,
    /// Failed.
    pub fail: StatisticDuration,
    /// Waiting for a worker.
    pub queue: StatisticDuration,
    /// In preprocess.
    pub compute_input: StatisticDuration,
    /// In the session.
    pub compute_infer: StatisticDuration,
    /// In postprocess.
    pub compute_output: StatisticDuration,
    /// Nothing is cached.
    pub cache_hit: StatisticDuration,
    /// Nothing is looked for.
    pub cache_miss: StatisticDuration,
}

/// Of batches of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(in crate::api) struct BatchOfSize {
    /// Rows.
    pub batch_size: u64,
    /// In preprocess of the request that the batch is counted with.
    pub compute_input: StatisticDuration,
    /// In the session.
    pub compute_infer: StatisticDuration,
    /// In postprocess of that request.
    pub compute_output: StatisticDuration,
}

/// The statistics of a version, or of all versions where none is named, once its archive is open.
pub(in crate::api) async fn of_model(
    catalog: &Catalog,
    target: Target<'_>,
    arrival: Instant,
) -> Result<AllStatistics, Error> {
    let opened = catalog.awaited(target.model, target.version, arrival, None);
    opened.await?;
    let which = target.version.map_or(Which::All, Which::Version);
    Ok(all(&catalog.select(target.model, which)?))
}

/// The statistics of every version of every model.
pub(in crate::api) fn of_server(catalog: &Catalog) -> AllStatistics {
    all(&catalog.entries())
}

fn all(entries: &[Arc<Entry>]) -> AllStatistics {
    AllStatistics {
        model_stats: entries.iter().map(|entry| of_entry(entry)).collect(),
    }
}

fn of_entry(entry: &Entry) -> ModelStatistics {
    let statistics = entry.statistics();
    ModelStatistics {
        name: entry.spec().name.to_string(),
        version: entry.spec().version.to_string(),
        last_inference: statistics.last_inference.map_or(0, milliseconds),
        inference_count: statistics.inferences,
        execution_count: statistics.executions,
        inference_stats: InferenceStatistics::of(&statistics),
        batch_stats: statistics.batches.iter().map(BatchOfSize::of).collect(),
    }
}

impl InferenceStatistics {
    fn of(statistics: &Statistics) -> Self {
        Self {
            success: statistics.success.into(),
            fail: statistics.fail.into(),
            queue: statistics.queue.into(),
            compute_input: statistics.preprocess.into(),
            compute_infer: statistics.infer.into(),
            compute_output: statistics.postprocess.into(),
            cache_hit: StatisticDuration::default(),
            cache_miss: StatisticDuration::default(),
        }
    }
}

impl BatchOfSize {
    fn of((rows, batch): (&u32, &BatchStatistics)) -> Self {
        Self {
            batch_size: u64::from(*rows),
            compute_input: batch.preprocess.into(),
            compute_infer: batch.infer.into(),
            compute_output: batch.postprocess.into(),
        }
    }
}

impl From<Counted> for StatisticDuration {
    fn from(counted: Counted) -> Self {
        Self {
            count: counted.count,
            ns: nanos(counted.total),
        }
    }
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
