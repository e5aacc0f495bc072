//! Families that TorchServe does not have: how long each phase takes, how requests end, and how loaded each version is.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::MetricKind;
use super::cell::Cell;
use super::family::{Definition, Family, Hold};
use super::shards::Shards;
use crate::model::{ModelName, Version};
use crate::sandbox::{self, Outcomes, Wall};

/// From 50 µs, which is a small model's whole pipeline, to the default response timeout.
const SECONDS: [f64; 19] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0, 120.0,
];
const ROWS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Makes [`LanternFamilies`] and [`ModelFamilies`], which have a field for each row: kind, bounds of buckets, name and
/// help.
macro_rules! families {
    ($($field:ident: $kind:ident $bounds:expr, $name:literal, $help:literal;)*) => {
        /// The families that TorchServe does not have.
        pub(super) struct LanternFamilies {
            $($field: Family,)*
            walls: Family,
            dropped: Family,
        }

        /// The series of one version in each of the families, shown as long as somebody holds this.
        pub(super) struct ModelFamilies {
            $($field: Arc<Cell>,)*
            /// One for each wall, in order.
            walls: [Arc<Cell>; Wall::ALL.len()],
            dropped: DroppedReports,
        }

        impl LanternFamilies {
            pub(super) fn new(shards: Shards) -> Self {
                Self {
                    $($field: family(definition($name, $help, MetricKind::$kind, $bounds), shards),)*
                    walls: family(walls(), shards),
                    dropped: family(dropped(), shards),
                }
            }

            pub(super) fn all(&self) -> impl Iterator<Item = &Family> {
                [$(&self.$field,)* &self.walls, &self.dropped].into_iter()
            }

            pub(super) fn bind(&self, name: &ModelName, version: &Version) -> ModelFamilies {
                let labels = [name.as_str(), version.as_str()];
                ModelFamilies {
                    $($field: self.$field.bind(&labels, Hold::WhileUsed),)*
                    walls: Wall::ALL.map(|wall| {
                        let labels = [name.as_str(), version.as_str(), wall.name()];
                        self.walls.bind(&labels, Hold::WhileUsed)
                    }),
                    dropped: DroppedReports::new(&self.dropped, labels),
                }
            }
        }
    };
}

families! {
    request: Histogram &SECONDS, "lantern_request_seconds", "From arrival of a request until its answer";
    preprocess: Histogram &SECONDS, "lantern_preprocess_seconds", "In the handler's preprocess";
    queue: Histogram &SECONDS, "lantern_queue_seconds", "From the end of preprocess until a worker took the job";
    infer: Histogram &SECONDS, "lantern_infer_seconds", "In the session, for the whole batch";
    postprocess: Histogram &SECONDS, "lantern_postprocess_seconds", "In the handler's postprocess";
    batch_rows: Histogram &ROWS, "lantern_batch_rows", "Rows of the batch that a request was part of";
    rejected: Counter &[], "lantern_rejected_requests_total", "Requests rejected by admission";
    expired: Counter &[], "lantern_expired_requests_total", "Requests whose deadline passed";
    cancelled: Counter &[], "lantern_cancelled_requests_total", "Requests whose client left";
    failed: Counter &[], "lantern_failed_requests_total", "Requests that ended in an error";
    in_flight: Gauge &[], "lantern_requests_in_flight", "Requests admitted and not answered";
    queue_depth: Gauge &[], "lantern_queue_depth", "Requests admitted beyond what the workers are running";
    workers_ready: Gauge &[], "lantern_workers_ready", "Workers that take jobs";
    batching: Gauge &[], "lantern_batching",
        "Whether requests are stacked: 1 if so, 0.5 while that is on trial, 0 if not";
    load_failed: Gauge &[], "lantern_load_failed", "1 if the version did not load, else 0";
    worker_deaths: Counter &[], "lantern_worker_deaths_total", "Worker processes that died after they had loaded the version";
    worker_floods: Counter &[], "lantern_worker_floods_total", "Worker processes that were ended because they kept sending more than they may";
    circuit_open: Gauge &[], "lantern_circuit_open",
        "Whether requests are refused because worker processes keep dying: 1 if so, 0.5 while one at a time is let through, 0 if not";
}

/// How a request that was not answered as asked for ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was not admitted.
    Rejected,
    /// Its deadline passed.
    Expired,
    /// Its client left.
    Cancelled,
    /// It ended in an error.
    Failed,
}

/// What a worker process sends without being asked for it, and may send so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportKind {
    /// Lines of the handler's log.
    Log,
    /// Observations of the handler's own metrics.
    Observation,
    /// Lists of its workers.
    Workers,
    /// How requests are stacked.
    Batching,
    /// What became of its walls.
    Walls,
    /// Signs of life.
    Alive,
    /// Answers that nobody waits for.
    Answer,
    /// What it writes to stdout and stderr.
    Output,
}

impl ReportKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Log,
        Self::Observation,
        Self::Workers,
        Self::Batching,
        Self::Walls,
        Self::Alive,
        Self::Answer,
        Self::Output,
    ];

    /// What the metric calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Observation => "observation",
            Self::Workers => "workers",
            Self::Batching => "batching",
            Self::Walls => "walls",
            Self::Alive => "alive",
            Self::Answer => "answer",
            Self::Output => "output",
        }
    }
}

