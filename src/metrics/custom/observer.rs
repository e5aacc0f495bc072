//! What one handler observes: each metric is looked up once, each series bound once, and each refusal remembered.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::Shared;
use super::super::listing::OURS;
use super::super::outlet::{Meter, Outlet};
use super::{CustomMetric, CustomMetricError};
use crate::model::ModelName;

/// What names of TorchServe's own begin with.
const TORCHSERVES: &str = "ts_";
/// Names that one handler may try.
const MOST_NAMES: usize = 1024;

/// Takes what the handler of one version observes. Its series go with it.
pub struct Observer {
    metrics: Arc<Shared>,
    model: ModelName,
    limit: usize,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By name; why not, for those that are left out whatever their labels.
    metrics: HashMap<String, Result<Bound, CustomMetricError>>,
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
    pub(in crate::metrics) fn new(metrics: Arc<Shared>, model: ModelName, limit: usize) -> Self {
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
        if *series >= self.limit {
            return Err(self.too_many(metric));
        }
        let meter = self.metrics.custom.bind(&bound.outlet, metric, &self.model);
        let meter = meter.ok_or_else(|| CustomMetricError::Labels {
            name: metric.name.to_owned(),
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
        if is_prefixed || self.metrics.custom.reserved.contains(name) {
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
