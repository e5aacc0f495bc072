//! `model_metrics`: what handlers measure, and what the server measures of them.
//!
//! Names, labels and values of handlers are foreign. A metric that `metrics.yaml` lists has the kind, the unit and the
//! labels that stand there; one that it does not is left out, or with `model_metrics_auto_detect` is made as the first
//! handler has it. A handler can neither take the name of a metric of the server nor speak for another model.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::family::{Family, Hold};
use super::listing::{HOSTNAME, Listed, Listing, OURS, model};
use super::outlet::{Meter, Outlet};
use super::{Config, Kind, Mode};
use crate::model::ModelName;

/// Labels that every metric of a handler gets unless the listing says otherwise, after the handler's own.
const DEFAULT_LABELS: [&str; 3] = ["ModelName", "Level", HOSTNAME];
/// What names of TorchServe's own begin with.
const TORCHSERVES: &str = "ts_";

/// One observation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CustomMetric<'a> {
    /// Name of the metric.
    pub name: &'a str,
    /// Kind.
    pub kind: Kind,
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
    /// Nobody asked for it.
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
    listed: Vec<Arc<Outlet>>,
    /// Those that a handler which is loaded has made.
    detected: Mutex<BTreeMap<String, Weak<Outlet>>>,
}

impl CustomMetrics {
    pub(super) fn new(cfg: &Config, hostname: String) -> Self {
        let mut listed = cfg.listing.model.clone();
        if cfg.auto_detect {
            Listing::add_own(&mut listed);
        }
        let outlet = |listed| Arc::new(Outlet::new(listed, cfg, &cfg.model_log));
        Self {
            listed: listed.into_iter().map(outlet).collect(),
            detected: Mutex::default(),
            cfg: cfg.clone(),
            hostname,
        }
    }

    /// Whether nobody will see what is observed.
    fn is_off(&self) -> bool {
        self.cfg.mode == Mode::Prometheus && !self.cfg.has_scrapes
    }

    /// What scrapes show.
    pub(super) fn families(&self) -> Vec<Arc<Family>> {
        let detected: Vec<_> = {
            let detected = self.detected.lock();
            detected.values().filter_map(Weak::upgrade).collect()
        };
        let outlets = self.listed.iter().chain(&detected);
        outlets
            .filter_map(|outlet| outlet.family())
            .cloned()
            .collect()
    }

    /// A series of `model` that the server measures itself.
    pub(super) fn bind_own(&self, name: &str, model: &ModelName) -> Meter {
        let metric = CustomMetric {
            name,
            kind: Kind::Gauge,
            unit: "Milliseconds",
            label_names: &[],
            label_values: &[],
            value: 0.0,
            request_id: "",
        };
        let Some(outlet) = self.listed(name) else {
            return Meter::Nowhere;
        };
        self.bind(outlet, &metric, model).unwrap_or_else(|| {
            let labels = &outlet.listed().labels;
            tracing::error!(
                "metrics_config lists {name} with the labels {labels:?}, so it is left out"
            );
            Meter::Nowhere
        })
    }

    /// The outlet of `metric`, if it is listed or may be detected.
    fn outlet(&self, metric: &CustomMetric<'_>) -> Option<Arc<Outlet>> {
        if let Some(outlet) = self.listed(metric.name) {
            return Some(Arc::clone(outlet));
        }
        self.cfg.auto_detect.then(|| self.detect(metric))
    }

    fn listed(&self, name: &str) -> Option<&Arc<Outlet>> {
        let mut listed = self.listed.iter();
        listed.find(|outlet| outlet.listed().name == name)
    }

    fn detect(&self, metric: &CustomMetric<'_>) -> Arc<Outlet> {
        let mut detected = self.detected.lock();
        if let Some(outlet) = detected.get(metric.name).and_then(Weak::upgrade) {
            return outlet;
        }
        detected.retain(|_, outlet| outlet.strong_count() > 0);
        let listed = as_detected(metric);
        let outlet = Arc::new(Outlet::new(listed, &self.cfg, &self.cfg.model_log));
        detected.insert(metric.name.to_owned(), Arc::downgrade(&outlet));
        outlet
    }

    /// The series of `metric`; `None` if its labels are not the outlet's.
    fn bind(&self, outlet: &Outlet, metric: &CustomMetric<'_>, model: &ModelName) -> Option<Meter> {
        let labels = &outlet.listed().labels;
        let is_known =
            |name: &String| labels.contains(name) || DEFAULT_LABELS.contains(&name.as_str());
        if !metric.label_names.iter().all(is_known) {
            return None;
        }
        let values = labels.iter().map(|label| self.value(label, metric, model));
        let values: Option<Vec<&str>> = values.collect();
        outlet.bind(&values?, Hold::WhileUsed)
    }

