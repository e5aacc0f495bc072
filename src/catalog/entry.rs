//! One version in the catalog: its runtime as it comes and goes, and each request's way through it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::describe::{Condition, Description};
use super::door::{Door, Refusal};
use super::library::Opened;
use super::sink::ModelSink;
use crate::archive::Unpacked;
use crate::error::{Error, Kind};
use crate::metrics::{InFlight, Metrics, ModelMetrics, Observed, Outcome};
use crate::model::ModelSpec;
use crate::payload::{Reply, Request};
use crate::runtime::{Hosts, Runtime, Status, WorkerState};

/// How long a runtime that is replaced by nothing may take to end.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at workers that load.
const READY_INTERVAL: Duration = Duration::from_millis(10);

/// How many workers a version may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// `min_worker`: as many are started.
    pub min: usize,
    /// `max_worker`: at least `min`.
    pub max: usize,
}

/// Where a version is in its life.
enum Phase {
    /// Its runtime starts.
    Loading,
    /// Its runtime runs.
    Ready(Runtime),
    /// It has no workers, by request.
    Empty,
    /// Its runtime did not start.
    Failed(Error),
}

/// One registered version.
pub struct Entry {
    spec: Arc<ModelSpec>,
    runtime: &'static str,
    url: String,
    loaded_at_startup: bool,
    metrics: ModelMetrics,
    sink: Arc<ModelSink>,
    door: Door,
    bounds: Mutex<Bounds>,
    phase: ArcSwap<Phase>,
    phase_changed: Notify,
    /// One start, scaling or end at a time.
    lifecycle: tokio::sync::Mutex<()>,
    /// Cancelled when the version leaves the catalog, so that a start under way ends.
    leaving: Mutex<CancellationToken>,
    /// Keeps the unpacked archive.
    _files: Unpacked,
}

impl Entry {
    /// A version without workers.
    pub(super) fn new(
        opened: Opened,
        url: String,
        loaded_at_startup: bool,
        metrics: &Metrics,
    ) -> Self {
        let spec = opened.spec;
        let bounds = Bounds {
            min: spec.settings.min_workers,
            max: spec.settings.max_workers,
        };
        Self {
            metrics: metrics.model(&spec.name, &spec.version),
            sink: Arc::new(ModelSink::new(&spec, metrics.clone())),
            door: Door::new(spec.settings.job_queue_size),
            bounds: Mutex::new(bounds),
            phase: ArcSwap::from_pointee(Phase::Empty),
            phase_changed: Notify::new(),
            lifecycle: tokio::sync::Mutex::default(),
            leaving: Mutex::default(),
            _files: opened.files,
            spec: Arc::new(spec),
            runtime: opened.runtime,
            url,
            loaded_at_startup,
        }
    }

    /// What it was loaded from.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// As given at registration.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// When a request that arrived then is no longer of use.
    pub fn deadline(&self, arrival: Instant) -> Instant {
        arrival + self.spec.settings.response_timeout
    }

    /// Takes one request through the runtime, which keeps its deadline, or refuses it at once. `named` says whether
    /// the request named the version. Dropping the future cancels the request.
    pub async fn call(&self, request: Request, named: bool) -> Result<Reply, Error> {
        self.metrics.requested(named);
        let mut ticket = self.admit(named)?;
        let arrival = request.arrival;
        let result = self.run(request, named).await;
        ticket.outcome = match &result {
            Ok(reply) => {
                self.metrics.answered(named, &observed(arrival, reply));
                None
            }
            Err(error) => Some(outcome(error.kind())),
        };
        result
    }

    fn admit(&self, named: bool) -> Result<Ticket<'_>, Error> {
        self.door.enter().map_err(|refusal| {
            self.metrics.ended(Outcome::Rejected);
            self.refused(refusal, named)
        })?;
        Ok(Ticket {
            entry: self,
            outcome: Some(Outcome::Cancelled),
            _in_flight: self.metrics.in_flight(),
        })
    }

    async fn run(&self, request: Request, named: bool) -> Result<Reply, Error> {
        let mut phase = self.phase.load_full();
        if matches!(*phase, Phase::Loading) {
            let settled =
                tokio::time::timeout_at(request.deadline.into(), self.settled_phase()).await;
            phase = settled.map_err(|_| self.expired())?;
        }
        let Phase::Ready(runtime) = &*phase else {
            return Err(self.refused(Refusal::NoWorker, named));
        };
        let result = runtime.call(request).await;
        result.map_err(|error| match error.kind() {
            Kind::NoWorker => self.refused(Refusal::NoWorker, named).with_detail(error),
            Kind::QueueFull => self.refused(Refusal::Full, named).with_detail(error),
            _ => error,
        })
    }

    /// The phase, once it is not [`Phase::Loading`]: who was let in while the runtime starts waits for it.
    async fn settled_phase(&self) -> Arc<Phase> {
        loop {
            let changed = self.phase_changed.notified();
            let phase = self.phase.load_full();
            if !matches!(*phase, Phase::Loading) {
                return phase;
            }
            changed.await;
        }
    }

    /// TorchServe's message, with its unbalanced quote, which clients match.
    fn refused(&self, refusal: Refusal, named: bool) -> Error {
        let (name, version) = (&self.spec.name, &self.spec.version);
        let kind = match refusal {
            Refusal::NoWorker => Kind::NoWorker,
            Refusal::Full => Kind::QueueFull,
            Refusal::Closed => Kind::Draining,
        };
        let version = if named {
            format!(" Version {version}\"")
        } else {
            String::new()
        };
        Error::new(
            kind,
            format!(
                "Model \"{name}\"{version} has no worker to serve inference request. Please use scale workers API to \
                 add workers. If this is a sequence inference, please check if it is closed, or expired; or exceeds \
                 maxSequenceJobQueueSize"
            ),
        )
    }

    fn expired(&self) -> Error {
        let (name, timeout) = (&self.spec.name, self.spec.settings.response_timeout);
        let message =
            format!("Model \"{name}\" was still loading after its response timeout of {timeout:?}");
        Error::new(Kind::Expired, message)
    }
}

