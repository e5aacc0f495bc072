//! Where one version's handler logs and measures: the server's log and its metrics.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::Owner;
use super::lines::{Follower, RecentLines, Said, Speaker};
use crate::error::Error;
use crate::metrics::{CustomMetric, Metrics, Observer};
use crate::model::{ModelName, ModelSpec, TenantName, Version};
use crate::runtime::{Level, LogLine, Observation, Sink};

/// Refused metrics that are named in the log; further ones are not.
const NAMED_REFUSALS: usize = 32;

/// Takes the lines about the models of one tenant: they are in none of the operator's logs of models. Never waits for a disk.
#[derive(Clone)]
pub struct OwnersLog(Arc<Take>);

type Take = dyn Fn(ModelLine) + Send + Sync;

/// A line about one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelLine {
    /// Who says it.
    pub by: Speaker,
    /// How severe it is.
    pub level: Level,
    /// The text. It may hold anything: line breaks and control characters included.
    pub message: String,
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// Id of the request that it is about; empty if it is about none.
    pub request_id: String,
}

impl OwnersLog {
    /// A log that hands lines to `take`.
    pub fn new(take: impl Fn(ModelLine) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// A line of the server's about a version that is not there.
    pub(super) fn say(&self, level: Level, message: String, spec: &ModelSpec) {
        (self.0)(ModelLine {
            by: Speaker::Server,
            level,
            message,
            model: spec.name.clone(),
            version: spec.version.clone(),
            request_id: String::new(),
        });
    }
}

/// The sink of one version.
pub(super) struct ModelSink {
    /// Whose it is; empty for the operator's.
    tenant: Option<TenantName>,
    /// Where lines go that are not the operator's.
    log: Option<OwnersLog>,
    lines: RecentLines,
    name: ModelName,
    version: Version,
    observer: Observer,
    refused: Mutex<HashSet<Arc<str>>>,
}

/// Logs to the server's log or the models', at a level that is known when the program runs.
macro_rules! event {
    (target: $target:literal, $level:expr, $($what:tt)*) => {
        match $level {
            Level::Trace => tracing::event!(target: $target, tracing::Level::TRACE, $($what)*),
            Level::Debug => tracing::event!(target: $target, tracing::Level::DEBUG, $($what)*),
            Level::Info => tracing::event!(target: $target, tracing::Level::INFO, $($what)*),
            Level::Warn => tracing::event!(target: $target, tracing::Level::WARN, $($what)*),
            Level::Error => tracing::event!(target: $target, tracing::Level::ERROR, $($what)*),
        }
    };
}

impl ModelSink {
    pub(super) fn new(
        owner: &Owner,
        spec: &ModelSpec,
        metrics: &Metrics,
        log: Option<OwnersLog>,
    ) -> Self {
        Self {
            tenant: owner.tenant().cloned(),
            log,
            lines: RecentLines::default(),
            name: spec.name.clone(),
            version: spec.version.clone(),
            observer: metrics.observer(&spec.name, spec.limits.metric_series),
            refused: Mutex::default(),
        }
    }

    /// The version's last lines, `count` at most, and a reader of those that come.
    pub(super) fn last(&self, count: usize) -> (Vec<u8>, Follower) {
        self.lines.last(count)
    }

    /// Keeps what the server says of the version for whoever owns it. The operator's log has it already.
    pub(super) fn note(&self, level: Level, text: String) {
        self.keep(Speaker::Server, level, text, String::new());
    }

    /// The log has it for the operator's models, the tenant's own for those of a tenant.
    fn log_models(&self, level: Level, text: String, request_id: String) {
        if self.log.is_none() {
            let (model, version) = (&self.name, &self.version);
            event!(target: "model", level, %model, %version, %request_id, "{text}");
        }
        self.keep(Speaker::Model, level, text, request_id);
    }

    fn keep(&self, by: Speaker, level: Level, message: String, request_id: String) {
        self.lines.push(&Said {
            by,
            at: SystemTime::now(),
            level,
            text: &message,
            request_id: &request_id,
        });
        if let Some(OwnersLog(take)) = &self.log {
            take(ModelLine {
                by,
                level,
                message,
                model: self.name.clone(),
                version: self.version.clone(),
                request_id,
            });
        }
    }

    fn is_news(&self, name: &Arc<str>) -> bool {
        let mut refused = self.refused.lock();
        refused.len() < NAMED_REFUSALS && refused.insert(Arc::clone(name))
    }
}

impl Drop for ModelSink {
    fn drop(&mut self) {
        self.lines.end();
    }
}

impl Sink for ModelSink {
    fn log(&self, line: LogLine) {
        let text = match line.fields.as_slice() {
            [] => line.message,
            fields => format!("{}{}", line.message, Fields(fields)),
        };
        self.log_models(line.level, text, line.request_id);
    }

    fn say(&self, level: Level, text: String, error: Option<&Error>) {
        let tenant = self.tenant.as_ref().map(TenantName::as_str);
        let (model, version) = (&self.name, &self.version);
        let reason = error.map(tracing::field::display);
        event!(target: "lantern::runtime", level, tenant, %model, %version, error = reason, "{text}");
        let text = match error {
            // What the detail says is the operator's alone.
            Some(error) => format!("{text}: {}", error.message()),
            None => text,
        };
        self.note(level, text);
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
            self.log_models(Level::Warn, error.to_string(), String::new());
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
