//! Metrics that handlers define: families made at the first observation, shared by all models.
//!
//! Names and values are foreign. A handler can neither take the name of a built-in family nor change the kind or
//! the labels of one that exists; what does not fit is refused with the reason.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, Opts};

use super::families::ts_help;
use super::text::{Family, Kind};
use crate::model::ModelName;

/// Labels every such family has, after the handler's own.
const OWN_LABELS: [&str; 3] = ["ModelName", "Level", "Hostname"];
/// Names of built-in families that do not start with a reserved prefix.
const BUILT_IN: [&str; 15] = [
    "Requests2XX",
    "Requests4XX",
    "Requests5XX",
    "QueueTime",
    "WorkerThreadTime",
    "WorkerLoadTime",
    "HandlerTime",
    "PredictionTime",
    "CPUUtilization",
    "MemoryUsed",
    "MemoryAvailable",
    "MemoryUtilization",
    "DiskUsage",
    "DiskAvailable",
    "DiskUtilization",
];
const RESERVED_PREFIXES: [&str; 3] = ["ts_", "lantern_", "GPU"];
/// TorchServe's default buckets.
const BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// Kind of a handler's metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CustomKind {
    /// Grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

/// One observation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CustomMetric<'a> {
    /// Name of the family.
    pub name: &'a str,
    /// Kind.
    pub kind: CustomKind,
    /// Unit, shown in the help text.
    pub unit: &'a str,
    /// Label names.
    pub label_names: &'a [String],
    /// Label values, as many as names.
    pub label_values: &'a [String],
    /// Value.
    pub value: f64,
}

/// Why an observation was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CustomMetricError {
    /// The name belongs to the server.
    #[error("metric {0:?} has a name that belongs to the server")]
    Reserved(String),
    /// The name or a label is not valid, or there are not as many values as labels.
    #[error("metric {name:?} is not valid: {reason}")]
    Invalid {
        /// Name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The family exists with another kind or other labels.
    #[error("metric {0:?} exists with another kind or other labels")]
    Conflict(String),
    /// Counters only grow.
    #[error("counter {0:?} cannot be changed by a negative or undefined value")]
    Negative(String),
}

enum Collected {
    Counter(CounterVec),
    Gauge(GaugeVec),
    Histogram(HistogramVec),
}

struct Entry {
    collected: Collected,
    labels: Vec<String>,
}

/// All families that handlers defined.
pub struct Custom {
    hostname: String,
    families: Mutex<BTreeMap<String, Entry>>,
}

impl Custom {
    pub(super) fn new(hostname: String) -> Self {
        Self {
            hostname,
            families: Mutex::default(),
        }
    }

    /// Takes an observation by a handler of `model`.
    pub(super) fn observe(
        &self,
        model: &ModelName,
        metric: &CustomMetric<'_>,
    ) -> Result<(), CustomMetricError> {
        check_name(metric.name)?;
        let mut values: Vec<&str> = metric.label_values.iter().map(String::as_str).collect();
        values.extend([model.as_str(), "Model", &self.hostname]);
        let mut families = self.families.lock();
        if !families.contains_key(metric.name) {
            families.insert(metric.name.to_owned(), Entry::new(metric)?);
        }
        match families.get(metric.name) {
            Some(entry) if entry.fits(metric) => entry.observe(&values, metric),
            _ => Err(CustomMetricError::Conflict(metric.name.to_owned())),
        }
    }

    pub(super) fn gather(&self) -> Vec<Family> {
        self.families
            .lock()
            .values()
            .flat_map(Entry::gather)
            .collect()
    }
}

impl Entry {
    fn new(metric: &CustomMetric<'_>) -> Result<Self, CustomMetricError> {
        let mut labels = metric.label_names.to_vec();
        labels.extend(OWN_LABELS.map(str::to_owned));
        let names: Vec<&str> = labels.iter().map(String::as_str).collect();
        let collected = match metric.kind {
            CustomKind::Counter => {
                CounterVec::new(opts(metric, Kind::Counter), &names).map(Collected::Counter)
            }
            CustomKind::Gauge => {
                GaugeVec::new(opts(metric, Kind::Gauge), &names).map(Collected::Gauge)
            }
            CustomKind::Histogram => {
                let opts = HistogramOpts {
                    common_opts: opts(metric, Kind::Histogram),
                    buckets: BUCKETS.to_vec(),
                };
                HistogramVec::new(opts, &names).map(Collected::Histogram)
            }
        };
        match collected {
            Ok(collected) => Ok(Self { collected, labels }),
            Err(error) => Err(invalid(metric, &error)),
        }
    }

