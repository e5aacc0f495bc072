//! The metrics of one model version. Their labels are bound once, so that a request only pays for additions.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::MetricsState;
use super::lantern::{Load, ModelFamilies, ObservedRequest, Outcome, ReportKind};
use super::listing::{model, ts};
use super::server::ServerMetrics;
use super::sink::BoundSink;
use crate::model::{ModelName, Version};
use crate::sandbox::Outcomes;

/// TorchServe's version label for requests that named none.
const UNNAMED: &str = "default";

/// TorchServe's three counters, for requests that named the version or for those that did not.
struct Counters {
    requests: BoundSink,
    latency: BoundSink,
    queue: BoundSink,
}

/// Metrics of one model version. Its series go with it, but for TorchServe's three counters, which stay until the
/// server ends.
pub struct ModelMetrics {
    state: Arc<MetricsState>,
    full_name: String,
    unnamed: Counters,
    named: Counters,
    queue_time: BoundSink,
    worker_thread_time: BoundSink,
    handler_time: BoundSink,
    prediction_time: BoundSink,
    /// Preprocess, infer, postprocess; for models that are profiled.
    profile: Option<[BoundSink; 3]>,
    lantern: Option<ModelFamilies>,
    load_times: Mutex<BTreeMap<u32, BoundSink>>,
}

impl ModelMetrics {
    pub(super) fn bind(
        state: &Arc<MetricsState>,
        name: &ModelName,
        version: &Version,
        is_profiled: bool,
    ) -> Self {
        let (server, custom) = (&state.server, &state.custom);
        let host = ["Host", server.hostname.as_str()];
        Self {
            state: Arc::clone(state),
            full_name: format!("{name}_{version}"),
            unnamed: Counters::bind(server, name, UNNAMED),
            named: Counters::bind(server, name, version.as_str()),
            queue_time: server.bind(ts::QUEUE_TIME, &host),
            worker_thread_time: server.bind(ts::WORKER_THREAD_TIME, &host),
            handler_time: custom.bind_own(model::HANDLER_TIME, name),
            prediction_time: custom.bind_own(model::PREDICTION_TIME, name),
            profile: is_profiled.then(|| model::PROFILE.map(|phase| custom.bind_own(phase, name))),
            lantern: state
                .lantern
                .as_ref()
                .map(|families| families.bind(name, version)),
            load_times: Mutex::default(),
        }
    }

    /// Counts a request for the model, `named` if it named the version.
    pub fn requested(&self, named: bool) {
        self.counters(named).requests.update(1.0, "");
    }

    /// Whether [`Self::answered`] wants to know which request it is.
    pub const fn names_requests(&self) -> bool {
        self.prediction_time.names_requests() || self.handler_time.names_requests()
    }

    /// Takes the times of the request `id` that was answered, `named` if it named the version.
    pub fn answered(&self, named: bool, id: &str, observed: &ObservedRequest) {
        let counters = self.counters(named);
        counters.latency.update(microseconds(observed.request), "");
        counters.queue.update(microseconds(observed.queue), "");
        self.queue_time
            .update(milliseconds(observed.queue).trunc(), "");
        let handler = observed.preprocess + observed.postprocess;
        self.worker_thread_time
            .update(milliseconds(handler).trunc(), "");
        let all = hundredths(milliseconds(handler + observed.infer));
        self.handler_time.update(all, id);
        self.prediction_time.update(all, id);
        self.observe_phases(id, observed);
    }

    fn observe_phases(&self, id: &str, observed: &ObservedRequest) {
        if let Some(lantern) = &self.lantern {
            lantern.observe(observed);
        }
        if let Some(profile) = &self.profile {
            let phases = [observed.preprocess, observed.infer, observed.postprocess];
            for (bound, took) in profile.iter().zip(phases) {
                bound.update(hundredths(milliseconds(took)), id);
            }
        }
    }

    /// Counts a request that was not answered as asked for.
    pub fn ended(&self, outcome: Outcome) {
        if let Some(lantern) = &self.lantern {
            lantern.ended(outcome);
        }
    }

    /// The workers `ids` are there; those that were not there before took so long to load.
    pub fn workers(&self, ids: &[u32], took: Duration) {
        let present: HashSet<_> = ids.iter().collect();
        let mut load_times = self.load_times.lock();
        load_times.retain(|id, _| present.contains(id));
        for id in ids {
            load_times.entry(*id).or_insert_with(|| {
                let bound = self.load_time(*id);
                bound.update(milliseconds(took).trunc(), "");
                bound
            });
        }
    }

    fn load_time(&self, id: u32) -> BoundSink {
        let (server, name) = (&self.state.server, format!("W-{id}-{}", self.full_name));
        server.bind_while_used(ts::WORKER_LOAD_TIME, &[&name, "Host", &server.hostname])
    }

    /// Whether [`Self::set_load`] has an effect.
    pub const fn shows_load(&self) -> bool {
        self.lantern.is_some()
    }

    /// Shows which walls are up around its worker process.
    pub fn set_walls(&self, outcomes: &Outcomes) {
        if let Some(lantern) = &self.lantern {
            lantern.set_walls(outcomes);
        }
    }

    /// Shows how loaded the version is.
    pub fn set_load(&self, load: Load) {
        if let Some(lantern) = &self.lantern {
            lantern.set_load(load);
        }
    }

    /// Counts so many more deaths of its worker processes.
    pub fn count_deaths(&self, deaths: u64) {
        if let Some(lantern) = &self.lantern {
            lantern.count_deaths(deaths);
        }
    }

    /// Counts so many more of its worker processes that were ended because they sent too much.
    pub fn count_floods(&self, floods: u64) {
        if let Some(lantern) = &self.lantern {
            lantern.count_floods(floods);
        }
    }

