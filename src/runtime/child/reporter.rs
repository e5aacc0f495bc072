//! What a worker process reports without being asked.

use std::sync::Arc;
use std::time::Duration;

use super::super::local::LocalRuntime;
use super::super::protocol::convert::{
    batching_to_wire, log_to_wire, observation_to_wire, verdict_to_wire, workers_to_wire,
};
use super::super::protocol::messages::Report;
use super::super::protocol::outbox::{Outbox, Urgency};
use super::super::shared::Release;
use crate::handler::{LogLine, Observation, Sink};

/// Between two looks at the workers.
const INTERVAL: Duration = Duration::from_millis(250);

/// Bytes waiting to be written beyond which log lines and observations are dropped.
const MOST_BACKLOG: usize = 4 << 20;

/// Sends a handler's log lines and observations to the front.
pub struct Reporter {
    outbox: Arc<Outbox>,
}

impl Reporter {
    /// Through `outbox`.
    pub const fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox }
    }

    fn send(&self, report: &Report<&str>, urgency: Urgency) {
        if self.outbox.backlog() < MOST_BACKLOG {
            // One that is over the limits is dropped, like one too many.
            let _ = self.outbox.send(report, &[], urgency);
        }
    }
}

impl Sink for Reporter {
    fn log(&self, line: LogLine) {
        self.send(&Report::Log(log_to_wire(&line)), Urgency::Soon);
    }

    fn observe(&self, observation: Observation) {
        self.send(
            &Report::Observe(observation_to_wire(&observation)),
            Urgency::Whenever,
        );
    }
}

/// Reports what is not read any more of shared memory, with the next frame: there is one each second.
pub fn of_release(outbox: &Arc<Outbox>) -> Release {
    let outbox = Arc::downgrade(outbox);
    Box::new(move |offset| {
        if let Some(outbox) = outbox.upgrade() {
            super::send(&outbox, &Report::Released { offset }, Urgency::Whenever);
        }
    })
}

/// Reports how requests are stacked, and what was found out about the archive.
pub fn report_batching(runtime: &LocalRuntime, outbox: &Outbox) {
    let Some(batching) = runtime.batching() else {
        return;
    };
    let batching = batching_to_wire(&batching);
    let verdict = runtime.verdict().as_ref().map(verdict_to_wire);
    super::send(
        outbox,
        &Report::Batching { batching, verdict },
        Urgency::Now,
    );
}

/// Reports workers and batching when they change. Never ends.
pub async fn report_workers(runtime: LocalRuntime, outbox: Arc<Outbox>) {
    let mut interval = tokio::time::interval(INTERVAL);
    let mut reported = Vec::new();
    let mut batching = runtime.batching();
    loop {
        interval.tick().await;
        let now = runtime.batching();
        if now != batching {
            report_batching(&runtime, &outbox);
            batching = now;
        }
        let workers = workers_to_wire(&runtime.status().workers);
        if workers != reported {
            super::send(&outbox, &Report::Workers(workers.clone()), Urgency::Now);
            reported = workers;
        }
    }
}