/// The life of the runtime.
impl Entry {
    /// Shows the version as loading, so that requests wait for the start that follows.
    pub(super) fn expect_workers(&self) {
        self.set_phase(Phase::Loading, self.bounds.lock().min);
    }

    /// Starts the runtime with `min` workers.
    pub(super) async fn start(&self, hosts: &Hosts) -> Result<(), Error> {
        let _lifecycle = self.lifecycle.lock().await;
        let workers = self.bounds.lock().min;
        self.start_with(hosts, workers).await
    }

    /// Waits, after a start, until all workers are ready or one failed. Whether all are.
    pub(super) async fn all_ready(&self) -> bool {
        let until = Instant::now() + self.spec.settings.startup_timeout;
        loop {
            let workers = self
                .status()
                .map(|status| status.workers)
                .unwrap_or_default();
            let has = |state| workers.iter().any(|worker| worker.state == state);
            if !has(WorkerState::Loading) || Instant::now() > until {
                return !has(WorkerState::Loading) && !has(WorkerState::Failed);
            }
            tokio::time::sleep(READY_INTERVAL).await;
        }
    }

    /// Starts or stops workers so that there are at least `min` and at most `max`.
    pub(super) async fn scale(&self, hosts: &Hosts, bounds: Bounds) -> Result<(), Error> {
        let _lifecycle = self.lifecycle.lock().await;
        *self.bounds.lock() = bounds;
        let phase = self.phase.load_full();
        match &*phase {
            Phase::Ready(runtime) => {
                let now = runtime.status().workers.len();
                self.scale_running(runtime, now, now.clamp(bounds.min, bounds.max))
                    .await
            }
            Phase::Loading | Phase::Empty | Phase::Failed(_) if bounds.min > 0 => {
                self.start_with(hosts, bounds.min).await
            }
            Phase::Loading | Phase::Empty | Phase::Failed(_) => {
                self.set_phase(Phase::Empty, 0);
                Ok(())
            }
        }
    }

    async fn scale_running(
        &self,
        runtime: &Runtime,
        now: usize,
        workers: usize,
    ) -> Result<(), Error> {
        if workers == 0 {
            self.set_phase(Phase::Empty, 0);
            runtime.drain(RUNTIME_PATIENCE).await;
        } else if workers != now {
            runtime.scale(workers).await?;
            self.set_running(workers);
        }
        Ok(())
    }

    async fn start_with(&self, hosts: &Hosts, workers: usize) -> Result<(), Error> {
        self.set_phase(Phase::Loading, workers);
        let since = Instant::now();
        let leaving = self.leaving.lock().clone();
        let sink = Arc::clone(&self.sink) as Arc<_>;
        let started = tokio::select! {
            started = Runtime::start(hosts, Arc::clone(&self.spec), workers, sink) => started,
            () = leaving.cancelled() => Err(self.refused(Refusal::Closed, false)),
        };
        match started {
            Ok(runtime) => {
                self.log_loaded(&runtime.status(), since.elapsed());
                self.set_phase(Phase::Ready(runtime), workers);
                Ok(())
            }
            Err(error) => {
                let (model, version) = (&self.spec.name, &self.spec.version);
                tracing::error!(%model, %version, "Model {model} failed to load: {error}");
                self.set_phase(Phase::Failed(error.clone()), 0);
                Err(error)
            }
        }
    }

    fn log_loaded(&self, status: &Status, took: Duration) {
        let spec = &self.spec;
        let devices: Vec<_> = status
            .workers
            .iter()
            .map(|worker| worker.device.to_string())
            .collect();
        for worker in &status.workers {
            self.metrics.worker_loaded(worker.id, took);
        }
        tracing::info!(
            model = %spec.name,
            version = %spec.version,
            backend = spec.backend.name(),
            hosting = ?spec.settings.hosting,
            workers = status.workers.len(),
            devices = devices.join(","),
            ms = took.as_millis(),
            "Model {} loaded.", spec.name
        );
    }