    fn fits(&self, metric: &CustomMetric<'_>) -> bool {
        let same_kind = matches!(
            (&self.collected, metric.kind),
            (Collected::Counter(_), CustomKind::Counter)
                | (Collected::Gauge(_), CustomKind::Gauge)
                | (Collected::Histogram(_), CustomKind::Histogram)
        );
        let own = self.labels.len() - OWN_LABELS.len();
        same_kind && self.labels[..own] == *metric.label_names
    }

    fn observe(&self, values: &[&str], metric: &CustomMetric<'_>) -> Result<(), CustomMetricError> {
        let invalid = |error| invalid(metric, &error);
        let value = metric.value;
        match &self.collected {
            Collected::Counter(_) if value.is_nan() || value < 0.0 => {
                return Err(CustomMetricError::Negative(metric.name.to_owned()));
            }
            Collected::Counter(family) => {
                family
                    .get_metric_with_label_values(values)
                    .map_err(invalid)?
                    .inc_by(value);
            }
            Collected::Gauge(family) => {
                family
                    .get_metric_with_label_values(values)
                    .map_err(invalid)?
                    .set(value);
            }
            Collected::Histogram(family) => {
                family
                    .get_metric_with_label_values(values)
                    .map_err(invalid)?
                    .observe(value);
            }
        }
        Ok(())
    }

    fn gather(&self) -> Vec<Family> {
        let families = match &self.collected {
            Collected::Counter(family) => family.collect(),
            Collected::Gauge(family) => family.collect(),
            Collected::Histogram(family) => family.collect(),
        };
        let families = families.into_iter();
        families
            .map(|family| Family::new(family, &self.labels))
            .collect()
    }
}

fn opts(metric: &CustomMetric<'_>, kind: Kind) -> Opts {
    Opts::new(metric.name, ts_help(kind, metric.unit))
}

fn invalid(metric: &CustomMetric<'_>, error: &prometheus::Error) -> CustomMetricError {
    CustomMetricError::Invalid {
        name: metric.name.to_owned(),
        reason: error.to_string(),
    }
}

fn check_name(name: &str) -> Result<(), CustomMetricError> {
    let reserved = RESERVED_PREFIXES
        .iter()
        .any(|prefix| name.starts_with(prefix));
    if reserved || BUILT_IN.contains(&name) {
        return Err(CustomMetricError::Reserved(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::metrics::{Metrics, Mode};

    fn metric(name: &str, kind: CustomKind, value: f64) -> CustomMetric<'_> {
        CustomMetric {
            name,
            kind,
            unit: "count",
            label_names: &[],
            label_values: &[],
            value,
        }
    }

    fn model() -> ModelName {
        ModelName::new("m").unwrap()
    }

    #[test]
    fn a_handlers_metric_carries_its_model() {
        let metrics = Metrics::new();
        let observed = metric("Words", CustomKind::Counter, 2.0);
        metrics.observe(&model(), &observed).unwrap();
        let text = metrics.scrape(Mode::Prometheus, &["Words".to_owned()]);
        assert!(
            text.contains("Words{ModelName=\"m\",Level=\"Model\",Hostname="),
            "{text}"
        );
    }

    #[test]
    fn names_of_the_server_are_refused() {
        let metrics = Metrics::new();
        for name in ["Requests2XX", "ts_x", "lantern_request_seconds", "GPUx"] {
            let error = metrics.observe(&model(), &metric(name, CustomKind::Gauge, 1.0));
            assert_eq!(error, Err(CustomMetricError::Reserved(name.to_owned())));
        }
    }

    #[test]
    fn a_family_keeps_its_kind_and_labels() {
        let metrics = Metrics::new();
        metrics
            .observe(&model(), &metric("a", CustomKind::Gauge, 1.0))
            .unwrap();
        let error = metrics.observe(&model(), &metric("a", CustomKind::Counter, 1.0));
        assert_eq!(error, Err(CustomMetricError::Conflict("a".to_owned())));
    }

    #[test]
    fn hostile_names_labels_and_values_are_errors() {
        let metrics = Metrics::new();
        let label = ["a b".to_owned()];
        let bad = CustomMetric {
            label_names: &label,
            label_values: &label,
            ..metric("ok", CustomKind::Gauge, 1.0)
        };
        assert!(metrics.observe(&model(), &bad).is_err());
        let short = CustomMetric {
            label_values: &label,
            ..metric("short", CustomKind::Gauge, 1.0)
        };
        assert!(metrics.observe(&model(), &short).is_err());
        assert!(
            metrics
                .observe(&model(), &metric("no name", CustomKind::Gauge, 1.0))
                .is_err()
        );
        assert!(
            metrics
                .observe(&model(), &metric("n", CustomKind::Counter, -1.0))
                .is_err()
        );
        assert!(
            metrics
                .observe(&model(), &metric("n", CustomKind::Counter, f64::NAN))
                .is_err()
        );
    }
}
