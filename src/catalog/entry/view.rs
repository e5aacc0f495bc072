//! A version as others see it: health, gauges, description.

use std::sync::Arc;

use super::{Entry, Phase};
use crate::catalog::describe::{Condition, Description};
use crate::catalog::index::Indexed;
use crate::metrics::{Load, Stacking};
use crate::runtime::{Batching, Status, WorkerState};

impl Entry {
    /// Whether there are workers that take jobs, or may yet be.
    pub(in crate::catalog) fn is_healthy(&self) -> bool {
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

    /// Whether it takes requests, and a worker takes jobs.
    pub fn is_ready(&self) -> bool {
        !self.door.is_closed() && self.ready_workers() > 0
    }

    /// Sets the gauges that are only known when somebody asks.
    pub(in crate::catalog) fn measure(&self) {
        self.follow_workers();
        if self.metrics.shows_load() {
            self.metrics.set_load(Load {
                in_flight: self.door.inside(),
                queued: self.door.queued(),
                workers_ready: self.ready_workers(),
                stacking: match self.batching() {
                    Batching::Single | Batching::Off(_) => Stacking::Off,
                    Batching::Trial => Stacking::Trial,
                    Batching::On(_) => Stacking::On,
                },
            });
        }
    }

    pub(in crate::catalog) fn ready_workers(&self) -> usize {
        match &**self.phase.load() {
            Phase::Ready(runtime) => runtime.workers_ready(),
            Phase::Loading | Phase::Empty | Phase::Failed(_) => 0,
        }
    }

    /// How requests are stacked.
    pub fn batching(&self) -> Batching {
        match &**self.phase.load() {
            Phase::Ready(runtime) => runtime.batching(),
            Phase::Loading | Phase::Empty | Phase::Failed(_) => Batching::default(),
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
            runtime: self.runtime,
            url: self.url.clone(),
            bounds: *self.bounds.lock(),
            loaded_at_startup: self.loaded_at_startup,
            condition: self.condition(),
            queue_remaining: self.door.remaining(),
            queue_pending: self.door.queued(),
            signature: self.signature(),
            batching: self.batching(),
            last_words: status
                .as_ref()
                .map(|status| status.last_words.clone())
                .unwrap_or_default(),
            last_error: status.as_ref().and_then(|status| status.last_error.clone()),
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

    /// Whether it keeps the server from being ready: it should serve, and does not.
    pub(in crate::catalog) fn is_missing(&self) -> bool {
        !self.is_ready() && self.condition() != Condition::Empty
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

    pub(super) fn status(&self) -> Option<Status> {
        match &**self.phase.load() {
            Phase::Ready(runtime) => Some(runtime.status()),
            Phase::Loading | Phase::Empty | Phase::Failed(_) => None,
        }
    }
}
