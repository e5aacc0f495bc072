//! One version in the catalog: its runtime as it comes and goes, and each request's way through it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::admission::{Admission, Refusal};
use super::library::Opened;
use super::sink::{ModelSink, OwnersLog};
use super::statistics::{Statistics, StatisticsRecorder};
use super::{CatalogState, Owner};
use crate::archive::{Download, Unpacked};
use crate::error::{Error, Kind};
use crate::fair_queue::Lane;
use crate::metrics::{Metrics, ModelMetrics, ObservedRequest, Outcome};
use crate::model::{Envelope, ModelSpec, Settings};
use crate::payload::{Reply, Request, Response, Timings};
use crate::runtime::{
    Bounds, InFlightTicket, ProcessCounts, Room, Runtime, Signature, failures, record_version,
};

mod compute;
mod life;
mod log;
mod view;

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
    /// Whose it is.
    owner: Arc<Owner>,
    /// Where its requests wait for the owner's turn, if the machine is shared.
    lane: Option<Lane>,
    spec: Arc<ModelSpec>,
    runtime: &'static str,
    url: String,
    loaded_at_startup: bool,
    metrics: ModelMetrics,
    /// What became of its worker processes and no scrape has shown yet.
    processes: Arc<ProcessCounts>,
    statistics: StatisticsRecorder,
    sink: Arc<ModelSink>,
    admission: Admission,
    bounds: Mutex<Bounds>,
    /// Workers that it is going to have at most, of each scaling that is under way.
    promised: Mutex<Vec<usize>>,
    phase: ArcSwap<Phase>,
    phase_changed: Notify,
    /// Since when it has not been possible to start its runtime.
    failing_since: Mutex<Option<Instant>>,
    /// Why it cannot be started, if that is known.
    unusable: Option<Error>,
    /// Where requests find the version that takes its place.
    catalog: Weak<CatalogState>,
    /// One unregistration at a time.
    pub(super) unregistering: tokio::sync::Mutex<()>,
    /// One start, scaling or end at a time.
    lifecycle: tokio::sync::Mutex<()>,
    /// Cancelled when the version leaves the catalog, so that a start under way ends.
    leaving: Mutex<CancellationToken>,
    /// Keeps the unpacked archive.
    files: Unpacked,
    /// What restores it.
    source: String,
    /// The SHA-256 that its archive must have, if whoever registered it said one.
    pin: Option<String>,
    /// The handler that was asked for, if one was.
    handler: Option<String>,
    /// The envelope that was asked for, if one was.
    envelope: Option<Envelope>,
    /// Whether the registration stands, and is to be saved.
    is_settled: AtomicBool,
    /// The archive's file in the model store, if it was fetched for this version.
    download: Option<Download>,
}

impl Entry {
    /// A version of `owner`'s without workers, for `catalog`.
    pub(super) fn new(
        opened: Opened,
        owner: &Arc<Owner>,
        metrics: &Metrics,
        log: Option<OwnersLog>,
        catalog: Weak<CatalogState>,
    ) -> Self {
        let spec = opened.spec;
        let bounds = Bounds {
            min: spec.settings.min_workers,
            max: spec.settings.max_workers,
        };
        Self {
            metrics: metrics.model(&spec.name, &spec.version, opened.is_profiled),
            sink: Arc::new(ModelSink::new(owner, &spec, metrics, log)),
            lane: owner.lane(),
            owner: Arc::clone(owner),
            processes: Arc::default(),
            statistics: StatisticsRecorder::new(metrics),
            admission: Admission::new(queue(&spec.settings)),
            bounds: Mutex::new(bounds),
            promised: Mutex::default(),
            phase: ArcSwap::from_pointee(Phase::Empty),
            phase_changed: Notify::new(),
            failing_since: Mutex::default(),
            unusable: opened.unusable,
            catalog,
            unregistering: tokio::sync::Mutex::default(),
            lifecycle: tokio::sync::Mutex::default(),
            leaving: Mutex::default(),
            files: opened.files,
            download: opened.download,
            is_settled: AtomicBool::new(false),
            source: opened.source,
            pin: opened.pin,
            handler: opened.handler,
            envelope: opened.envelope,
            spec: Arc::new(spec),
            runtime: opened.runtime,
            url: opened.url,
            loaded_at_startup: opened.loaded_at_startup,
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

    /// The registration stands: it is in every snapshot from now on.
    pub(super) fn mark_settled(&self) {
        self.is_settled.store(true, Ordering::SeqCst);
    }

    /// Whether the registration stands.
    pub(super) fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::SeqCst)
    }

