//! What an owner has used since it came.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::metrics::Outcome;
use crate::nanos::nanos;
use crate::payload::{Output, Reply, Spent};

/// Counts what one owner uses. Written by every request, so without a lock.
#[derive(Debug, Default)]
pub(super) struct UsageCounts {
    answered: AtomicU64,
    ended: [AtomicU64; 4],
    refused: [AtomicU64; RequestQuota::ALL.len()],
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    /// Nanoseconds.
    handler: AtomicU64,
    /// Nanoseconds.
    inference: AtomicU64,
    /// Nanoseconds.
    cpu: AtomicU64,
    /// MiB times milliseconds.
    memory: AtomicU64,
}

/// A quota that requests can meet, as the file calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestQuota {
    InFlight,
    Queued,
    PerSecond,
    BodyBytes,
    HandlerTime,
    InferenceTime,
}

impl RequestQuota {
    const ALL: [Self; 6] = [
        Self::InFlight,
        Self::Queued,
        Self::PerSecond,
        Self::BodyBytes,
        Self::HandlerTime,
        Self::InferenceTime,
    ];
}

/// What an owner has used so far, in the units that bills are made in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Predictions by what became of them.
    pub requests: Requests,
    /// Of the rejected ones, those that met a quota, by its name in the file.
    pub refusals: Refusals,
    /// Bytes of requests' bodies.
    pub request_bytes: u64,
    /// Bytes of answers' bodies.
    pub response_bytes: u64,
    /// CPU time of handlers' calls.
    pub handler_seconds: f64,
    /// Time of runs, divided among the requests that shared them.
    pub inference_seconds: f64,
    /// CPU time of worker processes, as the kernel measures it: loading, waiting and all.
    pub cpu_seconds: f64,
    /// Memory of worker processes times how long it was held, in GiB and seconds.
    pub memory_gib_seconds: f64,
}

/// Predictions, by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Answered.
    pub answered: u64,
    /// Refused before anything was done.
    pub rejected: u64,
    /// Not answered in time.
    pub expired: u64,
    /// Given up by the client.
    pub cancelled: u64,
    /// Failed.
    pub failed: u64,
}

/// Predictions that met a quota.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Refusals {
    /// As in the file.
    pub requests_in_flight: u64,
    /// As in the file.
    pub requests_queued: u64,
    /// As in the file.
    pub requests_per_second: u64,
    /// As in the file.
    pub body_bytes_per_second: u64,
    /// As in the file.
    pub handler_time_per_second: u64,
    /// As in the file.
    pub inference_time_per_second: u64,
}

impl UsageCounts {
    pub(super) fn refused(&self, quota: RequestQuota) {
        add(&self.refused[quota as usize], 1);
    }

    pub(super) fn received(&self, bytes: usize) {
        add(&self.request_bytes, bytes as u64);
    }

    pub(super) fn answered(&self, reply: &Reply) {
        add(&self.answered, 1);
        let bytes = match &reply.output {
            Output::Response(response) => response.body().len(),
            Output::Tensors(tensors) => {
                let lengths = tensors.iter().map(|output| output.tensor.data().len());
                lengths.sum()
            }
        };
        add(&self.response_bytes, bytes as u64);
    }

    pub(super) fn ended(&self, outcome: Outcome) {
        add(&self.ended[place(outcome)], 1);
    }

    pub(super) fn spent(&self, spent: Spent) {
        add(&self.handler, nanos(spent.handler));
        add(&self.inference, nanos(spent.inference));
    }

    /// Worker processes used so much CPU time, and held so much memory for so long.
    pub(super) fn sampled(&self, cpu: Duration, bytes: u64, held: Duration) {
        add(&self.cpu, nanos(cpu));
        let held = u64::try_from(held.as_millis()).unwrap_or(u64::MAX);
        add(&self.memory, (bytes >> 20).saturating_mul(held));
    }

