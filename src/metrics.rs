//! Metrics as values: families are made once, labels are bound once per model, and what is bound ends with its owner.
//!
//! It owns names, labels, the formats of a scrape and the lines of TorchServe's metric logs. It does not know who measures
//! what, nor HTTP, nor files. TorchServe's metrics keep their names, labels and formats; ours are called
//! `lantern_<noun>_<unit>`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Encoder as _, Registry};

use crate::model::{ModelName, TenantName, Version};

mod cell;
mod custom;
mod encode;
mod family;
mod front;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod host;
mod lantern;
mod line;
mod listing;
mod model;
mod server;
mod shards;
mod sink;
mod tenants;
mod unchecked;
mod usage;

pub use custom::{CustomMetric, CustomMetricError, Observer};
pub use front::FrontSources;
pub use host::{System, SystemCollector};
pub use lantern::{Circuit, Load, LoadFailure, ObservedRequest, Outcome, ReportKind, Stacking};
pub use line::MetricLog;
pub use listing::{ListedMetric, Listing};
pub use model::ModelMetrics;
pub use shards::{CountsShard, ShardedCounts};
pub use usage::{UsageSample, UsageSource};

use custom::CustomMetrics;
use encode::{Dialect, Filter, TextEncoder, openmetrics, torchserve};
use family::Family;
use front::FrontFamilies;
use lantern::LanternFamilies;
use server::ServerMetrics;
use shards::Shards;
use sink::BoundSink;
use unchecked::UncheckedCollector;
use usage::UsageFamilies;

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

/// What a scrape is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// TorchServe's dialect of Prometheus's text format 0.0.4.
    #[default]
    TorchServe,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

impl Format {
    /// The type of a scrape in this format.
    pub const fn content_type(self) -> &'static str {
        self.dialect().content_type
    }

    const fn dialect(self) -> &'static Dialect {
        match self {
            Self::TorchServe => &torchserve::DIALECT,
            Self::OpenMetrics => &openmetrics::DIALECT,
        }
    }
}

/// Kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetricKind {
    /// A sum that only grows.
    Counter,
    /// A value that is set, and may go up and down.
    Gauge,
    /// Observations, counted in buckets.
    Histogram,
}