    /// The value of one label. Which model and which host it is, is not the handler's to say.
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

/// A metric as it is listed when the first handler has made it.
fn as_detected(metric: &CustomMetric<'_>) -> Listed {
    let mut labels = metric.label_names.to_vec();
    labels.retain(|label| label != HOSTNAME);
    for label in DEFAULT_LABELS {
        if !labels.iter().any(|known| known == label) {
            labels.push(label.to_owned());
        }
    }
    Listed {
        name: metric.name.to_owned(),
        kind: metric.kind,
        unit: metric.unit.to_owned(),
        labels,
    }
}

/// Takes what the handler of one version observes. Its series go with it.
pub struct Observer {
    metrics: Arc<super::Shared>,
    model: ModelName,
    limit: usize,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    metrics: HashMap<String, Bound>,
    series: usize,
}

/// One metric as the handler has it.
struct Bound {
    label_names: Vec<String>,
    outlet: Arc<Outlet>,
    meters: BTreeMap<Vec<String>, Meter>,
}

impl Observer {
    /// For the handler of `model`, which may have `limit` series.
    pub(super) fn new(metrics: Arc<super::Shared>, model: ModelName, limit: usize) -> Self {
        Self {
            metrics,
            model,
            limit,
            known: Mutex::default(),
        }
    }

    /// Takes one observation, or says why not.
    pub fn observe(&self, metric: &CustomMetric<'_>) -> Result<(), CustomMetricError> {
        if self.metrics.custom.is_off() {
            return Ok(());
        }
        let mut known = self.known.lock();
        if !known.metrics.contains_key(metric.name) {
            let bound = self.introduce(metric)?;
            known.metrics.insert(metric.name.to_owned(), bound);
        }
        let Known { metrics, series } = &mut *known;
        match metrics.get_mut(metric.name) {
            Some(bound) => self.update(bound, series, metric),
            None => Ok(()),
        }
    }

    /// Finds where a metric goes that this handler did not have yet.
    fn introduce(&self, metric: &CustomMetric<'_>) -> Result<Bound, CustomMetricError> {
        self.check_name(metric.name)?;
        let outlet = self.metrics.custom.outlet(metric);
        Ok(Bound {
            label_names: metric.label_names.to_vec(),
            outlet: outlet.ok_or_else(|| CustomMetricError::Unlisted(metric.name.to_owned()))?,
            meters: BTreeMap::new(),
        })
    }

    fn update(
        &self,
        bound: &mut Bound,
        series: &mut usize,
        metric: &CustomMetric<'_>,
    ) -> Result<(), CustomMetricError> {
        check(bound, metric)?;
        if let Some(meter) = bound.meters.get(metric.label_values) {
            meter.update(metric.value, metric.request_id);
            return Ok(());
        }
        let name = || metric.name.to_owned();
        if *series >= self.limit {
            return Err(CustomMetricError::TooMany {
                name: name(),
                limit: self.limit,
            });
        }
        let meter = self.metrics.custom.bind(&bound.outlet, metric, &self.model);
        let meter = meter.ok_or_else(|| CustomMetricError::Labels {
            name: name(),
            known: bound.outlet.listed().labels.clone(),
            given: metric.label_names.to_vec(),
        })?;
        meter.update(metric.value, metric.request_id);
        bound.meters.insert(metric.label_values.to_vec(), meter);
        *series += 1;
        Ok(())
    }

    fn check_name(&self, name: &str) -> Result<(), CustomMetricError> {
        let is_prefixed = name.starts_with(OURS) || name.starts_with(TORCHSERVES);
        let is_own = [model::HANDLER_TIME, model::PREDICTION_TIME].contains(&name);
        let is_default = || {
            Listing::default()
                .ts
                .iter()
                .any(|listed| listed.name == name)
        };
        if is_prefixed || is_own || self.metrics.server.lists(name) || is_default() {
            return Err(CustomMetricError::Reserved(name.to_owned()));
        }
        Ok(())
    }
}

/// Checks kind, labels and value against what the metric is.
fn check(bound: &Bound, metric: &CustomMetric<'_>) -> Result<(), CustomMetricError> {
    let (name, listed) = (|| metric.name.to_owned(), bound.outlet.listed());
    if listed.kind != metric.kind {
        return Err(CustomMetricError::Kind {
            name: name(),
            known: listed.kind.name(),
            given: metric.kind.name(),
        });
    }
    let has_values = metric.label_names.len() == metric.label_values.len();
    if bound.label_names != metric.label_names || !has_values {
        return Err(CustomMetricError::Labels {
            name: name(),
            known: bound.label_names.clone(),
            given: metric.label_names.to_vec(),
        });
    }
    if !listed.takes(metric.value) {
        return Err(CustomMetricError::Value {
            name: name(),
            kind: listed.kind.name(),
            value: metric.value.to_string(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
