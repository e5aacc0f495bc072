//! Interface `metrics`: a handler's own metrics, checked and counted before they leave this module.
//!
//! Names and labels become part of the server's output, and each combination of label values takes memory until the
//! version is unregistered. So names follow Prometheus' rules, and the number of series over all instances of a handler is
//! limited. A metric that breaks a rule does not fail a prediction: it is left out, and the model's log says why.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use wasmtime::component::Resource;

use super::bindings::lantern::handler::metrics;
use super::fault::Exceeded;
use super::host::Host;
use super::observation::{VALUE_LIMIT, check_names, check_values};
use super::rate::RateLimit;
use super::{Level, MetricKind, Observation};

/// Most metrics of one handler.
const METRICS_LIMIT: usize = 64;
/// Most metric handles of one store. Handlers usually make theirs in `init` and keep them.
const HANDLES_LIMIT: usize = 1024;

/// Marker type of the handles that guests have of metrics.
pub struct Metric;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Definition {
    name: Arc<str>,
    kind: MetricKind,
    unit: &'static str,
    label_names: Arc<[String]>,
}

/// The metrics that one store has handles of, by number.
#[derive(Default)]
pub(super) struct MetricTable {
    handles: Vec<MetricHandle>,
}

/// What a handle refers to.
#[derive(Debug, Clone)]
enum MetricHandle {
    Free,
    /// A metric that broke a rule; its observations are left out.
    Inert,
    Metric(Definition),
}

/// The metrics and series that all instances of one handler have made.
pub(super) struct Series {
    limit: usize,
    known: Mutex<Known>,
}

struct Known {
    definitions: HashMap<Arc<str>, Definition>,
    series: HashSet<(Arc<str>, Vec<String>)>,
    rate: RateLimit,
    /// Limits whose being exceeded was logged.
    logged: HashSet<SeriesLimit>,
}

/// What there may be only so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum SeriesLimit {
    /// Series in all.
    Series,
    /// Observations a second.
    Rate,
}

/// What [`Series::admit`] decided.
#[derive(Debug, PartialEq, Eq)]
enum SeriesDecision {
    Admitted,
    /// It would be one too many. `is_first` is true once for each limit, so that it is logged once.
    Refused {
        limit: SeriesLimit,
        is_first: bool,
    },
}

impl Series {
    /// Allows `limit` series, and so many observations a second.
    pub fn new(limit: usize, observations_per_second: u32) -> Self {
        Self {
            limit,
            known: Mutex::new(Known {
                definitions: HashMap::new(),
                series: HashSet::new(),
                rate: RateLimit::new(observations_per_second),
                logged: HashSet::new(),
            }),
        }
    }

    /// Checks a definition against the rules, and against what other instances defined under the same name.
    fn define(&self, definition: &Definition) -> Result<(), String> {
        check_names(&definition.name, &definition.label_names)?;
        let mut known = self.known.lock();
        match known.definitions.get(&definition.name) {
            Some(earlier) if earlier == definition => Ok(()),
            Some(_) => Err(format!(
                "metric {:?} was made before with different kinds, units or labels",
                definition.name
            )),
            None if known.definitions.len() >= METRICS_LIMIT => Err(format!(
                "metric {:?} is one more than the {METRICS_LIMIT} there may be",
                definition.name
            )),
            None => {
                known
                    .definitions
                    .insert(Arc::clone(&definition.name), definition.clone());
                Ok(())
            }
        }
    }

    fn admit(&self, name: &Arc<str>, label_values: &[String], now: Instant) -> SeriesDecision {
        let mut known = self.known.lock();
        if !known.rate.admit(1, now) {
            return known.refuse(SeriesLimit::Rate);
        }
        let series = (Arc::clone(name), label_values.to_vec());
        if known.series.contains(&series) {
            return SeriesDecision::Admitted;
        }
        if known.series.len() >= self.limit {
            return known.refuse(SeriesLimit::Series);
        }
        known.series.insert(series);
        SeriesDecision::Admitted
    }
}

impl Known {
    fn refuse(&mut self, limit: SeriesLimit) -> SeriesDecision {
        let is_first = self.logged.insert(limit);
        SeriesDecision::Refused { limit, is_first }
    }
}

impl MetricTable {
    fn push(&mut self, handle: MetricHandle) -> Option<Resource<Metric>> {
        let free = self
            .handles
            .iter()
            .position(|handle| matches!(handle, MetricHandle::Free));
        let index = free.unwrap_or(self.handles.len());
        if index >= HANDLES_LIMIT {
            return None;
        }
        if index == self.handles.len() {
            self.handles.push(MetricHandle::Free);
        }
        self.handles[index] = handle;
        Some(Resource::new_own(u32::try_from(index).ok()?))
    }

    fn get(&self, handle: &Resource<Metric>) -> MetricHandle {
        let handle = self.handles.get(handle.rep() as usize);
        handle.cloned().unwrap_or(MetricHandle::Free)
    }
}

impl Host {
    fn observe_checked(&mut self, observation: Observation) {
        let (name, values) = (&observation.name, &observation.label_values);
        match self.shared.series.admit(name, values, Instant::now()) {
            SeriesDecision::Admitted => self.shared.sink.observe(observation),
            SeriesDecision::Refused {
                limit,
                is_first: true,
            } => {
                let text = self.left_out(&observation.name, limit);
                self.log(Level::Warn, &text, Vec::new());
            }
            SeriesDecision::Refused { .. } => {}
        }
    }

