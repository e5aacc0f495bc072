//! The writer's side of a region: who has which stretch of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::mapping::Mapping;

/// Stretches begin and end at pages, so that their memory can be given back.
const PAGE: usize = 4096;

/// The part of a region that bodies may take which this process holds, because they are still to come, or are not answered: what is
/// slow to arrive must not keep out what is there.
const GATHERED_PART: usize = 2;

/// Where something lies in a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Bytes before it.
    pub offset: u64,
    /// Bytes that it has.
    pub length: u64,
}

/// A region that this process writes to.
#[derive(Debug)]
pub struct Arena {
    mapping: Mapping,
    stretches: Mutex<Stretches>,
}

/// What of a region is free and what is not.
#[derive(Debug)]
struct Stretches {
    size: usize,
    /// Lengths by offset. No two touch.
    free: BTreeMap<usize, usize>,
    /// By offset.
    used: BTreeMap<usize, Used>,
    /// Bytes that this process holds.
    held: usize,
    /// Bytes from the beginning whose memory may not have been given back.
    touched: usize,
    /// Bytes from the beginning that were needed at the same time since it was last tidied up, and before that. Stretches are given out
    /// from the lowest offset on.
    needed: usize,
    needed_before: usize,
    /// When something was taken last.
    last_taken: Option<Instant>,
}

/// A stretch that is in use, by one process or by both.
#[derive(Debug)]
struct Used {
    length: usize,
    /// Whether this process holds it.
    is_held: bool,
    /// What the other process was told to read, until it says that it is done.
    told: Option<usize>,
}

/// A stretch that this process gathers a body in.
#[derive(Debug)]
pub struct Gathered {
    arena: Arc<Arena>,
    offset: usize,
    room: usize,
    filled: usize,
}

impl Arena {
    pub(super) fn new(mapping: Mapping) -> Self {
        let stretches = Stretches::new(mapping.length());
        Self {
            mapping,
            stretches: Mutex::new(stretches),
        }
    }

    /// Writes `parts` one after the other, and says where; `None` if there is no room. The stretch is in use until it is
    /// [given back](Self::give_back). Parts that lie in the region already, because they were [gathered](Self::gather) there, stay
    /// where they are.
    pub fn put(&self, parts: &[&[u8]]) -> Option<Place> {
        if let Some(place) = self.place_of(parts) {
            return Some(place);
        }
        let length = parts.iter().map(|part| part.len()).sum();
        let offset = self.stretches.lock().take(length, Some(0))?;
        self.mapping.write(offset, parts);
        Some(Place {
            offset: offset as u64,
            length: length as u64,
        })
    }

    /// Room for a body of `length` bytes that is still to come, if there is some.
    pub fn gather(self: &Arc<Self>, length: usize) -> Option<Gathered> {
        let offset = self.stretches.lock().take(length, None)?;
        Some(Gathered {
            arena: Arc::clone(self),
            offset,
            room: length,
            filled: 0,
        })
    }

    /// Where `parts` lie, if they follow one another in a stretch that this process holds and the other one does not know yet.
    fn place_of(&self, parts: &[&[u8]]) -> Option<Place> {
        let offset = self.mapping.offset_of(parts.first()?)?;
        let mut end = offset;
        for part in parts {
            if self.mapping.offset_of(part) != Some(end) {
                return None;
            }
            end += part.len();
        }
        let is_told = self.stretches.lock().tell(offset..end);
        is_told.then_some(Place {
            offset: offset as u64,
            length: (end - offset) as u64,
        })
    }

    /// Takes back what the other process was told lies at `offset`, and reads no more; false if it was told no such thing.
    pub fn give_back(&self, offset: u64) -> bool {
        let Ok(offset) = usize::try_from(offset) else {
            return false;
        };
        self.stretches.lock().give_back(offset)
    }

    /// This process needs the stretch at `offset` no more.
    fn let_go(&self, offset: usize) {
        self.stretches.lock().let_go(offset);
    }

    /// Gives memory that was not needed lately back to the system, and all that is free if nothing was written for `idle`: to be called
    /// from time to time. What is needed again and again is kept: touching memory that was used before costs a tenth of getting it anew.
    pub fn tidy(&self, idle: Duration) {
        // With the lock: nobody may write there meanwhile.
        let mut stretches = self.stretches.lock();
        let last = stretches.last_taken;
        let is_idle = last.is_none_or(|last| last.elapsed() >= idle);
        for unneeded in stretches.untouch(is_idle) {
            self.mapping.release(unneeded.start, unneeded.len());
        }
    }

    /// Bytes in use.
    #[cfg(test)]
    pub fn used(&self) -> usize {
        let stretches = self.stretches.lock();
        stretches.used.values().map(|used| used.length).sum()
    }
}

impl Gathered {
    /// Adds `piece`; false, and nothing is added, if there is no room for it.
    pub fn push(&mut self, piece: &[u8]) -> bool {
        if piece.len() > self.room - self.filled {
            return false;
        }
        // The stretch is this one's alone, and what was filled is not written again.
        let at = self.offset + self.filled;
        self.arena.mapping.write(at, &[piece]);
        self.filled += piece.len();
        true
    }
}

