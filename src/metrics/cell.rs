//! Values that every request updates and a scrape reads, without a lock.
//!
//! Counters and histograms are kept in [shards](super::shards). A scrape adds the shards up: it may miss updates that are made
//! meanwhile, but what it shows never decreases.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus::proto::{self, LabelPair, Metric};

use super::MetricKind;
use super::shards::{Shards, Slots};

/// Adds to a number that is kept as the bits of a float.
fn add(slot: &AtomicU64, amount: f64) {
    let sum = |bits| Some((f64::from_bits(bits) + amount).to_bits());
    // Never refused, since `sum` always has an answer.
    let _ = slot.fetch_update(Relaxed, Relaxed, sum);
}

/// The value of one series.
pub(super) enum Cell {
    /// Only grows.
    Counter(Counter),
    /// Holds the last value that was set.
    Gauge(Gauge),
    /// Counts observations in buckets.
    Histogram(Histogram),
}

/// Only grows.
pub(super) struct Counter(Slots);

/// Holds the last value that was set.
#[derive(Default)]
pub(super) struct Gauge(AtomicU64);

/// Counts observations in buckets. The first slot of a shard is the sum of what was observed; a count for each bound follows, and
/// one for what is above all bounds.
pub(super) struct Histogram {
    bounds: Arc<[f64]>,
    slots: Slots,
}

impl Cell {
    /// Nothing counted yet.
    pub(super) fn new(kind: MetricKind, bounds: &Arc<[f64]>, shards: Shards) -> Self {
        match kind {
            MetricKind::Counter => Self::Counter(Counter(Slots::new(shards, 1))),
            MetricKind::Gauge => Self::Gauge(Gauge::default()),
            MetricKind::Histogram => Self::Histogram(Histogram {
                bounds: Arc::clone(bounds),
                slots: Slots::new(shards, bounds.len() + 2),
            }),
        }
    }

    /// Takes `value` as the kind has it: adds, sets or observes.
    pub(super) fn update(&self, value: f64) {
        match self {
            Self::Counter(counter) => counter.add(value),
            Self::Gauge(gauge) => gauge.set(value),
            Self::Histogram(histogram) => histogram.observe(value),
        }
    }

    /// The value at this moment, as that of the series with `labels`.
    pub(super) fn metric(&self, labels: Vec<LabelPair>) -> Metric {
        let mut metric = Metric::from_label(labels);
        match self {
            Self::Counter(counter) => metric.set_counter(counter.snapshot()),
            Self::Gauge(gauge) => metric.set_gauge(gauge.snapshot()),
            Self::Histogram(histogram) => metric.set_histogram(histogram.snapshot()),
        }
        metric
    }
}

impl Counter {
    fn add(&self, amount: f64) {
        add(self.0.slot(self.0.mine(), 0), amount);
    }

    fn snapshot(&self) -> proto::Counter {
        let mut snapshot = proto::Counter::default();
        snapshot.set_value(self.0.all(0).map(f64::from_bits).sum());
        snapshot
    }
}

impl Gauge {
    /// Most requests set what was set before: reading that leaves the value in the caches of all threads, writing does not.
    fn set(&self, value: f64) {
        let bits = value.to_bits();
        if self.0.load(Relaxed) != bits {
            self.0.store(bits, Relaxed);
        }
    }

    fn snapshot(&self) -> proto::Gauge {
        let mut snapshot = proto::Gauge::default();
        snapshot.set_value(f64::from_bits(self.0.load(Relaxed)));
        snapshot
    }
}

impl Histogram {
    fn observe(&self, value: f64) {
        let shard = self.slots.mine();
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.slots.slot(shard, 1 + bucket).fetch_add(1, Relaxed);
        add(self.slots.slot(shard, 0), value);
    }

    /// Buckets are cumulative; the last one, which has no bound, is the number of all observations.
    fn snapshot(&self) -> proto::Histogram {
        let mut count = 0;
        let mut count_up_to = |bucket: usize| {
            count += self.slots.all(1 + bucket).sum::<u64>();
            count
        };
        let bounds = self.bounds.iter().enumerate();
        let buckets = bounds.map(|(index, &bound)| bucket(bound, count_up_to(index)));
        let mut snapshot = proto::Histogram::default();
        snapshot.set_bucket(buckets.collect());
        snapshot.set_sample_count(count_up_to(self.bounds.len()));
        snapshot.set_sample_sum(self.slots.all(0).map(f64::from_bits).sum());
        snapshot
    }
}

fn bucket(bound: f64, count: u64) -> proto::Bucket {
    let mut bucket = proto::Bucket::default();
    bucket.set_upper_bound(bound);
    bucket.set_cumulative_count(count);
    bucket
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(kind: MetricKind, threads: usize) -> Cell {
        Cell::new(kind, &Arc::from([0.5, 1.0]), Shards::for_threads(threads))
    }

    /// The cumulative counts of a histogram, that of all observations included.
    fn counts(histogram: &Cell) -> Vec<u64> {
        let metric = histogram.metric(Vec::new());
        let histogram = metric.get_histogram();
        let buckets = histogram.get_bucket().iter();
        let counts = buckets.map(proto::Bucket::cumulative_count);
        counts.chain([histogram.get_sample_count()]).collect()
    }

    /// Updates `cell` a thousand times from each of eight threads.
    fn stir(cell: &Cell) {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1000).for_each(|_| cell.update(0.75)));
            }
        });
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        for threads in [1, 3, 8, 1000] {
            let (counter, histogram) = (
                cell(MetricKind::Counter, threads),
                cell(MetricKind::Histogram, threads),
            );
            stir(&counter);
            stir(&histogram);
            let sum = counter.metric(Vec::new()).get_counter().get_value();
            assert_eq!(sum.to_bits(), 6000f64.to_bits());
            assert_eq!(counts(&histogram), [0, 8000, 8000]);
            let sum = histogram
                .metric(Vec::new())
                .get_histogram()
                .get_sample_sum();
            assert_eq!(sum.to_bits(), 6000f64.to_bits());
        }
    }

    #[test]
    fn a_value_on_a_bound_is_below_it() {
        let cell = cell(MetricKind::Histogram, 1);
        for value in [-1.0, 0.5, 0.6, 1.0, 1.1] {
            cell.update(value);
        }
        assert_eq!(counts(&cell), [2, 4, 5]);
    }

    #[test]
    fn histograms_wider_than_a_line_keep_their_shards_apart() {
        let bounds: Arc<[f64]> = (0..40).map(f64::from).collect();
        let cell = Cell::new(MetricKind::Histogram, &bounds, Shards::for_threads(4));
        (0..41).for_each(|value| cell.update(f64::from(value)));
        assert_eq!(counts(&cell), (1..=41).collect::<Vec<_>>());
    }
}
