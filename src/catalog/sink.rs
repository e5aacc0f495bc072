//! Where one version's handler logs and measures: the server's log and its metrics.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Owner;
use crate::metrics::{CustomMetric, Metrics, Observer};
use crate::model::{ModelName, ModelSpec, TenantName, Version};
use crate::runtime::{Level, LogLine, Observation, Sink};

/// Refused metrics that are named in the log; further ones are not.
const NAMED_REFUSALS: usize = 32;

/// The sink of one version.
pub(super) struct ModelSink {
    /// Whose it is; empty for the operator's.
    tenant: Option<TenantName>,
    name: ModelName,
    version: Version,
    observer: Observer,
    refused: Mutex<HashSet<Arc<str>>>,
}

impl ModelSink {
    pub(super) fn new(owner: &Owner, spec: &ModelSpec, metrics: &Metrics) -> Self {
        Self {
            tenant: owner.tenant().cloned(),
            name: spec.name.clone(),
            version: spec.version.clone(),
            observer: metrics.observer(&spec.name, spec.limits.metric_series),
            refused: Mutex::default(),
        }
    }

    fn is_news(&self, name: &Arc<str>) -> bool {
        let mut refused = self.refused.lock();
        refused.len() < NAMED_REFUSALS && refused.insert(Arc::clone(name))
    }
}

impl Sink for ModelSink {
    fn log(&self, line: LogLine) {
        let (model, version, request_id) = (&self.name, &self.version, &line.request_id);
        let tenant = self.tenant.as_ref().map(TenantName::as_str);
        let fields = Fields(&line.fields);
        macro_rules! at {
            ($level:expr) => {
                tracing::event!(target: "model", $level, tenant, %model, %version, %request_id, "{}{fields}", line.message)
            };
        }
        match line.level {
            Level::Trace => at!(tracing::Level::TRACE),
            Level::Debug => at!(tracing::Level::DEBUG),
            Level::Info => at!(tracing::Level::INFO),
            Level::Warn => at!(tracing::Level::WARN),
            Level::Error => at!(tracing::Level::ERROR),
        }
    }

    fn observe(&self, observation: Observation) {
        let metric = CustomMetric {
            name: &observation.name,
            kind: observation.kind,
            unit: spelled_out(observation.unit),
            label_names: &observation.label_names,
            label_values: &observation.label_values,
            value: observation.value,
            request_id: &observation.request_id,
        };
        if let Err(error) = self.observer.observe(&metric)
            && self.is_news(&observation.name)
        {
            let tenant = self.tenant.as_ref().map(TenantName::as_str);
            tracing::warn!(target: "model", tenant, model = %self.name, version = %self.version, "{error}");
        }
    }
}

/// A unit of the handler interface as TorchServe's workers spell it.
fn spelled_out(unit: &'static str) -> &'static str {
    match unit {
        "milliseconds" => "Milliseconds",
        "bytes" => "Bytes",
        "count" => "Count",
        "percent" => "Percent",
        _ => "unit",
    }
}

/// Named values behind a message.
struct Fields<'a>(&'a [(String, String)]);

impl std::fmt::Display for Fields<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, value) in self.0 {
            write!(formatter, " {name}={value:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_spelled_as_torchserves_workers_do() {
        let units = ["milliseconds", "bytes", "count", "percent", "none"];
        let shown = units.map(spelled_out);
        assert_eq!(shown, ["Milliseconds", "Bytes", "Count", "Percent", "unit"]);
    }
}
