//! `ts_metrics`: TorchServe's metrics of the server and of its machine.

use super::family::{Family, Hold};
use super::listing::ts;
use super::sink::{BoundSink, MetricSink};
use super::{Config, line};

/// Everything that is listed under `ts_metrics`.
pub(super) struct ServerMetrics {
    sinks: Vec<MetricSink>,
    pub(super) hostname: String,
}

impl ServerMetrics {
    pub(super) fn new(cfg: &Config, hostname: String) -> Self {
        let listed = cfg.listing.ts.iter().cloned();
        let sinks = listed.map(|listed| MetricSink::new(listed, cfg, &cfg.server_log));
        Self {
            sinks: sinks.collect(),
            hostname,
        }
    }

    /// The series of `name` with these values, in the order of TorchServe's own labels: positions count, as there, so
    /// that labels may be called otherwise. What is not listed goes nowhere.
    pub(super) fn bind(&self, name: &str, values: &[&str]) -> BoundSink {
        self.bind_for(name, values, Hold::Kept)
    }

    /// The same, but the series is shown only as long as somebody holds the sink.
    pub(super) fn bind_while_used(&self, name: &str, values: &[&str]) -> BoundSink {
        self.bind_for(name, values, Hold::WhileUsed)
    }

    fn bind_for(&self, name: &str, values: &[&str], hold: Hold) -> BoundSink {
        let Some(sink) = self.sink(name) else {
            return BoundSink::Nowhere;
        };
        sink.bind(values, hold).unwrap_or_else(|| {
            let labels = &sink.listed().labels;
            tracing::error!(
                "metrics_config lists {name} with the labels {labels:?}; {} are measured, so it is left out",
                values.len()
            );
            BoundSink::Nowhere
        })
    }

    /// The counters of answers, in the order of [`Answered`](super::Answered).
    pub(super) fn requests(&self) -> [BoundSink; 3] {
        ts::REQUESTS.map(|name| self.bind(name, &["Host", &self.hostname]))
    }

    /// Takes a line of a command that measures the machine. Returns whether it is a metric that is listed.
    pub(super) fn take_line(&self, line: &str) -> bool {
        let Some(parsed) = line::parse(line) else {
            return false;
        };
        let sink = self.sink(parsed.name);
        let Some(sink) = sink.filter(|sink| sink.listed().takes(parsed.value)) else {
            return false;
        };
        let bound = sink.bind(&parsed.label_values, Hold::Kept);
        bound
            .inspect(|bound| bound.update(parsed.value, ""))
            .is_some()
    }

    /// The families that scrapes show.
    pub(super) fn families(&self) -> impl Iterator<Item = &Family> {
        self.sinks.iter().filter_map(MetricSink::family)
    }

    fn sink(&self, name: &str) -> Option<&MetricSink> {
        let mut sinks = self.sinks.iter();
        sinks.find(|sink| sink.listed().name == name)
    }
}
