//! The writer's side of a region: who has which stretch of it.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::mapping::Mapping;

/// Stretches begin and end at pages, so that their memory can be given back.
const PAGE: usize = 4096;

/// Memory up to this offset is kept when it is not in use: touching memory that was used before costs a tenth of getting it
/// anew. Stretches are given out from the lowest offset on.
const KEPT: usize = 8 << 20;

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
    /// Lengths by offset. No two touch.
    free: BTreeMap<usize, usize>,
    /// Lengths by offset of what the other process may be reading.
    used: HashMap<usize, usize>,
    /// Bytes from the beginning whose memory may not have been given back.
    touched: usize,
    /// When something was taken last.
    last_taken: Option<Instant>,
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
    /// [given back](Self::give_back).
    pub fn put(&self, parts: &[&[u8]]) -> Option<Place> {
        let length = parts.iter().map(|part| part.len()).sum();
        let offset = self.stretches.lock().take(length)?;
        self.mapping.write(offset, parts);
        Some(Place {
            offset: offset as u64,
            length: length as u64,
        })
    }

    /// Takes back the stretch at `offset`, which nobody reads any more; false if none begins there that is in use.
    pub fn give_back(&self, offset: u64) -> bool {
        let mut stretches = self.stretches.lock();
        let Some(unused) = usize::try_from(offset)
            .ok()
            .and_then(|at| stretches.free(at))
        else {
            return false;
        };
        // With the lock: nobody may write there meanwhile.
        if let Some((offset, length)) = unused {
            self.mapping.release(offset, length);
        }
        true
    }

    /// Gives the memory of everything that is free back to the system, if nothing was written for `idle`: to be called from
    /// time to time.
    pub fn tidy(&self, idle: Duration) {
        let mut stretches = self.stretches.lock();
        let last = stretches.last_taken;
        if last.is_some_and(|last| last.elapsed() < idle) {
            return;
        }
        for (offset, length) in stretches.untouch() {
            self.mapping.release(offset, length);
        }
    }

    /// Bytes in use.
    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.stretches.lock().used.values().sum()
    }
}

impl Stretches {
    fn new(size: usize) -> Self {
        Self {
            free: BTreeMap::from([(0, size / PAGE * PAGE)]),
            used: HashMap::new(),
            touched: 0,
            last_taken: None,
        }
    }

    /// Where `length` bytes may be written: the first stretch that has room.
    fn take(&mut self, length: usize) -> Option<usize> {
        let pages = length.checked_next_multiple_of(PAGE)?.max(PAGE);
        let (&offset, &room) = self.free.iter().find(|(_, room)| **room >= pages)?;
        self.free.remove(&offset);
        if room > pages {
            self.free.insert(offset + pages, room - pages);
        }
        self.used.insert(offset, pages);
        self.touched = self.touched.max(offset + pages);
        self.last_taken = Some(Instant::now());
        Some(offset)
    }

    /// Frees the stretch at `offset`. Gives the part of it whose memory is not to be kept; `None` if it is not in use.
    #[expect(
        clippy::option_option,
        reason = "not in use, or in use with nothing to give back"
    )]
    fn free(&mut self, offset: usize) -> Option<Option<(usize, usize)>> {
        let length = self.used.remove(&offset)?;
        self.join(offset, length);
        let (start, end) = (offset.max(KEPT), offset + length);
        Some((start < end).then(|| (start, end - start)))
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

    /// Free stretches whose memory may be there still.
    fn untouch(&mut self) -> Vec<(usize, usize)> {
        let end = self.touched.min(KEPT);
        let free = self.free.range(..end);
        let there: Vec<_> = free
            .map(|(offset, length)| (*offset, (*length).min(end - offset)))
            .collect();
        let last_used = self
            .used
            .iter()
            .map(|(offset, length)| offset + length)
            .max();
        self.touched = last_used.unwrap_or(0);
        there
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
            let mut all: Vec<_> = self.free.iter().chain(&self.used).collect();
            all.sort();
            let mut at = 0;
            let is_next = |(offset, length): &(&usize, &usize)| {
                let fits = **offset == at;
                at += **length;
                fits
            };
            all.iter().all(is_next) && at == SIZE
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_and_freed_never_overlaps(
            steps in prop::collection::vec((any::<bool>(), 0usize..6 * PAGE), 0..60),
        ) {
            let mut stretches = Stretches::new(SIZE);
            for (takes, number) in steps {
                if takes {
                    let taken = stretches.take(number);
                    prop_assert!(taken.is_none_or(|offset| stretches.used[&offset] >= number));
                } else {
                    let mut offsets: Vec<_> = stretches.used.keys().copied().collect();
                    offsets.sort_unstable();
                    if let Some(offset) = offsets.get(number % offsets.len().max(1)) {
                        prop_assert!(stretches.free(*offset).is_some());
                        prop_assert!(stretches.free(*offset).is_none());
                    }
                }
                prop_assert!(stretches.are_whole());
            }
        }
    }

    #[test]
    fn what_is_all_free_again_can_be_taken_as_a_whole() {
        let mut stretches = Stretches::new(SIZE);
        let taken: Vec<_> = std::iter::from_fn(|| stretches.take(3)).collect();
        assert_eq!(taken.len(), SIZE / PAGE);
        for offset in taken {
            stretches.free(offset);
        }
        assert_eq!(stretches.take(SIZE), Some(0));
        assert_eq!(stretches.take(0), None);
    }

    #[test]
    fn memory_is_given_back_beyond_what_is_kept_and_when_asked() {
        let mut stretches = Stretches::new(4 * KEPT);
        let low = stretches.take(KEPT / 2).unwrap();
        let over = stretches.take(KEPT).unwrap();
        let high = stretches.take(KEPT).unwrap();
        assert_eq!(stretches.free(low), Some(None));
        assert_eq!(stretches.free(over), Some(Some((KEPT, KEPT / 2))));
        assert_eq!(stretches.free(high), Some(Some((KEPT + KEPT / 2, KEPT))));
        assert_eq!(stretches.untouch(), [(0, KEPT)]);
        assert_eq!(stretches.untouch(), []);
    }
}
