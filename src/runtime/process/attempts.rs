//! The attempts to have one request answered: which process it goes to, and what becomes of it when that one dies.
//!
//! A request whose process dies before it was answered is sent once more, to the next process; one that saw two processes
//! die is not tried again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::availability::Availability;
use super::circuit::TrialTurn;
use super::connection::{Connection, Lost};
use crate::error::{Error, Kind};
use crate::model::ModelSpec;
use crate::payload::Reply;
use crate::runtime::failures::{crash_loop, draining, expired, no_worker, worker_died};

/// The attempts to have one request answered.
pub struct Attempts<'a> {
    model: &'a ModelSpec,
    availability: watch::Receiver<Availability>,
    deadline: Instant,
    /// The connection that was lost last.
    lost: Option<Arc<Connection>>,
    /// Why the process died that had the request.
    death: Option<Arc<str>>,
    /// Whether that process may have died of a call that was cancelled.
    is_cleared: bool,
}

/// One attempt: a process that is sent the request.
pub struct Attempt {
    /// Calls to the process.
    pub connection: Arc<Connection>,
    /// Held while the circuit is half-open.
    turn: Option<TrialTurn>,
    is_second: bool,
}

impl<'a> Attempts<'a> {
    /// No attempt yet.
    pub const fn new(
        model: &'a ModelSpec,
        availability: watch::Receiver<Availability>,
        deadline: Instant,
    ) -> Self {
        Self {
            model,
            availability,
            deadline,
            lost: None,
            death: None,
            is_cleared: false,
        }
    }

    /// An attempt with a process that was not lost yet; waits for one while it is about to come.
    pub async fn next(&mut self) -> Result<Attempt, Error> {
        if let Availability::Up(connection) = &*self.availability.borrow()
            && self.lost.is_none()
        {
            return Ok(self.attempt(connection.clone(), None));
        }
        match self.settled().await {
            Some(availability) => self.attempt_at(availability),
            None => Err(self.explained(expired("while its worker was restarted"))),
        }
    }

    /// The availability, once it says where the request goes; `None` if that is after the deadline.
    async fn settled(&mut self) -> Option<Availability> {
        let lost = self.lost.clone();
        let settled = self
            .availability
            .wait_for(|availability| availability.is_settled(lost.as_ref()));
        let settled = tokio::time::timeout_at(self.deadline.into(), settled).await;
        let availability = settled.ok()?;
        Some(availability.map_or(Availability::Ended, |availability| availability.clone()))
    }

    fn attempt_at(&self, availability: Availability) -> Result<Attempt, Error> {
        Err(match availability {
            Availability::Up(connection) => return Ok(self.attempt(connection, None)),
            Availability::HalfOpen(trial) => match trial.turn() {
                Some(turn) => return Ok(self.attempt(trial.connection.clone(), Some(turn))),
                None => self.refused_for(Duration::ZERO),
            },
            Availability::Open { until } => {
                self.refused_for(until.saturating_duration_since(tokio::time::Instant::now()))
            }
            Availability::Ended => self.explained(draining(self.model)),
            Availability::Empty
            | Availability::Unpacking
            | Availability::GivenUp
            | Availability::Down => self.explained(no_worker(self.model)),
        })
    }

    const fn attempt(&self, connection: Arc<Connection>, turn: Option<TrialTurn>) -> Attempt {
        Attempt {
            connection,
            turn,
            is_second: self.death.is_some() && !self.is_cleared,
        }
    }

    /// What happened to the request itself says more than `failure`.
    fn explained(&self, failure: Error) -> Error {
        self.death.as_deref().map_or(failure, worker_died)
    }

    /// The circuit is open for so long. A request whose own process was one of those that died is told so as well: it may be
    /// innocent, and tried again.
    fn refused_for(&self, left: Duration) -> Error {
        let refusal = crash_loop(self.model, left);
        match &self.death {
            Some(death) => refusal.with_detail(death),
            None => refusal,
        }
    }

    /// The process of `attempt` was lost. An error when the request may have killed two processes.
    pub fn lost(&mut self, attempt: Attempt, lost: Lost) -> Result<(), Error> {
        self.lost = Some(attempt.connection);
        let Some(reason) = lost.reason else {
            return Ok(());
        };
        if self.death.is_some() {
            return Err(worker_died(&reason));
        }
        self.death = Some(reason);
        self.is_cleared = lost.had_cancelled;
        Ok(())
    }
}

impl Attempt {
    /// Whether an earlier process may have died of the request, or the request is alone in this one.
    pub const fn is_suspected(&self) -> bool {
        self.is_second || self.turn.is_some()
    }

    /// How many processes the request has cost, should this one die of it.
    pub const fn cost(&self) -> usize {
        if self.is_second { 2 } else { 1 }
    }

    /// The request got this answer. If it came from the process, it ends a trial.
    pub fn answered(&self, answer: &Result<Reply, Error>) {
        if let Some(turn) = &self.turn
            && answer.as_ref().err().is_none_or(is_from_process)
        {
            turn.answered();
        }
    }
}

/// Whether a failure shows that the process works. These may have come from the front, or from a process that is about to end.
fn is_from_process(failure: &Error) -> bool {
    !matches!(
        failure.kind(),
        Kind::Expired | Kind::TooLarge | Kind::WorkerDied | Kind::Cancelled
    )
}
