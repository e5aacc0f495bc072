//! The collector of families that the registry cannot know when the server is built.
//!
//! Handlers' metrics come and go with their handlers. A registry keeps the labels and the help of every name that it
//! ever knew, so that a handler could not have a metric again in another way: it gets no names.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;

use super::custom::CustomMetrics;
use super::family::Family;

/// Collects `model_metrics`, and `process_*` of this process where nobody else uses a name.
#[derive(Clone)]
pub(super) struct UncheckedCollector {
    custom: Arc<CustomMetrics>,
    process: Option<Arc<ProcessCollector>>,
}

impl UncheckedCollector {
    /// Without `process_*` unless it `has_process`.
    pub(super) fn new(custom: Arc<CustomMetrics>, has_process: bool) -> Self {
        Self {
            custom,
            process: has_process.then(|| Arc::new(ProcessCollector::for_self())),
        }
    }
}

impl Collector for UncheckedCollector {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    /// The registry merges families of one name, whatever their kinds: an operator or a handler that has a
    /// `process_*` metric of its own gets that one alone.
    fn collect(&self) -> Vec<MetricFamily> {
        let custom = self.custom.families();
        let is_free = |family: &MetricFamily| {
            let name = family.name();
            !self.custom.is_reserved(name) && custom.iter().all(|other| other.name() != name)
        };
        let process = self.process.iter().flat_map(|process| process.collect());
        let process = process.filter(is_free);
        custom
            .iter()
            .flat_map(Family::collect)
            .chain(process)
            .collect()
    }
}