/// The times of one answered request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ObservedRequest {
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

/// How loaded one version is.
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
    /// Whether requests are let through to its worker process.
    pub circuit: Circuit,
}

/// Whether requests of one version are let through to its worker process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Circuit {
    /// All are.
    #[default]
    Closed,
    /// One at a time.
    HalfOpen,
    /// None.
    Open,
}

impl Circuit {
    const fn value(self) -> f64 {
        match self {
            Self::Closed => 0.0,
            Self::HalfOpen => 0.5,
            Self::Open => 1.0,
        }
    }
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

/// The counters of one version's dropped reports, each shown from the first one on: few versions have any.
struct DroppedReports {
    family: Family,
    labels: [String; 2],
    cells: [OnceLock<Arc<Cell>>; ReportKind::ALL.len()],
}

impl DroppedReports {
    fn new(family: &Family, labels: [&str; 2]) -> Self {
        Self {
            family: family.clone(),
            labels: labels.map(str::to_owned),
            cells: std::array::from_fn(|_| OnceLock::new()),
        }
    }

    fn cell(&self, kind: ReportKind) -> &Cell {
        let [name, version] = &self.labels;
        let bind = || {
            let labels = [name.as_str(), version, kind.name()];
            self.family.bind(&labels, Hold::WhileUsed)
        };
        self.cells[kind as usize].get_or_init(bind)
    }
}

/// Shows a version that did not load and has no other metrics, for as long as it is kept.
pub struct LoadFailure {
    _shown: Option<Arc<Cell>>,
}

impl LanternFamilies {
    /// Shows that a version did not load.
    fn load_failure(&self, name: &ModelName, version: &Version) -> Arc<Cell> {
        let labels = [name.as_str(), version.as_str()];
        let cell = self.load_failed.bind(&labels, Hold::WhileUsed);
        cell.update(1.0);
        cell
    }
}

fn family(definition: Definition, shards: Shards) -> Family {
    Family::new(definition, shards).expect("the table has valid names only")
}

fn definition(name: &str, help: &str, kind: MetricKind, bounds: &[f64]) -> Definition {
    Definition {
        name: name.to_owned(),
        help: help.to_owned(),
        kind,
        labels: ["model_name", "model_version"].map(str::to_owned).into(),
        bounds: bounds.into(),
    }
}

fn walls() -> Definition {
    let help = "1 if the wall is up around the version's worker process, else 0";
    let mut definition = definition("lantern_wall", help, MetricKind::Gauge, &[]);
    definition.labels.push("wall".to_owned());
    definition
}

fn dropped() -> Definition {
    let help = "What a worker process sent beyond its share of a second, which was dropped";
    let name = "lantern_worker_reports_dropped_total";
    let mut definition = definition(name, help, MetricKind::Counter, &[]);
    definition.labels.push("kind".to_owned());
    definition
}

impl LoadFailure {
    pub(super) fn new(
        families: Option<&LanternFamilies>,
        name: &ModelName,
        version: &Version,
    ) -> Self {
        Self {
            _shown: families.map(|families| families.load_failure(name, version)),
        }
    }
}

impl ModelFamilies {
    /// Takes the times of a request. If the model did not run, only the request itself and preprocess have one.
    pub(super) fn observe(&self, observed: &ObservedRequest) {
        self.request.update(observed.request.as_secs_f64());
        self.preprocess.update(observed.preprocess.as_secs_f64());
        if observed.batch_rows > 0 {
            self.queue.update(observed.queue.as_secs_f64());
            self.infer.update(observed.infer.as_secs_f64());
            self.postprocess.update(observed.postprocess.as_secs_f64());
            self.batch_rows.update(observed.batch_rows.into());
        }
    }

    pub(super) fn ended(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Rejected => &self.rejected,
            Outcome::Expired => &self.expired,
            Outcome::Cancelled => &self.cancelled,
            Outcome::Failed => &self.failed,
        };
        counter.update(1.0);
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub(super) fn set_load(&self, load: Load) {
        self.in_flight.update(load.in_flight as f64);
        self.queue_depth.update(load.queued as f64);
        self.workers_ready.update(load.workers_ready as f64);
        self.batching.update(load.stacking.value());
        self.load_failed
            .update(f64::from(u8::from(load.has_failed)));
        self.circuit_open.update(load.circuit.value());
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub(super) fn count_deaths(&self, deaths: u64) {
        self.worker_deaths.update(deaths as f64);
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub(super) fn count_floods(&self, floods: u64) {
        self.worker_floods.update(floods as f64);
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub(super) fn count_dropped(&self, kind: ReportKind, reports: u64) {
        if reports > 0 {
            self.dropped.cell(kind).update(reports as f64);
        }
    }

    pub(super) fn set_walls(&self, outcomes: &Outcomes) {
        for (wall, cell) in Wall::ALL.into_iter().zip(&self.walls) {
            let mut outcomes = outcomes.iter();
            let is_up = outcomes
                .any(|(one, outcome)| *one == wall && matches!(outcome, sandbox::Outcome::Up(_)));
            cell.update(f64::from(u8::from(is_up)));
        }
    }
}