    /// What restores it: a name in the model store, or a whole path.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// The SHA-256 that its archive must have, if whoever registered it said one.
    pub(super) fn pin(&self) -> Option<&str> {
        self.pin.as_deref()
    }

    /// The handler that was asked for, if one was.
    pub(super) fn asked_handler(&self) -> Option<&str> {
        self.handler.as_deref()
    }

    /// The envelope that was asked for, if one was.
    pub(super) const fn asked_envelope(&self) -> Option<Envelope> {
        self.envelope
    }

    /// SHA-256 of its archive, in hexadecimal.
    pub fn digest(&self) -> &str {
        self.files.digest()
    }

    /// Whether its archive was fetched for it.
    pub(super) const fn is_fetched(&self) -> bool {
        self.download.is_some()
    }

    /// Whether the operator listed it.
    pub(super) const fn loaded_at_startup(&self) -> bool {
        self.loaded_at_startup
    }

    /// How many workers it may have.
    pub(super) fn bounds(&self) -> Bounds {
        *self.bounds.lock()
    }

    /// Workers that it has, or is going to have, at most.
    pub fn promised_workers(&self) -> usize {
        let promised = self.promised.lock();
        let most = promised.iter().copied().max().unwrap_or(0);
        most.max(self.bounds().max)
    }

    /// The version stays: so does an archive that was fetched for it.
    pub(super) fn settle(&self) {
        self.mark_settled();
        if let Some(download) = &self.download {
            download.keep();
        }
    }

    /// The version goes: so does an archive that was fetched for it, with the last who uses this entry.
    pub(super) fn give_up_archive(&self) {
        if let Some(download) = &self.download {
            download.give_up();
        }
    }

    /// When a request that arrived then is no longer of use.
    pub fn deadline(&self, arrival: Instant) -> Instant {
        arrival + self.spec.settings.answer_timeout()
    }

    /// Takes one request through the runtime, which keeps its deadline, or refuses it at once. `named` says whether
    /// the request named the version: one that did not, and comes while this one leaves, goes to the version that is the
    /// default instead. Dropping the future cancels the request.
    pub async fn call(&self, request: Request, named: bool) -> Result<Reply, Error> {
        record_version(&Span::current(), &self.spec);
        let _counted = self
            .owner
            .enter(&request.body)
            .inspect_err(|_| self.count_rejected(&request, named))?;
        let refusal = match self.admit() {
            Ok(admitted) => return admitted.run(request, named).await,
            Err(refusal) => refusal,
        };
        if refusal == Refusal::Closed
            && !named
            && let Some(successor) = self.successor()
        {
            record_version(&Span::current(), &successor.spec);
            return match successor.admit() {
                Ok(admitted) => admitted.run(request, named).await,
                Err(refusal) => Err(successor.reject(refusal, &request, named)),
            };
        }
        Err(self.reject(refusal, &request, named))
    }

    /// Asks the handler what it says of its model: a text that should be a JSON object. It is no request to the model:
    /// nothing waits for it but whoever asks, and it has as long as an answer may take.
    pub async fn ask_description(&self, request_id: &str) -> Result<Bytes, Error> {
        let phase = self.phase.load_full();
        let Phase::Ready(runtime) = &*phase else {
            return Err(self.cannot_describe());
        };
        if runtime.workers_ready() == 0 {
            return Err(self.cannot_describe());
        }
        let deadline = self.deadline(Instant::now());
        let described = self.describe_in_turn(runtime, request_id, deadline).await;
        described.map(Response::into_body).map_err(|error| {
            if error.kind() == Kind::NoWorker {
                return self.cannot_describe().with_detail(error);
            }
            error
        })
    }

