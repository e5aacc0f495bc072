//! What a worker process reports without being asked: its workers, its handler's log lines and metrics.
//!
//! A worker process may lie and may flood: numbers are bounded here before they reach logs, metrics and `describe`.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use super::findings::Findings;
use super::roster::Roster;
use crate::handler::{LogLine, Observation, Sink};
use crate::model::Limits;
use crate::runtime::protocol::Violation;
use crate::runtime::protocol::convert::{
    batching_from_wire, log_from_wire, observation_from_wire, verdict_from_wire,
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
    lines: RateLimit,
    series: HashSet<u64>,
    most_series: usize,
}

impl ReportReceiver {
    /// Passes on what keeps to `limits`; the rest is dropped.
    pub fn new(
        sink: Arc<dyn Sink>,
        roster: Arc<Roster>,
        findings: Arc<Findings>,
        cgroup: (Wall, Outcome),
        limits: &Limits,
    ) -> Self {
        Self {
            sink,
            roster,
            findings,
            cgroup,
            lines: RateLimit::new(limits.log_lines_per_second),
            series: HashSet::new(),
            most_series: limits.metric_series,
        }
    }

    /// Takes a report that answers nothing.
    pub fn take(&mut self, report: Report<String>) -> Result<(), Violation> {
        match report {
            Report::Log(line) => self.log(log_from_wire(line)),
            Report::Observe(observe) => self.observe(observation_from_wire(observe)?),
            Report::Workers(workers) => self.roster.update(&workers)?,
            Report::Walls(outcomes) => self.walled(outcomes),
            Report::Batching { batching, verdict } => {
                let verdict = verdict.map(verdict_from_wire);
                self.findings.take(batching_from_wire(batching), verdict);
            }
            Report::Alive { .. } => {}
            other => {
                return Err(Violation::Message(format!(
                    "unexpected message: {}",
                    name_of(&other)
                )));
            }
        }
        Ok(())
    }

    fn walled(&self, mut outcomes: Outcomes) {
        outcomes.push(self.cgroup.clone());
        self.roster.walled(outcomes);
    }

    fn log(&mut self, line: LogLine) {
        if self.lines.admit(Instant::now()) {
            self.sink.log(line);
        }
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

/// Admits a number of events a second; what one second leaves unused is not saved for the next.
#[derive(Debug)]
pub struct RateLimit {
    per_second: u32,
    second: Option<Instant>,
    admitted: u32,
}

impl RateLimit {
    /// Admits `per_second` events a second.
    pub const fn new(per_second: u32) -> Self {
        Self {
            per_second,
            second: None,
            admitted: 0,
        }
    }

    /// Whether one more event is admitted.
    pub fn admit(&mut self, now: Instant) -> bool {
        let is_over = |start: Instant| now.saturating_duration_since(start).as_secs() >= 1;
        if self.second.is_none_or(is_over) {
            self.second = Some(now);
            self.admitted = 0;
        }
        self.admitted = self.admitted.saturating_add(1);
        self.admitted <= self.per_second
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_cut_each_second() {
        let start = Instant::now();
        let mut limit = RateLimit::new(3);
        let admitted = |limit: &mut RateLimit, now| (0..10).filter(|_| limit.admit(now)).count();
        assert_eq!(admitted(&mut limit, start), 3);
        assert_eq!(admitted(&mut limit, start + Duration::from_millis(999)), 0);
        assert_eq!(admitted(&mut limit, start + Duration::from_secs(1)), 3);
    }
}
