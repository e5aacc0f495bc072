//! What a version has done since it was registered: exact counts, for clients that reckon with differences.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;

use crate::metrics::{CountsShard, Metrics, ShardedCounts};
use crate::nanos::nanos;
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

/// Numbers of all requests, by their place in [`StatisticsRecorder::totals`]. A request that leads a batch is counted with the
/// batch, all others here.
mod total {
    pub const SUCCESS_TIME: usize = 0;
    pub const QUEUE_TIME: usize = 1;
    pub const ROWS: usize = 2;
    pub const FAIL_TIME: usize = 3;
    pub const FAILS: usize = 4;
    pub const FOLLOWERS: super::Phases = super::Phases { first: 5 };
    /// When the last request was answered, in nanoseconds since the recorder was made.
    pub const LAST: usize = 9;
    pub const NUMBERS: usize = 10;
}

/// Numbers of the batches of one size.
const BATCHES: Phases = Phases { first: 0 };

/// Four numbers in a row: times in preprocess, infer and postprocess, and how many requests had them.
#[derive(Clone, Copy)]
struct Phases {
    first: usize,
}

/// Statistics that are being kept, without a lock: every request adds to numbers of its thread's own.
///
/// Whoever reads them meanwhile may see the times of a request that is not counted yet, but none that is counted without its
/// times.
pub(super) struct StatisticsRecorder {
    metrics: Metrics,
    since: Instant,
    totals: ShardedCounts,
    /// By their rows. It is replaced when a batch of another size comes, which is seldom.
    batches: ArcSwap<BTreeMap<u32, Arc<ShardedCounts>>>,
}

impl StatisticsRecorder {
    /// Nothing so far.
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            totals: metrics.counts(total::NUMBERS),
            metrics: metrics.clone(),
            since: Instant::now(),
            batches: ArcSwap::default(),
        }
    }

    /// The statistics so far.
    pub(super) fn so_far(&self) -> Statistics {
        let batches = self.batches.load();
        let batches = batches.iter();
        let batches: BTreeMap<_, _> = batches
            .map(|(rows, counts)| (*rows, BATCHES.read(counts)))
            .collect();
        let followers = total::FOLLOWERS.read(&self.totals);
        let all = batches.values().fold(followers, BatchStatistics::with);
        let requests = all.infer.count;
        let timed = |index| Counted {
            count: requests,
            total: Duration::from_nanos(self.totals.sum(index)),
        };
        Statistics {
            fail: Counted {
                count: self.totals.sum(total::FAILS),
                total: Duration::from_nanos(self.totals.sum(total::FAIL_TIME)),
            },
            success: timed(total::SUCCESS_TIME),
            queue: timed(total::QUEUE_TIME),
            preprocess: all.preprocess,
            infer: all.infer,
            postprocess: all.postprocess,
            inferences: self.totals.sum(total::ROWS),
            executions: requests - followers.infer.count,
            last_inference: self.last_inference(),
            batches,
        }
    }

    /// A request that arrived then was answered after `took`.
    pub(super) fn succeeded(&self, arrival: Instant, took: Duration, timings: &Timings) {
        let totals = self.totals.mine();
        totals.add(total::SUCCESS_TIME, nanos(took));
        totals.add(total::QUEUE_TIME, nanos(timings.queue));
        totals.add(total::ROWS, timings.rows.max(1).into());
        let now = (arrival + took).saturating_duration_since(self.since);
        totals.note(total::LAST, nanos(now).max(1));
        // Without a run of the model the handler's answer is the execution.
        if timings.leads_batch || timings.batch_rows == 0 {
            self.count_batch(timings.batch_rows.max(1), timings);
        } else {
            total::FOLLOWERS.count(&totals, timings);
        }
    }

    /// A request failed after `took`.
    pub(super) fn failed(&self, took: Duration) {
        let totals = self.totals.mine();
        totals.add(total::FAIL_TIME, nanos(took));
        totals.add(total::FAILS, 1);
    }

    fn count_batch(&self, rows: u32, timings: &Timings) {
        let count = |batches: &ShardedCounts| BATCHES.count(&batches.mine(), timings);
        if let Some(batches) = self.batches.load().get(&rows) {
            return count(batches);
        }
        self.add_size(rows);
        let sizes = self.batches.load();
        let batches = sizes.get(&rows).or_else(|| sizes.values().next_back());
        if let Some(batches) = batches {
            count(batches);
        }
    }

    /// Batches of so many rows have numbers of their own from now on, unless there are too many sizes.
    fn add_size(&self, rows: u32) {
        if self.batches.load().len() >= BATCH_SIZES {
            return;
        }
        let counts = Arc::new(self.metrics.counts(BATCHES.end()));
        self.batches.rcu(|sizes| {
            let mut sizes = BTreeMap::clone(sizes);
            if sizes.len() < BATCH_SIZES {
                sizes.entry(rows).or_insert_with(|| Arc::clone(&counts));
            }
            sizes
        });
    }

    fn last_inference(&self) -> Option<SystemTime> {
        let last = self.totals.latest(total::LAST);
        let ago = self
            .since
            .elapsed()
            .saturating_sub(Duration::from_nanos(last));
        (last > 0).then(|| SystemTime::now().checked_sub(ago))?
    }
}

