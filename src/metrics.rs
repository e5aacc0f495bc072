//! Metrics as values: families are made once, labels are bound once per model, and what is bound ends with its owner.
//!
//! It owns names, labels, the text of a scrape and the lines of TorchServe's metric logs. It does not know who measures
//! what, nor HTTP, nor files. TorchServe's metrics keep their names, labels and formats; ours are called
//! `lantern_<noun>_<unit>`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::model::{ModelName, Version};

mod cell;
mod custom;
mod family;
mod host;
mod line;
mod listing;
mod model;
mod ours;
mod outlet;
mod server;
mod text;

pub use custom::{CustomMetric, CustomMetricError, Observer};
pub use host::{Collector, System};
pub use line::MetricLog;
pub use listing::{Listed, Listing};
pub use model::ModelMetrics;
pub use ours::{Load, LoadFailure, Observed, Outcome, Stacking};

use cell::Shards;
use custom::CustomMetrics;
use ours::Ours;
use outlet::Meter;
use server::ServerMetrics;

/// Where metrics go, TorchServe's `metrics_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// To scrapes.
    #[default]
    Prometheus,
    /// The three `ts_*` counters to scrapes, everything else to logs.
    Legacy,
    /// To logs.
    Log,
}

/// Kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Grows.
    Counter,
    /// The last value set.
    Gauge,
    /// Counts in buckets.
    Histogram,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Class of an answer, as TorchServe counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// 200 to 299.
    Success,
    /// 400 to 499.
    ClientError,
    /// Everything else.
    ServerError,
}

impl Answered {
    /// The class of a status.
    pub const fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Success,
            400..=499 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

/// Settings of the metrics.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where they go.
    pub mode: Mode,
    /// Which of TorchServe's there are.
    pub listing: Listing,
    /// Whether metrics of handlers are taken that are not listed.
    pub auto_detect: bool,
    /// Whether anybody can scrape. What would go to scrapes is not measured otherwise.
    pub has_scrapes: bool,
    /// Threads that count at the same time.
    pub threads: usize,
    /// Takes lines of `ts_metrics`.
    pub server_log: MetricLog,
    /// Takes lines of `model_metrics`.
    pub model_log: MetricLog,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            listing: Listing::default(),
            auto_detect: false,
            has_scrapes: true,
            threads: 1,
            server_log: MetricLog::default(),
            model_log: MetricLog::default(),
        }
    }
}

/// All metrics of one server. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Shared>);

struct Shared {
    server: ServerMetrics,
    requests: [Meter; 3],
    custom: CustomMetrics,
    /// Only for scrapes.
    ours: Option<Ours>,
    /// Bytes of the last scrape, which the next one will need about as well.
    last_scrape: AtomicUsize,
}

impl Metrics {
    /// Makes every family.
    pub fn new(cfg: &Config) -> Self {
        let hostname = host::name();
        let server = ServerMetrics::new(cfg, hostname.clone());
        let has_ours = cfg.mode == Mode::Prometheus && cfg.has_scrapes;
        Self(Arc::new(Shared {
            requests: server.requests(),
            server,
            custom: CustomMetrics::new(cfg, hostname),
            ours: has_ours.then(|| Ours::new(Shards::for_threads(cfg.threads))),
            last_scrape: AtomicUsize::new(0),
        }))
    }

    /// Counts one answer.
    pub fn answered(&self, class: Answered) {
        self.0.requests[class as usize].update(1.0, "");
    }

    /// Binds the labels of one model version. If it `is_profiled`, each phase is measured as TorchServe's
    /// `ts_handler_*` as well, where those are listed or may be detected.
    pub fn model(&self, name: &ModelName, version: &Version, is_profiled: bool) -> ModelMetrics {
        ModelMetrics::bind(&self.0, name, version, is_profiled)
    }

    /// Shows that a version did not load which has no other metrics.
    pub fn load_failure(&self, name: &ModelName, version: &Version) -> LoadFailure {
        LoadFailure::new(self.0.ours.as_ref(), name, version)
    }

    /// Takes what a handler of `model` measures, in at most `limit` series.
    pub fn observer(&self, model: &ModelName, limit: usize) -> Observer {
        Observer::new(Arc::clone(&self.0), model.clone(), limit)
    }

    /// The text of a scrape. With `names`, only samples of these names. The work is that of writing the text; nobody
    /// who counts waits for it.
    pub fn scrape(&self, names: &[String]) -> String {
        let filter = text::Filter::new(names);
        let expected = self.0.last_scrape.load(Ordering::Relaxed);
        let mut text = String::with_capacity(expected + expected / 8);
        for family in self.0.server.families() {
            text::write(&mut text, family, &filter);
        }
        for family in self.0.custom.families() {
            text::write(&mut text, &family, &filter);
        }
        for family in self.0.ours.iter().flat_map(Ours::families) {
            text::write(&mut text, family, &filter);
        }
        self.0.last_scrape.store(text.len(), Ordering::Relaxed);
        text
    }
}

impl Default for Metrics {
    /// With the defaults of everything.
    fn default() -> Self {
        Self::new(&Config::default())
    }
}

#[cfg(test)]
mod tests;
