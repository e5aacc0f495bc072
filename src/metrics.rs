//! Metrics as values: every family is registered once, labels are bound once per model, pairs end in `Drop`.
//!
//! It owns names, labels and the text format of a scrape. It does not know who measures what, nor HTTP.
//! TorchServe's series keep their names, labels and format; ours are called `lantern_<noun>_<unit>`.

use std::sync::Arc;

use crate::model::{ModelName, Version};

mod custom;
mod families;
mod host;
mod model;
mod text;

pub use custom::{Custom, CustomKind, CustomMetric, CustomMetricError};
pub use model::{InFlight, ModelMetrics, Observed, Outcome};

use families::Families;

/// What a scrape shows, TorchServe's `metrics_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Everything.
    #[default]
    Prometheus,
    /// The three `ts_*` families.
    Legacy,
    /// Nothing.
    Log,
}

/// Class of an HTTP answer, as TorchServe counts them.
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

/// All metrics of one server. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Shared>);

struct Shared {
    families: Families,
    requests: [prometheus::Counter; 3],
    custom: Custom,
    host: host::Host,
}

impl Metrics {
    /// Registers every family.
    pub fn new() -> Self {
        let hostname = host::name();
        let families = Families::new();
        let requests = families
            .requests
            .each_ref()
            .map(|family| family.with_label_values(&["Host", &hostname]));
        Self(Arc::new(Shared {
            families,
            requests,
            custom: Custom::new(hostname.clone()),
            host: host::Host::new(hostname),
        }))
    }

    /// Counts one HTTP answer.
    pub fn answered(&self, class: Answered) {
        self.0.requests[class as usize].inc();
    }

    /// Binds the labels of one model version.
    pub fn model(&self, name: &ModelName, version: &Version) -> ModelMetrics {
        ModelMetrics::bind(&self.0.families, &self.0.host.hostname, name, version)
    }

    /// Takes one observation of a metric that a handler of `model` defined.
    pub fn observe(
        &self,
        model: &ModelName,
        metric: &CustomMetric<'_>,
    ) -> Result<(), CustomMetricError> {
        self.0.custom.observe(model, metric)
    }

    /// The text of a scrape. With `names`, only samples of these names.
    pub fn scrape(&self, mode: Mode, names: &[String]) -> String {
        let shared = &*self.0;
        match mode {
            Mode::Log => String::new(),
            Mode::Legacy => text::write(&shared.families.gather_torchserve_counters(), names),
            Mode::Prometheus => {
                shared.host.measure(&shared.families);
                let mut all = shared.families.gather();
                all.extend(shared.custom.gather());
                text::write(&all, names)
            }
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names() -> (ModelName, Version) {
        (ModelName::new("m").unwrap(), Version::new("1.0").unwrap())
    }

    #[test]
    fn answers_are_counted_by_class() {
        let metrics = Metrics::new();
        for status in [200, 404, 500, 599, 304] {
            metrics.answered(Answered::of(status));
        }
        let text = metrics.scrape(Mode::Prometheus, &["Requests5XX".to_owned()]);
        let sample = text.lines().find(|line| !line.starts_with('#')).unwrap();
        assert!(
            sample.starts_with("Requests5XX{Level=\"Host\",Hostname=\""),
            "{sample}"
        );
        assert!(sample.ends_with("\",} 3.0"), "{sample}");
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn modes_show_everything_three_families_or_nothing() {
        let metrics = Metrics::new();
        let (name, version) = names();
        metrics.model(&name, &version).requested(true);
        assert_eq!(metrics.scrape(Mode::Log, &[]), "");
        let legacy = metrics.scrape(Mode::Legacy, &[]);
        let families = legacy.lines().filter(|line| line.starts_with("# TYPE"));
        assert_eq!(families.count(), 3);
        assert!(metrics.scrape(Mode::Prometheus, &[]).len() > legacy.len());
    }

    #[test]
    fn the_version_label_is_default_where_none_was_named() {
        let metrics = Metrics::new();
        let (name, version) = names();
        let bound = metrics.model(&name, &version);
        bound.requested(false);
        bound.requested(true);
        let text = metrics.scrape(Mode::Legacy, &["ts_inference_requests_total".to_owned()]);
        assert!(text.contains("{model_name=\"m\",model_version=\"default\",hostname="));
        assert!(text.contains("{model_name=\"m\",model_version=\"1.0\",hostname="));
    }
}