    /// What is left out of the metric `name`.
    fn left_out(&self, name: &str, limit: SeriesLimit) -> String {
        let limits = &self.shared.limits;
        match limit {
            SeriesLimit::Series => format!(
                "metric {name:?}: more than {} series; new ones are left out",
                limits.metric_series
            ),
            SeriesLimit::Rate => format!(
                "metric {name:?}: more than {} observations a second (lantern.limits.observationsPerSecond, \
                 lantern_max_observations_per_second); further ones are left out",
                limits.observations_per_second
            ),
        }
    }
}

impl metrics::Host for Host {}

impl metrics::HostMetric for Host {
    fn new(
        &mut self,
        name: String,
        kind: metrics::Kind,
        unit: metrics::Unit,
        label_names: Vec<String>,
    ) -> wasmtime::Result<Resource<Metric>> {
        self.charge()?;
        let definition = Definition {
            name: name.into(),
            kind: kind.into(),
            unit: unit_name(unit),
            label_names: label_names.into(),
        };
        let handle = match self.shared.series.define(&definition) {
            Ok(()) => MetricHandle::Metric(definition),
            Err(reason) => {
                let text = format!("a metric is left out: {reason}");
                self.log(Level::Warn, &text, Vec::new());
                MetricHandle::Inert
            }
        };
        let handle = self.metrics.push(handle);
        handle.ok_or_else(|| {
            Exceeded::Forbidden(format!("holds more than {HANDLES_LIMIT} metrics")).into()
        })
    }

    fn observe(
        &mut self,
        handle: Resource<Metric>,
        value: f64,
        mut label_values: Vec<String>,
    ) -> wasmtime::Result<()> {
        self.charge()?;
        let metric = match self.metrics.get(&handle) {
            MetricHandle::Metric(definition) => definition,
            MetricHandle::Inert => return Ok(()),
            MetricHandle::Free => {
                let what = "used a metric it had dropped".to_owned();
                return Err(Exceeded::Forbidden(what).into());
            }
        };
        for value in &mut label_values {
            value.truncate(value.floor_char_boundary(VALUE_LIMIT));
        }
        let labels = metric.label_names.len();
        if let Err(reason) = check_values(metric.kind, labels, value, &label_values) {
            let text = format!("metric {:?}: {reason}", metric.name);
            self.log(Level::Warn, &text, Vec::new());
            return Ok(());
        }
        self.observe_checked(Observation {
            name: metric.name,
            kind: metric.kind,
            unit: metric.unit,
            label_names: metric.label_names,
            label_values,
            value,
            request_id: self.request_id.clone(),
        });
        Ok(())
    }

    fn drop(&mut self, handle: Resource<Metric>) -> wasmtime::Result<()> {
        if let Some(handle) = self.metrics.handles.get_mut(handle.rep() as usize) {
            *handle = MetricHandle::Free;
        }
        Ok(())
    }
}

const fn unit_name(unit: metrics::Unit) -> &'static str {
    match unit {
        metrics::Unit::None => "none",
        metrics::Unit::Milliseconds => "milliseconds",
        metrics::Unit::Bytes => "bytes",
        metrics::Unit::Count => "count",
        metrics::Unit::Percent => "percent",
    }
}

impl From<metrics::Kind> for MetricKind {
    fn from(kind: metrics::Kind) -> Self {
        match kind {
            metrics::Kind::Counter => Self::Counter,
            metrics::Kind::Gauge => Self::Gauge,
            metrics::Kind::Histogram => Self::Histogram,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(name: &str, labels: &[&str]) -> Definition {
        Definition {
            name: name.into(),
            kind: MetricKind::Counter,
            unit: "none",
            label_names: labels.iter().map(|&label| label.to_owned()).collect(),
        }
    }

    #[test]
    fn a_name_means_one_metric() {
        let series = Series::new(10, 1000);
        assert_eq!(
            series.define(&definition("images_total", &["color"])),
            Ok(())
        );
        assert_eq!(
            series.define(&definition("images_total", &["color"])),
            Ok(())
        );
        let again = series.define(&definition("images_total", &["size"]));
        assert!(again.is_err_and(|reason| reason.contains("was made before")));
        assert!(series.define(&definition("a b", &[])).is_err());
    }

    #[test]
    fn series_are_limited_and_old_ones_go_on() {
        let series = Series::new(1, 1000);
        let (name, now): (Arc<str>, _) = ("m".into(), Instant::now());
        let [a, b] = ["a", "b"].map(|value| vec![value.to_owned()]);
        let refused = |is_first| SeriesDecision::Refused {
            limit: SeriesLimit::Series,
            is_first,
        };
        assert_eq!(series.admit(&name, &a, now), SeriesDecision::Admitted);
        assert_eq!(series.admit(&name, &b, now), refused(true));
        assert_eq!(series.admit(&name, &b, now), refused(false));
        assert_eq!(series.admit(&name, &a, now), SeriesDecision::Admitted);
    }

    #[test]
    fn observations_a_second_are_limited() {
        let series = Series::new(10, 2);
        let (name, now): (Arc<str>, _) = ("m".into(), Instant::now());
        let refused = |is_first| SeriesDecision::Refused {
            limit: SeriesLimit::Rate,
            is_first,
        };
        assert_eq!(series.admit(&name, &[], now), SeriesDecision::Admitted);
        assert_eq!(series.admit(&name, &[], now), SeriesDecision::Admitted);
        assert_eq!(series.admit(&name, &[], now), refused(true));
        assert_eq!(series.admit(&name, &[], now), refused(false));
        let later = now + std::time::Duration::from_secs(1);
        assert_eq!(series.admit(&name, &[], later), SeriesDecision::Admitted);
    }
}
