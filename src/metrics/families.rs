//! The families of the front: each is named once, here.

use prometheus::core::Collector;
use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, Opts};

use super::text::{Family, Kind};

/// Labels of TorchServe's per-host series.
const HOST: &[&str] = &["Level", "Hostname"];
/// Labels of TorchServe's three counters.
const TS_MODEL: &[&str] = &["model_name", "model_version", "hostname"];
/// Labels of TorchServe's model series.
const TS_HANDLER: &[&str] = &["ModelName", "Level", "Hostname"];
/// Labels of ours.
const MODEL: &[&str] = &["model_name", "model_version"];

/// From 50 µs, which is a small model's whole pipeline, to the default response timeout.
const SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0, 120.0,
];
const ROWS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

struct Described<C> {
    collector: C,
    labels: &'static [&'static str],
}

/// Every family, and how it is shown.
pub(super) struct Families {
    shown: Vec<Described<Box<dyn Collector>>>,
    pub(super) requests: [CounterVec; 3],
    pub(super) ts_requests: CounterVec,
    pub(super) ts_latency: CounterVec,
    pub(super) ts_queue_latency: CounterVec,
    pub(super) queue_time: GaugeVec,
    pub(super) worker_thread_time: GaugeVec,
    pub(super) worker_load_time: GaugeVec,
    pub(super) handler_time: GaugeVec,
    pub(super) prediction_time: GaugeVec,
    pub(super) cpu_utilization: GaugeVec,
    pub(super) memory_used: GaugeVec,
    pub(super) memory_available: GaugeVec,
    pub(super) memory_utilization: GaugeVec,
    pub(super) disk_used: GaugeVec,
    pub(super) disk_available: GaugeVec,
    pub(super) disk_utilization: GaugeVec,
    pub(super) request: HistogramVec,
    pub(super) queue: HistogramVec,
    pub(super) preprocess: HistogramVec,
    pub(super) infer: HistogramVec,
    pub(super) postprocess: HistogramVec,
    pub(super) batch_rows: HistogramVec,
    pub(super) in_flight: GaugeVec,
    pub(super) queue_depth: GaugeVec,
    pub(super) workers_ready: GaugeVec,
    pub(super) rejected: CounterVec,
    pub(super) expired: CounterVec,
    pub(super) cancelled: CounterVec,
    pub(super) failed: CounterVec,
}

/// How many of [`Families::gather`]'s first families are those of TorchServe's legacy mode.
const LEGACY: usize = 3;

impl Families {
    pub(super) fn new() -> Self {
        let mut make = Maker::default();
        Self {
            ts_requests: make.ts_counter("ts_inference_requests_total", "Count", TS_MODEL),
            ts_latency: make.ts_counter(
                "ts_inference_latency_microseconds",
                "Microseconds",
                TS_MODEL,
            ),
            ts_queue_latency: make.ts_counter(
                "ts_queue_latency_microseconds",
                "Microseconds",
                TS_MODEL,
            ),
            requests: ["Requests2XX", "Requests4XX", "Requests5XX"]
                .map(|name| make.ts_counter(name, "Count", HOST)),
            queue_time: make.ts_gauge("QueueTime", "Milliseconds", HOST),
            worker_thread_time: make.ts_gauge("WorkerThreadTime", "Milliseconds", HOST),
            worker_load_time: make.ts_gauge(
                "WorkerLoadTime",
                "Milliseconds",
                &["WorkerName", "Level", "Hostname"],
            ),
            handler_time: make.ts_gauge("HandlerTime", "ms", TS_HANDLER),
            prediction_time: make.ts_gauge("PredictionTime", "ms", TS_HANDLER),
            cpu_utilization: make.ts_gauge("CPUUtilization", "Percent", HOST),
            memory_used: make.ts_gauge("MemoryUsed", "Megabytes", HOST),
            memory_available: make.ts_gauge("MemoryAvailable", "Megabytes", HOST),
            memory_utilization: make.ts_gauge("MemoryUtilization", "Percent", HOST),
            disk_used: make.ts_gauge("DiskUsage", "Gigabytes", HOST),
            disk_available: make.ts_gauge("DiskAvailable", "Gigabytes", HOST),
            disk_utilization: make.ts_gauge("DiskUtilization", "Percent", HOST),
            request: make.seconds(
                "lantern_request_seconds",
                "From arrival of a request until its answer",
            ),
            queue: make.seconds(
                "lantern_queue_seconds",
                "From the end of preprocess until a worker took the job",
            ),
            preprocess: make.seconds("lantern_preprocess_seconds", "In the handler's preprocess"),
            infer: make.seconds(
                "lantern_infer_seconds",
                "In the session, for the whole batch",
            ),
            postprocess: make.seconds(
                "lantern_postprocess_seconds",
                "In the handler's postprocess",
            ),
            batch_rows: make.histogram(
                "lantern_batch_rows",
                "Rows of the batch that a request was part of",
                ROWS,
            ),
            in_flight: make.gauge(
                "lantern_requests_in_flight",
                "Requests admitted and not answered",
            ),
            queue_depth: make.gauge(
                "lantern_queue_depth",
                "Requests admitted beyond what the workers are running",
            ),
            workers_ready: make.gauge("lantern_workers_ready", "Workers that take jobs"),
            rejected: make.counter(
                "lantern_rejected_requests_total",
                "Requests refused at the door",
            ),
            expired: make.counter(
                "lantern_expired_requests_total",
                "Requests whose deadline passed",
            ),
            cancelled: make.counter(
                "lantern_cancelled_requests_total",
                "Requests whose client left",
            ),
            failed: make.counter(
                "lantern_failed_requests_total",
                "Requests that ended in an error",
            ),
            shown: make.shown,
        }
    }

