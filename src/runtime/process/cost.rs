//! What a report takes of its process's shares: its kind, the lines or rows in it, and the memory that it took to decode.

use std::mem::size_of;

use crate::metrics::ReportKind;
use crate::runtime::protocol::messages::{self, Batching, Report, Verdict};
use crate::sandbox::Outcomes;

/// Memory of a report without texts and lists.
const HEAD: usize = size_of::<Report<String>>();

/// What one report takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Which share it is taken of.
    pub kind: ReportKind,
    /// Bytes of a line or of an answer, or rows of a list.
    pub units: u32,
    /// Bytes of memory.
    pub bytes: u32,
}

impl Cost {
    /// Saturates where a number is beyond any share.
    pub fn new(kind: ReportKind, units: usize, bytes: usize) -> Self {
        let saturated = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            kind,
            units: saturated(units),
            bytes: saturated(bytes),
        }
    }

    /// What `report` takes; `None` if it answers or gives back something, or belongs to the handshake.
    pub fn of(report: &Report<String>) -> Option<Self> {
        let bytes = bytes_of(report);
        let (kind, units) = match report {
            Report::Log(log) => (ReportKind::Log, log.message.len() + texts_of(&log.fields)),
            Report::Observe(_) => (ReportKind::Observation, 0),
            Report::Workers(workers) => (ReportKind::Workers, workers.len()),
            Report::Batching { .. } => (ReportKind::Batching, 0),
            Report::Walls(_) => (ReportKind::Walls, 0),
            Report::Alive { .. } => (ReportKind::Alive, 0),
            Report::Ready { .. }
            | Report::Failed(_)
            | Report::Reply(_)
            | Report::Refused { .. }
            | Report::Scaled { .. }
            | Report::Inferred(_)
            | Report::Released { .. } => return None,
        };
        Some(Self::new(kind, units, bytes))
    }
}

/// Bytes of memory that a report took to decode, but for those of the handshake.
pub fn bytes_of(report: &Report<String>) -> usize {
    let bytes = match report {
        Report::Log(log) => log.message.len() + log.request.len() + fields(&log.fields),
        Report::Observe(observe) => {
            let labels = strings(&observe.label_names) + strings(&observe.label_values);
            observe.name.len() + observe.unit.len() + observe.request.len() + labels
        }
        Report::Workers(workers) => size_of_val(workers.as_slice()),
        Report::Walls(outcomes) => walls(outcomes),
        Report::Batching { batching, verdict } => reason(batching, verdict.as_ref()),
        Report::Reply(reply) => reply.content_type.len() + fields(&reply.headers),
        Report::Inferred(inferred) => tensors(&inferred.tensors),
        Report::Refused { failure, .. } | Report::Failed(failure) => texts(failure),
        Report::Scaled { failure, .. } => failure.as_ref().map_or(0, texts),
        Report::Alive { .. } | Report::Ready { .. } | Report::Released { .. } => 0,
    };
    HEAD + bytes
}

fn fields(fields: &[(String, String)]) -> usize {
    size_of_val(fields) + texts_of(fields)
}

fn texts_of(fields: &[(String, String)]) -> usize {
    let texts = fields.iter();
    texts.map(|(name, value)| name.len() + value.len()).sum()
}

fn strings(strings: &[String]) -> usize {
    size_of_val(strings) + strings.iter().map(String::len).sum::<usize>()
}

fn walls(outcomes: &Outcomes) -> usize {
    let details = outcomes.iter().map(|(_, outcome)| outcome.detail().len());
    size_of_val(outcomes.as_slice()) + details.sum::<usize>()
}

fn reason(batching: &Batching, verdict: Option<&Verdict>) -> usize {
    let off = match batching {
        Batching::Off(reason) => reason.len(),
        Batching::Single | Batching::On(_) | Batching::OnByOwner | Batching::Trial => 0,
    };
    let refuted = match verdict {
        Some(Verdict::Refuted(reason)) => reason.len(),
        Some(Verdict::Confirmed(_)) | None => 0,
    };
    off + refuted
}

fn tensors(tensors: &[messages::Tensor<String>]) -> usize {
    let each = tensors.iter();
    let each = each.map(|tensor| tensor.name.len() + size_of_val(tensor.shape.as_slice()));
    size_of_val(tensors) + each.sum::<usize>()
}

fn texts(failure: &messages::Failure<String>) -> usize {
    failure.message.len() + failure.detail.as_ref().map_or(0, String::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A megabyte of the wire can decode to far more memory: it counts.
    #[test]
    fn empty_fields_and_rows_count_for_the_memory_that_they_take() {
        let log = messages::Log {
            level: messages::Level::Info,
            message: String::new(),
            fields: vec![(String::new(), String::new()); 1000],
            request: String::new(),
        };
        let cost = Cost::of(&Report::Log(log)).unwrap();
        assert_eq!(cost.units, 0);
        assert!(cost.bytes > 48_000);
        let worker = messages::Worker {
            id: 1,
            device: messages::Device::Cpu,
            state: messages::State::Ready,
        };
        let cost = Cost::of(&Report::Workers(vec![worker; 1000])).unwrap();
        assert_eq!(cost.units, 1000);
        assert!(cost.bytes > 10_000);
    }

    #[test]
    fn what_answers_something_has_no_share() {
        let scaled = Report::<String>::Scaled {
            id: 1,
            failure: None,
        };
        assert_eq!(Cost::of(&scaled), None);
    }
}