    /// Refuses new requests and waits for those in flight, at most `patience`; then ends the runtime. If they take
    /// longer, requests are let in again. Whether the version is drained.
    pub(super) async fn drain(&self, patience: Duration) -> bool {
        self.door.close();
        self.leaving.lock().cancel();
        let since = Instant::now();
        if !self.door.wait_empty(patience).await {
            *self.leaving.lock() = CancellationToken::new();
            self.door.open();
            return false;
        }
        self.end_runtime(patience.saturating_sub(since.elapsed()))
            .await;
        true
    }

    /// As [`Self::drain`], but the runtime ends in any case.
    pub(super) async fn shut_down(&self, patience: Duration) {
        self.door.close();
        self.leaving.lock().cancel();
        let since = Instant::now();
        self.door.wait_empty(patience).await;
        self.end_runtime(patience.saturating_sub(since.elapsed()))
            .await;
    }

    async fn end_runtime(&self, patience: Duration) {
        let _lifecycle = self.lifecycle.lock().await;
        let phase = self.phase.load_full();
        self.set_phase(Phase::Empty, 0);
        if let Phase::Ready(runtime) = &*phase {
            runtime.drain(patience).await;
        }
    }

    fn set_phase(&self, phase: Phase, workers: usize) {
        self.phase.store(Arc::new(phase));
        self.set_running(workers);
        self.phase_changed.notify_waiters();
    }

    fn set_running(&self, workers: usize) {
        self.door
            .set_running(workers * self.spec.settings.batch_size);
    }
}

/// What others see.
impl Entry {
    /// Whether there are workers that take jobs, or may yet be.
    pub(super) fn is_healthy(&self) -> bool {
        match &**self.phase.load() {
            Phase::Loading | Phase::Empty => true,
            Phase::Failed(_) => false,
            Phase::Ready(runtime) => {
                let status = runtime.status();
                let mut workers = status.workers.iter();
                !status.given_up && workers.any(|worker| worker.state != WorkerState::Failed)
            }
        }
    }

    pub(super) fn measure(&self) {
        let ready = self.status().map_or(0, |status| {
            let workers = status.workers.iter();
            workers
                .filter(|worker| worker.state == WorkerState::Ready)
                .count()
        });
        self.metrics.set_load(self.door.queued(), ready);
    }

    /// The version at this moment.
    pub fn describe(&self) -> Description {
        let status = self.status();
        Description {
            spec: Arc::clone(&self.spec),
            runtime: self.runtime,
            url: self.url.clone(),
            bounds: *self.bounds.lock(),
            loaded_at_startup: self.loaded_at_startup,
            condition: self.condition(),
            queue_remaining: self.door.remaining(),
            queue_pending: self.door.queued(),
            last_words: status
                .as_ref()
                .map(|status| status.last_words.clone())
                .unwrap_or_default(),
            last_error: status.as_ref().and_then(|status| status.last_error.clone()),
            workers: status.map(|status| status.workers).unwrap_or_default(),
        }
    }

    fn condition(&self) -> Condition {
        if self.door.is_closed() {
            return Condition::Draining;
        }
        match &**self.phase.load() {
            Phase::Loading => Condition::Loading,
            Phase::Empty => Condition::Empty,
            Phase::Failed(error) => Condition::Failed(error.clone()),
            Phase::Ready(_) if self.is_healthy() => Condition::Ready,
            Phase::Ready(_) => Condition::Unhealthy,
        }
    }

    fn status(&self) -> Option<Status> {
        match &**self.phase.load() {
            Phase::Ready(runtime) => Some(runtime.status()),
            Phase::Loading | Phase::Empty | Phase::Failed(_) => None,
        }
    }
}

/// A request that was let in. Dropped before it is given an outcome, it counts as cancelled.
struct Ticket<'a> {
    entry: &'a Entry,
    /// `None` if it was answered as asked for.
    outcome: Option<Outcome>,
    _in_flight: InFlight,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome {
            self.entry.metrics.ended(outcome);
        }
        self.entry.door.leave();
    }
}

fn outcome(kind: Kind) -> Outcome {
    match kind {
        Kind::NoWorker | Kind::QueueFull | Kind::Draining => Outcome::Rejected,
        Kind::Expired => Outcome::Expired,
        Kind::Cancelled => Outcome::Cancelled,
        _ => Outcome::Failed,
    }
}

fn observed(arrival: Instant, reply: &Reply) -> Observed {
    let timings = &reply.timings;
    Observed {
        request: arrival.elapsed(),
        preprocess: timings.preprocess,
        queue: timings.queue,
        infer: timings.infer,
        postprocess: timings.postprocess,
        batch_rows: timings.batch_rows,
    }
}
