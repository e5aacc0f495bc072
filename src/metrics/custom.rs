//! `model_metrics`: what handlers measure, and what the server measures of them.
//!
//! Names, labels and values of handlers are foreign. A metric that `metrics.yaml` lists has the kind, the unit and the
//! labels that stand there; one that it does not is left out, or with `model_metrics_auto_detect` is made as the first
//! handler has it. A handler can neither take the name of a metric of the server nor speak for another model.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::family::{Family, Hold};
use super::listing::{HOSTNAME, ListedMetric, Listing};
use super::sink::{BoundSink, MetricSink};
use super::{Config, MetricKind, Mode};
use crate::model::ModelName;

mod observer;

pub use observer::Observer;

/// Labels that every metric of a handler gets unless the listing says otherwise, after the handler's own.
const DEFAULT_LABELS: [&str; 3] = ["ModelName", "Level", HOSTNAME];

/// One observation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CustomMetric<'a> {
    /// Name of the metric.
    pub name: &'a str,
    /// Kind.
    pub kind: MetricKind,
    /// Unit, where the listing has none for it.
    pub unit: &'a str,
    /// Label names.
    pub label_names: &'a [String],
    /// Label values, as many as names.
    pub label_values: &'a [String],
    /// Value.
    pub value: f64,
    /// The request it was measured for; empty if there is none.
    pub request_id: &'a str,
}

/// Why an observation was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CustomMetricError {
    /// The name belongs to the server.
    #[error("metric {0:?} has a name that belongs to the server")]
    Reserved(String),
    /// It is neither listed nor may it be detected.
    #[error(
        "metric {0:?} is left out: metrics_config does not list it under model_metrics, and model_metrics_auto_detect \
         is false"
    )]
    Unlisted(String),
    /// The metric is listed, or exists, with another kind.
    #[error("[METRICS]Failed to update metric with name:{name}: it is a {known}, not a {given}")]
    Kind {
        /// Name.
        name: String,
        /// Kind it has.
        known: &'static str,
        /// Kind the handler gives.
        given: &'static str,
    },
    /// The metric is listed, or exists, with other labels.
    #[error(
        "[METRICS]Failed to update metric with name:{name}: its labels are {known:?}, the handler's {given:?}"
    )]
    Labels {
        /// Name.
        name: String,
        /// Labels it has.
        known: Vec<String>,
        /// Labels the handler gives.
        given: Vec<String>,
    },
    /// Counters only grow, and no value is undefined.
    #[error("[METRICS]Failed to update metric with name:{name}: a {kind} does not take {value}")]
    Value {
        /// Name.
        name: String,
        /// Its kind.
        kind: &'static str,
        /// The value, as text.
        value: String,
    },
    /// The model has as many series as it may have.
    #[error("metric {name:?}: the model has {limit} series already; new ones are left out")]
    TooMany {
        /// Name.
        name: String,
        /// Series that a model may have.
        limit: usize,
    },
}

/// Everything that is listed under `model_metrics`, and what was detected.
pub(super) struct CustomMetrics {
    cfg: Config,
    hostname: String,
    /// Names that no handler may take.
    reserved: HashSet<String>,
    listed: Vec<Arc<MetricSink>>,
    /// Metrics that are not listed, for as long as a handler holds them.
    detected: Mutex<BTreeMap<String, Weak<MetricSink>>>,
}

impl CustomMetrics {
    pub(super) fn new(cfg: &Config, hostname: String) -> Self {
        let mut listed = cfg.listing.model.clone();
        if cfg.auto_detect {
            Listing::add_own(&mut listed);
        }
        let sink = |listed| Arc::new(MetricSink::new(listed, cfg, &cfg.model_log));
        Self {
            listed: listed.into_iter().map(sink).collect(),
            detected: Mutex::default(),
            reserved: reserved(cfg),
            cfg: cfg.clone(),
            hostname,
        }
    }

    /// Whether observations would show nowhere.
    fn is_off(&self) -> bool {
        self.cfg.mode == Mode::Prometheus && !self.cfg.has_scrapes
    }

    /// The families that scrapes show.
    pub(super) fn families(&self) -> Vec<Family> {
        let detected: Vec<_> = {
            let detected = self.detected.lock();
            detected.values().filter_map(Weak::upgrade).collect()
        };
        let sinks = self.listed.iter().chain(&detected);
        sinks.filter_map(|sink| sink.family()).cloned().collect()
    }

