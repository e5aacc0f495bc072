//! Where calls for a version with a worker process go at the moment.

use std::sync::Arc;

use tokio::time::Instant;

use super::circuit::Trial;
use super::connection::Connection;
use crate::runtime::CircuitState;

/// Where calls go at the moment.
#[derive(Debug, Clone)]
pub enum Availability {
    /// To this process.
    Up(Arc<Connection>),
    /// To this process, one at a time: the circuit is half-open.
    HalfOpen(Arc<Trial>),
    /// Nowhere yet: a process is about to come.
    Down,
    /// Nowhere: the circuit is open, and the next process is started then.
    Open {
        /// When the next process is started.
        until: Instant,
    },
    /// Nowhere: there is no worker.
    Empty,
    /// Nowhere: files of the model were removed and have to come back before a process can, which may take long.
    Unpacking,
    /// Nowhere any more, unless an operator scales the version.
    GivenUp,
    /// Nowhere any more.
    Ended,
}

impl Availability {
    /// Whether a call that has `lost` its process learns here what becomes of it, and need not wait for a change.
    pub fn is_settled(&self, lost: Option<&Arc<Connection>>) -> bool {
        let is_another = |connection| !lost.is_some_and(|lost| Arc::ptr_eq(lost, connection));
        match self {
            Self::Up(connection) => is_another(connection),
            Self::HalfOpen(trial) => is_another(&trial.connection),
            Self::Down => false,
            Self::Open { .. } | Self::Empty | Self::Unpacking | Self::GivenUp | Self::Ended => true,
        }
    }

    /// The circuit, as others see it.
    pub const fn circuit(&self) -> CircuitState {
        match self {
            Self::Open { .. } => CircuitState::Open,
            Self::HalfOpen(_) => CircuitState::HalfOpen,
            Self::Up(_)
            | Self::Down
            | Self::Empty
            | Self::Unpacking
            | Self::GivenUp
            | Self::Ended => CircuitState::Closed,
        }
    }
}
