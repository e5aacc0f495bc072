//! Values that every request updates and a scrape reads, without a lock.
//!
//! Counters and histograms are kept in shards, one for each of a few threads and none of them on a cache line with
//! another: threads that count the same thing do not wait for each other. A scrape adds the shards up, so that what
//! it shows may lag behind by what happens meanwhile, but never goes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::Kind;

/// How many shards a value has: a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shards(usize);

impl Shards {
    /// More than this many would cost memory for nothing: threads then seldom meet.
    const MOST: usize = 16;

    /// For as many `threads` as count at the same time.
    pub(super) fn for_threads(threads: usize) -> Self {
        Self(threads.clamp(1, Self::MOST).next_power_of_two())
    }

    /// The shard of this thread.
    fn mine(self) -> usize {
        place() & (self.0 - 1)
    }
}

/// A number for this thread, the next for the next one. Which it is means nothing, so that it may be the process's.
fn place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static PLACE: usize = NEXT.fetch_add(1, Relaxed);
    }
    PLACE.with(|place| *place)
}

/// As much as processors fetch at once.
#[derive(Default)]
#[repr(align(128))]
struct Line([AtomicU64; 16]);

/// `width` numbers for each shard.
struct Slots {
    shards: Shards,
    lines: Box<[Line]>,
    /// Lines of one shard.
    stride: usize,
}

impl Slots {
    fn new(shards: Shards, width: usize) -> Self {
        let stride = width.div_ceil(16);
        let lines = (0..shards.0 * stride).map(|_| Line::default());
        Self {
            shards,
            lines: lines.collect(),
            stride,
        }
    }

    fn slot(&self, shard: usize, index: usize) -> &AtomicU64 {
        &self.lines[shard * self.stride + index / 16].0[index % 16]
    }

    /// Every shard's number at `index`.
    fn all(&self, index: usize) -> impl Iterator<Item = u64> {
        (0..self.shards.0).map(move |shard| self.slot(shard, index).load(Relaxed))
    }
}

/// Adds to a number that is kept as the bits of a float.
fn add(slot: &AtomicU64, amount: f64) {
    let sum = |bits| Some((f64::from_bits(bits) + amount).to_bits());
    // Never refused, since `sum` always has an answer.
    let _ = slot.fetch_update(Relaxed, Relaxed, sum);
}

/// One series' value.
pub(super) enum Cell {
    /// Grows.
    Counter(Counter),
    /// The last value set.
    Gauge(Gauge),
    /// Counts in buckets.
    Histogram(Histogram),
}

/// Grows.
pub(super) struct Counter(Slots);

/// The last value set.
#[derive(Default)]
pub(super) struct Gauge(AtomicU64);

/// Counts in buckets. The first slot of a shard is the sum of what was observed; a count for each bound follows, and
/// one for what is above all bounds.
pub(super) struct Histogram {
    bounds: Arc<[f64]>,
    slots: Slots,
}

/// A histogram at one moment.
pub(super) struct Observed {
    /// Upper bounds with how many observations were at most that; the last is infinity.
    pub(super) buckets: Vec<(f64, u64)>,
    /// Sum of what was observed.
    pub(super) sum: f64,
}

impl Cell {
    /// Nothing counted yet.
    pub(super) fn new(kind: Kind, bounds: &Arc<[f64]>, shards: Shards) -> Self {
        match kind {
            Kind::Counter => Self::Counter(Counter(Slots::new(shards, 1))),
            Kind::Gauge => Self::Gauge(Gauge::default()),
            Kind::Histogram => Self::Histogram(Histogram {
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
}

impl Counter {
    fn add(&self, amount: f64) {
        add(self.0.slot(self.0.shards.mine(), 0), amount);
    }

    /// What was added so far.
    pub(super) fn value(&self) -> f64 {
        self.0.all(0).map(f64::from_bits).sum()
    }
}

impl Gauge {
    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// What was set last.
    pub(super) fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

impl Histogram {
    fn observe(&self, value: f64) {
        let shard = self.slots.shards.mine();
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.slots.slot(shard, 1 + bucket).fetch_add(1, Relaxed);
        add(self.slots.slot(shard, 0), value);
    }

    /// What was observed so far.
    pub(super) fn observed(&self) -> Observed {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let mut count = 0;
        let cumulative = bounds.enumerate().map(|(bucket, bound)| {
            count += self.slots.all(1 + bucket).sum::<u64>();
            (bound, count)
        });
        Observed {
            buckets: cumulative.collect(),
            sum: self.slots.all(0).map(f64::from_bits).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(kind: Kind, threads: usize) -> Cell {
        Cell::new(kind, &Arc::from([0.5, 1.0]), Shards::for_threads(threads))
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
            let (counter, histogram) =
                (cell(Kind::Counter, threads), cell(Kind::Histogram, threads));
            stir(&counter);
            stir(&histogram);
            let (Cell::Counter(counter), Cell::Histogram(histogram)) = (counter, histogram) else {
                panic!("a cell has the kind it was made with");
            };
            assert_eq!(counter.value().to_bits(), 6000f64.to_bits());
            let observed = histogram.observed();
            assert_eq!(observed.buckets[1..], [(1.0, 8000), (f64::INFINITY, 8000)]);
            assert_eq!(observed.sum.to_bits(), 6000f64.to_bits());
        }
    }

    #[test]
    fn a_value_on_a_bound_is_below_it() {
        let cell = cell(Kind::Histogram, 1);
        for value in [-1.0, 0.5, 0.6, 1.0, 1.1] {
            cell.update(value);
        }
        let Cell::Histogram(histogram) = cell else {
            panic!("a cell has the kind it was made with");
        };
        let counts: Vec<_> = histogram.observed().buckets.iter().map(|b| b.1).collect();
        assert_eq!(counts, [2, 4, 5]);
    }

    #[test]
    fn histograms_wider_than_a_line_keep_their_shards_apart() {
        let bounds: Arc<[f64]> = (0..40).map(f64::from).collect();
        let cell = Cell::new(Kind::Histogram, &bounds, Shards::for_threads(4));
        (0..41).for_each(|value| cell.update(f64::from(value)));
        let Cell::Histogram(histogram) = cell else {
            panic!("a cell has the kind it was made with");
        };
        let counts: Vec<_> = histogram.observed().buckets.iter().map(|b| b.1).collect();
        assert_eq!(counts, (1..=41).collect::<Vec<_>>());
    }
}