    fn cannot_describe(&self) -> Error {
        failures::cannot_describe(&self.spec.name)
    }

    /// What it has done so far.
    pub fn statistics(&self) -> Statistics {
        self.statistics.so_far()
    }

    /// Room for a body of `length` bytes of a request to it.
    pub fn room(&self, length: usize) -> Room {
        match &**self.phase.load() {
            Phase::Ready(runtime) => runtime.room(length),
            Phase::Loading | Phase::Empty | Phase::Failed(_) => Room::own(length),
        }
    }

    /// Inputs and outputs of the model: its own once it is loaded, as declared before.
    pub fn signature(&self) -> Arc<Signature> {
        let known = match &**self.phase.load() {
            Phase::Ready(runtime) => runtime.signature(),
            Phase::Loading | Phase::Empty | Phase::Failed(_) => None,
        };
        known.unwrap_or_else(|| {
            let declared = Signature::declared(&self.spec.declared);
            Arc::new(declared)
        })
    }

    fn admit(&self) -> Result<AdmittedRequest<'_>, Refusal> {
        if self.spec.settings.job_tickets {
            self.admission.set_running(self.workers_ready());
        }
        let may_follow = !self.spec.settings.job_tickets;
        let admitted = match self.admission.enter() {
            Err(Refusal::Full) if may_follow && self.follow_workers() => self.admission.enter(),
            admitted => admitted,
        };
        Ok(AdmittedRequest {
            entry: self,
            outcome: Some(Outcome::Cancelled),
            _admitted: admitted?,
        })
    }

    fn reject(&self, refusal: Refusal, request: &Request, named: bool) -> Error {
        self.count_rejected(request, named);
        self.refused(refusal, named)
    }

    fn count_rejected(&self, request: &Request, named: bool) {
        self.statistics.failed(request.arrival.elapsed());
        self.metrics.requested(named);
        self.ended(Outcome::Rejected);
    }

    fn ended(&self, outcome: Outcome) {
        self.metrics.ended(outcome);
        self.owner.ended(outcome);
    }

    /// The default version, if it is another one.
    fn successor(&self) -> Option<Arc<Self>> {
        let catalog = self.catalog.upgrade()?;
        let models = catalog.models.load();
        let default = &models.get(self.spec.name.as_str())?.default;
        (!std::ptr::eq(&raw const **default, self)).then(|| Arc::clone(default))
    }

    /// Waits, at most until `deadline`, while its runtime starts. Who waits is counted as a request in flight is.
    pub async fn loaded(&self, deadline: Instant) -> Result<(), Error> {
        if !self.is_loading() {
            return Ok(());
        }
        let admitted = self.admission.enter();
        let _admitted = admitted.map_err(|refusal| self.refused(refusal, false))?;
        self.phase_until(deadline).await.map(drop)
    }

    fn is_loading(&self) -> bool {
        matches!(**self.phase.load(), Phase::Loading)
    }

    /// The phase, once it is not [`Phase::Loading`].
    async fn phase_until(&self, deadline: Instant) -> Result<Arc<Phase>, Error> {
        let settled = tokio::time::timeout_at(deadline.into(), self.settled_phase()).await;
        settled.map_err(|_| self.still_loading())
    }

    async fn run(&self, request: Request, named: bool) -> Result<Reply, Error> {
        let mut phase = self.phase.load_full();
        if matches!(*phase, Phase::Loading) {
            phase = self.phase_until(request.deadline).await?;
        }
        let Phase::Ready(runtime) = &*phase else {
            return Err(self.refused(Refusal::NoWorker, named));
        };
        let result = self.compute(runtime, request).await;
        result.map_err(|error| match error.kind() {
            // Its workers were taken away after it was admitted.
            Kind::NoWorker | Kind::Draining => {
                self.refused(Refusal::NoWorker, named).with_detail(error)
            }
            Kind::QueueFull => self.refused(Refusal::Full, named).with_detail(error),
            _ => error,
        })
    }

    /// The phase, once it is not [`Phase::Loading`]: a request that was admitted while the runtime starts waits for it.
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

    fn refused(&self, refusal: Refusal, named: bool) -> Error {
        let kind = match refusal {
            Refusal::NoWorker => Kind::NoWorker,
            Refusal::Full => Kind::QueueFull,
            Refusal::Closed => Kind::Draining,
        };
        failures::not_served(kind, &self.spec.name, named.then_some(&self.spec.version))
    }

    fn still_loading(&self) -> Error {
        super::expected::still_loading(self.spec.name.as_str())
    }
}

