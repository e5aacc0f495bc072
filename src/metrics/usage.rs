//! Families of one tenant: what it has used, and what its quotas refused. They are read when they are scraped, from whoever counts.

use std::sync::Arc;

use parking_lot::Mutex;

use super::MetricKind;
use super::cell::Cell;
use super::family::{Family, Hold};
use super::front::family;

/// Counters without labels, as [`UsageSample::amounts`] has them.
const AMOUNTS: [(&str, &str); 4] = [
    (
        "lantern_tenant_handler_seconds_total",
        "CPU time of the tenant's handlers, as worker processes say",
    ),
    (
        "lantern_tenant_inference_seconds_total",
        "Time of the tenant's runs, divided among the requests that shared them, as worker processes say",
    ),
    (
        "lantern_tenant_cpu_seconds_total",
        "CPU time of the tenant's worker processes, as the kernel says",
    ),
    (
        "lantern_tenant_memory_gib_seconds_total",
        "Memory of the tenant's worker processes in GiB, times seconds",
    ),
];

/// What a tenant has used so far.
#[derive(Debug, Clone, Default)]
pub struct UsageSample {
    /// Seconds of handlers, of runs and of processes; GiB of memory times seconds.
    pub amounts: [f64; 4],
    /// Predictions that met a quota, by its name.
    pub refusals: Vec<(&'static str, u64)>,
    /// Requests that wait for the tenant's turn.
    pub queued: usize,
}

/// Where the values come from.
pub type UsageSource = Box<dyn Fn() -> UsageSample + Send + Sync>;

/// The families, and what was shown of them.
pub(super) struct UsageFamilies {
    source: UsageSource,
    families: Vec<Family>,
    amounts: [Arc<Cell>; 4],
    refusals: Family,
    queued: Arc<Cell>,
    /// What the counters have by now.
    counted: Mutex<UsageSample>,
}

impl UsageFamilies {
    pub(super) fn new(source: UsageSource) -> Self {
        let counters = AMOUNTS.map(|(name, help)| family(name, help, MetricKind::Counter, &[]));
        let refusals = family(
            "lantern_tenant_refusals_total",
            "Predictions of the tenant that met a quota",
            MetricKind::Counter,
            &["quota"],
        );
        let queued = family(
            "lantern_tenant_requests_queued",
            "Requests that wait for the tenant's turn",
            MetricKind::Gauge,
            &[],
        );
        let amounts = counters
            .each_ref()
            .map(|family| family.bind(&[], Hold::Kept));
        let cell = queued.bind(&[], Hold::Kept);
        let mut families = Vec::from(counters);
        families.extend([refusals.clone(), queued]);
        Self {
            source,
            families,
            amounts,
            refusals,
            queued: cell,
            counted: Mutex::default(),
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Family> {
        self.families.iter()
    }

    /// Reads the values.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub(super) fn refresh(&self) {
        let now = (self.source)();
        let mut counted = self.counted.lock();
        let before = counted.amounts.iter().zip(&now.amounts);
        for (cell, (before, now)) in self.amounts.iter().zip(before) {
            cell.update((now - before).max(0.0));
        }
        for (quota, count) in &now.refusals {
            let mut known = counted.refusals.iter();
            let before = known.find(|(known, _)| known == quota);
            let before = before.map_or(0, |(_, count)| *count);
            let cell = self.refusals.bind(&[quota], Hold::Kept);
            cell.update(count.saturating_sub(before) as f64);
        }
        self.queued.update(now.queued as f64);
        *counted = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Config, Format, Metrics};

    #[test]
    fn what_was_used_is_shown_as_it_grows() {
        let sample = Arc::new(Mutex::new(UsageSample::default()));
        let read = Arc::clone(&sample);
        let source: UsageSource = Box::new(move || read.lock().clone());
        let metrics = Metrics::of_tenant(&Config::default(), source);
        for (seconds, refusals) in [(1.5, 2), (4.0, 7)] {
            *sample.lock() = UsageSample {
                amounts: [seconds, 0.0, 0.0, 0.5],
                refusals: vec![("requests_in_flight", refusals)],
                queued: 3,
            };
            let text = metrics.scrape(Format::TorchServe, &[]);
            for line in [
                format!("lantern_tenant_handler_seconds_total {seconds:?}"),
                "lantern_tenant_memory_gib_seconds_total 0.5".to_owned(),
                format!(
                    "lantern_tenant_refusals_total{{quota=\"requests_in_flight\",}} {refusals}.0"
                ),
                "lantern_tenant_requests_queued 3.0".to_owned(),
            ] {
                assert!(text.contains(&line), "{line}: {text}");
            }
        }
    }
}