impl MetricKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl From<MetricKind> for MetricType {
    fn from(kind: MetricKind) -> Self {
        match kind {
            MetricKind::Counter => Self::COUNTER,
            MetricKind::Gauge => Self::GAUGE,
            MetricKind::Histogram => Self::HISTOGRAM,
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
pub struct Metrics(Arc<MetricsState>);

struct MetricsState {
    server: ServerMetrics,
    requests: [BoundSink; 3],
    custom: Arc<CustomMetrics>,
    /// Only for scrapes.
    lantern: Option<LanternFamilies>,
    /// Of the whole server; only for scrapes, where there are sources.
    front: Option<FrontFamilies>,
    usage: Option<UsageFamilies>,
    unchecked: UncheckedCollector,
    /// Of all families.
    registry: Registry,
    /// Bytes of the last scrape; the next one will need about as many.
    last_scrape: AtomicUsize,
    shards: Shards,
}

impl Metrics {
    /// Makes every family that is known by now, and registers it.
    pub fn new(cfg: &Config) -> Self {
        Self::with_front(cfg, None)
    }

    /// The same, with what `sources` tell of the server as a whole.
    pub fn with_front(cfg: &Config, sources: Option<FrontSources>) -> Self {
        let hostname = host::name();
        let server = ServerMetrics::new(cfg, hostname.clone());
        let requests = server.requests();
        Self::build(cfg, sources, None, (server, requests))
    }

    /// The metrics of one tenant's models and of what it used, as `usage` says, and nothing of the server as a whole.
    pub fn of_tenant(cfg: &Config, usage: UsageSource) -> Self {
        let server = ServerMetrics::new(cfg, host::name());
        let requests = [const { BoundSink::Nowhere }; 3];
        Self::build(cfg, None, Some(usage), (server, requests))
    }

    fn build(
        cfg: &Config,
        sources: Option<FrontSources>,
        usage: Option<UsageSource>,
        (server, requests): (ServerMetrics, [BoundSink; 3]),
    ) -> Self {
        let has_process = usage.is_none();
        let hostname = server.hostname.clone();
        let shows_all = cfg.mode == Mode::Prometheus && cfg.has_scrapes;
        let shards = Shards::for_threads(cfg.threads);
        let lantern = shows_all.then(|| LanternFamilies::new(shards));
        let custom = Arc::new(CustomMetrics::new(cfg, hostname));
        let state = MetricsState {
            requests,
            server,
            lantern,
            front: sources.filter(|_| shows_all).map(FrontFamilies::new),
            usage: usage.filter(|_| shows_all).map(UsageFamilies::new),
            unchecked: UncheckedCollector::new(Arc::clone(&custom), shows_all && has_process),
            custom,
            registry: Registry::new(),
            last_scrape: AtomicUsize::new(0),
            shards,
        };
        state.register(&state.registry, &Filter::All);
        Self(Arc::new(state))
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
        LoadFailure::new(self.0.lantern.as_ref(), name, version)
    }

    /// So many whole numbers that are no metrics, and are counted in the same way.
    pub fn counts(&self, numbers: usize) -> ShardedCounts {
        ShardedCounts::new(self.0.shards, numbers)
    }

    /// Takes what a handler of `model` measures, in at most `limit` series.
    pub fn observer(&self, model: &ModelName, limit: usize) -> Observer {
        Observer::new(Arc::clone(&self.0), model.clone(), limit)
    }

    /// What a scrape shows, in `format`. With `names`, only samples of these names. Nobody who counts waits for it.
    pub fn scrape(&self, format: Format, names: &[String]) -> String {
        self.scrape_with(format, names, &[])
    }

    /// The same, with the metrics of `tenants`: each sample of theirs has a label `tenant`.
    pub fn scrape_with(
        &self,
        format: Format,
        names: &[String],
        tenants: &[(TenantName, Self)],
    ) -> String {
        let filter = Filter::new(names);
        if let Some(front) = &self.0.front {
            front.refresh();
        }
        self.0.refresh_usage();
        let mut families = self.0.gather(&filter);
        for (tenant, metrics) in tenants {
            metrics.0.refresh_usage();
            families = tenants::with_those_of(families, tenant, metrics.0.gather(&filter));
        }
        let encoder = TextEncoder::new(format.dialect(), filter);
        self.0.encode(&encoder, &families)
    }
}

impl MetricsState {
    /// Registers the families of which `filter` wants samples. Names of `metrics.yaml` differ, and none begins as ours
    /// do; if the registry refuses a family all the same, the log says so.
    fn register(&self, registry: &Registry, filter: &Filter<'_>) {
        let known = self.known().filter(|family| filter.wants_of(family.name()));
        let known = known.map(|family| registry.register(Box::new(family.clone())));
        let unchecked = registry.register(Box::new(self.unchecked.clone()));
        for refusal in known.chain([unchecked]).filter_map(Result::err) {
            tracing::error!("metrics are left out: {refusal}");
        }
    }

    fn refresh_usage(&self) {
        if let Some(usage) = &self.usage {
            usage.refresh();
        }
    }

    /// Every family, sorted by name. The registry leaves out those without samples, which TorchServe announces. A scrape
    /// for few names collects little more than those.
    fn gather(&self, filter: &Filter<'_>) -> Vec<MetricFamily> {
        let mut families = match filter {
            Filter::All => self.registry.gather(),
            Filter::Only(_) => {
                let registry = Registry::new();
                self.register(&registry, filter);
                registry.gather()
            }
        };
        let gathered = families.len();
        for family in self.known().cloned().chain(self.custom.families()) {
            let by_name = |other: &MetricFamily| other.name().cmp(family.name());
            if families[..gathered].binary_search_by(by_name).is_err() {
                families.push(family.head());
            }
        }
        families.sort_by(|one, other| one.name().cmp(other.name()));
        families
    }

    fn encode(&self, encoder: &TextEncoder<'_>, families: &[MetricFamily]) -> String {
        let expected = self.last_scrape.load(Ordering::Relaxed);
        let mut text = Vec::with_capacity(expected + expected / 8);
        let written = encoder.encode(families, &mut text);
        written.expect("writing to memory does not fail");
        self.last_scrape.store(text.len(), Ordering::Relaxed);
        String::from_utf8(text).expect("an encoder writes strings")
    }

    /// The families that are known when the server is built.
    fn known(&self) -> impl Iterator<Item = &Family> {
        let lantern = self.lantern.iter().flat_map(LanternFamilies::all);
        let front = self.front.iter().flat_map(FrontFamilies::all);
        let usage = self.usage.iter().flat_map(UsageFamilies::all);
        let families = self.server.families().chain(lantern);
        families.chain(front).chain(usage)
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
