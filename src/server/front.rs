//! From resolved settings to what keeps floods from the server: the budget for bytes in flight, and how many connections
//! there may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use crate::api::Listener;
use crate::budget::{self, Budget};
use crate::config::server::Values;
use crate::listen::{ConnectionLimits, Connections, HandshakeLimits};
use crate::metrics::FrontSources;
use crate::refusals::Refusals;
use crate::tenants::Tenants;

/// Connections for predictions to one for anything else.
const MANAGEMENT_PART: usize = 4;
/// What is kept of the descriptors: a third, at least and at most so many.
const KEPT_PART: usize = 3;
const KEPT: (usize, usize) = (64, 1024);

/// Limits on what clients may keep the server busy with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontLimits {
    /// Bytes in flight.
    pub bytes: budget::Config,
    /// Connections for predictions.
    pub connections: usize,
    /// Those of one client.
    pub connections_of_peer: usize,
    /// Descriptors that this process may have.
    pub descriptors: usize,
    /// How long a client may take nothing of its answer.
    pub write_timeout: Duration,
    /// TLS handshakes at the same time on one address.
    pub handshakes: usize,
    /// How long one may take.
    pub handshake_timeout: Duration,
}

impl FrontLimits {
    /// What `values` ask for.
    pub(super) fn new(values: &Values) -> Self {
        let bytes = values.lantern_bytes_in_flight;
        let connections = values.lantern_max_connections;
        Self {
            bytes: budget::Config {
                bytes,
                of_peer: (values.lantern_bytes_in_flight_of_peer).unwrap_or(bytes / 2),
                patience: values.lantern_bytes_timeout,
            },
            connections,
            connections_of_peer: (values.lantern_max_connections_of_peer)
                .unwrap_or(connections.div_ceil(2)),
            descriptors: descriptors(),
            write_timeout: values.lantern_write_timeout,
            handshakes: values.lantern_max_handshakes,
            handshake_timeout: values.lantern_handshake_timeout,
        }
    }
}

/// Descriptors that this process may have.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    limit.unwrap_or(usize::MAX)
}

/// What is counted against the limits.
#[derive(Debug)]
pub(super) struct Front {
    limits: FrontLimits,
    refusals: Refusals,
    budget: Budget,
    predictions: Connections,
    /// Of sockets that serve no predictions.
    management: Connections,
    /// TLS handshakes under way.
    handshakes: Arc<AtomicUsize>,
}

impl Front {
    pub(super) fn new(limits: FrontLimits) -> Self {
        let refusals = Refusals::default();
        let budget = Budget::new(limits.bytes, refusals.clone());
        let kept = (limits.descriptors / KEPT_PART).clamp(KEPT.0, KEPT.1);
        let connections = |total: usize, of_peer: usize, fitting: usize, kept: usize| {
            let limits = ConnectionLimits {
                total: total.min(fitting),
                of_peer,
                is_of_descriptors: fitting < total,
                descriptors: limits.descriptors.saturating_sub(kept),
            };
            Connections::new(limits, Some(budget.clone()), refusals.clone())
        };
        let others = limits.connections.div_ceil(MANAGEMENT_PART);
        let fitting = limits.descriptors.saturating_sub(kept).max(1);
        Self {
            predictions: connections(
                limits.connections,
                limits.connections_of_peer,
                fitting,
                kept / 2,
            ),
            // Half of what is kept is for these, the rest for worker processes and files.
            management: connections(others, others, kept / 2, kept / 4),
            handshakes: Arc::default(),
            refusals,
            budget,
            limits,
        }
    }

    /// What the connections of a socket for `listeners` are among.
    pub(super) fn connections(&self, listeners: &[Listener]) -> Connections {
        let serves_predictions =
            |one: &Listener| matches!(one, Listener::Inference | Listener::GrpcInference);
        if listeners.iter().any(serves_predictions) {
            self.predictions.clone()
        } else {
            self.management.clone()
        }
    }

    pub(super) const fn write_timeout(&self) -> Duration {
        self.limits.write_timeout
    }

    pub(super) const fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    pub(super) fn handshakes(&self) -> HandshakeLimits {
        HandshakeLimits {
            timeout: self.limits.handshake_timeout,
            at_once: self.limits.handshakes,
            refusals: self.refusals.clone(),
            under_way: Arc::clone(&self.handshakes),
        }
    }

    /// What metrics show of all this.
    pub(super) fn sources(&self, tenants: Option<Arc<Tenants>>) -> FrontSources {
        let is_refused = move || {
            tenants
                .as_ref()
                .is_some_and(|tenants| tenants.is_file_refused())
        };
        let budget = self.budget.clone();
        let connections = [self.predictions.clone(), self.management.clone()];
        let handshakes = Arc::clone(&self.handshakes);
        FrontSources {
            refusals: self.refusals.clone(),
            bytes: Box::new(move || budget.used()),
            connections: Box::new(move || connections.iter().map(Connections::count).sum()),
            handshakes: Box::new(move || handshakes.load(Ordering::Relaxed)),
            refused_tenants: Box::new(move || usize::from(is_refused())),
        }
    }

    /// What tells how much the server has to do.
    pub(super) const fn budget(&self) -> &Budget {
        &self.budget
    }
}
