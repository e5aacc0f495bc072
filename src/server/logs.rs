//! Where lines about a tenant's models go: to its own log, and not to the operator's.

use crate::catalog::{Level, ModelLine, OwnersLog, Speaker};
use crate::metrics::MetricLog;
use crate::telemetry::{Log, Record, TenantLog};

/// Takes the lines about a tenant's models; without a log they are dropped.
pub(super) fn models(log: Option<TenantLog>) -> OwnersLog {
    OwnersLog::new(move |line| {
        if let Some(log) = &log {
            log.write(record(line));
        }
    })
}

/// Takes the metrics of a tenant's handlers that are lines; without a log they are dropped.
pub(super) fn metrics(log: Option<TenantLog>) -> MetricLog {
    log.map_or_else(MetricLog::default, |log| {
        MetricLog::new(move |line| {
            let line = line.as_bytes().to_vec();
            log.write(Record::now(Log::ModelMetrics, tracing::Level::INFO, line));
        })
    })
}

fn record(line: ModelLine) -> Record {
    let mut record = Record::now(Log::Model, level(line.level), line.message.into_bytes());
    if line.by == Speaker::Server {
        record.logger = "lantern";
    }
    record.thread = format!("W-{}_{}", line.model, line.version).into();
    record
        .with("model", line.model.as_str())
        .with("version", line.version.as_str())
        .with("request_id", line.request_id)
}

const fn level(level: Level) -> tracing::Level {
    match level {
        Level::Trace => tracing::Level::TRACE,
        Level::Debug => tracing::Level::DEBUG,
        Level::Info => tracing::Level::INFO,
        Level::Warn => tracing::Level::WARN,
        Level::Error => tracing::Level::ERROR,
    }
}
