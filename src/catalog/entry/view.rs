//! A version as others see it: health, gauges, description.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::{Entry, Phase};
use crate::catalog::describe::{Condition, Description};
use crate::catalog::index::Indexed;
use crate::metrics::{Circuit, Load, ReportKind, Stacking};
use crate::runtime::{Batching, CircuitState, Status, WorkerState};

impl Entry {
    /// Whether, at `now`, it has a worker, or has been without one for no longer than it is restarted, or needs none.
    pub(in crate::catalog) fn is_healthy_at(&self, now: Instant) -> bool {
        let window = self.spec.settings.max_retry_timeout;
        let since = self.without_worker_since();
        since.is_none_or(|since| now.saturating_duration_since(since) <= window)
    }

    /// Since when it has no worker though it should; `None` while it has one, or while its runtime starts.
    fn without_worker_since(&self) -> Option<Instant> {
        match &**self.phase.load() {
            Phase::Loading | Phase::Empty => None,
            Phase::Failed(_) => *self.failing_since.lock(),
            Phase::Ready(runtime) => runtime.without_worker_since(),
        }
    }

    /// Whether it takes requests, a worker takes jobs, and its worker processes do not keep dying.
    pub fn is_ready(&self) -> bool {
        !self.admission.is_closed() && self.workers_ready() > 0 && !self.is_degraded()
    }

    /// Whether its worker processes keep dying, so that requests are refused or let through one at a time.
    pub(in crate::catalog) fn is_degraded(&self) -> bool {
        self.circuit() != CircuitState::Closed
    }

    fn circuit(&self) -> CircuitState {
        match &**self.phase.load() {
            Phase::Ready(runtime) => runtime.circuit(),
            Phase::Loading | Phase::Empty | Phase::Failed(_) => CircuitState::Closed,
        }
    }

    /// Sets the gauges that are only known when somebody asks.
    pub(in crate::catalog) fn measure(&self) {
        self.follow_workers();
        if self.metrics.shows_load() {
            self.metrics.set_load(Load {
                in_flight: self.admission.in_flight(),
                queued: self.admission.queued(),
                workers_ready: self.workers_ready(),
                stacking: match self.batching() {
                    None | Some(Batching::Single | Batching::Off(_)) => Stacking::Off,
                    Some(Batching::Trial) => Stacking::Trial,
                    Some(Batching::On(_) | Batching::OnByOwner) => Stacking::On,
                },
                has_failed: matches!(**self.phase.load(), Phase::Failed(_)),
                circuit: match self.circuit() {
                    CircuitState::Closed => Circuit::Closed,
                    CircuitState::HalfOpen => Circuit::HalfOpen,
                    CircuitState::Open => Circuit::Open,
                },
            });
            let status = self.status();
            self.metrics
                .set_walls(&status.map(|status| status.walls).unwrap_or_default());
            self.count_processes();
        }
    }

    /// Counts what became of its worker processes since the last scrape.
    fn count_processes(&self) {
        let Self {
            metrics, processes, ..
        } = self;
        metrics.count_deaths(processes.take_deaths());
        metrics.count_floods(processes.take_floods());
        for kind in ReportKind::ALL {
            metrics.count_dropped(kind, processes.take_dropped(kind));
        }
    }

    pub(in crate::catalog) fn workers_ready(&self) -> usize {
        match &**self.phase.load() {
            Phase::Ready(runtime) => runtime.workers_ready(),
            Phase::Loading | Phase::Empty | Phase::Failed(_) => 0,
        }
    }

    /// How requests are stacked, once the model was loaded.
    pub fn batching(&self) -> Option<Batching> {
        match &**self.phase.load() {
            Phase::Ready(runtime) => runtime.batching(),
            Phase::Loading | Phase::Empty | Phase::Failed(_) => None,
        }
    }

    pub(in crate::catalog) const fn is_loaded_at_startup(&self) -> bool {
        self.loaded_at_startup
    }

    /// The version at this moment.
    pub fn describe(&self) -> Description {
        self.follow_workers();
        let status = self.status();
        Description {
            spec: Arc::clone(&self.spec),
            backend: Some(self.spec.backend),
            runtime: self.runtime,
            url: self.url.clone(),
            origin: Some(*self.files.origin()),
            bounds: *self.bounds.lock(),
            loaded_at_startup: self.loaded_at_startup,
            condition: self.condition(),
            queue_remaining: self.admission.remaining(),
            queue_pending: self.admission.queued(),
            signature: self.signature(),
            batching: self.batching(),
            last_output: status
                .as_ref()
                .map(|status| status.last_output.clone())
                .unwrap_or_default(),
            last_error: status.as_ref().and_then(|status| status.last_error.clone()),
            walls: status
                .as_ref()
                .map(|status| status.walls.clone())
                .unwrap_or_default(),
            workers: status.map(|status| status.workers).unwrap_or_default(),
        }
    }

    pub(in crate::catalog) fn indexed(&self) -> Indexed {
        Indexed {
            name: self.spec.name.to_string(),
            version: Some(self.spec.version.to_string()),
            condition: Some(self.condition()),
            is_ready: self.is_ready(),
            url: self.url.clone(),
        }
    }

    /// Whether requests for it are to be served: it has, or should have, workers, and is not on its way out.
    pub(in crate::catalog) fn should_serve(&self) -> bool {
        !self.admission.is_closed() && !matches!(**self.phase.load(), Phase::Empty)
    }

    fn condition(&self) -> Condition {
        if self.admission.is_closed() {
            return Condition::Draining;
        }
        match &**self.phase.load() {
            Phase::Loading => Condition::Loading,
            Phase::Empty => Condition::Empty,
            Phase::Failed(error) => Condition::Failed(error.clone()),
            Phase::Ready(_) if self.is_degraded() => Condition::Degraded,
            Phase::Ready(runtime) if lives(&runtime.status()) => Condition::Ready,
            Phase::Ready(_) => Condition::Unhealthy,
        }
    }

    pub(in crate::catalog) fn status(&self) -> Option<Status> {
        match &**self.phase.load() {
            Phase::Ready(runtime) => Some(runtime.status()),
            Phase::Loading | Phase::Empty | Phase::Failed(_) => None,
        }
    }

    /// Has its worker process come after those of others where the kernel decides, or among them again. Blocks for some time.
    pub(in crate::catalog) fn set_back(&self, is_back: bool) -> io::Result<()> {
        match &**self.phase.load() {
            Phase::Ready(runtime) => runtime.set_back(is_back),
            Phase::Loading | Phase::Empty | Phase::Failed(_) => Ok(()),
        }
    }
}

/// Whether a worker takes jobs or loads.
fn lives(status: &Status) -> bool {
    let mut workers = status.workers.iter();
    !status.given_up && workers.any(|worker| worker.state != WorkerState::Failed)
}
