//! Memory that was freed goes back to the kernel.
//!
//! The allocator keeps what is freed, for the next request. After a flood that is hundreds of megabytes, which it would keep for
//! ever: pieces that are still in use lie among them, and it gives back only what lies at the end. So it is told to, when the
//! process has grown and few bytes are in flight. This module knows nothing of what memory is used for.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

/// How often it is looked at what the process has.
const INTERVAL: Duration = Duration::from_secs(1);
/// Looks that are left out after memory was given back.
const REST: u32 = 4;
/// Growth that is worth the effort.
const GROWTH: usize = 4 << 20;
/// Bytes in flight that are few.
const FEW: usize = 4 << 20;
/// Bytes from which a piece of memory is mapped by itself; the allocator takes no larger number.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: i32 = 32 << 20;
/// Free bytes at the end of a heap that are kept there. Each thread may have a heap, and of most it cannot be asked to give them back.
#[cfg(target_env = "gnu")]
const KEPT: i32 = 4 << 20;

/// Decides when memory is given back.
#[derive(Debug, Default)]
struct Keeper {
    /// What the process had beside what was in flight when it last gave back; nothing while it only starts.
    floor: usize,
    /// Most bytes in flight since then.
    peak: usize,
    resting: u32,
}

impl Keeper {
    /// Whether a process with `resident` bytes, of which `in_flight` are in flight, should give back.
    fn is_due(&mut self, resident: usize, in_flight: usize) -> bool {
        self.peak = self.peak.max(in_flight);
        self.resting = self.resting.saturating_sub(1);
        let is_calm = in_flight <= FEW || in_flight <= self.peak / 2;
        let beside = resident.saturating_sub(in_flight);
        self.resting == 0 && is_calm && beside >= self.floor + GROWTH
    }

    /// It has `resident` bytes after that, and `in_flight` of them are in flight.
    fn gave_back(&mut self, resident: usize, in_flight: usize) {
        *self = Self {
            floor: resident.saturating_sub(in_flight),
            peak: in_flight,
            resting: REST,
        };
    }
}

/// Gives back what is not needed, again and again. `in_flight` tells how much the process has to do; `first` is called, on a thread that
/// may block, where others than the allocator hold memory that is not needed.
pub async fn keep_giving_back(
    in_flight: impl Fn() -> usize,
    first: impl Fn() + Clone + Send + 'static,
) {
    let mut keeper = Keeper::default();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(before) = resident() else { return };
        if !keeper.is_due(before, in_flight()) {
            continue;
        }
        // A thread that serves would be held up: this takes up to a millisecond for each 10 MB.
        let first = first.clone();
        let given_back = tokio::task::spawn_blocking(move || {
            first();
            give_back();
        });
        if given_back.await.is_err() {
            return;
        }
        let after = resident().unwrap_or(before);
        keeper.gave_back(after, in_flight());
        tracing::debug!("memory: {before} bytes before unused ones were given back, {after} after");
    }
}

/// Bytes of memory that this process has; `None` where the kernel does not tell.
fn resident() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size())
}

/// Has the allocator give the kernel what is free, which takes milliseconds. Loading a model needs this as well: parsing one takes
/// several times its size for a moment. A process that loaded a ResNet-18 (46 MB) had 170 MB of private memory before and 74 MB after.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "there is no safe call")]
pub fn give_back() {
    // SAFETY: it only concerns memory that nobody uses, and takes the allocator's own locks.
    unsafe { libc::malloc_trim(0) };
}

/// Has the allocator keep what is freed for the next request, up to some size: what goes to the kernel in between has to be mapped and
/// cleared anew, which costs a large body as much as copying it. For processes that [give back](keep_giving_back) by themselves.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "there is no safe call")]
pub fn keep_between_requests() {
    // SAFETY: these set two numbers of the allocator's, under its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Other allocators give back by themselves.
#[cfg(not(target_env = "gnu"))]
pub const fn give_back() {}

/// Other allocators keep what they find right.
#[cfg(not(target_env = "gnu"))]
pub const fn keep_between_requests() {}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn memory_is_given_back_after_a_flood_and_not_within_it() {
        let mut keeper = Keeper::default();
        assert!(keeper.is_due(50 * MIB, 0));
        keeper.gave_back(40 * MIB, 0);
        for (resident, in_flight, expected) in [
            (43, 0, false),
            (400, 300, false),
            (500, 400, false),
            (500, 201, false),
            (500, 200, true),
        ] {
            let is_due = keeper.is_due(resident * MIB, in_flight * MIB);
            assert_eq!(is_due, expected, "{resident} MiB, {in_flight} in flight");
        }
        keeper.gave_back(220 * MIB, 200 * MIB);
        for _ in 1..REST {
            assert!(!keeper.is_due(400 * MIB, 0), "it rests");
        }
        assert!(keeper.is_due(400 * MIB, 0));
    }

    #[test]
    fn what_cannot_be_given_back_is_not_tried_again() {
        let mut keeper = Keeper::default();
        keeper.gave_back(500 * MIB, 0);
        assert!((0..100).all(|_| !keeper.is_due(500 * MIB, 0)));
    }

    #[test]
    fn the_kernel_tells_what_the_process_has() {
        let before = resident().unwrap();
        let filled = vec![1u8; 32 * MIB];
        assert!(resident().unwrap() >= before + 30 * MIB);
        drop(filled);
        give_back();
    }
}
