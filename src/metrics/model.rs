//! One model version's metrics: labels bound once, so that a request pays for atomic additions alone.

use std::time::Duration;

use prometheus::{Counter, Gauge, Histogram};

use super::families::Families;
use crate::model::{ModelName, Version};

/// TorchServe's version label for requests that named none.
const UNNAMED: &str = "default";

/// TorchServe's three counters, for requests that named the version and for those that did not.
struct Torchserve {
    requests: Counter,
    latency: Counter,
    queue: Counter,
}

/// How a request that was not answered as asked for ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Refused at the door.
    Rejected,
    /// Its deadline passed.
    Expired,
    /// Its client left.
    Cancelled,
    /// It ended in an error.
    Failed,
}

/// The times of one answered request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Observed {
    /// From arrival until the answer.
    pub request: Duration,
    /// In preprocess.
    pub preprocess: Duration,
    /// From the end of preprocess until a worker took the job.
    pub queue: Duration,
    /// In the session.
    pub infer: Duration,
    /// In postprocess.
    pub postprocess: Duration,
    /// Rows of the batch; 0 if the model did not run.
    pub batch_rows: u32,
}

/// Metrics of one model version.
pub struct ModelMetrics {
    unnamed: Torchserve,
    named: Torchserve,
    queue_time: Gauge,
    worker_thread_time: Gauge,
    handler_time: Gauge,
    prediction_time: Gauge,
    worker_load_time: prometheus::GaugeVec,
    worker_name: String,
    hostname: String,
    request: Histogram,
    queue: Histogram,
    preprocess: Histogram,
    infer: Histogram,
    postprocess: Histogram,
    batch_rows: Histogram,
    in_flight: Gauge,
    queue_depth: Gauge,
    workers_ready: Gauge,
    outcomes: [Counter; 4],
}

impl ModelMetrics {
    pub(super) fn bind(
        families: &Families,
        hostname: &str,
        name: &ModelName,
        version: &Version,
    ) -> Self {
        let model = [name.as_str(), version.as_str()];
        let handler = [name.as_str(), "Model", hostname];
        let host = ["Host", hostname];
        Self {
            unnamed: Torchserve::bind(families, hostname, name, UNNAMED),
            named: Torchserve::bind(families, hostname, name, version.as_str()),
            queue_time: families.queue_time.with_label_values(&host),
            worker_thread_time: families.worker_thread_time.with_label_values(&host),
            handler_time: families.handler_time.with_label_values(&handler),
            prediction_time: families.prediction_time.with_label_values(&handler),
            worker_load_time: families.worker_load_time.clone(),
            worker_name: format!("{name}_{version}"),
            hostname: hostname.to_owned(),
            request: families.request.with_label_values(&model),
            queue: families.queue.with_label_values(&model),
            preprocess: families.preprocess.with_label_values(&model),
            infer: families.infer.with_label_values(&model),
            postprocess: families.postprocess.with_label_values(&model),
            batch_rows: families.batch_rows.with_label_values(&model),
            in_flight: families.in_flight.with_label_values(&model),
            queue_depth: families.queue_depth.with_label_values(&model),
            workers_ready: families.workers_ready.with_label_values(&model),
            outcomes: [
                &families.rejected,
                &families.expired,
                &families.cancelled,
                &families.failed,
            ]
            .map(|family| family.with_label_values(&model)),
        }
    }

    /// Counts a request for the model, `named` if it named the version.
    pub fn requested(&self, named: bool) {
        self.torchserve(named).requests.inc();
    }