/// The bytes so far, which the other process may write to at any time: they may be sent, and copied, and nothing else.
impl AsRef<[u8]> for Gathered {
    fn as_ref(&self) -> &[u8] {
        self.arena.mapping.read(self.offset, self.filled)
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.arena.let_go(self.offset);
    }
}

impl Stretches {
    fn new(size: usize) -> Self {
        let size = size / PAGE * PAGE;
        Self {
            size,
            free: BTreeMap::from([(0, size)]),
            used: BTreeMap::new(),
            held: 0,
            touched: 0,
            needed: 0,
            needed_before: 0,
            last_taken: None,
        }
    }

    /// Where `length` bytes may be written: the first stretch that has room. The other process is told of it at once, from its byte
    /// `told` on, or this one holds it.
    fn take(&mut self, length: usize, told: Option<usize>) -> Option<usize> {
        let pages = length.checked_next_multiple_of(PAGE)?.max(PAGE);
        let is_held = told.is_none();
        if is_held && self.held + pages > self.size / GATHERED_PART {
            return None;
        }
        let (&offset, &room) = self.free.iter().find(|(_, room)| **room >= pages)?;
        self.free.remove(&offset);
        if room > pages {
            self.free.insert(offset + pages, room - pages);
        }
        let used = Used {
            length: pages,
            is_held,
            told: told.map(|at| offset + at),
        };
        self.held += if is_held { pages } else { 0 };
        self.used.insert(offset, used);
        self.touched = self.touched.max(offset + pages);
        self.needed = self.needed.max(offset + pages);
        self.last_taken = Some(Instant::now());
        Some(offset)
    }

    /// The stretch that byte `at` lies in, if it is in use, and its offset.
    fn used_at(&mut self, at: usize) -> Option<(usize, &mut Used)> {
        let (&offset, used) = self.used.range_mut(..=at).next_back()?;
        (at < offset + used.length).then_some((offset, used))
    }

    /// The other process is told of `part` of a stretch that this one holds. False if it knows something of it already.
    fn tell(&mut self, part: Range<usize>) -> bool {
        let Some((offset, used)) = self.used_at(part.start) else {
            return false;
        };
        let can_be_told = used.is_held && used.told.is_none() && part.end <= offset + used.length;
        if can_be_told {
            used.told = Some(part.start);
        }
        can_be_told
    }

    /// The other process is done with what it was told lies at byte `at`; false if it was told no such thing.
    fn give_back(&mut self, at: usize) -> bool {
        let Some((offset, used)) = self.used_at(at) else {
            return false;
        };
        if used.told != Some(at) {
            return false;
        }
        used.told = None;
        if !used.is_held {
            self.free(offset);
        }
        true
    }

    /// This process is done with the stretch at `offset`.
    fn let_go(&mut self, offset: usize) {
        let Some(used) = self.used.get_mut(&offset).filter(|used| used.is_held) else {
            return;
        };
        used.is_held = false;
        self.held -= used.length;
        if used.told.is_none() {
            self.free(offset);
        }
    }

    /// Frees the stretch at `offset`, which neither process needs.
    fn free(&mut self, offset: usize) {
        if let Some(Used { length, .. }) = self.used.remove(&offset) {
            self.join(offset, length);
        }
    }

    /// Adds a free stretch to those beside it.
    fn join(&mut self, mut offset: usize, mut length: usize) {
        if let Some((&before, &room)) = self.free.range(..offset).next_back()
            && before + room == offset
        {
            self.free.remove(&before);
            (offset, length) = (before, room + length);
        }
        if let Some(room) = self.free.remove(&(offset + length)) {
            length += room;
        }
        self.free.insert(offset, length);
    }

