//! Where the values of a metric go: to a series that scrapes show, to lines of a log, or nowhere. That is decided once,
//! when the metric is made.

use std::sync::Arc;

use super::cell::Cell;
use super::family::{Family, Hold};
use super::line::{MetricLog, Template};
use super::listing::{LEGACY, ListedMetric};
use super::shards::Shards;
use super::{Config, Mode};

/// Where the values of one listed metric go.
pub(super) struct MetricSink {
    listed: ListedMetric,
    destination: Destination,
}

enum Destination {
    Family(Family),
    Log(MetricLog),
    Nowhere,
}

/// Where the values of one series go.
pub(super) enum BoundSink {
    /// To the value that scrapes show.
    Cell(Arc<Cell>),
    /// To lines of a log.
    Lines(Template),
    /// Nobody wants them.
    Nowhere,
}

impl MetricSink {
    /// The sink that `cfg` has for `listed`; lines go to `log`.
    pub(super) fn new(listed: ListedMetric, cfg: &Config, log: &MetricLog) -> Self {
        let is_scraped = match cfg.mode {
            Mode::Prometheus => true,
            Mode::Legacy => LEGACY.contains(&listed.name.as_str()),
            Mode::Log => false,
        };
        let destination = match (is_scraped, cfg.has_scrapes) {
            (true, true) => Destination::family(&listed, cfg.threads),
            (true, false) => Destination::Nowhere,
            (false, _) => Destination::Log(log.clone()),
        };
        Self {
            listed,
            destination,
        }
    }

    /// What is listed.
    pub(super) const fn listed(&self) -> &ListedMetric {
        &self.listed
    }

    /// The family, if scrapes show it.
    pub(super) const fn family(&self) -> Option<&Family> {
        match &self.destination {
            Destination::Family(family) => Some(family),
            Destination::Log(_) | Destination::Nowhere => None,
        }
    }

    /// One series. `None` unless there are as many values as labels.
    pub(super) fn bind(&self, values: &[&str], hold: Hold) -> Option<BoundSink> {
        if values.len() != self.listed.labels.len() {
            return None;
        }
        Some(match &self.destination {
            Destination::Family(family) => BoundSink::Cell(family.bind(values, hold)),
            Destination::Log(log) => BoundSink::Lines(self.template(values, log)),
            Destination::Nowhere => BoundSink::Nowhere,
        })
    }

    fn template(&self, values: &[&str], log: &MetricLog) -> Template {
        let labels = self.listed.labels.iter().zip(values);
        let labels = labels.map(|(label, value)| (label.as_str(), *value));
        Template::new(&self.listed.name, &self.listed.unit, labels, log.clone())
    }
}

impl Destination {
    /// The family that shows `listed`. Whoever listed it has checked its names; if Prometheus refuses one all the same,
    /// the log says so and nothing is shown.
    fn family(listed: &ListedMetric, threads: usize) -> Self {
        let family = Family::new(listed.definition(), Shards::for_threads(threads));
        family.map_or_else(
            |error| {
                tracing::error!("metric {:?} is left out: {error}", listed.name);
                Self::Nowhere
            },
            Self::Family,
        )
    }
}

impl BoundSink {
    /// Takes a value; `request` is the id of the request that it was measured for, empty if there is none.
    pub(super) fn update(&self, value: f64, request: &str) {
        match self {
            Self::Cell(cell) => cell.update(value),
            Self::Lines(template) => template.write(value, request),
            Self::Nowhere => {}
        }
    }

    /// Whether the request's id shows anywhere.
    pub(super) const fn names_requests(&self) -> bool {
        matches!(self, Self::Lines(_))
    }
}