    pub(super) fn so_far(&self) -> Usage {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let seconds = |count: &AtomicU64| Duration::from_nanos(read(count)).as_secs_f64();
        let ended = |outcome| read(&self.ended[place(outcome)]);
        let refused = |quota: RequestQuota| read(&self.refused[quota as usize]);
        Usage {
            requests: Requests {
                answered: read(&self.answered),
                rejected: ended(Outcome::Rejected),
                expired: ended(Outcome::Expired),
                cancelled: ended(Outcome::Cancelled),
                failed: ended(Outcome::Failed),
            },
            refusals: Refusals {
                requests_in_flight: refused(RequestQuota::InFlight),
                requests_queued: refused(RequestQuota::Queued),
                requests_per_second: refused(RequestQuota::PerSecond),
                body_bytes_per_second: refused(RequestQuota::BodyBytes),
                handler_time_per_second: refused(RequestQuota::HandlerTime),
                inference_time_per_second: refused(RequestQuota::InferenceTime),
            },
            request_bytes: read(&self.request_bytes),
            response_bytes: read(&self.response_bytes),
            handler_seconds: seconds(&self.handler),
            inference_seconds: seconds(&self.inference),
            cpu_seconds: seconds(&self.cpu),
            memory_gib_seconds: gib_seconds(read(&self.memory)),
        }
    }
}

/// What is left of each of these counts without those that were there before.
macro_rules! without {
    ($now:expr, $before:expr, $($field:ident),+) => {
        Self { $($field: $now.$field.saturating_sub($before.$field)),+ }
    };
}

impl Requests {
    const fn since(&self, before: &Self) -> Self {
        without!(self, before, answered, rejected, expired, cancelled, failed)
    }
}

impl Refusals {
    /// Each with the name of its quota.
    #[rustfmt::skip]
    pub const fn by_name(&self) -> [(&'static str, u64); 6] {
        [
            ("requests_in_flight", self.requests_in_flight),
            ("requests_queued", self.requests_queued),
            ("requests_per_second", self.requests_per_second),
            ("body_bytes_per_second", self.body_bytes_per_second),
            ("handler_time_per_second", self.handler_time_per_second),
            ("inference_time_per_second", self.inference_time_per_second),
        ]
    }

    #[rustfmt::skip]
    const fn since(&self, before: &Self) -> Self {
        without!(
            self, before, requests_in_flight, requests_queued, requests_per_second, body_bytes_per_second,
            handler_time_per_second, inference_time_per_second
        )
    }
}

impl Usage {
    /// What was used since it was `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let more = |now: f64, then: f64| (now - then).max(0.0);
        Self {
            requests: self.requests.since(&before.requests),
            refusals: self.refusals.since(&before.refusals),
            request_bytes: self.request_bytes.saturating_sub(before.request_bytes),
            response_bytes: self.response_bytes.saturating_sub(before.response_bytes),
            handler_seconds: more(self.handler_seconds, before.handler_seconds),
            inference_seconds: more(self.inference_seconds, before.inference_seconds),
            cpu_seconds: more(self.cpu_seconds, before.cpu_seconds),
            memory_gib_seconds: more(self.memory_gib_seconds, before.memory_gib_seconds),
        }
    }
}

const fn place(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Rejected => 0,
        Outcome::Expired => 1,
        Outcome::Cancelled => 2,
        Outcome::Failed => 3,
    }
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a bill of 53 bits is exact enough"
)]
fn gib_seconds(mib_milliseconds: u64) -> f64 {
    mib_milliseconds as f64 / 1000.0 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_of_a_large_machine_fits_and_nothing_is_negative() {
        let counts = UsageCounts::default();
        let year = Duration::from_hours(365 * 24);
        counts.sampled(year, 4 << 40, year);
        let usage = counts.so_far();
        let seconds = year.as_secs_f64();
        assert!((usage.memory_gib_seconds - 4096.0 * seconds).abs() < 1.0);
        assert!((usage.cpu_seconds - seconds).abs() < 1.0);
        assert_eq!(Usage::default().since(&usage), Usage::default());
        assert_eq!(usage.since(&Usage::default()), usage);
    }
}
