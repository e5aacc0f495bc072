//! How much one connection moves before others get their turn.
//!
//! A socket takes and gives megabytes at once, which keeps a thread for milliseconds, and there are few threads. So where more connections move
//! large bodies than there are threads for them, each goes to the end of the line after every piece of its body. Where there are fewer none does: going
//! to the end of an empty line wakes a thread for nothing, and took a tenth of the throughput of one connection with bodies of 6 MB.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// Bytes that are moved at once where many want to: some ten microseconds' worth.
const STINT: usize = 64 << 10;

/// The connections that move large bodies at the moment. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Crowd(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    /// So many leave a thread for the others.
    few: usize,
    large: AtomicUsize,
}

impl Default for Crowd {
    /// Of connections that are served by the threads of this runtime.
    fn default() -> Self {
        let threads = Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers());
        Self::new(threads.saturating_sub(1).max(1))
    }
}

impl Crowd {
    fn new(few: usize) -> Self {
        let large = AtomicUsize::new(0);
        Self(Arc::new(Counts { few, large }))
    }

    fn is_crowded(&self) -> bool {
        self.0.large.load(Ordering::Relaxed) > self.0.few
    }
}

/// What a connection has moved since it last waited for its client.
#[derive(Debug)]
pub(super) struct Stint {
    crowd: Crowd,
    moved: usize,
    /// Whether it is counted among those that move large bodies. One whose body waits for something in the server is counted until it goes on.
    is_large: bool,
}

impl Stint {
    /// Of a connection that is among those that `crowd` counts.
    pub(super) const fn new(crowd: Crowd) -> Self {
        Self {
            crowd,
            moved: 0,
            is_large: false,
        }
    }

    /// Ready unless it is the turn of others: then the task is asked again when they have had theirs.
    pub(super) fn poll_begin(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.moved < STINT {
            return Poll::Ready(());
        }
        self.moved = 0;
        if !self.crowd.is_crowded() {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// So many of these bytes may be moved now.
    pub(super) fn limit(&self, bytes: usize) -> usize {
        if self.crowd.is_crowded() {
            bytes.min(STINT)
        } else {
            bytes
        }
    }

    /// So many bytes were moved, or it waits.
    pub(super) fn moved(&mut self, bytes: Option<usize>) {
        self.moved = bytes.map_or(0, |bytes| self.moved.saturating_add(bytes));
        if bytes.is_none() {
            self.set_large(false);
        } else if self.moved >= STINT {
            self.set_large(true);
        }
    }

    /// The same, for what became of writing.
    pub(super) fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        self.moved(match written {
            Poll::Ready(Ok(bytes)) => Some(*bytes),
            Poll::Ready(Err(_)) => Some(0),
            Poll::Pending => None,
        });
    }

    /// The same, for what became of sending what was written.
    pub(super) fn finished(&mut self, sent: &Poll<io::Result<()>>) {
        if sent.is_pending() {
            self.moved(None);
        }
    }

    fn set_large(&mut self, is_large: bool) {
        let large = &self.crowd.0.large;
        match (std::mem::replace(&mut self.is_large, is_large), is_large) {
            (false, true) => drop(large.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(large.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }
}

impl Drop for Stint {
    fn drop(&mut self) {
        self.set_large(false);
    }
}

/// The first of `slices`, as many as have at most `most` bytes together.
pub(super) fn first_of<'a, 'b>(slices: &'a [IoSlice<'b>], most: usize) -> &'a [IoSlice<'b>] {
    let mut bytes = 0;
    let fits = |slice: &&IoSlice<'_>| {
        bytes += slice.len();
        bytes <= most
    };
    let count = slices.iter().take_while(fits).count();
    &slices[..count]
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Whether a connection goes on at once after it moved so much.
    fn goes_on(stint: &mut Stint, bytes: usize) -> bool {
        stint.moved(Some(bytes));
        stint
            .poll_begin(&Context::from_waker(Waker::noop()))
            .is_ready()
    }

    #[test]
    fn large_bodies_make_room_where_there_are_more_than_threads() {
        let crowd = Crowd::new(2);
        let mut all: Vec<_> = (0..3).map(|_| Stint::new(crowd.clone())).collect();
        assert!(all[..2].iter_mut().all(|one| goes_on(one, STINT)));
        assert!(!goes_on(&mut all[2], STINT) && !goes_on(&mut all[0], STINT));
        // It had to wait once, and a small one never.
        assert!(goes_on(&mut all[2], 1));
        assert!(goes_on(&mut Stint::new(crowd.clone()), STINT - 1));
        assert_eq!(all[0].limit(2 * STINT), STINT);
        // One waits for its client: there are few again.
        all[1].moved(None);
        assert!(goes_on(&mut all[0], STINT));
        assert_eq!(all[0].limit(2 * STINT), 2 * STINT);
        drop(all);
        assert_eq!(crowd.0.large.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn slices_are_cut_where_they_are_too_many_bytes() {
        let bytes = [0; 10];
        let slices = |lengths: &[usize]| -> usize {
            let slices: Vec<_> = lengths
                .iter()
                .map(|length| IoSlice::new(&bytes[..*length]))
                .collect();
            first_of(&slices, 10).len()
        };
        for (lengths, expected) in [
            (&[][..], 0),
            (&[3, 3], 2),
            (&[10], 1),
            (&[5, 5, 1], 2),
            (&[6, 5], 1),
            (&[0, 10, 1], 2),
        ] {
            assert_eq!(slices(lengths), expected, "{lengths:?}");
        }
    }
}
