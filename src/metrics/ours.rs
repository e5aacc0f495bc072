//! Families that TorchServe does not have: how long each phase takes, how requests end, and how much is under way.

use std::sync::Arc;
use std::time::Duration;

use super::Kind;
use super::cell::{Cell, Shards};
use super::family::{Definition, Family, Hold};
use crate::model::{ModelName, Version};

/// From 50 µs, which is a small model's whole pipeline, to the default response timeout.
const SECONDS: [f64; 19] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0, 120.0,
];
const ROWS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Histograms in seconds, in the order of [`Observed::phases`].
const PHASES: [(&str, &str); 5] = [
    (
        "lantern_request_seconds",
        "From arrival of a request until its answer",
    ),
    ("lantern_preprocess_seconds", "In the handler's preprocess"),
    (
        "lantern_queue_seconds",
        "From the end of preprocess until a worker took the job",
    ),
    (
        "lantern_infer_seconds",
        "In the session, for the whole batch",
    ),
    (
        "lantern_postprocess_seconds",
        "In the handler's postprocess",
    ),
];
const BATCH_ROWS: (&str, &str) = (
    "lantern_batch_rows",
    "Rows of the batch that a request was part of",
);
/// Counters, in the order of [`Outcome`].
const OUTCOMES: [(&str, &str); 4] = [
    (
        "lantern_rejected_requests_total",
        "Requests refused at the door",
    ),
    (
        "lantern_expired_requests_total",
        "Requests whose deadline passed",
    ),
    (
        "lantern_cancelled_requests_total",
        "Requests whose client left",
    ),
    (
        "lantern_failed_requests_total",
        "Requests that ended in an error",
    ),
];
/// Gauges, in the order of [`Load`].
const LOAD: [(&str, &str); 5] = [
    (
        "lantern_requests_in_flight",
        "Requests admitted and not answered",
    ),
    (
        "lantern_queue_depth",
        "Requests admitted beyond what the workers are running",
    ),
    ("lantern_workers_ready", "Workers that take jobs"),
    (
        "lantern_batching",
        "Whether requests are stacked: 1 if so, 0.5 while that is on trial, 0 if not",
    ),
    (
        "lantern_load_failed",
        "1 if the version did not load, else 0",
    ),
];

/// How a request that was not answered as asked for ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Refused at the door.
    Rejected,
    /// Its deadline passed.
    Expired,
    /// Its client left.
    Cancelled,
    /// It ended in an error.
    Failed,
}

/// The times of one answered request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Observed {
    /// From arrival until the answer.
    pub request: Duration,
    /// In preprocess.
    pub preprocess: Duration,
    /// From the end of preprocess until a worker took the job.
    pub queue: Duration,
    /// In the session.
    pub infer: Duration,
    /// In postprocess.
    pub postprocess: Duration,
    /// Rows of the batch; 0 if the model did not run.
    pub batch_rows: u32,
}

impl Observed {
    fn phases(&self) -> [Duration; 5] {
        [
            self.request,
            self.preprocess,
            self.queue,
            self.infer,
            self.postprocess,
        ]
    }
}

/// How much is under way for one version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests admitted and not answered.
    pub in_flight: usize,
    /// Requests admitted beyond what the workers are running.
    pub queued: usize,
    /// Workers that take jobs.
    pub workers_ready: usize,
    /// Whether requests are stacked.
    pub stacking: Stacking,
    /// The version did not load.
    pub has_failed: bool,
}

/// Whether requests of one version are stacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stacking {
    /// Each runs by itself.
    #[default]
    Off,
    /// They run both ways.
    Trial,
    /// They share runs.
    On,
}

impl Stacking {
    const fn value(self) -> f64 {
        match self {
            Self::Off => 0.0,
            Self::Trial => 0.5,
            Self::On => 1.0,
        }
    }
}

/// Shows a version that did not load and has no other metrics, for as long as it is kept.
pub struct LoadFailure {
    _shown: Option<Arc<Cell>>,
}

/// The families.
pub(super) struct Ours {
    phases: [Arc<Family>; 5],
    batch_rows: Arc<Family>,
    outcomes: [Arc<Family>; 4],
    load: [Arc<Family>; 5],
}

/// The series of one version, shown as long as somebody has them.
pub(super) struct OfModel {
    phases: [Arc<Cell>; 5],
    batch_rows: Arc<Cell>,
    outcomes: [Arc<Cell>; 4],
    load: [Arc<Cell>; 5],
}

impl Ours {
    pub(super) fn new(shards: Shards) -> Self {
        let family = |named, kind, bounds: &[f64]| {
            Arc::new(Family::new(definition(named, kind, bounds), shards))
        };
        Self {
            phases: PHASES.map(|named| family(named, Kind::Histogram, &SECONDS)),
            batch_rows: family(BATCH_ROWS, Kind::Histogram, &ROWS),
            outcomes: OUTCOMES.map(|named| family(named, Kind::Counter, &[])),
            load: LOAD.map(|named| family(named, Kind::Gauge, &[])),
        }
    }

    pub(super) fn families(&self) -> impl Iterator<Item = &Arc<Family>> {
        let rows = std::iter::once(&self.batch_rows);
        let others = self.outcomes.iter().chain(&self.load);
        self.phases.iter().chain(rows).chain(others)
    }

    /// Shows that a version did not load.
    pub(super) fn load_failure(&self, name: &ModelName, version: &Version) -> Arc<Cell> {
        let [.., failed] = &self.load;
        let cell = failed.bind(&[name.as_str(), version.as_str()], Hold::WhileUsed);
        cell.update(1.0);
        cell
    }

    pub(super) fn bind(&self, name: &ModelName, version: &Version) -> OfModel {
        let labels = [name.as_str(), version.as_str()];
        let bind = |family: &Arc<Family>| family.bind(&labels, Hold::WhileUsed);
        OfModel {
            phases: self.phases.each_ref().map(bind),
            batch_rows: bind(&self.batch_rows),
            outcomes: self.outcomes.each_ref().map(bind),
            load: self.load.each_ref().map(bind),
        }
    }
}

fn definition((name, help): (&str, &str), kind: Kind, bounds: &[f64]) -> Definition {
    Definition {
        name: name.to_owned(),
        help: help.to_owned(),
        kind,
        labels: ["model_name", "model_version"].map(str::to_owned).into(),
        bounds: bounds.into(),
    }
}

impl LoadFailure {
    pub(super) fn new(ours: Option<&Ours>, name: &ModelName, version: &Version) -> Self {
        Self {
            _shown: ours.map(|ours| ours.load_failure(name, version)),
        }
    }
}

impl OfModel {
    /// Takes the times of a request. Without a run of the model, there are none but those of the request itself and of
    /// preprocess.
    pub(super) fn observe(&self, observed: &Observed) {
        let happened = if observed.batch_rows > 0 { 5 } else { 2 };
        let phases = self.phases.iter().zip(observed.phases());
        for (cell, took) in phases.take(happened) {
            cell.update(took.as_secs_f64());
        }
        if observed.batch_rows > 0 {
            self.batch_rows.update(observed.batch_rows.into());
        }
    }

    pub(super) fn ended(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].update(1.0);
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub(super) fn set_load(&self, load: Load) {
        let values = [
            load.in_flight as f64,
            load.queued as f64,
            load.workers_ready as f64,
            load.stacking.value(),
            f64::from(u8::from(load.has_failed)),
        ];
        for (cell, value) in self.load.iter().zip(values) {
            cell.update(value);
        }
    }
}
