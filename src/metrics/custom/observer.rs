//! What one handler observes: each metric is looked up once, each series bound once, and each refusal remembered.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::MetricsState;
use super::super::listing::OURS;
use super::super::sink::{BoundSink, MetricSink};
use super::{CustomMetric, CustomMetricError};
use crate::model::ModelName;

/// How names of TorchServe's own metrics begin.
const TORCHSERVES: &str = "ts_";
/// How many different names one handler may use.
const MOST_NAMES: usize = 1024;

/// Takes what the handler of one version observes. Its series go with it.
pub struct Observer {
    metrics: Arc<MetricsState>,
    model: ModelName,
    limit: usize,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By name. An error is why a metric is left out, whatever its labels are.
    metrics: HashMap<String, Result<Bound, CustomMetricError>>,
    series: usize,
}

/// One metric as the handler has it.
struct Bound {
    label_names: Vec<String>,
    sink: Arc<MetricSink>,
    series: BTreeMap<Vec<String>, BoundSink>,
}

impl Observer {
    /// For the handler of `model`, which may have `limit` series.
    pub(in crate::metrics) fn new(
        metrics: Arc<MetricsState>,
        model: ModelName,
        limit: usize,
    ) -> Self {
        Self {
            metrics,
            model,
            limit,
            known: Mutex::default(),
        }
    }

    /// Takes one observation, or returns why it is refused.
    pub fn observe(&self, metric: &CustomMetric<'_>) -> Result<(), CustomMetricError> {
        if self.metrics.custom.is_off() {
            return Ok(());
        }
        let Known { metrics, series } = &mut *self.known.lock();
        if let Some(known) = metrics.get_mut(metric.name) {
            let bound = known.as_mut().map_err(|refusal| refusal.clone())?;
            return self.update(bound, series, metric);
        }
        if metrics.len() >= MOST_NAMES {
            return Err(self.too_many(metric));
        }
        let mut bound = self.introduce(metric);
        let result = match &mut bound {
            Ok(bound) => self.update(bound, series, metric),
            Err(refusal) => Err(refusal.clone()),
        };
        metrics.insert(metric.name.to_owned(), bound);
        result
    }

    fn too_many(&self, metric: &CustomMetric<'_>) -> CustomMetricError {
        CustomMetricError::TooMany {
            name: metric.name.to_owned(),
            limit: self.limit,
        }
    }

    /// Finds the sink of a metric that this handler did not have yet.
    fn introduce(&self, metric: &CustomMetric<'_>) -> Result<Bound, CustomMetricError> {
        self.check_name(metric.name)?;
        let sink = self.metrics.custom.sink(metric);
        Ok(Bound {
            label_names: metric.label_names.to_vec(),
            sink: sink.ok_or_else(|| CustomMetricError::Unlisted(metric.name.to_owned()))?,
            series: BTreeMap::new(),
        })
    }

    fn update(
        &self,
        bound: &mut Bound,
        series: &mut usize,
        metric: &CustomMetric<'_>,
    ) -> Result<(), CustomMetricError> {
        check(bound, metric)?;
        if let Some(bound_sink) = bound.series.get(metric.label_values) {
            bound_sink.update(metric.value, metric.request_id);
            return Ok(());
        }
        if *series >= self.limit {
            return Err(self.too_many(metric));
        }
        let bound_sink = self.metrics.custom.bind(&bound.sink, metric, &self.model);
        let bound_sink = bound_sink.ok_or_else(|| CustomMetricError::Labels {
            name: metric.name.to_owned(),
            known: bound.sink.listed().labels.clone(),
            given: metric.label_names.to_vec(),
        })?;
        bound_sink.update(metric.value, metric.request_id);
        bound
            .series
            .insert(metric.label_values.to_vec(), bound_sink);
        *series += 1;
        Ok(())
    }

    fn check_name(&self, name: &str) -> Result<(), CustomMetricError> {
        let is_prefixed = name.starts_with(OURS) || name.starts_with(TORCHSERVES);
        if is_prefixed || self.metrics.custom.is_reserved(name) {
            return Err(CustomMetricError::Reserved(name.to_owned()));
        }
        Ok(())
    }
}

/// Checks kind, labels and value against what the metric is.
fn check(bound: &Bound, metric: &CustomMetric<'_>) -> Result<(), CustomMetricError> {
    let (name, listed) = (|| metric.name.to_owned(), bound.sink.listed());
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