    /// What is free, was not needed lately, and whose memory may be there still. Lately is never where it `is_idle`.
    fn untouch(&mut self, is_idle: bool) -> Vec<Range<usize>> {
        let in_use = self.used.last_key_value();
        let in_use = in_use.map_or(0, |(offset, used)| offset + used.length);
        let needed = self.needed.max(self.needed_before);
        let kept = if is_idle { 0 } else { needed };
        let free = self.free.range(..self.touched);
        let unneeded = free
            .map(|(offset, length)| *offset.max(&kept)..self.touched.min(offset + length))
            .filter(|unneeded| !unneeded.is_empty())
            .collect();
        self.touched = in_use.max(kept);
        (self.needed_before, self.needed) = (self.needed, in_use);
        unneeded
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: usize = 16 * PAGE;

    impl Stretches {
        /// Whether free and used stretches are all there is, without gaps and overlaps.
        fn are_whole(&self) -> bool {
            let used = self
                .used
                .iter()
                .map(|(offset, used)| (*offset, used.length));
            let free = self.free.iter().map(|(offset, length)| (*offset, *length));
            let mut all: Vec<_> = free.chain(used).collect();
            all.sort_unstable();
            let mut at = 0;
            let is_next = |(offset, length): &(usize, usize)| {
                let fits = *offset == at;
                at += length;
                fits
            };
            all.iter().all(is_next) && at == SIZE
        }

        /// Where what is given back begins and ends.
        fn untouched(&mut self, is_idle: bool) -> Vec<(usize, usize)> {
            let unneeded = self.untouch(is_idle).into_iter();
            unneeded.map(|part| (part.start, part.end)).collect()
        }

        fn is_free(&self) -> bool {
            self.used.is_empty() && self.held == 0 && self.are_whole()
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_and_freed_never_overlaps(
            steps in prop::collection::vec((0..4, 0usize..6 * PAGE), 0..60),
        ) {
            let mut stretches = Stretches::new(SIZE);
            for (what, number) in steps {
                let offsets: Vec<_> = stretches.used.keys().copied().collect();
                let one = offsets.get(number % offsets.len().max(1)).copied();
                match (what, one) {
                    (0, _) => {
                        let taken = stretches.take(number, Some(0));
                        prop_assert!(taken.is_none_or(|offset| stretches.used[&offset].length >= number));
                    }
                    (1, _) => drop(stretches.take(number, None)),
                    (2, Some(offset)) => {
                        let told = stretches.used[&offset].told;
                        prop_assert_eq!(stretches.give_back(offset), told == Some(offset));
                        prop_assert!(!stretches.give_back(offset));
                    }
                    (3, Some(offset)) => {
                        let is_new = stretches.used[&offset].told.is_none();
                        prop_assert_eq!(stretches.tell(offset..offset + 1), is_new);
                        stretches.let_go(offset);
                    }
                    _ => {}
                }
                prop_assert!(stretches.are_whole());
            }
            for offset in stretches.used.keys().copied().collect::<Vec<_>>() {
                stretches.let_go(offset);
                stretches.give_back(offset);
            }
            prop_assert!(stretches.is_free());
        }
    }

    #[test]
    fn what_is_all_free_again_can_be_taken_as_a_whole() {
        let mut stretches = Stretches::new(SIZE);
        let taken: Vec<_> = std::iter::from_fn(|| stretches.take(3, Some(0))).collect();
        assert_eq!(taken.len(), SIZE / PAGE);
        for offset in taken {
            stretches.give_back(offset);
        }
        assert_eq!(stretches.take(SIZE, Some(0)), Some(0));
        assert_eq!(stretches.take(0, Some(0)), None);
    }

    #[test]
    fn a_stretch_is_free_when_neither_process_needs_it() {
        for is_told_first in [false, true] {
            let mut stretches = Stretches::new(SIZE);
            let offset = stretches.take(2 * PAGE, None).unwrap();
            assert!(stretches.tell(offset + 16..offset + PAGE));
            assert!(!stretches.tell(offset + 16..offset + PAGE), "told twice");
            assert!(!stretches.give_back(offset), "not what was told");
            if is_told_first {
                assert!(stretches.give_back(offset + 16));
                stretches.let_go(offset);
            } else {
                stretches.let_go(offset);
                assert!(!stretches.is_free());
                assert!(stretches.give_back(offset + 16));
            }
            assert!(stretches.is_free());
        }
    }

    #[test]
    fn what_is_to_come_keeps_no_more_than_its_part() {
        let mut stretches = Stretches::new(SIZE);
        assert!(stretches.take(SIZE / 2 + 1, None).is_none());
        let offset = stretches.take(SIZE / 2, None).unwrap();
        assert!(stretches.take(1, None).is_none());
        assert!(stretches.take(SIZE / 2, Some(0)).is_some());
        stretches.let_go(offset);
        assert!(stretches.take(1, None).is_some());
    }

    #[test]
    fn memory_that_was_not_needed_lately_is_given_back() {
        let mut stretches = Stretches::new(SIZE);
        let low = stretches.take(PAGE, Some(0)).unwrap();
        let high = stretches.take(4 * PAGE, Some(0)).unwrap();
        assert!(stretches.give_back(high));
        assert!(stretches.untouch(false).is_empty(), "needed since");
        assert!(stretches.untouch(false).is_empty(), "needed before");
        assert_eq!(stretches.untouched(false), [(PAGE, 5 * PAGE)]);
        assert!(stretches.untouch(false).is_empty(), "given back");
        stretches.take(PAGE, Some(0)).unwrap();
        assert!(stretches.give_back(low));
        assert!(stretches.untouch(false).is_empty());
        assert_eq!(stretches.untouched(true), [(0, PAGE)]);
    }

    #[test]
    fn what_is_needed_again_and_again_is_kept() {
        let mut stretches = Stretches::new(SIZE);
        for _ in 0..4 {
            let offset = stretches.take(8 * PAGE, Some(0)).unwrap();
            assert!(stretches.give_back(offset));
            assert!(stretches.untouch(false).is_empty());
        }
        assert_eq!(stretches.untouched(true), [(0, 8 * PAGE)]);
    }
}
