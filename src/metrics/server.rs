//! `ts_metrics`: what TorchServe tells of the server and its machine.

use std::sync::Arc;

use super::family::{Family, Hold};
use super::listing::ts;
use super::outlet::{Meter, Outlet};
use super::{Config, line};

/// Everything that is listed under `ts_metrics`.
pub(super) struct ServerMetrics {
    outlets: Vec<Outlet>,
    pub(super) hostname: String,
}

impl ServerMetrics {
    pub(super) fn new(cfg: &Config, hostname: String) -> Self {
        let listed = cfg.listing.ts.iter().cloned();
        let outlets = listed.map(|listed| Outlet::new(listed, cfg, &cfg.server_log));
        Self {
            outlets: outlets.collect(),
            hostname,
        }
    }

    /// The series of `name` with these values, in the order of TorchServe's own labels: positions count, as there, so
    /// that labels may be called otherwise. What is not listed goes nowhere.
    pub(super) fn bind(&self, name: &str, values: &[&str]) -> Meter {
        self.bind_for(name, values, Hold::Kept)
    }

    /// The same, but the series is shown only as long as the meter is there.
    pub(super) fn bind_while_used(&self, name: &str, values: &[&str]) -> Meter {
        self.bind_for(name, values, Hold::WhileUsed)
    }

    fn bind_for(&self, name: &str, values: &[&str], hold: Hold) -> Meter {
        let Some(outlet) = self.outlet(name) else {
            return Meter::Nowhere;
        };
        outlet.bind(values, hold).unwrap_or_else(|| {
            let labels = &outlet.listed().labels;
            tracing::error!(
                "metrics_config lists {name} with the labels {labels:?}; {} are measured, so it is left out",
                values.len()
            );
            Meter::Nowhere
        })
    }

    /// The counters of answers by class.
    pub(super) fn requests(&self) -> [Meter; 3] {
        ts::REQUESTS.map(|name| self.bind(name, &["Host", &self.hostname]))
    }

    /// Takes a line of a command that measures the machine. Whether it is one, and listed.
    pub(super) fn take_line(&self, line: &str) -> bool {
        let Some(parsed) = line::parse(line) else {
            return false;
        };
        let outlet = self.outlet(parsed.name);
        let Some(outlet) = outlet.filter(|outlet| outlet.listed().takes(parsed.value)) else {
            return false;
        };
        let meter = outlet.bind(&parsed.label_values, Hold::Kept);
        meter
            .inspect(|meter| meter.update(parsed.value, ""))
            .is_some()
    }

    /// What scrapes show.
    pub(super) fn families(&self) -> impl Iterator<Item = &Arc<Family>> {
        self.outlets.iter().filter_map(Outlet::family)
    }

    fn outlet(&self, name: &str) -> Option<&Outlet> {
        let mut outlets = self.outlets.iter();
        outlets.find(|outlet| outlet.listed().name == name)
    }
}