    /// Whether `name` is one that no handler may take.
    pub(super) fn is_reserved(&self, name: &str) -> bool {
        self.reserved.contains(name)
    }

    /// A series of `model` that the server measures itself.
    pub(super) fn bind_own(&self, name: &str, model: &ModelName) -> BoundSink {
        let metric = CustomMetric {
            name,
            kind: MetricKind::Gauge,
            unit: "Milliseconds",
            label_names: &[],
            label_values: &[],
            value: 0.0,
            request_id: "",
        };
        let Some(sink) = self.listed(name) else {
            return BoundSink::Nowhere;
        };
        self.bind(sink, &metric, model).unwrap_or_else(|| {
            let labels = &sink.listed().labels;
            tracing::error!(
                "metrics_config lists {name} with the labels {labels:?}, so it is left out"
            );
            BoundSink::Nowhere
        })
    }

    /// The sink of `metric`, if it is listed or may be detected.
    fn sink(&self, metric: &CustomMetric<'_>) -> Option<Arc<MetricSink>> {
        if let Some(sink) = self.listed(metric.name) {
            return Some(Arc::clone(sink));
        }
        self.cfg.auto_detect.then(|| self.detect(metric))
    }

    fn listed(&self, name: &str) -> Option<&Arc<MetricSink>> {
        let mut listed = self.listed.iter();
        listed.find(|sink| sink.listed().name == name)
    }

    fn detect(&self, metric: &CustomMetric<'_>) -> Arc<MetricSink> {
        let mut detected = self.detected.lock();
        if let Some(sink) = detected.get(metric.name).and_then(Weak::upgrade) {
            return sink;
        }
        detected.retain(|_, sink| sink.strong_count() > 0);
        let listed = as_detected(metric);
        let sink = Arc::new(MetricSink::new(listed, &self.cfg, &self.cfg.model_log));
        detected.insert(metric.name.to_owned(), Arc::downgrade(&sink));
        sink
    }

    /// The series of `metric`; `None` if its labels are not the sink's.
    fn bind(
        &self,
        sink: &MetricSink,
        metric: &CustomMetric<'_>,
        model: &ModelName,
    ) -> Option<BoundSink> {
        let labels = &sink.listed().labels;
        let is_known =
            |name: &String| labels.contains(name) || DEFAULT_LABELS.contains(&name.as_str());
        if !metric.label_names.iter().all(is_known) {
            return None;
        }
        let values = labels.iter().map(|label| self.value(label, metric, model));
        let values: Option<Vec<&str>> = values.collect();
        sink.bind(&values?, Hold::WhileUsed)
    }

    /// The value of one label. A handler cannot choose the model's name or the host's.
    fn value<'a>(
        &'a self,
        label: &str,
        metric: &CustomMetric<'a>,
        model: &'a ModelName,
    ) -> Option<&'a str> {
        if label == "ModelName" {
            return Some(model.as_str());
        }
        if label.eq_ignore_ascii_case(HOSTNAME) {
            return Some(&self.hostname);
        }
        let mut own = metric.label_names.iter().zip(metric.label_values);
        match own.find(|(name, _)| *name == label) {
            Some((_, value)) => Some(value.as_str()),
            None => (label == "Level").then_some("Model"),
        }
    }
}

/// The names of what the server measures, in this configuration or in any other.
fn reserved(cfg: &Config) -> HashSet<String> {
    let default = Listing::default();
    let server = default.ts.iter().chain(&cfg.listing.ts);
    let all = server.chain(&default.model);
    all.map(|listed| listed.name.clone()).collect()
}

/// How a metric is listed that the first handler makes.
fn as_detected(metric: &CustomMetric<'_>) -> ListedMetric {
    let mut labels = metric.label_names.to_vec();
    labels.retain(|label| label != HOSTNAME);
    for label in DEFAULT_LABELS {
        if !labels.iter().any(|known| known == label) {
            labels.push(label.to_owned());
        }
    }
    ListedMetric {
        name: metric.name.to_owned(),
        kind: metric.kind,
        unit: metric.unit.to_owned(),
        labels,
    }
}

#[cfg(test)]
pub(super) mod tests;
