//! What became of the worker processes of one version and of what they sent, counted until a scrape takes it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::metrics::ReportKind;

/// Counts since they were taken the last time.
#[derive(Debug, Default)]
pub struct ProcessCounts {
    deaths: AtomicU64,
    floods: AtomicU64,
    dropped: [AtomicU64; ReportKind::ALL.len()],
}

impl ProcessCounts {
    /// A process died that had loaded the version.
    pub fn died(&self) {
        self.deaths.fetch_add(1, Relaxed);
    }

    /// A process was ended because it kept sending more than it may.
    pub fn flooded(&self) {
        self.floods.fetch_add(1, Relaxed);
    }

    /// A report was dropped.
    pub fn dropped(&self, kind: ReportKind) {
        self.dropped[kind as usize].fetch_add(1, Relaxed);
    }

    /// Deaths since they were taken.
    pub fn take_deaths(&self) -> u64 {
        self.deaths.swap(0, Relaxed)
    }

    /// Processes that were ended for a flood, since they were taken.
    pub fn take_floods(&self) -> u64 {
        self.floods.swap(0, Relaxed)
    }

    /// Reports of `kind` that were dropped since they were taken.
    pub fn take_dropped(&self, kind: ReportKind) -> u64 {
        self.dropped[kind as usize].swap(0, Relaxed)
    }
}
