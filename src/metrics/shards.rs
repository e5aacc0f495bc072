//! Numbers in shards, one for each of a few threads and each on cache lines of its own, so that threads that count the same
//! thing do not wait for each other. Whoever reads adds the shards up.

use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

/// How many shards a value has: a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shards(usize);

impl Shards {
    /// With this many shards threads seldom meet, and more would cost memory for nothing.
    const MOST: usize = 16;

    /// For as many `threads` as count at the same time.
    pub(super) fn for_threads(threads: usize) -> Self {
        Self(threads.clamp(1, Self::MOST).next_power_of_two())
    }

    /// The shard of this thread.
    fn mine(self) -> usize {
        thread_index() & (self.0 - 1)
    }
}

/// A per-thread index, used to choose a shard. Threads are numbered for the whole process, as only the spread matters.
fn thread_index() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static INDEX: usize = NEXT.fetch_add(1, Relaxed);
    }
    INDEX.with(|index| *index)
}

/// As much memory as processors fetch at once.
#[derive(Default)]
#[repr(align(128))]
struct Line([AtomicU64; 16]);

/// `width` numbers for each shard.
pub(super) struct Slots {
    shards: Shards,
    lines: Box<[Line]>,
    /// Lines of one shard.
    stride: usize,
}

impl Slots {
    pub(super) fn new(shards: Shards, width: usize) -> Self {
        let stride = width.div_ceil(16);
        let lines = (0..shards.0 * stride).map(|_| Line::default());
        Self {
            shards,
            lines: lines.collect(),
            stride,
        }
    }

    /// The shard of this thread.
    pub(super) fn mine(&self) -> usize {
        self.shards.mine()
    }

    /// The number at `index` of one shard.
    pub(super) fn slot(&self, shard: usize, index: usize) -> &AtomicU64 {
        &self.lines[shard * self.stride + index / 16].0[index % 16]
    }

    /// Every shard's number at `index`.
    pub(super) fn all(&self, index: usize) -> impl Iterator<Item = u64> {
        (0..self.shards.0).map(move |shard| self.slot(shard, index).load(Acquire))
    }
}

/// Whole numbers that many threads add to without a lock.
///
/// What is added last is seen last: whoever reads a number, and then one that was added to before it, sees both or the second
/// alone.
pub struct ShardedCounts(Slots);

/// The shard of the thread that asked for it.
pub struct CountsShard<'a> {
    slots: &'a Slots,
    shard: usize,
}

impl ShardedCounts {
    pub(super) fn new(shards: Shards, width: usize) -> Self {
        Self(Slots::new(shards, width))
    }

    /// Where this thread counts.
    pub fn mine(&self) -> CountsShard<'_> {
        CountsShard {
            slots: &self.0,
            shard: self.0.mine(),
        }
    }

    /// The sum of what was added at `index`.
    pub fn sum(&self, index: usize) -> u64 {
        self.0.all(index).sum()
    }

    /// The largest number that was noted at `index`; 0 if none was.
    pub fn latest(&self, index: usize) -> u64 {
        self.0.all(index).max().unwrap_or(0)
    }
}

impl CountsShard<'_> {
    /// Adds `amount` at `index`.
    pub fn add(&self, index: usize, amount: u64) {
        if amount > 0 {
            self.slots
                .slot(self.shard, index)
                .fetch_add(amount, Release);
        }
    }

    /// Takes note at `index` of a number that only grows. Of threads that share a shard, the last one counts.
    pub fn note(&self, index: usize, number: u64) {
        self.slots.slot(self.shard, index).store(number, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_added_up_over_threads() {
        for threads in [1, 3, 1000] {
            let counts = ShardedCounts::new(Shards::for_threads(threads), 20);
            std::thread::scope(|scope| {
                for number in 1..=8 {
                    let counts = &counts;
                    scope.spawn(move || {
                        for _ in 0..1000 {
                            counts.mine().add(0, 2);
                            counts.mine().add(17, 3);
                        }
                        counts.mine().note(19, number);
                    });
                }
            });
            assert_eq!((counts.sum(0), counts.sum(17)), (16_000, 24_000));
            assert!((1..=8).contains(&counts.latest(19)));
        }
    }
}
