//! Memory that two processes share, so that what is large crosses from one to the other without being copied.
//!
//! There is one region for each direction. Its writer divides it among what it sends ([`Arena`]), its reader sees what it is
//! told of ([`View`]) and says when it is done with it. The regions are the front's: it makes them, gives them to one worker
//! process with its first message, and drops them with the process. Their length is sealed, so that no process can take memory
//! away that another one reads. This module knows neither frames nor requests.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

mod arena;
mod mapping;
mod view;

pub use arena::{Arena, Gathered, Place};
pub use view::{Release, View};

use mapping::{Access, Mapping};

/// Bytes from which a body goes through shared memory: below, a socket's copies are the smaller cost.
pub const SHARED_FROM: usize = 32 << 10;

/// How long nothing was written to a region whose memory goes back to the system.
pub const IDLE: Duration = Duration::from_secs(2);

/// Bytes of a block, as files are measured.
const BLOCK: u64 = 512;

/// What the regions are called in `/proc`.
const NAME: &str = "lantern-shared";

/// The two regions between the front and one worker process, as descriptors.
#[derive(Debug)]
pub struct Regions {
    orders: OwnedFd,
    reports: OwnedFd,
}

impl Regions {
    /// Two regions of `size` bytes each. They take no memory before something is written there.
    pub fn new(size: usize) -> io::Result<Self> {
        Ok(Self {
            orders: mapping::file(NAME, size)?,
            reports: mapping::file(NAME, size)?,
        })
    }

    /// What came with the first message of the front, in the order of [`descriptors`](Self::descriptors).
    pub fn received(descriptors: [OwnedFd; 2]) -> Self {
        let [orders, reports] = descriptors;
        Self { orders, reports }
    }

    /// What a worker process gets.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.orders.as_fd(), self.reports.as_fd()]
    }

    /// Bytes of memory that both have.
    pub fn resident(&self) -> u64 {
        let blocks = |file: &OwnedFd| rustix::fs::fstat(file).map_or(0, |stat| stat.st_blocks);
        let blocks = blocks(&self.orders) + blocks(&self.reports);
        u64::try_from(blocks).unwrap_or(0) * BLOCK
    }

    /// The front's ends: orders are written, reports are read.
    pub fn of_front(&self) -> io::Result<Ends> {
        Ends::new(&self.orders, &self.reports)
    }

    /// A worker process's ends: reports are written, orders are read.
    pub fn of_worker(&self) -> io::Result<Ends> {
        Ends::new(&self.reports, &self.orders)
    }
}

/// One process's ends of the two regions.
#[derive(Debug, Clone)]
pub struct Ends {
    /// Where it writes.
    pub out: Arc<Arena>,
    /// Where it reads.
    pub into: Arc<View>,
}

impl Ends {
    fn new(out: &OwnedFd, into: &OwnedFd) -> io::Result<Self> {
        Ok(Self {
            out: Arc::new(Arena::new(Mapping::of(out.as_fd(), Access::Write)?)),
            into: Arc::new(View::new(Mapping::of(into.as_fd(), Access::Read)?)),
        })
    }
}

#[cfg(test)]
mod tests;
