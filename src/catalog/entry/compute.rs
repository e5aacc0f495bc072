//! A request is computed when the turn of its owner has come, and what it used is counted.

use std::time::Instant;

use bytes::Bytes;

use super::{Entry, Owner};
use crate::catalog::owner;
use crate::error::Error;
use crate::fair_queue::{Breadth, Lane, Turn};
use crate::payload::{Body, Meter, Priority, Reply, Request, Response};
use crate::runtime::{Batching, Runtime, failures};

/// Rows of a request that may be computed at a time, so that it uses more time than passes.
const SIDE_BY_SIDE: u32 = 64;

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
        let schedule = request.schedule;
        let until = schedule
            .begin_by
            .map_or(request.deadline, |by| by.min(request.deadline));
        let turn = self.turn(lane, runtime, schedule.priority, until).await?;
        let computing = Computing {
            owner: &self.owner,
            _counted: self.owner.computing(),
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

    /// Asks the handler what it says of its model, in its owner's turn and within its quotas, as for a request.
    pub(super) async fn describe_in_turn(
        &self,
        runtime: &Runtime,
        request_id: &str,
        until: Instant,
    ) -> Result<Response, Error> {
        let Some(lane) = &self.lane else {
            return runtime.describe(request_id, until).await;
        };
        let _counted = self.owner.enter(&Body::Raw(Bytes::new()))?;
        let turn = self.turn(lane, runtime, Priority::Normal, until).await?;
        let computing = Computing {
            owner: &self.owner,
            _counted: self.owner.computing(),
            turn: Some(turn),
            meter: Meter::default(),
            begun: Instant::now(),
        };
        let described = runtime.describe(request_id, until).await;
        // Its process does not say what it took: it is taken for the time that it was under way.
        computing.meter.add_handler(computing.begun.elapsed());
        computing.end(described.is_ok());
        described
    }

    async fn turn(
        &self,
        lane: &Lane,
        runtime: &Runtime,
        priority: Priority,
        until: Instant,
    ) -> Result<Turn, Error> {
        let turn = self.owner.turn(lane, self.breadth(runtime), priority);
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
    _counted: owner::Computing<'a>,
    turn: Option<Turn>,
    meter: Meter,
    begun: Instant,
}

impl Computing<'_> {
    /// It is over. One that failed has had its turn all the time: what it says of itself is not the whole.
    fn end(mut self, is_answered: bool) {
        let took = self.begun.elapsed();
        let spent = self.meter.spent().within(took * SIDE_BY_SIDE);
        let cost = if is_answered { spent.total() } else { took };
        self.owner.used(spent, cost);
        if let Some(turn) = self.turn.take()
            && is_answered
        {
            turn.end(cost);
        }
    }
}

impl Drop for Computing<'_> {
    fn drop(&mut self) {
        if self.turn.take().is_some() {
            let took = self.begun.elapsed();
            let spent = self.meter.spent().within(took * SIDE_BY_SIDE);
            self.owner.used(spent, took);
        }
    }
}