    /// Counts a request as in flight for as long as the guard lives.
    pub fn in_flight(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Takes the times of a request that was answered, `named` if it named the version.
    pub fn answered(&self, named: bool, observed: &Observed) {
        let torchserve = self.torchserve(named);
        torchserve.latency.inc_by(microseconds(observed.request));
        torchserve.queue.inc_by(microseconds(observed.queue));
        self.queue_time.set(milliseconds(observed.queue).trunc());
        let handler = observed.preprocess + observed.infer + observed.postprocess;
        self.worker_thread_time
            .set(milliseconds(handler.saturating_sub(observed.infer)).trunc());
        self.handler_time.set(hundredths(milliseconds(handler)));
        self.prediction_time.set(hundredths(milliseconds(handler)));
        self.observe(observed);
    }

    fn observe(&self, observed: &Observed) {
        self.request.observe(observed.request.as_secs_f64());
        self.preprocess.observe(observed.preprocess.as_secs_f64());
        if observed.batch_rows > 0 {
            self.queue.observe(observed.queue.as_secs_f64());
            self.infer.observe(observed.infer.as_secs_f64());
            self.postprocess.observe(observed.postprocess.as_secs_f64());
            self.batch_rows.observe(f64::from(observed.batch_rows));
        }
    }

    /// Counts a request that was not answered as asked for.
    pub fn ended(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].inc();
    }

    /// A worker finished loading.
    pub fn worker_loaded(&self, id: u32, took: Duration) {
        let name = format!("W-{id}-{}", self.worker_name);
        self.worker_load_time
            .with_label_values(&[&name, "Host", &self.hostname])
            .set(milliseconds(took).trunc());
    }

    /// Shows how many requests wait and how many workers take jobs.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn set_load(&self, queued: usize, workers_ready: usize) {
        self.queue_depth.set(queued as f64);
        self.workers_ready.set(workers_ready as f64);
    }

    fn torchserve(&self, named: bool) -> &Torchserve {
        if named { &self.named } else { &self.unnamed }
    }
}

impl Torchserve {
    fn bind(families: &Families, hostname: &str, name: &ModelName, version: &str) -> Self {
        let labels = [name.as_str(), version, hostname];
        Self {
            requests: families.ts_requests.with_label_values(&labels),
            latency: families.ts_latency.with_label_values(&labels),
            queue: families.ts_queue_latency.with_label_values(&labels),
        }
    }
}

/// One request in flight; ends when dropped.
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::metrics::{Metrics, Mode};

    fn scrape(metrics: &Metrics, sample: &str) -> String {
        let text = metrics.scrape(Mode::Prometheus, &[sample.to_owned()]);
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.collect::<Vec<_>>().join("\n")
    }

    fn bound(metrics: &Metrics) -> ModelMetrics {
        let name = ModelName::new("m").unwrap();
        metrics.model(&name, &Version::new("1.0").unwrap())
    }

    #[test]
    fn a_request_in_flight_ends_when_its_guard_is_dropped() {
        let metrics = Metrics::new();
        let guard = bound(&metrics).in_flight();
        assert!(scrape(&metrics, "lantern_requests_in_flight").ends_with(" 1.0"));
        drop(guard);
        assert!(scrape(&metrics, "lantern_requests_in_flight").ends_with(" 0.0"));
    }

    #[test]
    fn phases_that_did_not_happen_are_not_observed() {
        let metrics = Metrics::new();
        bound(&metrics).answered(false, &Observed::default());
        assert!(scrape(&metrics, "lantern_request_seconds_count").ends_with(" 1.0"));
        assert!(scrape(&metrics, "lantern_infer_seconds_count").ends_with(" 0.0"));
    }

    #[test]
    fn each_outcome_has_its_counter() {
        let metrics = Metrics::new();
        let model = bound(&metrics);
        for outcome in [Outcome::Rejected, Outcome::Expired, Outcome::Expired] {
            model.ended(outcome);
        }
        assert!(scrape(&metrics, "lantern_rejected_requests_total").ends_with(" 1.0"));
        assert!(scrape(&metrics, "lantern_expired_requests_total").ends_with(" 2.0"));
        assert!(scrape(&metrics, "lantern_failed_requests_total").ends_with(" 0.0"));
    }
}
