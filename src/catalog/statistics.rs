//! What a version has done since it was registered: exact counts, for clients that reckon with differences.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::payload::Timings;

/// Batch sizes that are distinguished; larger ones are counted with the largest.
const BATCH_SIZES: usize = 1024;

/// How often something happened, and how long it took in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// How often.
    pub count: u64,
    /// How long.
    pub total: Duration,
}

impl Counted {
    fn add(&mut self, took: Duration) {
        self.count += 1;
        self.total = self.total.saturating_add(took);
    }
}

/// Batches of one size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchStatistics {
    /// In preprocess of the request that the batch is counted with.
    pub preprocess: Counted,
    /// In the session.
    pub infer: Counted,
    /// In postprocess of the request that the batch is counted with.
    pub postprocess: Counted,
}

/// What a version has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Requests that were answered, from arrival to answer.
    pub success: Counted,
    /// Requests that failed or were refused, from arrival to failure.
    pub fail: Counted,
    /// Waiting for a worker.
    pub queue: Counted,
    /// In preprocess.
    pub preprocess: Counted,
    /// In the session; each request of a batch counts the whole run.
    pub infer: Counted,
    /// In postprocess.
    pub postprocess: Counted,
    /// Rows that were answered. A request that its handler answered alone has one.
    pub inferences: u64,
    /// Batches that were run, in which at least one request was answered.
    pub executions: u64,
    /// When the last request was answered.
    pub last_inference: Option<SystemTime>,
    /// Batches by their rows.
    pub batches: BTreeMap<u32, BatchStatistics>,
}

/// Statistics that are being kept. One lock of a few additions a request.
#[derive(Debug, Default)]
pub(super) struct StatisticsRecorder(Mutex<Statistics>);

impl StatisticsRecorder {
    /// The statistics so far.
    pub(super) fn so_far(&self) -> Statistics {
        self.0.lock().clone()
    }

    /// A request was answered after `took`.
    pub(super) fn succeeded(&self, took: Duration, timings: &Timings) {
        let now = SystemTime::now();
        let mut kept = self.0.lock();
        kept.success.add(took);
        kept.queue.add(timings.queue);
        kept.preprocess.add(timings.preprocess);
        kept.infer.add(timings.infer);
        kept.postprocess.add(timings.postprocess);
        kept.last_inference = Some(now);
        kept.inferences += u64::from(timings.rows.max(1));
        // Without a run of the model the handler's answer is the execution.
        if timings.leads_batch || timings.batch_rows == 0 {
            kept.executions += 1;
            kept.count_batch(timings);
        }
    }

    /// A request failed after `took`.
    pub(super) fn failed(&self, took: Duration) {
        self.0.lock().fail.add(took);
    }
}

impl Statistics {
    fn count_batch(&mut self, timings: &Timings) {
        let rows = timings.batch_rows.max(1);
        let is_full = self.batches.len() >= BATCH_SIZES && !self.batches.contains_key(&rows);
        let largest = self.batches.keys().next_back().copied();
        let rows = largest.filter(|_| is_full).unwrap_or(rows);
        let batch = self.batches.entry(rows).or_default();
        batch.preprocess.add(timings.preprocess);
        batch.infer.add(timings.infer);
        batch.postprocess.add(timings.postprocess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn timings(rows: u32, batch_rows: u32, leads_batch: bool) -> Timings {
        Timings {
            queue: MS,
            infer: MS * 4,
            batch_rows,
            rows,
            leads_batch,
            ..Timings::default()
        }
    }

    #[test]
    fn rows_are_inferences_and_batches_are_executions() {
        let recorder = StatisticsRecorder::default();
        recorder.succeeded(MS * 9, &timings(2, 3, true));
        recorder.succeeded(MS * 9, &timings(1, 3, false));
        recorder.succeeded(MS * 9, &timings(3, 3, true));
        recorder.succeeded(MS * 9, &timings(1, 1, true));
        recorder.failed(MS);
        let kept = recorder.so_far();
        assert_eq!((kept.inferences, kept.executions), (7, 3));
        assert_eq!((kept.success.count, kept.success.total), (4, MS * 36));
        assert_eq!((kept.queue.count, kept.infer.total), (4, MS * 16));
        assert_eq!((kept.fail.count, kept.fail.total), (1, MS));
        let sizes = kept.batches.iter();
        let sizes: Vec<_> = sizes
            .map(|(rows, batch)| (*rows, batch.infer.count))
            .collect();
        assert_eq!(sizes, [(1, 1), (3, 2)]);
    }

    #[test]
    fn a_handler_that_answers_alone_is_one_of_each() {
        let recorder = StatisticsRecorder::default();
        recorder.succeeded(MS, &timings(0, 0, false));
        let kept = recorder.so_far();
        assert_eq!((kept.inferences, kept.executions), (1, 1));
        assert_eq!(kept.batches.len(), 1);
    }

    #[test]
    fn sizes_do_not_grow_without_end() {
        let recorder = StatisticsRecorder::default();
        for rows in 1..5000 {
            recorder.succeeded(MS, &timings(rows, rows, true));
        }
        let kept = recorder.so_far();
        assert_eq!((kept.batches.len(), kept.executions), (BATCH_SIZES, 4999));
    }
}
