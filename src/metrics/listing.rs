//! Which of TorchServe's metrics there are: what `metrics.yaml` says, and what holds without one.
//!
//! The names of everything the server itself measures in TorchServe's place are here and nowhere else.

use super::MetricKind;
use super::family::Definition;

/// Names of `ts_metrics` that the server measures.
pub(super) mod ts {
    pub const REQUESTS: [&str; 3] = ["Requests2XX", "Requests4XX", "Requests5XX"];
    pub const INFERENCE_REQUESTS: &str = "ts_inference_requests_total";
    pub const INFERENCE_LATENCY: &str = "ts_inference_latency_microseconds";
    pub const QUEUE_LATENCY: &str = "ts_queue_latency_microseconds";
    pub const QUEUE_TIME: &str = "QueueTime";
    pub const WORKER_THREAD_TIME: &str = "WorkerThreadTime";
    pub const WORKER_LOAD_TIME: &str = "WorkerLoadTime";
    pub const CPU_UTILIZATION: &str = "CPUUtilization";
    pub const MEMORY_USED: &str = "MemoryUsed";
    pub const MEMORY_AVAILABLE: &str = "MemoryAvailable";
    pub const MEMORY_UTILIZATION: &str = "MemoryUtilization";
    pub const DISK_USAGE: &str = "DiskUsage";
    pub const DISK_AVAILABLE: &str = "DiskAvailable";
    pub const DISK_UTILIZATION: &str = "DiskUtilization";
    pub const GPU_MEMORY_UTILIZATION: &str = "GPUMemoryUtilization";
    pub const GPU_MEMORY_USED: &str = "GPUMemoryUsed";
    pub const GPU_UTILIZATION: &str = "GPUUtilization";
}

/// Names of `model_metrics` that the server measures.
pub(super) mod model {
    pub const HANDLER_TIME: &str = "HandlerTime";
    pub const PREDICTION_TIME: &str = "PredictionTime";
    /// With `handler: profile: true`.
    pub const PROFILE: [&str; 3] = [
        "ts_handler_preprocess",
        "ts_handler_inference",
        "ts_handler_postprocess",
    ];
}

/// The three families that the mode `legacy` shows.
pub(super) const LEGACY: [&str; 3] = [
    ts::INFERENCE_REQUESTS,
    ts::INFERENCE_LATENCY,
    ts::QUEUE_LATENCY,
];
/// What every name of ours begins with.
pub(super) const OURS: &str = "lantern_";
/// The host's name, which every metric of a model has as its last label.
pub(super) const HOSTNAME: &str = "Hostname";

/// TorchServe's default buckets.
const BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// One metric of `metrics.yaml`. Names and labels are Prometheus'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedMetric {
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: MetricKind,
    /// Unit, for the help text and the log.
    pub unit: String,
    /// Names of labels, in order.
    pub labels: Vec<String>,
}

/// What `metrics.yaml` lists. Names differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// `ts_metrics`: of the server and its machine.
    pub ts: Vec<ListedMetric>,
    /// `model_metrics`: of models and their handlers. The host's name is the last label of each.
    pub model: Vec<ListedMetric>,
}

impl Listing {
    /// Nothing.
    pub const NONE: Self = Self {
        ts: Vec::new(),
        model: Vec::new(),
    };
}

impl Default for Listing {
    /// TorchServe's own `metrics.yaml`.
    fn default() -> Self {
        use MetricKind::{Counter, Gauge};
        let requests = ts::REQUESTS.map(|name| listed(name, Counter, "Count", &HOST));
        let counters = [
            listed(ts::INFERENCE_REQUESTS, Counter, "Count", &MODEL),
            listed(ts::INFERENCE_LATENCY, Counter, "Microseconds", &MODEL),
            listed(ts::QUEUE_LATENCY, Counter, "Microseconds", &MODEL),
        ];
        let worker = ["WorkerName", "Level", HOSTNAME];
        let times = [
            listed(ts::QUEUE_TIME, Gauge, "Milliseconds", &HOST),
            listed(ts::WORKER_THREAD_TIME, Gauge, "Milliseconds", &HOST),
            listed(ts::WORKER_LOAD_TIME, Gauge, "Milliseconds", &worker),
        ];
        let ts = [&requests[..], &counters, &times, &machine()].concat();
        let model = [model::HANDLER_TIME, model::PREDICTION_TIME];
        let model = model.map(|name| listed(name, Gauge, "ms", &HANDLER)).into();
        Self { ts, model }
    }
}

impl Listing {
    /// Adds what the server measures of models to `model_metrics`, as a worker of TorchServe has it that detects.
    pub(super) fn add_own(listing: &mut Vec<ListedMetric>) {
        let names = [model::HANDLER_TIME, model::PREDICTION_TIME];
        for name in names.into_iter().chain(model::PROFILE) {
            if !listing.iter().any(|listed| listed.name == name) {
                listing.push(listed(name, MetricKind::Gauge, "Milliseconds", &HANDLER));
            }
        }
    }
}

const HOST: [&str; 2] = ["Level", HOSTNAME];
const HANDLER: [&str; 3] = ["ModelName", "Level", HOSTNAME];
const GPU: [&str; 3] = ["Level", "DeviceId", HOSTNAME];
const MODEL: [&str; 3] = ["model_name", "model_version", "hostname"];

fn machine() -> [ListedMetric; 10] {
    let gauge = |name, unit, labels: &[&str]| listed(name, MetricKind::Gauge, unit, labels);
    [
        gauge(ts::CPU_UTILIZATION, "Percent", &HOST),
        gauge(ts::MEMORY_USED, "Megabytes", &HOST),
        gauge(ts::MEMORY_AVAILABLE, "Megabytes", &HOST),
        gauge(ts::MEMORY_UTILIZATION, "Percent", &HOST),
        gauge(ts::DISK_USAGE, "Gigabytes", &HOST),
        gauge(ts::DISK_UTILIZATION, "Percent", &HOST),
        gauge(ts::DISK_AVAILABLE, "Gigabytes", &HOST),
        gauge(ts::GPU_MEMORY_UTILIZATION, "Percent", &GPU),
        gauge(ts::GPU_MEMORY_USED, "Megabytes", &GPU),
        gauge(ts::GPU_UTILIZATION, "Percent", &GPU),
    ]
}

fn listed(name: &str, kind: MetricKind, unit: &str, labels: &[&str]) -> ListedMetric {
    ListedMetric {
        name: name.to_owned(),
        kind,
        unit: unit.to_owned(),
        labels: labels.iter().map(|&label| label.to_owned()).collect(),
    }
}

impl ListedMetric {
    /// Whether `value` may be taken: finite, and of a counter not negative.
    pub(super) fn takes(&self, value: f64) -> bool {
        value.is_finite() && (self.kind != MetricKind::Counter || value >= 0.0)
    }

    /// The family that shows it.
    pub(super) fn definition(&self) -> Definition {
        let (kind, unit) = (self.kind.name(), &self.unit);
        Definition {
            name: self.name.clone(),
            help: format!("Torchserve prometheus {kind} metric with unit: {unit}"),
            kind: self.kind,
            labels: self.labels.clone(),
            bounds: BUCKETS.into(),
        }
    }
}