    /// All of them, with their samples at this moment.
    pub(super) fn gather(&self) -> Vec<Family> {
        self.shown.iter().flat_map(Described::gather).collect()
    }

    /// Those of the legacy mode.
    pub(super) fn gather_torchserve_counters(&self) -> Vec<Family> {
        self.shown[..LEGACY]
            .iter()
            .flat_map(Described::gather)
            .collect()
    }
}

impl Described<Box<dyn Collector>> {
    fn gather(&self) -> Vec<Family> {
        let families = self.collector.collect().into_iter();
        families
            .map(|family| Family::new(family, self.labels))
            .collect()
    }
}

/// Makes families and remembers them in order.
#[derive(Default)]
struct Maker {
    shown: Vec<Described<Box<dyn Collector>>>,
}

impl Maker {
    fn ts_counter(
        &mut self,
        name: &str,
        unit: &str,
        labels: &'static [&'static str],
    ) -> CounterVec {
        let opts = Opts::new(name, ts_help(Kind::Counter, unit));
        self.keep(CounterVec::new(opts, labels), labels)
    }

    fn ts_gauge(&mut self, name: &str, unit: &str, labels: &'static [&'static str]) -> GaugeVec {
        let opts = Opts::new(name, ts_help(Kind::Gauge, unit));
        self.keep(GaugeVec::new(opts, labels), labels)
    }

    fn counter(&mut self, name: &str, help: &str) -> CounterVec {
        self.keep(CounterVec::new(Opts::new(name, help), MODEL), MODEL)
    }

    fn gauge(&mut self, name: &str, help: &str) -> GaugeVec {
        self.keep(GaugeVec::new(Opts::new(name, help), MODEL), MODEL)
    }

    fn seconds(&mut self, name: &str, help: &str) -> HistogramVec {
        self.histogram(name, help, SECONDS)
    }

    fn histogram(&mut self, name: &str, help: &str, buckets: &[f64]) -> HistogramVec {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.keep(HistogramVec::new(opts, MODEL), MODEL)
    }

    fn keep<C: Collector + Clone + 'static>(
        &mut self,
        made: prometheus::Result<C>,
        labels: &'static [&'static str],
    ) -> C {
        let collector = made.expect("names and labels in this file are valid");
        self.shown.push(Described {
            collector: Box::new(collector.clone()),
            labels,
        });
        collector
    }
}

/// TorchServe's help text.
pub(super) fn ts_help(kind: Kind, unit: &str) -> String {
    format!(
        "Torchserve prometheus {} metric with unit: {unit}",
        kind.name()
    )
}
