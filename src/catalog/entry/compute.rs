//! A request is computed when the turn of its owner has come, and what it used is counted.

use std::time::{Duration, Instant};

use super::{Entry, Owner};
use crate::error::Error;
use crate::fair_queue::{Breadth, Lane, Turn};
use crate::payload::{Meter, Reply, Request, Spent};
use crate::runtime::{Batching, Runtime, failures};

impl Entry {
    /// Has a request computed by `runtime`, at once where nothing is shared.
    pub(super) async fn compute(
        &self,
        runtime: &Runtime,
        request: Request,
    ) -> Result<Reply, Error> {
        // The futures around this one are moved into one another; boxed, it is not moved with them.
        match &self.lane {
            None => Box::pin(runtime.call(request)).await,
            Some(lane) => Box::pin(self.compute_in_turn(lane, runtime, request)).await,
        }
    }

    async fn compute_in_turn(
        &self,
        lane: &Lane,
        runtime: &Runtime,
        request: Request,
    ) -> Result<Reply, Error> {
        let asked = Instant::now();
        let turn = self.turn(lane, runtime, &request).await?;
        let computing = Computing {
            owner: &self.owner,
            turn: Some(turn),
            meter: request.meter.clone(),
            begun: Instant::now(),
        };
        let waited = computing.begun - asked;
        let mut result = runtime.call(request).await;
        computing.end(result.is_ok());
        if let Ok(reply) = &mut result {
            reply.timings.queue += waited;
        }
        result
    }

    /// Waits for a turn, for as long as the request is of use.
    async fn turn(&self, lane: &Lane, runtime: &Runtime, request: &Request) -> Result<Turn, Error> {
        let schedule = request.schedule;
        let until = schedule
            .begin_by
            .map_or(request.deadline, |by| by.min(request.deadline));
        let turn = self
            .owner
            .turn(lane, self.breadth(runtime), schedule.priority);
        let turn = tokio::time::timeout_at(until.into(), turn).await;
        turn.unwrap_or_else(|_| Err(failures::expired("before it was begun")))
    }

    fn breadth(&self, runtime: &Runtime) -> Breadth {
        let batch = match self.spec.settings.batch_size {
            1 => 1,
            size => match runtime.batching() {
                Some(Batching::On(_) | Batching::OnByOwner | Batching::Trial) => size,
                Some(Batching::Single | Batching::Off(_)) | None => 1,
            },
        };
        Breadth {
            workers: runtime.workers_ready(),
            batch,
        }
    }
}

/// A request that is computed. What it used is counted when it is over, or when its client leaves.
struct Computing<'a> {
    owner: &'a Owner,
    turn: Option<Turn>,
    meter: Meter,
    begun: Instant,
}

impl Computing<'_> {
    /// It is over. One that failed and says nothing of what it used has had its turn until now.
    fn end(mut self, is_answered: bool) {
        let spent = self.meter.spent();
        self.owner.used(spent);
        if let Some(turn) = self.turn.take()
            && (is_answered || !spent.total().is_zero())
        {
            turn.end(spent.total());
        }
    }
}

impl Drop for Computing<'_> {
    fn drop(&mut self) {
        if self.turn.take().is_some() {
            // Nobody says what it used: it is taken for the time that it was under way.
            self.owner.charge(Spent {
                handler: self.begun.elapsed(),
                inference: Duration::ZERO,
            });
        }
    }
}
