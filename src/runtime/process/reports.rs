//! What a worker process reports without being asked: its workers, its handler's log lines and metrics.
//!
//! A worker process may lie and may flood: each report is taken within its [`Budget`], and numbers and texts are bounded here
//! before they reach logs, metrics and `describe`.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tokio::task::coop::consume_budget;
use tokio::time::Instant;

use super::budget::{Budget, Flood};
use super::cost::{Cost, bytes_of};
use super::counts::ProcessCounts;
use super::findings::Findings;
use super::roster::Roster;
use crate::handler::{Observation, Sink};
use crate::metrics::ReportKind;
use crate::model::ModelSpec;
use crate::runtime::protocol::Violation;
use crate::runtime::protocol::convert::{
    batching_from_wire, log_from_wire, observation_from_wire, verdict_from_wire, walls_from_wire,
};
use crate::runtime::protocol::messages::Report;
use crate::sandbox::{Outcome, Outcomes, Wall};

/// Where the reports of one worker process go.
pub struct ReportReceiver {
    sink: Arc<dyn Sink>,
    roster: Arc<Roster>,
    findings: Arc<Findings>,
    /// The wall that is put up from outside.
    cgroup: (Wall, Outcome),
    budget: Budget,
    series: HashSet<u64>,
    most_series: usize,
}

impl ReportReceiver {
    /// Passes on what keeps to the limits of `model`; the rest is dropped, and counted in `counts`.
    pub fn new(
        sink: Arc<dyn Sink>,
        roster: Arc<Roster>,
        findings: Arc<Findings>,
        cgroup: (Wall, Outcome),
        model: &Arc<ModelSpec>,
        counts: &Arc<ProcessCounts>,
    ) -> Self {
        Self {
            budget: Budget::new(sink.clone(), &model.limits, counts.clone()),
            sink,
            roster,
            findings,
            cgroup,
            series: HashSet::new(),
            most_series: model.limits.metric_series,
        }
    }

    /// Takes a report that answers nothing. It has a `body` of no bytes.
    pub fn take(&mut self, report: Report<String>, body: usize) -> Result<(), Violation> {
        let Some(cost) = Cost::of(&report) else {
            let text = format!("unexpected message: {}", name_of(&report));
            return Err(Violation::Message(text));
        };
        if body > 0 {
            let text = format!("{} with a body of {body} bytes", name_of(&report));
            return Err(Violation::Message(text));
        }
        if self.budget.admit(cost, Instant::now().into_std())? {
            self.pass_on(report)?;
        }
        Ok(())
    }

    /// Takes an answer that nobody waits for: one of a call that was answered before.
    pub fn take_unasked(&mut self, bytes: usize) -> Result<(), Violation> {
        let cost = Cost::new(ReportKind::Answer, 0, bytes);
        self.budget.admit(cost, Instant::now().into_std())?;
        Ok(())
    }

    /// Lets other tasks run from time to time, and waits while the process has sent more than it may. To be called after each
    /// message: the messages of one process can come faster than they are taken, so that reading them never waits.
    pub async fn pace(&mut self) -> Result<(), Violation> {
        consume_budget().await;
        while self.budget.is_overdrawn() {
            let pause = self.budget.pause(Instant::now().into_std())?;
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    fn pass_on(&mut self, report: Report<String>) -> Result<(), Violation> {
        match report {
            Report::Log(line) => self.sink.log(log_from_wire(line)),
            Report::Observe(observe) => self.observe(observation_from_wire(observe)?),
            Report::Workers(workers) => self.roster.update(&workers)?,
            Report::Walls(outcomes) => self.walled(walls_from_wire(outcomes)?),
            Report::Batching { batching, verdict } => {
                let verdict = verdict.map(verdict_from_wire);
                self.findings.take(batching_from_wire(batching), verdict);
            }
            // What else there is has no share.
            _ => {}
        }
        Ok(())
    }

    fn walled(&self, mut outcomes: Outcomes) {
        outcomes.push(self.cgroup.clone());
        self.roster.walled(outcomes);
    }

    fn observe(&mut self, observation: Observation) {
        let mut hasher = DefaultHasher::new();
        (
            &observation.name,
            &observation.label_names,
            &observation.label_values,
        )
            .hash(&mut hasher);
        let series = hasher.finish();
        if self.series.contains(&series) || self.series.len() < self.most_series {
            self.series.insert(series);
            self.sink.observe(observation);
        }
    }
}

impl From<Flood> for Violation {
    fn from(flood: Flood) -> Self {
        Self::Flood(flood.to_string())
    }
}

/// Bytes of an answer with a `body` of so many bytes that nobody waits for.
pub fn answer_bytes(report: &Report<String>, body: usize) -> usize {
    bytes_of(report) + body
}

const fn name_of(report: &Report<String>) -> &'static str {
    match report {
        Report::Ready { .. } => "ready",
        Report::Failed(_) => "failed",
        Report::Reply(_) => "reply",
        Report::Refused { .. } => "refused",
        Report::Scaled { .. } => "scaled",
        Report::Workers(_) => "workers",
        Report::Walls(_) => "walls",
        Report::Batching { .. } => "batching",
        Report::Log(_) => "log",
        Report::Observe(_) => "observe",
        Report::Inferred(_) => "inferred",
        Report::Released { .. } => "released",
        Report::Alive { .. } => "alive",
    }
}

#[cfg(test)]
mod tests;