    /// Counts so many more reports of its worker processes that were dropped.
    pub fn count_dropped(&self, kind: ReportKind, reports: u64) {
        if let Some(lantern) = &self.lantern {
            lantern.count_dropped(kind, reports);
        }
    }

    const fn counters(&self, named: bool) -> &Counters {
        if named { &self.named } else { &self.unnamed }
    }
}

impl Counters {
    fn bind(server: &ServerMetrics, name: &ModelName, version: &str) -> Self {
        let labels = [name.as_str(), version, server.hostname.as_str()];
        let bind = |counter| server.bind(counter, &labels);
        Self {
            requests: bind(ts::INFERENCE_REQUESTS),
            latency: bind(ts::INFERENCE_LATENCY),
            queue: bind(ts::QUEUE_LATENCY),
        }
    }
}

fn microseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).trunc()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Format, Metrics};

    fn scrape(metrics: &Metrics, sample: &str) -> String {
        let text = metrics.scrape(Format::TorchServe, &[sample.to_owned()]);
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.collect::<Vec<_>>().join("\n")
    }

    fn bound(metrics: &Metrics) -> ModelMetrics {
        let name = ModelName::new("m").unwrap();
        metrics.model(&name, &Version::new("1.0").unwrap(), false)
    }

    #[test]
    fn phases_that_did_not_happen_are_not_observed() {
        let metrics = Metrics::default();
        let model = bound(&metrics);
        model.answered(false, "", &ObservedRequest::default());
        assert!(scrape(&metrics, "lantern_request_seconds_count").ends_with(" 1.0"));
        assert!(scrape(&metrics, "lantern_infer_seconds_count").ends_with(" 0.0"));
    }

    #[test]
    fn each_phase_has_its_histogram() {
        let metrics = Metrics::default();
        let model = bound(&metrics);
        let observed = ObservedRequest {
            request: Duration::from_secs(1),
            preprocess: Duration::from_secs(2),
            queue: Duration::from_secs(3),
            infer: Duration::from_secs(4),
            postprocess: Duration::from_secs(5),
            batch_rows: 6,
        };
        model.answered(true, "", &observed);
        let names = ["request", "preprocess", "queue", "infer", "postprocess"];
        for (name, sum) in names.into_iter().zip(1..) {
            let sample = scrape(&metrics, &format!("lantern_{name}_seconds_sum"));
            assert!(sample.ends_with(&format!(" {sum}.0")), "{sample}");
        }
        assert!(scrape(&metrics, "lantern_batch_rows_sum").ends_with(" 6.0"));
        assert!(scrape(&metrics, "PredictionTime").ends_with(" 11000.0"));
        assert!(scrape(&metrics, "WorkerThreadTime").ends_with(" 7000.0"));
        assert!(scrape(&metrics, "QueueTime").ends_with(" 3000.0"));
    }

    #[test]
    fn each_outcome_has_its_counter() {
        let metrics = Metrics::default();
        let model = bound(&metrics);
        for outcome in [Outcome::Rejected, Outcome::Expired, Outcome::Expired] {
            model.ended(outcome);
        }
        assert!(scrape(&metrics, "lantern_rejected_requests_total").ends_with(" 1.0"));
        assert!(scrape(&metrics, "lantern_expired_requests_total").ends_with(" 2.0"));
        assert!(scrape(&metrics, "lantern_failed_requests_total").ends_with(" 0.0"));
    }

    #[test]
    fn dropped_reports_are_shown_by_kind_from_the_first_one_on() {
        let metrics = Metrics::default();
        let model = bound(&metrics);
        let shown = || scrape(&metrics, "lantern_worker_reports_dropped_total");
        for kind in ReportKind::ALL {
            model.count_dropped(kind, 0);
        }
        assert_eq!(shown(), "");
        model.count_dropped(ReportKind::Log, 3);
        model.count_dropped(ReportKind::Log, 4);
        let one = shown();
        assert!(
            one.contains("kind=\"log\"") && one.ends_with(" 7.0"),
            "{one}"
        );
        for kind in ReportKind::ALL {
            model.count_dropped(kind, 1);
        }
        assert_eq!(shown().lines().count(), ReportKind::ALL.len());
        model.count_floods(2);
        assert!(scrape(&metrics, "lantern_worker_floods_total").ends_with(" 2.0"));
        drop(model);
        assert_eq!(shown(), "");
    }

    #[test]
    fn workers_show_their_load_time_as_long_as_they_are_there() {
        let metrics = Metrics::default();
        let model = bound(&metrics);
        model.workers(&[9000, 9001], Duration::from_millis(5));
        model.workers(&[9001, 9002], Duration::from_millis(7));
        let shown = scrape(&metrics, "WorkerLoadTime");
        let times: Vec<_> = shown
            .lines()
            .map(|line| (&line[..35], line.rsplit(' ').next()))
            .collect();
        let named = |id| format!("WorkerLoadTime{{WorkerName=\"W-{id}-m");
        assert_eq!(
            times,
            [(&*named(9001), Some("5.0")), (&*named(9002), Some("7.0"))]
        );
    }

    #[test]
    fn what_is_left_of_a_version_are_torchserves_counters() {
        let metrics = Metrics::default();
        let model = bound(&metrics);
        model.requested(true);
        model.workers(&[9000], Duration::ZERO);
        drop(model);
        let text = metrics.scrape(Format::TorchServe, &[]);
        let left = text.lines().filter(|line| line.contains("\"m"));
        let left: Vec<_> = left.map(|line| line.split('{').next().unwrap()).collect();
        assert_eq!(left.len(), 6, "{left:?}");
        assert!(left.iter().all(|name| name.starts_with("ts_")), "{left:?}");
    }
}
