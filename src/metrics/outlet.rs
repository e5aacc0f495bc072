//! Where updates go: to a series that scrapes show, to lines of a log, or nowhere. That is decided once, when the
//! server is built.

use std::sync::Arc;

use super::cell::{Cell, Shards};
use super::family::{Family, Hold};
use super::line::{MetricLog, Template};
use super::listing::{LEGACY, Listed};
use super::{Config, Mode};

/// Where the updates of one listed metric go.
pub(super) struct Outlet {
    listed: Listed,
    way: Way,
}

enum Way {
    Shown(Arc<Family>),
    Logged(MetricLog),
    Nowhere,
}

/// The updates of one series.
pub(super) enum Meter {
    /// To a value that scrapes show.
    Cell(Arc<Cell>),
    /// To lines of a log.
    Lines(Template),
    /// To nobody.
    Nowhere,
}

impl Outlet {
    /// The way that `cfg` has for `listed`; lines go to `log`.
    pub(super) fn new(listed: Listed, cfg: &Config, log: &MetricLog) -> Self {
        let is_scraped = match cfg.mode {
            Mode::Prometheus => true,
            Mode::Legacy => LEGACY.contains(&listed.name.as_str()),
            Mode::Log => false,
        };
        let way = match (is_scraped, cfg.has_scrapes) {
            (true, true) => Way::Shown(Arc::new(Family::new(
                listed.definition(),
                Shards::for_threads(cfg.threads),
            ))),
            (true, false) => Way::Nowhere,
            (false, _) => Way::Logged(log.clone()),
        };
        Self { listed, way }
    }

    /// What is listed.
    pub(super) const fn listed(&self) -> &Listed {
        &self.listed
    }

    /// The family, if scrapes show it.
    pub(super) const fn family(&self) -> Option<&Arc<Family>> {
        match &self.way {
            Way::Shown(family) => Some(family),
            Way::Logged(_) | Way::Nowhere => None,
        }
    }

    /// One series. `None` unless there are as many values as labels.
    pub(super) fn bind(&self, values: &[&str], hold: Hold) -> Option<Meter> {
        if values.len() != self.listed.labels.len() {
            return None;
        }
        Some(match &self.way {
            Way::Shown(family) => Meter::Cell(family.bind(values, hold)),
            Way::Logged(log) => Meter::Lines(self.template(values, log)),
            Way::Nowhere => Meter::Nowhere,
        })
    }

    fn template(&self, values: &[&str], log: &MetricLog) -> Template {
        let labels = self.listed.labels.iter().zip(values);
        let labels = labels.map(|(label, value)| (label.as_str(), *value));
        Template::new(&self.listed.name, &self.listed.unit, labels, log.clone())
    }
}

impl Meter {
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