impl Phases {
    /// One more than the place of the last number.
    const fn end(self) -> usize {
        self.first + 4
    }

    fn count(self, counts: &CountsShard<'_>, timings: &Timings) {
        counts.add(self.first, nanos(timings.preprocess));
        counts.add(self.first + 1, nanos(timings.infer));
        counts.add(self.first + 2, nanos(timings.postprocess));
        counts.add(self.first + 3, 1);
    }

    /// The count is read before the times: see [`StatisticsRecorder`].
    fn read(self, counts: &ShardedCounts) -> BatchStatistics {
        let count = counts.sum(self.first + 3);
        let counted = |index| Counted {
            count,
            total: Duration::from_nanos(counts.sum(self.first + index)),
        };
        BatchStatistics {
            preprocess: counted(0),
            infer: counted(1),
            postprocess: counted(2),
        }
    }
}

impl BatchStatistics {
    /// Those of both.
    fn with(self, other: &Self) -> Self {
        Self {
            preprocess: self.preprocess.with(other.preprocess),
            infer: self.infer.with(other.infer),
            postprocess: self.postprocess.with(other.postprocess),
        }
    }
}

impl Counted {
    fn with(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            total: self.total.saturating_add(other.total),
        }
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
        let recorder = StatisticsRecorder::new(&Metrics::default());
        recorder.succeeded(Instant::now(), MS * 9, &timings(2, 3, true));
        recorder.succeeded(Instant::now(), MS * 9, &timings(1, 3, false));
        recorder.succeeded(Instant::now(), MS * 9, &timings(3, 3, true));
        recorder.succeeded(Instant::now(), MS * 9, &timings(1, 1, true));
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
        let recorder = StatisticsRecorder::new(&Metrics::default());
        recorder.succeeded(Instant::now(), MS, &timings(0, 0, false));
        let kept = recorder.so_far();
        assert_eq!((kept.inferences, kept.executions), (1, 1));
        assert_eq!(kept.batches.len(), 1);
    }

    #[test]
    fn sizes_do_not_grow_without_end() {
        let recorder = StatisticsRecorder::new(&Metrics::default());
        for rows in 1..5000 {
            recorder.succeeded(Instant::now(), MS, &timings(rows, rows, true));
        }
        let kept = recorder.so_far();
        assert_eq!((kept.batches.len(), kept.executions), (BATCH_SIZES, 4999));
    }

    #[test]
    fn sizes_beyond_those_that_are_distinguished_count_with_the_largest() {
        let recorder = StatisticsRecorder::new(&Metrics::default());
        for rows in (1..=1024).chain([5000, 7]) {
            recorder.succeeded(Instant::now(), MS, &timings(rows, rows, true));
        }
        let kept = recorder.so_far();
        let counts = |rows| kept.batches.get(&rows).map(|batch| batch.infer.count);
        assert_eq!(
            (counts(7), counts(1024), counts(5000)),
            (Some(2), Some(2), None)
        );
    }

    #[test]
    fn nothing_is_lost_between_threads_and_all_phases_have_one_count() {
        let recorder = StatisticsRecorder::new(&Metrics::default());
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let recorder = &recorder;
                scope.spawn(move || {
                    for rows in 1..=500 {
                        let timings = timings(1, rows, thread % 2 == 0);
                        recorder.succeeded(Instant::now(), MS * 9, &timings);
                        recorder.failed(MS);
                    }
                });
            }
            for _ in 0..100 {
                let kept = recorder.so_far();
                let count = kept.success.count;
                assert_eq!(
                    [kept.queue.count, kept.infer.count, kept.preprocess.count],
                    [count; 3]
                );
                assert!(kept.infer.total >= MS * 4 * u32::try_from(count).unwrap());
            }
        });
        let kept = recorder.so_far();
        assert_eq!(
            (kept.success.count, kept.success.total),
            (4000, MS * 36_000)
        );
        assert_eq!((kept.executions, kept.inferences), (2000, 4000));
        assert_eq!((kept.fail.count, kept.fail.total), (4000, MS * 4000));
        assert_eq!(kept.batches.len(), 500);
        assert!(kept.batches.values().all(|batch| batch.infer.count == 4));
    }

    #[test]
    fn the_last_inference_is_when_the_last_request_was_answered() {
        let recorder = StatisticsRecorder::new(&Metrics::default());
        recorder.failed(MS);
        assert_eq!(recorder.so_far().last_inference, None);
        let before = SystemTime::now();
        recorder.succeeded(Instant::now(), Duration::ZERO, &timings(1, 1, true));
        let last = recorder.so_far().last_inference.unwrap();
        let after = SystemTime::now();
        assert!(last + MS >= before && last <= after + MS);
    }
}