/// That a version may have so many workers, until it was scaled to them, or was not.
pub struct Promise {
    entry: Arc<Entry>,
    most: usize,
}

impl Promise {
    /// So many at most, and no fewer than there may be now: those end later.
    pub(super) fn new(entry: &Arc<Entry>, most: usize) -> Self {
        let most = most.max(entry.promised_workers());
        entry.promised.lock().push(most);
        Self {
            entry: Arc::clone(entry),
            most,
        }
    }

    /// Whose workers they are.
    pub fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let mut promised = self.entry.promised.lock();
        if let Some(place) = promised.iter().position(|most| *most == self.most) {
            promised.swap_remove(place);
        }
    }
}

/// Requests that may wait. With job tickets, each idle worker lets one request in, and none waits.
const fn queue(settings: &Settings) -> usize {
    if settings.job_tickets {
        0
    } else {
        settings.job_queue_size
    }
}

/// A request that was admitted. Dropped before it is given an outcome, it counts as cancelled.
struct AdmittedRequest<'a> {
    entry: &'a Entry,
    /// `None` if it was answered as asked for.
    outcome: Option<Outcome>,
    _admitted: InFlightTicket<'a>,
}

impl AdmittedRequest<'_> {
    async fn run(mut self, request: Request, named: bool) -> Result<Reply, Error> {
        let Entry {
            metrics,
            statistics,
            ..
        } = self.entry;
        metrics.requested(named);
        let arrival = request.arrival;
        let shown_id = metrics.names_requests().then(|| request.id.clone());
        let result = self.entry.run(request, named).await;
        self.outcome = match &result {
            Ok(reply) => {
                let id = shown_id.as_deref().unwrap_or_default();
                let took = arrival.elapsed();
                let timings = reply.timings.within(took);
                metrics.answered(named, id, &observed(took, &timings));
                self.entry.owner.answered(reply);
                statistics.succeeded(arrival, took, &timings);
                None
            }
            Err(error) => {
                statistics.failed(arrival.elapsed());
                Some(outcome(error.kind()))
            }
        };
        result
    }
}

impl Drop for AdmittedRequest<'_> {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome {
            self.entry.ended(outcome);
        }
    }
}

fn outcome(kind: Kind) -> Outcome {
    match kind {
        Kind::NoWorker
        | Kind::QueueFull
        | Kind::Overloaded
        | Kind::Draining
        | Kind::CrashLoop
        | Kind::Throttled => Outcome::Rejected,
        Kind::Expired | Kind::Loading => Outcome::Expired,
        Kind::Cancelled => Outcome::Cancelled,
        _ => Outcome::Failed,
    }
}

fn observed(took: Duration, timings: &Timings) -> ObservedRequest {
    ObservedRequest {
        request: took,
        preprocess: timings.preprocess,
        queue: timings.queue,
        infer: timings.infer,
        postprocess: timings.postprocess,
        batch_rows: timings.batch_rows,
    }
}

#[cfg(test)]
mod tests;
